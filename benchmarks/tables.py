"""Manifest work at size: decide again, notice a finished run, mine pairs, lose exactly the bad rows.

    python benchmarks/tables.py [--skip-peers]

Each measurement runs in a fresh process; peers stand beside ours in the same run.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measure import command, in_fresh_process, store

MAKE_ROWS = """
import numpy as np, pyarrow as pa
from manifests.manifest import ManifestWriter
from manifests.schema import STOPS
from datagen.video_pairs import PAIR_COLUMNS
rng, N = np.random.default_rng(0), 1_000_000
stop = STOPS["candidates"]
names = ["pair_id", "video_id", "source_path", "source_start_s", "source_end_s", "source_duration_s",
         "target_duration_s", "video_similarity", "is_human", "issues", "drop_reason", "num_attempts"]
schema = pa.schema([f for f in [*stop.fields, *PAIR_COLUMNS, *list(stop.schema)[-3:]] if f.name in names])
start = rng.uniform(0, 600, N).round(3)
video = rng.integers(0, 10_000, N)
values = dict(
    pair_id=pa.array([f"p-{i:016x}" for i in rng.permutation(N).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)]),
    video_id=pa.array([f"v-{v:016x}" for v in video]), source_path=pa.array([f"/data/raw/{v:06d}.mp4" for v in video]),
    source_start_s=start, source_end_s=start + 4, source_duration_s=rng.uniform(1, 12, N),
    target_duration_s=rng.uniform(1, 12, N), video_similarity=rng.normal(0.75, 0.12, N).astype(np.float32),
    is_human=rng.random(N) < 0.4, issues=pa.array([[]] * N, pa.list_(pa.string())),
    drop_reason=pa.nulls(N, pa.string()), num_attempts=pa.array(np.ones(N, np.int32)))
table = pa.table([values[f.name] for f in schema], schema=schema)
"""
# The table has 12 columns; the stop's schema asks for more, so the writer is told what it holds.
WRITE = """
import pyarrow as pa, sys
class Twelve:
    name, key, row, fields = "candidates", "pair_id", "", ()
    schema = pa.schema([])
with ManifestWriter({path!r}, Twelve, table.schema) as writer:
    writer.append(table)
    writer.commit(name="video-pairs", row="", parents=[], config={{}}, versions={{}}, owners={{}})
"""
DECIDE = """
from filters.rules import Rule
from manifests.manifest import Manifest, ManifestWriter
from pipelines.decide import Decided, PairPolicy, decide
{policy}
# measure
m = Manifest.open({path!r})
rules = (Rule(column="video_similarity", min=0.65, max=0.95), Rule(column="source_duration_s", min=2, max=10),
         Rule(column="target_duration_s", min=2, max=10))
d = decide(m, rules, policy)
class Twelve:
    name, key, fields, schema = "candidates", "pair_id", (), m.schema
with ManifestWriter({target!r}, Twelve, m.schema) as writer:
    for batch in Decided(m, d).batches():
        writer.append(batch)
    writer.commit(name="x", row="", parents=[], config={{}}, versions={{}}, owners={{}})
out = int(d.accepted.sum())
"""
PEERS = {
    "pyarrow, whole table": """
import glob, pyarrow.parquet as pq, pyarrow.compute as pc
# measure
t = pq.read_table(sorted(glob.glob({glob!r} + "/*.parquet")))
x, s, u = t["video_similarity"], t["source_duration_s"], t["target_duration_s"]
keep = pc.and_(pc.and_(pc.and_(pc.greater_equal(x, 0.65), pc.less_equal(x, 0.95)),
                       pc.and_(pc.greater_equal(s, 2), pc.less_equal(s, 10))),
               pc.and_(pc.greater_equal(u, 2), pc.less_equal(u, 10)))
r = t.filter(keep)
pq.write_table(r, {out!r})
out = r.num_rows
""",
    "Polars, streaming": """
import polars as pl
# measure
f = pl.scan_parquet({glob!r} + "/*.parquet").filter(pl.col("video_similarity").is_between(0.65, 0.95)
    & pl.col("source_duration_s").is_between(2, 10) & pl.col("target_duration_s").is_between(2, 10))
f.sink_parquet({out!r})
out = pl.scan_parquet({out!r}).select(pl.len()).collect().item()
""",
}
MINE = """
import numpy as np
from datagen.video_pairs import mine_video
rng = np.random.default_rng(0)
base = rng.normal(size=(2000, 1, 512)).astype(np.float32)
E = base * 1.2 + rng.normal(size=(2000, 100, 512)).astype(np.float32) * 0.6
E /= np.linalg.norm(E, axis=-1, keepdims=True)
# measure
num = 0
for e in E:
    num += mine_video(e, max_listed={listed}).num_candidates
out = num
"""
MINE_PEER = """
import numpy as np
rng = np.random.default_rng(0)
base = rng.normal(size=(2000, 1, 512)).astype(np.float32)
E = base * 1.2 + rng.normal(size=(2000, 100, 512)).astype(np.float32) * 0.6
E /= np.linalg.norm(E, axis=-1, keepdims=True)
# measure
num = 0
for e in E:
    kept = []
    for i in range(len(e)):
        s = e[i + 1:] @ e[i]
        num += len(s)
        kept += [(i, i + 1 + j, s[j]) for j in np.flatnonzero((s >= 0.65) & (s <= 0.95))]
