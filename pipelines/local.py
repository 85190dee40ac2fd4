"""Run stages in this process, without Ray.

A row that was being worked on when an earlier run died is suspect: it is tried in a child
process first, so that a file that crashes the decoder cannot end the run again and again.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from pkgutil import resolve_name

import pyarrow as pa

from manifests.columns import DROP_REASON, FAILED, ISSUES, NUM_ATTEMPTS, set_column

from .stage import Stage, apply_op, check, pass_by

MAX_ATTEMPTS = 3  # a row that kills its worker this often is put aside


def build(stage: Stage) -> Callable[[pa.Table], pa.Table]:
    return resolve_name(stage.op)(**stage.kwargs)


def build_all(stages: Sequence[Stage]) -> list[tuple[Callable, int | None]]:
    """The ops with their batch sizes."""
    return [(build(stage), stage.batch_size) for stage in stages]


def run_ops(ops: Sequence[tuple[Callable, int | None]], table: pa.Table) -> pa.Table:
    for op, batch_size in ops:
        table = apply_op(op, table, batch_size)
    return table


def run_local(blocks: Iterator[pa.Table], stages: Sequence[Stage], *, begin: Callable, suspects: set[str],
              key: str) -> Iterator[tuple[list[str], pa.Table]]:
    """Yields `(source keys, finished rows)` block by block. `begin(keys)` notes what is in work."""
    ops = None
    for block in blocks:
        keys = block[key].to_pylist()
        begin(keys)
        if suspects.intersection(keys):
            rows = pa.concat_tables([run_alone(block.slice(i, 1), stages) if k in suspects
                                     else run_ops(ops := ops or build_all(stages), block.slice(i, 1))
                                     for i, k in enumerate(keys)])
        else:
            ops = ops or build_all(stages)
            rows = run_ops(ops, block)
        yield keys, rows


def run_alone(row: pa.Table, stages: Sequence[Stage]) -> pa.Table:
    """One row in a child process, up to `MAX_ATTEMPTS` times; put aside if the child always dies."""
    context = multiprocessing.get_context("spawn")
    for attempt in range(1, MAX_ATTEMPTS + 1):
        mine, theirs = context.Pipe(duplex=False)
        child = context.Process(target=_child, args=(theirs, row, list(stages)))
        child.start()
        theirs.close()
        try:
            kind, value = mine.recv()
        except EOFError:
            child.join()
            exit_code = child.exitcode
            continue
        child.join()
        if kind == "error":
            raise value
        return set_column(value, NUM_ATTEMPTS, [attempt] * value.num_rows)
    return put_aside(row, stages, MAX_ATTEMPTS, f"exit code {exit_code}")


def _child(connection, row: pa.Table, stages: list[Stage]) -> None:
    try:
        connection.send(("rows", run_ops(build_all(stages), row)))
    except Exception as error:  # handed to the parent, which raises it
        connection.send(("error", error))


def put_aside(rows: pa.Table, stages: Sequence[Stage], attempts: int, how: str) -> pa.Table:
    """The rows as failures: nulls in every added column, the reason in `issues`."""
    rows = pass_by(rows, check(stages, rows.schema))
    line = f"quarantined: the worker died {attempts} times on this row ({how})"
    rows = set_column(rows, ISSUES, [[*(old or []), line] for old in rows[ISSUES.name].to_pylist()])
    rows = set_column(rows, NUM_ATTEMPTS, [attempts] * rows.num_rows)
    return set_column(rows, DROP_REASON, [f"{FAILED}quarantined"] * rows.num_rows)
