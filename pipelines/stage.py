"""Ops placed with resources, and the static check of their columns.

An op is an ordinary callable on an Arrow table; a stage says how many rows it gets at once
and what hardware it needs. `check` proves that the columns fit before anything runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pkgutil import resolve_name

import pyarrow as pa
import pyarrow.compute as pc

from manifests.columns import DROP_REASON
from manifests.errors import ManifestError
from manifests.provenance import plain


@dataclass(frozen=True, kw_only=True)
class Stage:
    """`op` is "module:Class", built on the worker with `kwargs` (plain values only).

    `num_cpus = 0` marks arithmetic that is cheaper than sending it away: it runs in the
    driver. `workers` is the size of the actor pool; None = what the cluster bears. `batch_size`
    is the number of rows that the op gets at once; None = the block as it comes.
    """

    op: str
    kwargs: dict = field(default_factory=dict)
    batch_size: int | None = None
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    workers: int | None = None

    @property
    def name(self) -> str:
        return self.op.rsplit(":", 1)[-1]

    def fingerprint(self) -> list:
        """What can change a result: the op and its arguments, not where it runs."""
        neutral = getattr(resolve_name(self.op), "neutral", ())
        return [self.op, {k: v for k, v in plain(self.kwargs).items() if k not in neutral}]

    def contract(self) -> tuple[tuple[str, ...], tuple[pa.Field, ...], pa.Schema | None]:
        """`(reads, adds, makes)` without building the op: `contract(**kwargs)` of the class, or its attributes."""
        cls = resolve_name(self.op)
        if hasattr(cls, "contract"):
            reads, columns = cls.contract(**self.kwargs)
        else:
            reads, columns = cls.reads, getattr(cls, "makes", None) or cls.adds
        return (reads, (), columns) if isinstance(columns, pa.Schema) else (reads, tuple(columns), None)


def check(stages: Sequence[Stage], schema: pa.Schema) -> pa.Schema:
    """Schema after all stages; `ManifestError` where one reads a column that is not there."""
    for stage in stages:
        reads, adds, makes = stage.contract()
        if missing := [name for name in reads if name not in schema.names]:
            raise ManifestError(f"{stage.name} reads {', '.join(missing)}, which no earlier stage makes; "
                                f"there are {', '.join(schema.names)}")
        if makes is not None:
            schema = makes
        for new in adds:
            index = schema.get_field_index(new.name)
            if index >= 0 and schema.field(index).type != new.type:
                raise ManifestError(f"{stage.name} adds {new.name} as {new.type}, "
                                    f"it is there as {schema.field(index).type}")
            schema = schema.append(new) if index < 0 else schema.set(index, new)
    return schema


def apply_op(op, table: pa.Table, batch_size: int | None = None) -> pa.Table:
    """Run an op on the rows that are still live; dropped rows pass by, with nulls in new columns."""
    dropped = pc.is_valid(table[DROP_REASON.name])
    if not pc.any(dropped).as_py():
        return _in_batches(op, table, batch_size)
    live_rows, dropped_rows = pc.indices_nonzero(pc.invert(dropped)), pc.indices_nonzero(dropped)
    done = _in_batches(op, table.take(live_rows), batch_size)
    both = pa.concat_tables([done, pass_by(table.take(dropped_rows), done.schema)])
    return both.take(pc.array_sort_indices(pa.concat_arrays([live_rows, dropped_rows])))


def _in_batches(op, table: pa.Table, batch_size: int | None) -> pa.Table:
    if batch_size is None or table.num_rows <= batch_size:
        return op(table)
    return pa.concat_tables(op(table.slice(i, batch_size)) for i in range(0, table.num_rows, batch_size))


def pass_by(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Rows in the form of `schema` without having been worked on: nulls in the columns they lack."""
    return pa.table([rows[f.name].cast(f.type) if f.name in rows.column_names else pa.nulls(rows.num_rows, f.type)
                     for f in schema], schema=schema)
