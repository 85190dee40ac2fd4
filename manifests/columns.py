"""Typed columns, and how an op adds them to a table.

A column is an Arrow field whose metadata holds its description and unit; its owner is the
op that lists it in `adds` or `makes`. `issues` and `drop_reason` belong to every stop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from .errors import BackendError, ManifestError, MediaError


def column(name: str, type: pa.DataType, doc: str, unit: str = "") -> pa.Field:
    metadata = {"doc": doc} | ({"unit": unit} if unit else {})
    return pa.field(name, type, metadata=metadata)


ISSUES = column("issues", pa.list_(pa.string()), "what went wrong with this row, one line each; empty = nothing")
DROP_REASON = column("drop_reason", pa.string(), "first rule broken, or 'failed: …'; null = accepted")
NUM_ATTEMPTS = column("num_attempts", pa.int32(), "times this row was tried; above 1 a worker died on it")
ACCOUNT = (ISSUES, DROP_REASON, NUM_ATTEMPTS)

FAILED = "failed: "  # drop reasons of rows that could not be worked on, against rows that broke a rule


def doc_of(field: pa.Field) -> tuple[str, str]:
    """Description and unit of a field, empty where it has none."""
    metadata = field.metadata or {}
    return metadata.get(b"doc", b"").decode(), metadata.get(b"unit", b"").decode()


def set_column(table: pa.Table, field: pa.Field, values) -> pa.Table:
    """A table with `field` added at the end, or replaced in place, as the declared type."""
    array = values if isinstance(values, (pa.Array, pa.ChunkedArray)) else pa.array(values, field.type)
    if array.type != field.type:
        array = array.cast(field.type)
    index = table.schema.get_field_index(field.name)
    return table.append_column(field, array) if index < 0 else table.set_column(index, field, array)


def add_issues(table: pa.Table, new: Sequence[Sequence[str]]) -> pa.Table:
    """Append lines to `issues`; `new` has one (possibly empty) sequence a row.

    The result has no nulls, so that a row looks the same whichever rows it was worked on with.
    """
    old = table["issues"].to_pylist()
    return set_column(table, ISSUES, [list(o or []) + list(n) for o, n in zip(old, new, strict=True)])


def require(table: pa.Table, names: Sequence[str], who: str) -> None:
    missing = [n for n in names if n not in table.column_names]
    if missing:
        raise ManifestError(f"{who} reads {', '.join(missing)}, which the table has not "
                            f"(it has {', '.join(table.column_names)})")


def map_rows(
    table: pa.Table,
    op: object,
    function: Callable[[dict], Mapping[str, object]],
) -> pa.Table:
    """Run `function` over the rows of `table`; null + one issue where it cannot be measured.

    `op` supplies `reads` and `adds`. `function` takes a dict of the read columns and returns
    the added ones; a `MediaError` or `BackendError` makes all of them null, with the reason
    in `issues`. Any other exception is a bug and ends the run.
    """
    name = type(op).__name__
    require(table, op.reads, name)
    results: list[Mapping[str, object]] = []
    issues: list[list[str]] = []
    for row in table.select(list(op.reads)).to_pylist():
        try:
            results.append(function(row))
            issues.append([])
        except (MediaError, BackendError) as error:
            results.append({})
            issues.append([f"{name}: {error}"])
    for field in op.adds:
        table = set_column(table, field, [r.get(field.name) for r in results])
    return add_issues(table, issues)
