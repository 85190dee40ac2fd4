"""Running stages: resume, account, guard, quarantine. Ray and the local engine give the same tables."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from filters.rules import Rule
from manifests.errors import ConfigError, ManifestError, RunStopped
from manifests.inspect import account_table
from manifests.manifest import Manifest
from manifests.schema import VIDEOS
from pipelines import ledger as ledger_module
from pipelines.ledger import Ledger
from pipelines.run import Guard, TableSource, Target, run
from pipelines.stage import Stage, apply_op, check

ROOT = Path(__file__).resolve().parents[2]
FAILS = Rule(column="value")


def source(paths) -> TableSource:
    rows = [{"video_id": f"v-{i:04d}", "path": p, "num_attempts": 1} for i, p in enumerate(paths)]
    return TableSource(pa.Table.from_pylist(rows, VIDEOS.schema))


def stages(**kwargs) -> tuple[Stage, ...]:
    return (Stage(op="tests.pipelines.ops_for_tests:MeasureLength", kwargs=kwargs, batch_size=4),
            Stage(op="filters.rules:ApplyRules", kwargs={"rules": (FAILS,)}, num_cpus=0.0))


def target(path) -> Target:
    return Target(path=str(path), stop="videos", header={"name": "t", "parents": [], "config": {}, "versions": {}})


def go(path, paths, *, engine="local", guard=None, rows_per_block=4, retry_failed=False, **kwargs) -> Manifest:
    return run(source(paths), target(path), stages(**kwargs), engine=engine, rows_per_block=rows_per_block,
               guard=guard or Guard(), retry_failed=retry_failed, quiet=True)


def files(folder) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in Path(folder).iterdir()}


ENGINES = ["local", pytest.param("ray", marks=pytest.mark.ray)]


@pytest.mark.parametrize("engine", ENGINES)
def test_bad_rows_lose_themselves_and_no_neighbour(tmp_path, engine):
    paths = [f"bad-{i}" if i % 25 == 0 else f"good-{i}" for i in range(200)]
    m = go(tmp_path / "m", paths, engine=engine)
    rows = m.table().to_pylist()
    assert [r["path"] for r in rows] == paths  # all there, in order
    assert [r["value"] for r in rows] == [None if "bad" in p else len(p) for p in paths]
    assert m.header["drops"] == {"failed: value was not measured": 8}
    assert rows[0]["issues"] == ["MeasureLength: bad-0 is bad"] and rows[1]["issues"] == []


@pytest.mark.ray
def test_ray_and_local_write_the_same_bytes(tmp_path):
    paths = [f"{'bad' if i % 7 == 0 else 'x' * (i % 13)}-{i}" for i in range(150)]
    for engine in ("local", "ray"):
        go(tmp_path / engine, paths, engine=engine)
    assert files(tmp_path / "local") == files(tmp_path / "ray")


def test_an_op_gets_no_more_rows_at_once_than_its_stage_says():
    seen = []
    table = source([f"good-{i}" for i in range(10)])._table

    def op(rows):
        seen.append(rows.num_rows)
        return rows

    assert apply_op(op, table, 4).equals(table) and seen == [4, 4, 2]
    assert apply_op(op, table).equals(table) and seen[3:] == [10]


@pytest.mark.ray
def test_more_pools_than_cores_do_not_starve_each_other(tmp_path):
    op = "tests.pipelines.ops_for_tests:MeasureLength"
    pools = tuple(Stage(op=op, num_cpus=cpus, workers=workers) for cpus, workers in ((1, 4), (0.5, None), (1, 2)))
    m = run(source([f"good-{i}" for i in range(12)]), target(tmp_path / "m"), pools, engine="ray", quiet=True)
    assert m.header["accepted"] == 12


@pytest.mark.ray
def test_workers_find_files_that_were_named_where_the_command_was_given(tmp_path, monkeypatch):
    from pipelines import on_ray

    on_ray.connect()  # before: workers begin where their cluster did
    monkeypatch.chdir(tmp_path)
    run(source(["good"]), target(tmp_path / "m"), stages(log="seen.txt"), engine="ray", quiet=True)
    assert (tmp_path / "seen.txt").read_text().startswith("good ")


@pytest.mark.ray
def test_where_nothing_finishes_it_is_told_what_is_waited_for(tmp_path, monkeypatch, capfd):
    """Ray keeps what workers print to itself; starting one takes longer than this patience."""
    from pipelines import on_ray

    on_ray.connect()
    monkeypatch.setattr(on_ray, "GROW_EVERY_S", 0.1)
    monkeypatch.setattr(on_ray, "PATIENCE_S", 0.2)
    for quiet in (False, True):
        run(source(["good"]), target(tmp_path / str(quiet)), stages(), engine="ray", quiet=quiet)
        told = re.findall(r"videos: nothing has finished for \d s; at work: 1 x MeasureLength \+ ApplyRules.* write to (\S+)",
                          capfd.readouterr().err)
        assert bool(told) is not quiet
        assert quiet or Path(told[0]).parent.is_dir()


@pytest.mark.ray
def test_gpus_that_are_not_there_are_asked_for_by_name(tmp_path):
    op = "tests.pipelines.ops_for_tests:MeasureLength"
    with pytest.raises(ConfigError, match=r"the stages need 64.5 GPUs at once \(MeasureLength 64, MeasureLength 0.5\)"):
        run(source(["good"]), target(tmp_path / "m"), (Stage(op=op, num_gpus=64.0), Stage(op=op, num_gpus=0.5)), quiet=True)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_bug_stops_the_run_with_its_own_error(tmp_path, engine):
    with pytest.raises(ZeroDivisionError, match="a bug in an op"):
        go(tmp_path / "m", ["a", "bug", "c"], engine=engine)


def test_a_resumed_run_works_only_on_what_is_not_settled(tmp_path):
    paths = [f"bad-{i}" if i % 2 else f"good-{i}" for i in range(40)]
    log = tmp_path / "log"
    guard = Guard(max_failed_share=1.0)
    whole = go(tmp_path / "whole", paths, guard=guard)
    Ledger(str(tmp_path / "m"), "video_id", whole.schema)  # nothing there yet
    with pytest.raises(ZeroDivisionError):
        go(tmp_path / "m", [*paths[:30], "bug", *paths[31:]], guard=guard, log=str(log))
    first = log.read_text().split()[::2]
    assert first == [*paths[:30], "bug"]
    log.unlink()
    go(tmp_path / "m", paths, guard=guard, log=str(log))
    assert log.read_text().split()[::2] == paths[28:]  # blocks of 4: rejects of the first 28 are not looked at again
    assert files(tmp_path / "m") == files(tmp_path / "whole")
    log.unlink()
    go(tmp_path / "m", paths, guard=guard, log=str(log))
    assert not log.exists()


def test_an_unfinished_run_has_an_account_with_pending_rows(tmp_path):
    with pytest.raises(ZeroDivisionError):
        go(tmp_path / "m", ["a", "bad", "c", "d", "bug"], guard=Guard(max_failed_share=1.0))
    table = account_table(str(tmp_path / "m")).to_pylist()
    assert [(r["key"], r["state"]) for r in sorted(table, key=lambda r: r["key"])] == [
        ("v-0000", "accepted"), ("v-0001", "failed"), ("v-0002", "accepted"), ("v-0003", "accepted"),
        ("v-0004", "pending")]


def test_small_files_of_the_ledger_are_put_together_and_an_interrupted_merge_is_harmless(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger_module, "FILES_BEFORE_MERGE", 5)
    paths = [f"p-{i}" for i in range(33)]
    with pytest.raises(ZeroDivisionError):
        go(tmp_path / "m", [*paths[:30], "bug"], rows_per_block=1)
    work = tmp_path / "m" / "work"
    assert len(list(work.glob("*.parquet"))) < 12
    whole = go(tmp_path / "whole", paths, rows_per_block=1)
    books = Ledger(str(tmp_path / "m"), "video_id", whole.schema)
    assert len(books.settled) == 30
    row = whole.table().slice(0, 1)
    books._write("ffff.parquet", ["v-0000"], row)  # what a merge that was cut short leaves behind
    again = Ledger(str(tmp_path / "m"), "video_id", whole.schema)
    assert len(again.settled) == 30 and sum(again.counts.values()) == 30
    go(tmp_path / "m", paths, rows_per_block=1)
    assert files(tmp_path / "m") == files(tmp_path / "whole")


def test_too_many_failures_stop_the_run_and_can_be_retried(tmp_path):
    paths = [f"bad-{i}" for i in range(30)]
    with pytest.raises(RunStopped, match="failed, more than the allowed share of 0.5.*value was not measured.*"
                                         r"For example: MeasureLength: bad-\d+ is bad\. .*retry-failed"):
        go(tmp_path / "m", paths)
    assert not (tmp_path / "m" / "manifest.json").exists()
    with pytest.raises(RunStopped, match="is bad"):  # failures are results: untold, nothing is tried again
        go(tmp_path / "m", ["good" for _ in paths])
    m = go(tmp_path / "m", ["good" for _ in paths], retry_failed=True)
    assert m.header["accepted"] == 30


def test_a_few_failures_at_the_start_do_not_stop_a_run(tmp_path):
    m = go(tmp_path / "m", [f"bad-{i}" for i in range(8)] + [f"good-{i}" for i in range(30)])
    assert m.header["drops"] == {"failed: value was not measured": 8}


@pytest.mark.ray
def test_a_row_that_kills_its_worker_is_put_aside_under_ray(tmp_path):
    paths = [f"good-{i}" for i in range(11)] + ["deadly"]
    m = go(tmp_path / "m", paths, engine="ray")
    rows = m.table().to_pylist()
    assert m.header["drops"] == {"failed: quarantined": 1}
    assert [r["value"] for r in rows[:-1]] == [len(p) for p in paths[:-1]]
    assert rows[-1]["num_attempts"] == 3 and "the worker died 3 times" in rows[-1]["issues"][0]


def run_in_child(code: str) -> int:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode


def test_a_row_that_kills_a_local_run_is_put_aside_by_the_next(tmp_path):
    code = f"""
