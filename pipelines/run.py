"""Run stages over a source and write a manifest: resume, account, guard, commit.

`run_local` and `run_ray` (pipelines/local.py, pipelines/on_ray.py) only compute; all that is
stored passes through here, in one process, so that both give the same tables.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from manifests import storage
from manifests.errors import ConfigError, RunStopped
from manifests.manifest import HEADER, Manifest, ManifestWriter, live
from manifests.schema import STOPS

from .ledger import Ledger
from .local import run_local
from .stage import Stage, check, pass_by

ENGINES = ("ray", "local")
SHOWN_ISSUE = 300    # characters of an issue in a message
DRIVER_BLOCK = 4096  # rows at once for stages so cheap that they run in the driver


@dataclass(frozen=True, kw_only=True)
class Guard:
    """When a run must not go on: better an early stop than an empty table that looks finished."""

    max_failed_share: float = 0.5  # of the rows worked on; above it something is broken, not the data
    min_rows: int = 20             # before that many rows are done the share is not judged
    min_accepted: int = 1


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where the rows go: folder, stop, and what the header will say."""

    path: str
    stop: str
    header: dict


class TableSource:
    """A small table as the source of a run."""

    def __init__(self, table: pa.Table):
        self._table = table
        self.schema, self.num_rows = table.schema, table.num_rows

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        yield self._table if columns is None else self._table.select(list(columns))


def run(source, target: Target, stages: Sequence[Stage], *, engine: str = "ray", rows_per_block: int = 64,
        guard: Guard | None = None, retry_failed: bool = False, quiet: bool = False) -> Manifest:
    """Finish `target` and return it. A finished one is returned at once; an unfinished one resumes.

    `source` is a `Manifest` or has `schema`, `num_rows` and `batches(columns)`; its rows must
    carry the account columns. Rows that were dropped before pass through untouched.
    """
    if engine not in ENGINES:
        raise ConfigError(f"no engine {engine!r}; known: {', '.join(ENGINES)}")
    if storage.exists(storage.join(target.path, HEADER)):
        return Manifest.open(target.path)
    schema = check(stages, source.schema)
    key = STOPS[target.stop].key
    ledger = Ledger(target.path, key, schema)
    if retry_failed:
        ledger.forget_failures()
    keys = pa.chunked_array([b[key].combine_chunks() for b in source.batches([key])], pa.string()).combine_chunks()
    ledger.expect(keys)
    guard = guard or Guard()
    with tqdm(total=source.num_rows, initial=len(ledger.settled), desc=target.stop, unit="row",
              disable=quiet, leave=True) as bar:
        tell = (lambda line: None) if quiet else (lambda line: tqdm.write(f"{target.stop}: {line}", file=sys.stderr))
        for settled, rows in _work(source, stages, ledger, engine, key, rows_per_block, schema, tell):
            ledger.settle(settled, rows)
            bar.update(len(settled))
            _guard_share(ledger, guard, guard.min_rows, target)
    _guard_share(ledger, guard, 1, target)
    return _commit(target, ledger, schema, keys)


def finish(target: Target, schema: pa.Schema, tables: Iterator[pa.Table]) -> Manifest:
    """Write a manifest that needs no ledger, because making it again costs little."""
    if storage.exists(storage.join(target.path, HEADER)):
        return Manifest.open(target.path)
    with ManifestWriter(target.path, STOPS[target.stop], schema) as writer:
        for table in tables:
            writer.append(table)
        return writer.commit(**target.header)


def require_accepted(manifest: Manifest, guard: Guard | None = None, *, hint: str = "") -> Manifest:
    """Raise `RunStopped` with the top reasons where too little came through."""
    if manifest.header["accepted"] < (guard or Guard()).min_accepted:
        raise RunStopped(f"no row of {manifest.name} was accepted, so nothing can follow. "
                         f"{_top(manifest.header['drops'])} {hint} Look closer with: bernini drops {manifest.path}")
    return manifest


def _work(source, stages, ledger: Ledger, engine: str, key: str, rows_per_block: int, schema: pa.Schema, tell):
    yield from _dropped_before(source, ledger, key, schema)
    in_driver = all(s.num_cpus == 0 and s.num_gpus == 0 for s in stages)
    blocks = _pending(source, ledger, key, max(rows_per_block, DRIVER_BLOCK) if in_driver else rows_per_block)
    if engine == "local" or in_driver:
        suspects = set(ledger.suspects())
        begin = (lambda keys: None) if in_driver else ledger.begin
        yield from run_local(blocks, stages, begin=begin, suspects=suspects, key=key)
        return
    first = next(blocks, None)
    if first is not None:
        from .on_ray import run_ray  # starting Ray takes seconds: only when there is work

        yield from run_ray(_chain(first, blocks), stages, key=key, tell=tell)


def _unsettled(source, ledger: Ledger, key: str) -> Iterator[pa.Table]:
    done = pa.array(sorted(ledger.settled), pa.string())
    for batch in source.batches():
        yield batch.filter(pc.invert(pc.is_in(batch[key], value_set=done)))


def _dropped_before(source, ledger: Ledger, key: str, schema: pa.Schema) -> Iterator[tuple[list[str], pa.Table]]:
    """Rows that an earlier stop dropped are settled as they are; no worker sees them."""
    for batch in _unsettled(source, ledger, key):
        rows = batch.filter(pc.is_valid(batch["drop_reason"]))
        if rows.num_rows:
            yield rows[key].to_pylist(), pass_by(rows, schema)


def _pending(source, ledger: Ledger, key: str, rows_per_block: int) -> Iterator[pa.Table]:
    for batch in _unsettled(source, ledger, key):
        todo = live(batch).combine_chunks()
        for start in range(0, todo.num_rows, rows_per_block):
            yield todo.slice(start, rows_per_block)


def _chain(first: pa.Table, rest: Iterator[pa.Table]) -> Iterator[pa.Table]:
    yield first
    yield from rest


def _guard_share(ledger: Ledger, guard: Guard, min_rows: int, target: Target) -> None:
    num, failed = sum(ledger.counts.values()), ledger.num_failed
    if num >= min_rows and failed > guard.max_failed_share * num:
        drops = {r: n for r, n in ledger.counts.items() if r}
        example = f" For example: {ledger.issue[:SHOWN_ISSUE]}." if ledger.issue else ""
        raise RunStopped(f"{failed} of {num} rows of {target.stop} failed, more than the allowed share of "
                         f"{guard.max_failed_share:g}. {_top(drops)}{example} The results so far are kept in "
                         f"{ledger.folder}; after mending the cause run again with --retry-failed")


def _top(drops: dict[str, int]) -> str:
    most = sorted(drops.items(), key=lambda item: (-item[1], item[0]))[:3]
    return "Top reasons: " + "; ".join(f"{reason} ({num})" for reason, num in most) + "." if most else ""


def _commit(target: Target, ledger: Ledger, schema: pa.Schema, keys: pa.Array) -> Manifest:
    with ManifestWriter(target.path, STOPS[target.stop], schema) as writer:
        for table in ledger.in_order(keys):
            writer.append(table)
        manifest = writer.commit(**target.header)
    ledger.delete()
    return manifest
