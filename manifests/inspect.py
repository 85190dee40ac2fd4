"""Look into a manifest from the command line: show, head, stats, drops, account, validate.

Nothing here needs ray, torch or the media.
"""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from . import storage
from .columns import FAILED, doc_of
from .errors import ConfigError, ManifestError
from .features import broken_features
from .manifest import HEADER, Manifest, find_manifests


def show(manifest: str, /) -> int:
    """What a manifest is: rows, drops by reason, parents, configuration, columns.

    Args:
        manifest: folder of a manifest, or an output root (lists what lies below it).
    """
    if not storage.exists(storage.join(manifest, HEADER)) and (found := find_manifests(manifest)):
        for path in found:
            m = Manifest.open(path)
            print(f"{path}\n    {m.num_rows:,} rows, {m.header['accepted']:,} accepted: {m.stop.row}")
        return 0
    m = Manifest.open(manifest)
    print(f"{m.name}\n  one row is      {m.stop.row} (key {m.stop.key})")
    print(f"  rows            {m.num_rows:,} in {len(m.parts)} part(s)\n  accepted        {m.header['accepted']:,}")
    for reason, num in sorted(m.header["drops"].items(), key=lambda item: -item[1]):
        print(f"  dropped {num:>9,}  {clean(reason)}")
    for parent in m.header["parents"]:
        print(f"  parent          {parent}")
    print("  config          " + json.dumps(m.header["config"], ensure_ascii=False))
    print("  versions        " + ", ".join(f"{k} {v}" for k, v in m.header["versions"].items()))
    print("  columns")
    for field in m.schema:
        doc, unit = doc_of(field)
        owner = m.header.get("owners", {}).get(field.name, {})
        by = f"  [{owner['op']}{', ' + str(owner['backend']) if 'backend' in owner else ''}]" if owner else ""
        print(f"    {field.name:<24} {doc}{f' ({unit})' if unit else ''}{by}")
    return 0


def head(manifest: str, /, rows: int = 5, columns: tuple[str, ...] = (), accepted: bool = False) -> int:
    """The first rows, one column a line.

    Args:
        manifest: folder of a manifest.
        rows: how many.
        columns: only these.
        accepted: leave out dropped rows.
    """
    m = Manifest.open(manifest)
    left, width = _positive(rows, "rows"), shutil.get_terminal_size((120, 20)).columns
    for batch in m.batches(list(dict.fromkeys([*columns, "drop_reason"])) if columns else None):
        if accepted:
            batch = batch.filter(pc.is_null(batch["drop_reason"]))
        for row in batch.slice(0, left).to_pylist():
            print("-" * min(width, 80))
            for name, value in row.items():
                print(f"{name:<24} {clean(_short(value))[: max(width - 25, 40)]}")
        left -= min(left, batch.num_rows)
        if not left:
            break
    return 0


def stats(manifest: str, /, columns: tuple[str, ...] = (), all_rows: bool = False) -> int:
    """Distribution of every number and flag: count, nulls, least, quartiles, most.

    Args:
        manifest: folder of a manifest.
        columns: only these.
        all_rows: dropped rows too, not only accepted ones.
    """
    m = Manifest.open(manifest)
    where = None if all_rows else pc.is_null(pc.field("drop_reason"))
    fields = [f for f in m.schema if (not columns or f.name in columns) and _is_number(f.type)]
    if unknown := [c for c in columns if c not in m.schema.names]:
        raise ManifestError(f"{m.path} has no column {unknown[0]!r}; it has {', '.join(m.schema.names)}")
    print(f"{'column':<26}{'rows':>9}{'null':>8}{'min':>11}{'25 %':>11}{'median':>11}{'75 %':>11}{'max':>11}  unit")
    for field in fields:
        values = m.table([field.name], where)[field.name]
        numbers = values.drop_null().cast(pa.float64()).to_numpy()
        numbers = numbers[~np.isnan(numbers)]
        marks = np.percentile(numbers, [0, 25, 50, 75, 100]) if len(numbers) else []
        cells = "".join(f"{x:>11.4g}" for x in marks) or f"{'no values':>55}"
        print(f"{field.name:<26}{len(values):>9,}{len(values) - len(numbers):>8,}{cells}  {doc_of(field)[1]}")
    return 0


def drops(manifest: str, /, examples: int = 3, reason: str = "") -> int:
    """Why rows were dropped, with examples for each reason.

    Args:
        manifest: folder of a manifest.
        examples: rows to show for each reason.
        reason: only this reason.
    """
    m = Manifest.open(manifest)
    reasons = {r: n for r, n in m.header["drops"].items() if not reason or r == reason}
    if reason and not reasons:
        raise ConfigError(f"no row of {m.name} was dropped for {reason!r}; reasons: {', '.join(m.header['drops'])}")
    if not reasons:
        print(f"no row of {m.name} was dropped")
    names = [m.stop.key, *[n for n in ("relative_path", "source_path", "path", "start_s", "end_s", "source_start_s",
                                       "target_start_s", "video_similarity", "issues") if n in m.schema.names]]
    for why, num in sorted(reasons.items(), key=lambda item: -item[1]):
        print(f"{num:>9,}  {clean(why)}")
        rows = m.table(names, pc.field("drop_reason") == why).slice(0, examples).to_pylist()
        for row in rows:
            print(f"{'':>11}" + "  ".join(f"{k}={clean(_short(v))}" for k, v in row.items() if v not in (None, [])))
        if rows:
            print(f"{'':>11}more about a row: bernini why {m.path} {rows[0][m.stop.key]}")
    return 0