from tests.pipelines.test_run import go
go({str(tmp_path / 'm')!r}, ["good", "deadly", "fine"], rows_per_block=1)
"""
    assert run_in_child(code) == -signal.SIGKILL
    m = go(tmp_path / "m", ["good", "deadly", "fine"], rows_per_block=1)
    rows = m.table().to_pylist()
    assert [r["drop_reason"] for r in rows] == [None, "failed: quarantined", None]
    assert rows[1]["num_attempts"] == 3


def test_killing_the_driver_blames_no_row(tmp_path):
    """The user may kill a run as often as he likes while it works on the same row."""
    code = f"""
from tests.pipelines.test_run import go
go({str(tmp_path / 'm')!r}, ["a", "b", "c"], rows_per_block=1, delay_s=0.2)
"""
    for _ in range(4):
        child = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
        deadline = time.time() + 20
        while not (tmp_path / "m" / "work" / "in-flight.json").exists() and time.time() < deadline:
            time.sleep(0.02)
        time.sleep(0.05)
        child.kill()
        child.wait()
    m = go(tmp_path / "m", ["a", "b", "c"], rows_per_block=1)
    assert m.header["drops"] == {} and m.num_rows == 3


def test_dropped_rows_pass_by_untouched(tmp_path):
    table = source(["a", "b", "c"])._table
    table = table.set_column(table.schema.get_field_index("drop_reason"), VIDEOS.schema.field("drop_reason"),
                             pa.array([None, "no", None], pa.string()))
    log = tmp_path / "log"
    m = run(TableSource(table), target(tmp_path / "m"), stages(log=str(log)), engine="local", quiet=True)
    assert m.table(["path", "value", "drop_reason"]).to_pylist() == [
        {"path": "a", "value": 1, "drop_reason": None}, {"path": "b", "value": None, "drop_reason": "no"},
        {"path": "c", "value": 1, "drop_reason": None}]
    assert "b" not in [line.split()[0] for line in log.read_text().splitlines()]


def test_columns_are_checked_before_anything_runs():
    bad = Stage(op="filters.rules:ApplyRules", kwargs={"rules": (Rule(column="nothing"),)})
    with pytest.raises(ManifestError, match="ApplyRules reads nothing, which no earlier stage makes"):
        check((bad,), VIDEOS.schema)


def test_an_unknown_engine_lists_the_known_ones(tmp_path):
    with pytest.raises(ConfigError, match="no engine 'spark'; known: ray, local"):
        go(tmp_path / "m", ["a"], engine="spark")


def test_a_full_disk_says_what_to_do(tmp_path):
    """A file-size limit stands in for the full disk: the same system call fails."""
    code = f"""
import resource, sys
from tests.pipelines.test_run import go
from pipelines import __main__ as cli
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    go({str(tmp_path / 'm')!r}, ["x" * 500 + str(i) for i in range(300)], rows_per_block=300)
except OSError as error:
    sys.exit(cli._broken_storage(error))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and "run the same command again" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert go(tmp_path / "m", ["x" * 500 + str(i) for i in range(300)], rows_per_block=300).num_rows == 300


def test_the_header_tells_what_was_done(tmp_path):
    m = go(tmp_path / "m", ["a"])
    header = json.loads((tmp_path / "m" / "manifest.json").read_text())
    assert {"stop", "rows", "drops", "parents", "config", "versions"} <= set(header)
    assert (header["stop"], header["rows"], m.num_rows) == ("videos", 1, 1)
