"""`bernini why MANIFEST ROW`: the chain of one row, from its file to its decision."""

from __future__ import annotations

import posixpath

import pyarrow as pa
import pyarrow.compute as pc

from . import storage
from .columns import doc_of
from .errors import ManifestError
from .inspect import _short, clean
from .manifest import Manifest

ACCOUNT_COLUMNS = ("issues", "drop_reason", "num_attempts")


def why(manifest: str, row: str, /) -> int:
    """Where a row comes from and why it was kept or dropped.

    Prints the source file and span, each measure with the op and backend that made it, each
    rule with the value it saw, and the same for the rows it was made from.

    Args:
        manifest: folder of a manifest.
        row: id of the row (first column of `bernini head`), or its first characters.
    """
    m = Manifest.open(manifest)
    _print_row(m, _find(m, row), 0)
    return 0


def _find(m: Manifest, row_id: str) -> dict:
    matches = m.table([m.stop.key], pc.starts_with(pc.field(m.stop.key), row_id))[m.stop.key].to_pylist()
    if row_id in matches:
        matches = [row_id]
    if len(matches) != 1:
        what = f"{len(matches)} rows begin with" if matches else "no row has"
        raise ManifestError(f"{what} the {m.stop.key} {row_id!r} in {m.path}; list them with: bernini head {m.path}")
    return m.table(where=pc.field(m.stop.key) == matches[0]).to_pylist()[0]


def _print_row(m: Manifest, row: dict, depth: int) -> None:
    pad = "    " * depth
    state = row["drop_reason"] or "accepted"
    print(f"{pad}{m.stop.name[:-1]} {row[m.stop.key]}: {clean(state)}")
    for side in ("", "source_", "target_"):
        if row.get(f"{side}path"):
            span = [row.get(f"{side}{end}_s") for end in ("start", "end")]
            at = f"  {span[0]:.3f} s to {span[1]:.3f} s" if None not in span else ""
            print(f"{pad}  {side.rstrip('_') or 'file'}: {clean(row[f'{side}path'])}{at}")
    for issue in row["issues"] or []:
        print(f"{pad}  issue: {clean(issue)}")
    _print_rules(m, row, pad)
    _print_measures(m, row, pad)
    for parent, ids in _parents(m, row):
        for row_id in ids:
            _print_row(parent, _find(parent, row_id), depth + 1)


def _print_rules(m: Manifest, row: dict, pad: str) -> None:
    for rule in m.header.get("rules", []):
        value, low, high = row.get(rule["column"]), rule["min"], rule["max"]
        value = str(value).lower() if isinstance(value, bool) else value  # as the rules compare them
        if rule["allowed"]:
            held, bounds = value in rule["allowed"], f"one of {', '.join(rule['allowed'])}"
        else:
            held = value is not None and (low is None or value >= low) and (high is None or value <= high)
            bounds = f"{'' if low is None else f'{low:g} <= '}{rule['column']}{'' if high is None else f' <= {high:g}'}"
        held = held or (value is None and rule.get("optional", False))
        shown = "null" if value is None else f"{len(value)} values" if isinstance(value, list) else clean(_short(value))
        print(f"{pad}  rule {'holds ' if held else 'BROKEN'} {bounds}: {shown}  ({rule['why']})")
    policy = m.header.get("policy") or {}
    for part in policy if isinstance(policy, list) else [policy]:  # dedupe has one of each column compared
        for name, value in part.items():
            print(f"{pad}  policy {name} = {value}")


def _print_measures(m: Manifest, row: dict, pad: str) -> None:
    owners, versions = m.header.get("owners", {}), m.header["versions"]
    plain = {f.name for f in m.stop.fields} | set(ACCOUNT_COLUMNS) | {"clips", "transitions"}
    for field in m.schema:
        if field.name in plain or field.name.startswith(("source_", "target_")):
            continue
        owner = owners.get(field.name, {})
        by = [owner.get("op", ""), str(owner.get("backend", "")), str(owner.get("model", ""))]
        unit = doc_of(field)[1]
        print(f"{pad}  {field.name} = {clean(_short(row[field.name]))}{f' {unit}' if unit else ''}"
              f"{'  [' + ' '.join(filter(None, by)) + ']' if any(by) else ''}")
    if not m.header["parents"]:
        print(f"{pad}  versions: {', '.join(f'{k} {v}' for k, v in versions.items())}")


def _parents(m: Manifest, row: dict):
    """Parent manifests with the ids of the rows that this one was made from."""
    paths = [p if storage.is_uri(p) else posixpath.normpath(posixpath.join(m.path, p)) for p in m.header["parents"]]
    parents = [Manifest.open(path) for path in paths]
    for parent in parents:
        key = parent.stop.key
        ids = [v for k, v in row.items() if (k == key or k.endswith(f"_{key}")) and v]
        if sum(p.stop == parent.stop for p in parents) > 1:  # rows of several, each of which has some
            there = parent.table([key], pc.is_in(pc.field(key), pa.array(ids, pa.string())))[key].to_pylist()
            ids = [i for i in ids if i in there]
        yield parent, ids