def account(manifest: str, /, output: str = "") -> int:
    """Item by item: accepted, rejected (reason), failed (reason, attempts), pending.

    Args:
        manifest: folder of a manifest, finished or not.
        output: write the table to this .parquet or .csv file too.
    """
    table = account_table(manifest)
    counts: dict[tuple, int] = {}
    for state, reason in zip(table["state"].to_pylist(), table["reason"].to_pylist(), strict=True):
        counts[state, reason or ""] = counts.get((state, reason or ""), 0) + 1
    for (state, reason), num in sorted(counts.items(), key=lambda item: (item[0][0], -item[1])):
        print(f"{num:>9,}  {state:<9} {clean(reason)}")
    print(f"{table.num_rows:>9,}  in all")
    if output:
        write_table(table, output)
    return 0


def account_table(path: str) -> pa.Table:
    """Columns key, state, reason, num_attempts for every row of a finished or unfinished manifest."""
    folder = path.rstrip("/")
    if storage.exists(storage.join(folder, HEADER)):
        m = Manifest.open(folder)
        names = [m.stop.key, "drop_reason", "num_attempts"]
        tables = [m.table(names).rename_columns(["key", "reason", "num_attempts"])]
    else:
        tables = list(_unfinished(folder))
    table = pa.concat_tables(tables)
    failed = pc.fill_null(pc.starts_with(table["reason"], FAILED), False)
    state = pc.if_else(pc.is_null(table["reason"]), "accepted", pc.if_else(failed, "failed", "rejected"))
    state = pc.if_else(pc.equal(pc.fill_null(table["reason"], ""), "pending"), "pending", state)
    reason = pc.if_else(pc.equal(state, "pending"), None, table["reason"])
    return pa.table({"key": table["key"], "state": state, "reason": reason, "num_attempts": table["num_attempts"]})


def _unfinished(folder: str):
    """Settled rows from the ledger's blocks, pending ones from the list of source keys."""
    work = storage.join(folder, "work")
    names = [n for n, _ in storage.list_files(work) if n.endswith(".parquet")]
    if "source-keys.parquet" not in names:
        Manifest.open(folder)  # says that it is no manifest
    settled: list[str] = []
    for name in names:
        filesystem, inner = storage.resolve(storage.join(work, name))
        table = pq.read_table(inner, filesystem=filesystem, partitioning=None)
        if name == "source-keys.parquet":
            source = table["key"]
            continue
        key = table.column_names[0]
        settled += table[key].to_pylist()
        yield table.select([key, "drop_reason", "num_attempts"]).rename_columns(["key", "reason", "num_attempts"]) \
            .replace_schema_metadata(None)
    left = source.filter(pc.invert(pc.is_in(source, value_set=pa.array(settled, pa.string()))))
    yield pa.table({"key": left, "reason": pa.array(["pending"] * len(left), pa.string()),
                    "num_attempts": pa.nulls(len(left), pa.int32())})


def validate(manifest: str, /) -> int:
    """Check parts, schema, keys, counts and the checksums of features; exit code 1 and one line for each problem.

    Args:
        manifest: folder of a manifest.
    """
    m = Manifest.open(manifest)
    problems = m.validate()
    if m.stop.name == "latents" and not problems:
        problems = broken_features(m)
    for problem in problems:
        print(f"{m.path}: {problem}")
    if not problems:
        print(f"{m.name}: {m.num_rows:,} rows, all parts, keys and counts agree")
    return 1 if problems else 0


def write_table(table: pa.Table, output: str) -> None:
    from pyarrow import csv

    writers = {".parquet": pq.write_table, ".csv": csv.write_csv}
    ending = output[output.rfind(".") :].lower()
    if ending not in writers:
        raise ConfigError(f"cannot write {output}: its name must end in {' or '.join(writers)}")
    with storage.atomic_output(output) as stream:
        writers[ending](table, stream)
    print(f"wrote {output}")


def clean(text: str) -> str:
    """Text from files and models without control characters that could steer a terminal."""
    return "".join(c if c.isprintable() else "�" for c in text.replace("\n", " "))


def _is_number(type: pa.DataType) -> bool:
    return pa.types.is_integer(type) or pa.types.is_floating(type) or pa.types.is_boolean(type)


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list) and len(value) > 12:
        return f"[{', '.join(_short(v) for v in value[:6])}, … {len(value)} values]"
    if isinstance(value, list):
        return f"[{', '.join(_short(v) for v in value)}]"
    return str(value)


def _positive(value: int, name: str) -> int:
    if value < 1:
        raise ConfigError(f"{name} is {value}; it must be at least 1")
    return value