out = num
"""
BAD_RAY_DATA = """
import os, ray
os.environ["RAY_AUTH_MODE"] = "disabled"
ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
from ray.data import DataContext
DataContext.get_current().max_errored_blocks = -1
DataContext.get_current().enable_progress_bars = False
def op(row):
    if row["id"] % 257 == 0:
        raise ValueError("bad")
    return row
# measure
out = ray.data.range(20_000).map(op).materialize().count()
"""
BAD_OURS = """
import pyarrow as pa
from filters.rules import Rule
from manifests.schema import VIDEOS
from pipelines.run import TableSource, Target, run
from pipelines.stage import Stage
rows = [dict(video_id=f"v-{{i:06d}}", path=f"{{'bad' if i % 257 == 0 else 'good'}}-{{i}}", issues=[], num_attempts=1)
        for i in range(20_000)]
source = TableSource(pa.Table.from_pylist(rows, VIDEOS.schema))
stages = (Stage(op="tests.pipelines.ops_for_tests:MeasureLength"),
          Stage(op="filters.rules:ApplyRules", kwargs=dict(rules=(Rule(column="value"),)), num_cpus=0.0))
# measure
m = run(source, Target(path={path!r}, stop="videos", header=dict(name="t", parents=[], config={{}}, versions={{}})),
        stages, engine={engine!r}, rows_per_block=500, quiet=True)
out = m.header["accepted"]
"""
FINISHED = """
from manifests.schema import STOPS
from pipelines.run import Target, run
from pipelines.stage import Stage
# measure
m = run(None, Target(path={path!r}, stop="candidates", header=dict()), (), engine="ray", quiet=True)
out = m.num_rows
"""


def main(skip_peers: bool) -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/million"
        in_fresh_process(MAKE_ROWS + WRITE.format(path=path))

        def add(what, goal, measured, **more):
            rows.append({"what": what, "goal": goal, "wall s": measured["wall_s"], "CPU s": measured["cpu_s"],
                         "peak MB": measured["peak_mb"], "result": measured["out"]} | more)
            print(rows[-1], flush=True)

        for name, policy in (("rules", "policy = None"), ("rules, cap, evenness and 1 : 1", "policy = PairPolicy()")):
            done = in_fresh_process(DECIDE.format(path=path, target=f"{folder}/{name[:5]}{len(rows)}", policy=policy))
            add(f"decide 1 M rows of 12 columns again ({name}), all rows written", "1.5 s, 500 MB", done)
        for name, code in {} if skip_peers else PEERS.items():
            add(f"  peer: {name}, filter and write what is left", "", in_fresh_process(
                code.format(glob=path, out=f"{folder}/{len(rows)}.parquet")))
        add("a finished 1 M-row run notices that it is finished", "2 s", in_fresh_process(FINISHED.format(path=path)))
        for listed in (1000, 5000):
            done = in_fresh_process(MINE.format(listed=listed))
            done["out"] = f"{done['out'] / done['wall_s'] / 1e6:.1f} M pairs/s"
            add(f"mine 2,000 videos x 100 clips x 512 (at most {listed:,} rows a video)", "10 M/s", done)
        if not skip_peers:
            done = in_fresh_process(MINE_PEER)
            done["out"] = f"{done['out'] / done['wall_s'] / 1e6:.1f} M pairs/s"
            add("  peer: numpy, one row of the matrix at a time", "", done)
        for engine in ("local", "ray"):
            done = in_fresh_process(BAD_OURS.format(path=f"{folder}/bad-{engine}", engine=engine))
            add(f"78 bad rows of 20,000, --engine {engine}: rows kept", "19,922", done)
        if not skip_peers:
            add("  peer: Ray Data with max_errored_blocks = -1: rows kept", "", in_fresh_process(BAD_RAY_DATA))
    for words in (["--help"], ["run", "video-pairs", "--help"]):
        calls = [command([f"{Path(sys.executable).parent}/bernini", *words]) for _ in range(5)]
        best = min(calls, key=lambda d: d["wall_s"])
        add(f"bernini {' '.join(words)} (best of 5)", "0.5 s", best | {"peak_mb": "", "out": ""})
    add("five tiny videos, whole run with a local Ray", "8 s", _five_tiny() | {"peak_mb": "", "out": ""})
    store("tables", rows, "Fresh process each; wall seconds of the work, imports not counted, except for the commands, "
                          "which are whole. Peak is the resident memory of the process.")


def _five_tiny() -> dict:
    from manifests.video_writer import write_video
    from tests.conftest import moving_frames

    with tempfile.TemporaryDirectory() as folder:
        for i in range(5):
            frames = [f for shot in range(2) for f in moving_frames(60, seed=shot, step=3 + i)]
            write_video(f"{folder}/in/{i}.mp4", frames, fps=25)
        call = [sys.executable, "-m", "pipelines", "run", "video-pairs", "--input", f"{folder}/in", "--no-report",
                "--quiet", "--no-human-balance", "--similarity-min", "0.2", "--similarity-max", "1", "--output"]
        return min((command([*call, f"{folder}/out{k}"]) for k in range(3)), key=lambda d: d["wall_s"])


if __name__ == "__main__":
    main("--skip-peers" in sys.argv)
