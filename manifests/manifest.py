"""A manifest: a folder of `part-*.parquet` files and a `manifest.json` that is written last.

Without `manifest.json` a folder is unfinished and not trusted. With it, the folder never
changes again. Both hold no times and no host names, so that equal inputs give equal bytes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from . import storage
from .columns import DROP_REASON, doc_of
from .errors import ManifestError
from .media_paths import to_absolute, to_relative
from .schema import SCHEMA_VERSION, STOPS, Stop

HEADER = "manifest.json"
ROWS_PER_GROUP = 16_384   # bounds what a streaming reader holds
GROUPS_PER_PART = 16      # 262,144 rows a part


@dataclass(frozen=True)
class Manifest:
    """A finished table on disk. Open it with `Manifest.open(path)`."""

    path: str
    header: dict

    @classmethod
    def open(cls, path) -> Manifest:
        path = _folder(str(path))
        file = storage.join(path, HEADER)
        if not storage.exists(file):
            raise ManifestError(f"{path} has no {HEADER}: it is not a manifest, or its run has not finished"
                                f"{_manifests_below(path)}")
        try:
            header = json.loads(storage.read_bytes(file))
        except ValueError as error:
            raise ManifestError(f"{file} is not JSON ({error}); run the pipeline again") from None
        version = header.get("schema_version") if isinstance(header, dict) else None
        if version != SCHEMA_VERSION:
            raise ManifestError(f"{file} has schema version {version}, this code reads version "
                                f"{SCHEMA_VERSION}: use the matching release, or run the pipeline again")
        if header.get("stop") not in STOPS:
            raise ManifestError(f"{file} names the stop {header.get('stop')!r}; known: {', '.join(STOPS)}")
        return cls(path, header)

    @property
    def stop(self) -> Stop:
        return STOPS[self.header["stop"]]

    @property
    def name(self) -> str:
        return f"{self.header['stop']}/{self.path.rstrip('/').rsplit('/', 1)[-1]}"

    @property
    def num_rows(self) -> int:
        return self.header["rows"]

    @property
    def parts(self) -> list[str]:
        return [storage.join(self.path, part["file"]) for part in self.header["parts"]]

    @property
    def schema(self) -> pa.Schema:
        for part in self.parts:
            filesystem, inner = storage.resolve(part)
            return pq.read_schema(inner, filesystem=filesystem).remove_metadata()
        return self.stop.schema

    def table(self, columns: Sequence[str] | None = None, where: pc.Expression | None = None) -> pa.Table:
        """The rows as one table, all columns or the named ones, filtered by an Arrow expression."""
        self._check_columns(columns)
        reads = None if where is None else self.schema.names
        tables = []
        for part in self.parts:
            filesystem, inner = storage.resolve(part)
            table = pq.read_table(inner, columns=reads or columns, filesystem=filesystem, partitioning=None)
            table = to_absolute(table, self.path)
            if where is not None:
                table = table.filter(where)
                table = table if columns is None else table.select(list(columns))
            tables.append(table.replace_schema_metadata(None))
        schema = self.schema if columns is None else pa.schema([self.schema.field(c) for c in columns])
        return pa.concat_tables(tables) if tables else schema.empty_table()

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The rows in order, one row group at a time."""
        self._check_columns(columns)
        for part in self.parts:
            filesystem, inner = storage.resolve(part)
            with pq.ParquetFile(inner, filesystem=filesystem) as file:
                for i in range(file.num_row_groups):
                    group = file.read_row_group(i, columns=columns).replace_schema_metadata(None)
                    yield to_absolute(group, self.path)

    def validate(self) -> list[str]:
        """Problems in words; empty when header, parts, schema, key and counts agree."""
        return self._broken_parts() or self._broken_rows()

    def _check_columns(self, columns: Sequence[str] | None) -> None:
        known = self.schema.names if columns else []
        for name in columns or ():
            if name not in known:
                raise ManifestError(f"{self.path} has no column {name!r}; it has {', '.join(known)}")

    def _broken_parts(self) -> list[str]:
        problems = []
        sizes = dict(storage.list_files(self.path))
        for part in self.header["parts"]:
            size = sizes.get(part["file"])
            if size is None:
                problems.append(f"{part['file']} is missing")
            elif size != part["bytes"]:
                problems.append(f"{part['file']} has {size} bytes, {HEADER} says {part['bytes']}")
        return problems

    def _broken_rows(self) -> list[str]:
        problems = []
        missing = [f.name for f in self.stop.schema if f.name not in self.schema.names]
        if missing:
            return [f"columns missing for the stop {self.stop.name}: {', '.join(missing)}"]
        keys = self.table([self.stop.key])[self.stop.key]
        if keys.null_count:
            problems.append(f"{keys.null_count} rows have no {self.stop.key}")
        if repeated := len(keys) - pc.count_distinct(keys, mode="all").as_py():
            problems.append(f"{repeated} rows repeat a {self.stop.key}")
        drops = count_drops(self.table(["drop_reason"])["drop_reason"])
        if len(keys) != self.num_rows or drops != self.header["drops"]:
            problems.append(f"{HEADER} counts {self.num_rows} rows and drops {self.header['drops']}; "
                            f"the parts hold {len(keys)} rows and drops {drops}")
        return problems


