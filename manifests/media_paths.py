"""Paths of media in rows: relative to the manifest in its files, absolute for whoever reads it through `Manifest`.

Media that lie below the output folder `<root>` are stored as `../../media/…`, relative to the folder
`<root>/<stop>/<name>` that holds the Parquet files, so that an output folder can be moved or copied as a
whole; from `<root>/<name>`, where `--write` puts what it keeps, it is `../media/…`. All other paths, and URIs
elsewhere, are stored as they are; so are those of a manifest that does not lie in an output folder.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc

from . import storage
from .columns import set_column
from .schema import STOPS

UP = "../"

Change = Callable[[pa.Array], pa.Array]


def to_relative(table: pa.Table, folder: str) -> pa.Table:
    """The table as it is stored in the manifest `folder`."""
    root, ups = _output_of(storage.absolute(folder).rstrip("/"))

    def stored(paths: pa.Array) -> pa.Array:
        foreign = _replaced(paths, ups, f"./{ups}")  # a name that a document gives is not taken for one of ours
        return _replaced(foreign, root + "/", ups)

    return _changed(table, stored) if root else table


def to_absolute(table: pa.Table, folder: str) -> pa.Table:
    """The table as readers of the manifest `folder` see it."""
    above = storage.absolute(folder).rstrip("/").rpartition("/")[0]
    root, _, stop = above.rpartition("/")
    root, ups = (root, 2 * UP) if stop in STOPS else (above, UP)
    return _changed(table, lambda paths: _replaced(paths, ups, root + "/"))


@lru_cache(maxsize=64)
def _output_of(folder: str) -> tuple[str, str]:
    """Output folder of a manifest's folder and the way up to it; two empty words where it lies in none."""
    above = folder.rpartition("/")[0]
    root, _, stop = above.rpartition("/")
    if root and stop in STOPS:
        return root, 2 * UP
    return (above, UP) if above and STOPS.keys() & storage.list_folders(above) else ("", "")


def _replaced(paths: pa.Array, begin: str, other: str) -> pa.Array:
    """`other` in place of `begin` where a path begins with it; the same array where none does."""
    starts = pc.starts_with(paths, begin)
    if not pc.any(starts).as_py():
        return paths
    return pc.if_else(starts, pc.binary_replace_slice(paths, 0, len(begin.encode()), other), paths)


def _changed(table: pa.Table, change: Change) -> pa.Table:
    for field in table.schema:
        if not _holds_paths(field):
            continue
        chunks = table[field.name].chunks
        new = [_array(chunk, field, change) for chunk in chunks]
        if any(a is not b for a, b in zip(new, chunks, strict=True)):
            table = set_column(table, field, pa.chunked_array(new, field.type))
    return table


def _holds_paths(field: pa.Field) -> bool:
    """Whether the column or something in it is a path of a file, by its name."""
    if pa.types.is_list(field.type):
        item = field.type.value_field
        return _is_list_name(field.name) if pa.types.is_string(item.type) else _holds_paths(item)
    if pa.types.is_struct(field.type):
        return any(_holds_paths(f) for f in field.type)
    name = field.name
    return pa.types.is_string(field.type) and name != "relative_path" and (name == "path" or name.endswith("_path"))


def _is_list_name(name: str) -> bool:
    return name == "images" or name.endswith("_paths")


def _array(array: pa.Array, field: pa.Field, change: Change) -> pa.Array:
    """The array with its paths changed; the same object where nothing changes."""
    if pa.types.is_list(field.type):
        item, values = field.type.value_field, array.flatten()
        new = change(values) if pa.types.is_string(item.type) else _array(values, item, change)
        return array if new is values else _list(array, new, field.type)
    if not pa.types.is_struct(field.type):
        return change(array)
    parts = array.flatten()
    new = [_array(p, f, change) if _holds_paths(f) else p for p, f in zip(parts, field.type, strict=True)]
    if all(a is b for a, b in zip(new, parts, strict=True)):
        return array
    return pa.StructArray.from_arrays(new, fields=list(field.type), mask=array.is_null())


def _list(array: pa.ListArray, values: pa.Array, type: pa.DataType) -> pa.ListArray:
    lengths = pc.fill_null(pc.list_value_length(array), 0)
    ends = pc.cumulative_sum(lengths)
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), ends.cast(pa.int32())])
    return pa.ListArray.from_arrays(offsets, values, type=type, mask=array.is_null())
