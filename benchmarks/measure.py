"""What all benchmarks share: a measured call in a fresh process, and a dated table of results."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"


def in_fresh_process(code: str, *, env: dict | None = None) -> dict:
    """Run Python code in a new process; `{"wall_s", "cpu_s", "peak_mb", "out"}` of the code alone.

    The code may set `out` to anything JSON can hold. Imports that should not count go before
    a line `# measure`.
    """
    setup, _, body = code.partition("# measure\n") if "# measure\n" in code else ("", "", code)
    program = f"""
import json, resource, time
out = None
{setup}
resource_before = resource.getrusage(resource.RUSAGE_SELF)
begin, cpu = time.perf_counter(), time.process_time()
{body}
wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print("\\n@@" + json.dumps({{"wall_s": wall, "cpu_s": cpu, "peak_mb": peak, "out": out}}))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, **(env or {})})
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.rsplit("@@", 1)[1])


def command(argv: list[str]) -> dict:
    """Wall and CPU seconds of a whole command, its children included."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(done.stdout[-1000:] + done.stderr[-2000:])
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": time.perf_counter() - begin, "cpu_s": cpu}


def store(name: str, rows: list[dict], note: str) -> None:
    """Print the rows as a table and write them to results/<name>.md with date, machine and versions."""
    from manifests.provenance import versions

    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(row.get(c, "")) for c in columns) + " |" for row in rows]
    found = ", ".join(f"{k} {v}" for k, v in versions().items())
    text = f"# {name}\n\n{date.today()}, {os.cpu_count()} cores ({platform.machine()}), no GPU. {found}\n\n{note}\n\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text + "\n".join(lines) + "\n")
    print(text + "\n".join(lines))


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