class ManifestWriter:
    """Writes rows in order; part and row-group borders depend on the rows alone.

    >>> with ManifestWriter(path, STOPS["pairs"], schema) as writer:   # doctest: +SKIP
    ...     writer.append(table)
    ... manifest = writer.commit(parents=[], config={}, versions={})
    """

    def __init__(self, path: str, stop: Stop, schema: pa.Schema):
        missing = [f.name for f in stop.schema if f.name not in schema.names]
        if missing:
            raise ManifestError(f"a {stop.name} table needs the columns {', '.join(missing)}")
        self.path, self.stop, self.schema = path, stop, schema
        self._waiting: list[pa.Table] = []
        self._num_waiting = 0
        self._parts: list[dict] = []
        self._drops: Counter = Counter()
        self._open = None  # (context of the atomic output, its stream, ParquetWriter, groups written)

    def __enter__(self) -> ManifestWriter:
        return self

    def __exit__(self, *error) -> None:
        if error[0] is not None and self._open:
            context, _, writer, _ = self._open
            self._open = None
            with suppress(OSError):  # a full disk cannot take the footer either
                writer.close()
            context.__exit__(*error)

    def append(self, table: pa.Table) -> None:
        table = table.select(self.schema.names).cast(self.schema)
        self._drops.update(count_drops(table["drop_reason"]))
        self._waiting.append(table)
        self._num_waiting += table.num_rows
        while self._num_waiting >= ROWS_PER_GROUP:
            self._write_group(ROWS_PER_GROUP)

    def commit(self, **header: object) -> Manifest:
        if self._num_waiting or not self._parts:  # an empty table still has a part: it holds the schema
            self._waiting = self._waiting or [self.schema.empty_table()]
            self._write_group(self._num_waiting)
        self._close_part()
        full = {
            "stop": self.stop.name,
            "schema_version": SCHEMA_VERSION,
            "rows": sum(p["rows"] for p in self._parts),
            "accepted": sum(p["rows"] for p in self._parts) - sum(self._drops.values()),
            "drops": dict(sorted(self._drops.items())),
            **header,
            "parts": self._parts,
            "columns": {f.name: _describe(f) for f in self.schema},
        }
        storage.write_bytes(storage.join(self.path, HEADER), json.dumps(full, indent=1, ensure_ascii=False).encode())
        return Manifest.open(self.path)

    def _write_group(self, num_rows: int) -> None:
        waiting = pa.concat_tables(self._waiting)
        self._waiting = [waiting.slice(num_rows)]
        self._num_waiting -= num_rows
        if self._open is None:
            name = f"part-{len(self._parts):05d}.parquet"
            context = storage.atomic_output(storage.join(self.path, name))
            stream = context.__enter__()
            writer = pq.ParquetWriter(stream, self.schema, compression="snappy", use_dictionary=self._repeating())
            self._open = [context, stream, writer, 0]
            self._parts.append({"file": name, "rows": 0, "bytes": 0})
        group = waiting.slice(0, num_rows).combine_chunks()
        self._open[2].write_table(to_relative(group, self.path))
        self._parts[-1]["rows"] += num_rows
        self._open[3] += 1
        if self._open[3] == GROUPS_PER_PART:
            self._close_part()

    def _repeating(self) -> list[str]:
        """Columns worth a dictionary: text that comes again. Numbers and the key do not, and trying costs time."""
        texts = [f.name for f in self.schema if pa.types.is_string(f.type) and f.name != self.stop.key]
        return [*texts, "issues.list.element"]

    def _close_part(self) -> None:
        if self._open is None:
            return
        context, stream, writer, _ = self._open
        writer.close()
        self._parts[-1]["bytes"] = stream.tell()
        context.__exit__(None, None, None)
        self._open = None


def count_drops(reasons: pa.ChunkedArray) -> dict[str, int]:
    """How often each drop reason stands in the column; accepted rows (null) are not counted."""
    counts = pc.value_counts(reasons.drop_null())
    return dict(sorted((c["values"].as_py(), c["counts"].as_py()) for c in counts))


def live(table: pa.Table) -> pa.Table:
    """The rows that no rule has dropped."""
    return table.filter(pc.is_null(table[DROP_REASON.name]))


def find_manifests(root: str) -> list[str]:
    """Folders `<stop>/<name>` below an output root that hold a finished manifest."""
    found = []
    for stop in STOPS:
        folder = storage.join(root, stop)
        for name in storage.list_folders(folder):
            path = storage.join(folder, name)
            if storage.exists(storage.join(path, HEADER)):
                found.append(path)
    return found


def _folder(path: str) -> str:
    path = path.rstrip("/") or path
    return path[: -len(HEADER)].rstrip("/") if path.endswith(f"/{HEADER}") else path


def _manifests_below(path: str) -> str:
    here = [storage.join(path, n) for n in storage.list_folders(path)]
    found = [p for p in here if storage.exists(storage.join(p, HEADER))] or find_manifests(path)
    return "; name one of: " + ", ".join(found[:8]) if found else ""


def _describe(field: pa.Field) -> dict[str, str]:
    doc, unit = doc_of(field)
    return {"type": str(field.type), "doc": doc} | ({"unit": unit} if unit else {})
