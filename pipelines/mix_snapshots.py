"""A changing mixture as constant ones, and what each of them draws.

The released trainer's `data.yaml` takes a list of schedules, and its loader runs only a constant
one (spec model.md, 6; peers.md, A.1). So a stage whose pair data decay is cut into N equal parts of
steps; each part has the weights of its middle, which are the mean over the part up to the
renormalisation, in a `data.yaml` of its own: train the first, then go on from its checkpoint with
the second. `snapshots.json` says from which step to which.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq

from manifests import storage
from manifests.errors import ConfigError, InputError

PROBE = 10_000  # draws that are simulated where the length of the run is not given


@dataclass(frozen=True, kw_only=True)
class Run:
    """The parts of a stage: `shares[n]` are the weights of part n, `(source_name, task)` -> share."""

    shares: tuple[dict[tuple[str, str], float], ...]
    steps: int
    samples_per_step: float
    counts: dict[tuple[str, str], int]

    @classmethod
    def plan(cls, config, amounts: dict, weights: Callable[[float], dict]) -> Run:
        """`weights(progress)` gives the shares; `config` the number of parts, steps and their size."""
        parts = config.snapshots
        shares = [weights((n + 0.5) / parts) for n in range(parts)]
        per_step = config.samples_per_step
        if not per_step and config.tokens_per_step:
            mean = np.mean([sum(s.get(k, 0.0) * a.tokens / a.samples for k, a in amounts.items()) for s in shares])
            per_step = config.tokens_per_step / float(mean)
        return cls(shares=tuple(shares), steps=config.steps, samples_per_step=per_step,
                   counts={k: a.samples for k, a in amounts.items()})

    @property
    def num_samples(self) -> float:
        """Samples drawn over the whole stage; 0 = not known."""
        return self.steps * self.samples_per_step

    def borders(self) -> list[int]:
        """First step of each part, and the end."""
        return [round(self.steps * n / len(self.shares)) for n in range(len(self.shares) + 1)]

    def repeats(self) -> dict[tuple[str, str], float]:
        """How often each sample of a data set is drawn over the stage, on average."""
        mean = {k: float(np.mean([s.get(k, 0.0) for s in self.shares])) for k in self.counts}
        return {k: self.num_samples * share / self.counts[k] for k, share in mean.items()}


def show_draws(run: Run, amounts: dict, seed: int) -> None:
    """One random run: what every part draws of every data set."""
    rng, keys, borders = np.random.default_rng(seed), sorted(run.counts), run.borders()
    known = run.num_samples > 0
    for n, shares in enumerate(run.shares):
        draws = round((borders[n + 1] - borders[n]) * run.samples_per_step) if known else PROBE
        probability = np.array([shares.get(k, 0.0) for k in keys])
        drawn = rng.multinomial(draws, probability / probability.sum())
        where = f"steps {borders[n]:,} to {borders[n + 1]:,}" if known else "a probe"
        print(f"snapshot {n}: {where}, {draws:,} draws")
        for key, num in zip(keys, drawn.tolist(), strict=True):
            if num:
                have = run.counts[key]
                distinct = have * -np.expm1(num * np.log1p(-1 / have)) if have > 1 else 1
                tokens = num * amounts[key].tokens / have / 1e6
                print(f"  {key[0]:<30}{key[1]:<13}{num:>12,} draws{num / draws:>8.2%}{tokens:>12,.1f} M tokens  "
                      f"about {distinct:,.0f} of {have:,} samples seen")


def write_snapshots(run: Run, folder: str) -> list[str]:
    """`snapshot-NN/data.yaml` for every part, and `snapshots.json`; returns their paths."""
    file = storage.join(folder, "data.yaml")
    if not storage.exists(file):
        raise InputError(f"{folder} has no data.yaml: name the folder that `bernini export --form trainer` wrote")
    try:
        base = json.loads(storage.read_bytes(file))  # the exporter writes JSON, which is YAML
        sources, names = base["sources"], base["names"]
    except (ValueError, KeyError) as error:
        raise InputError(f"{file} is not of the exporter's form ({error}): export again") from None
    share_of_file = _rows(sources, names)
    paths, borders = [], run.borders()
    for n, shares in enumerate(run.shares):
        by_name = {f"{task}${name}": share for (name, task), share in shares.items()}
        weights = [by_name.get(name, 0.0) * part for name, part in zip(names, share_of_file, strict=True)]
        if not sum(weights) > 0:
            raise ConfigError(f"{file} names {', '.join(sorted(set(names)))}, of which the mixture draws none: export "
                              "the mixed samples")
        schedule = [{"schedule_type": "const", "weights": [w / sum(weights) for w in weights]}]
        path = storage.join(folder, f"snapshot-{n:02d}", "data.yaml")
        storage.write_bytes(path, json.dumps(base | {"schedule": schedule}, indent=1).encode())
        paths.append(path)
    plan = [{"data": f"snapshot-{n:02d}/data.yaml", "first_step": borders[n], "end_step": borders[n + 1]}
            for n in range(len(run.shares))]
    storage.write_bytes(storage.join(folder, "snapshots.json"), json.dumps(plan, indent=1).encode())
    print(f"wrote {len(paths)} snapshots of data.yaml below {folder}")
    return paths


def _rows(sources: list[str], names: list[str]) -> list[float]:
    """Share that each file has of the rows of its name: one data set may lie in several files."""
    rows = []
    for source in sources:
        filesystem, inner = storage.resolve(source)
        try:
            rows.append(pq.read_metadata(inner, filesystem=filesystem).num_rows)
        except OSError:
            raise InputError(f"data.yaml names {source}, which cannot be read: export again") from None
    totals = {n: sum(r for r, other in zip(rows, names, strict=True) if other == n) for n in names}
    return [r / totals[n] if totals[n] else 0.0 for r, n in zip(rows, names, strict=True)]
