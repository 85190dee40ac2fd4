"""Finished rows on disk, and the tables made of them: mean and sample deviation over the seeds."""

from __future__ import annotations

import json
import os
import platform
from collections import defaultdict
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import numpy as np

METRICS = {"success": "edit success", "colour": "colour right", "background": "background right",
           "leak": "leak", "psnr_outside_db": "PSNR, dB"}
NO_DIFFERENCE = "no difference beyond the spread"
CHANCE = {"id": "the right one of two backgrounds: .5; background and object of a palette: below .02",
          "content": "the right one of two references: .5; of the palette: .125",
          "edits": "copying the source: below .01", "reasoning": "the right one of two objects: .5; copying: 0",
          "motion": "copying the source: 0"}


class Results:
    """Rows of a JSON file, written aside and renamed after each."""

    def __init__(self, path: Path):
        self.path = path
        self.content = json.loads(path.read_text()) if path.exists() else {"sanity": {}, "rows": []}

    @property
    def rows(self) -> list[dict]:
        return self.content["rows"]

    def has(self, key: Mapping[str, object]) -> bool:
        """Is there a row with this key?"""
        plain = json.loads(json.dumps(key))
        return any({k: r[k] for k in plain} == plain for r in self.rows)

    def add(self, key: Mapping[str, object], row: Mapping[str, object]) -> None:
        made = {"date": date.today().isoformat(), "machine": machine(), "versions": versions()}
        self.rows.append({**key, **row, **made})
        self._write()

    def add_sanity(self, subset: str, rows: dict) -> None:
        self.content["sanity"][subset] = rows
        self._write()

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        aside = self.path.with_suffix(".tmp")
        aside.write_text(json.dumps(self.content, indent=1))
        aside.replace(self.path)


def machine() -> str:
    """Cores, processor, load and the GPU if torch has one."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{os.cpu_count()} cores ({platform.machine()}), {torch.get_num_threads()} thread, {gpu}"


def versions() -> str:
    import torch

    return f"python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}"


def write_report(results: Results) -> Path:
    """`<results>.md` beside the JSON."""
    path = results.path.with_suffix(".md")
    path.write_text("\n".join(lines(results)) + "\n")
    return path


def lines(results: Results) -> list[str]:
    """The report as Markdown."""
    dates = sorted({r["date"] for r in results.rows})
    out = ["# learning", "",
           "Written by `python -m benchmarks.learning.run`; the command and the meaning of the arms stand there. "
           "All numbers are of held-out combinations of shape, colour and edit, judged analytically; mean ± sample "
           "deviation over seeds. Arms of a table differ in nothing but the position code.", ""]
    if results.rows:
        out += [f"{' to '.join(dict.fromkeys((dates[0], dates[-1])))}; {'; '.join(unique(results, 'machine'))}; "
                f"{'; '.join(unique(results, 'versions'))}.", ""]
    for name, rows in groups(results).items():
        out += [f"## {name}", "", f"Chance: {CHANCE[rows[0]['subset']]}.", ""]
        for test in (t for t in rows[0]["tests"] if ", plan" not in t):
            out += [f"**{test}**", "", *table(rows, test), ""]
        out += [*difference(rows), ""]
    for subset, rows in results.content["sanity"].items():
        out += [f"## Judge alone: {subset}", "", *sanity_table(rows), ""]
    return out


def unique(results: Results, name: str) -> list[str]:
    return list(dict.fromkeys(r[name] for r in results.rows))


def groups(results: Results) -> dict[str, list[dict]]:
    """Rows that may stand in one table: equal in all but arm, planner, seed and what only one arm has."""
    out = defaultdict(list)
    for row in results.rows:
        t, m = row["training"], row["model"]
        changed = f", theta {m['theta']:g}, segment init {m['segment_init']:g}"
        out[f"{row['subset']}: {t['steps']} steps of {t['batch']}, lr {t['lr']:g}, preset {row['preset']}{changed}"
            ].append(row)
    return dict(out)


def arm_name(row: Mapping) -> str:
    return row["arm"] + (" + planner" if row["planner"] == "on" else "")


def by_arm(rows: list[dict]) -> dict[str, list[dict]]:
    out = defaultdict(list)
    for row in rows:
        out[arm_name(row)].append(row)
    return dict(out)


def table(rows: list[dict], test: str) -> list[str]:
    """One line an arm; a planned arm has one for each kind of plan."""
    out = [line("arm", "seeds", *METRICS.values(), "CPU s", "parameters"), "|" + "---|" * (len(METRICS) + 4)]
    for arm, members in by_arm(rows).items():
        for name in members[0]["tests"]:
            if name != test and not name.startswith(f"{test}, plan"):
                continue
            cells = [spread([m["tests"][name][k] for m in members], 1 if k.endswith("_db") else 3) for k in METRICS]
            cpu = f"{np.mean([m['cpu_s'] for m in members]):.0f}"
            out.append(line(arm + name.removeprefix(test), len(members), *cells, cpu, f"{members[0]['parameters']:,}"))
    return out


def line(*cells: object) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def spread(values: list[float], digits: int) -> str:
    """Mean ± sample deviation."""
    mean = f"{np.mean(values):.{digits}f}"
    return f"{mean} ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else f"{mean} (one seed)"


def difference(rows: list[dict]) -> list[str]:
    """Paired difference of every arm to the first, seed by seed, in points of success."""
    arms, out = by_arm(rows), []
    first, *others = arms
    for test in rows[0]["tests"]:
        for other in others:
            if test not in arms[other][0]["tests"]:
                continue
            scores = [{m["seed"]: 100 * m["tests"][test]["success"] for m in arms[a]} for a in (first, other)]
            shared = sorted(set(scores[0]) & set(scores[1]))
            if shared:
                out.append(f"* {test}: {first} - {other} = {verdict([scores[0][s] - scores[1][s] for s in shared])}")
    return out


def verdict(points: list[float]) -> str:
    """The difference in words; without three seeds, or within twice its standard error, it is no finding."""
    if len(points) < 3:
        return f"{np.mean(points):+.1f} points ({len(points)} seed(s): no statement)"
    error = np.std(points, ddof=1) / len(points) ** 0.5
    text = f"{np.mean(points):+.1f} ± {np.std(points, ddof=1):.1f} points over {len(points)} seeds"
    return text if abs(np.mean(points)) > 2 * error else f"{text}: {NO_DIFFERENCE}"


def sanity_table(rows: Mapping[str, Mapping[str, float]]) -> list[str]:
    out = [line("picture given to the judge", *METRICS.values()), "|" + "---|" * (len(METRICS) + 1)]
    for name, verdicts in rows.items():
        cells = [f"{verdicts[k]:.1f}" if k.endswith("_db") else f"{verdicts[k]:.3f}" for k in METRICS]
        out.append(line(name, *cells))
    return out
