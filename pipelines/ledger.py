"""The ledger of an unfinished manifest: which rows are done, which were being worked on.

It lives in `<manifest>/work/`. Each finished block is one Parquet file that names the source
rows it settles in its metadata; rejects and failures are results like others, so a resumed
run does not look at them again. Nothing here outlives the commit.
"""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests import storage
from manifests.columns import FAILED
from manifests.ids import digest
from manifests.manifest import ROWS_PER_GROUP
from manifests.media_paths import to_absolute, to_relative

SETTLED = b"settled"      # metadata key: the source keys that a block settles
SOURCE_KEYS = "source-keys.parquet"  # what is to be done in all: makes "pending" countable
FILES_BEFORE_MERGE = 256  # small files are put together, so that a resume opens few


class Ledger:
    def __init__(self, folder: str, key: str, schema: pa.Schema):
        self.folder, self.key, self.schema = storage.join(folder, "work"), key, schema
        self._manifest = folder
        self.settled: set[str] = set()
        self.counts: Counter = Counter()   # drop reason (None = accepted) of the rows so far
        self.issue = ""                    # what went wrong with one of the failed rows
        self._blocks: list[tuple[str, list[str]]] = []
        for name, _ in storage.list_files(self.folder):
            if name.endswith(".parquet") and name != SOURCE_KEYS and not name.startswith("."):
                self._load(name)

    def _load(self, name: str) -> None:
        filesystem, inner = storage.resolve(storage.join(self.folder, name))
        with pq.ParquetFile(inner, filesystem=filesystem) as file:
            keys = json.loads(file.schema_arrow.metadata[SETTLED])
            rows = file.read(columns=["drop_reason", "issues"])
        if self.settled.issuperset(keys):  # a merge was interrupted before the small files went
            storage.delete_file(storage.join(self.folder, name))
            return
        self._remember(name, keys, rows)

    def _remember(self, name: str, keys: list[str], rows: pa.Table) -> None:
        self._blocks.append((name, keys))
        self.settled.update(keys)
        self.counts.update(rows["drop_reason"].to_pylist())
        if not self.issue:
            issues = rows.filter(_failed(rows))["issues"].to_pylist()
            self.issue = next((lines[0] for lines in issues if lines), "")

    @property
    def num_failed(self) -> int:
        return sum(n for reason, n in self.counts.items() if (reason or "").startswith(FAILED))

    def expect(self, keys: pa.Array) -> None:
        """Note all source keys, once, before anything is done."""
        path = storage.join(self.folder, SOURCE_KEYS)
        if not storage.exists(path):
            with storage.atomic_output(path) as stream:
                pq.write_table(pa.table({"key": keys}), stream)

    def settle(self, keys: Sequence[str], rows: pa.Table) -> None:
        """Store the rows that came of these source keys. All or nothing."""
        keys = list(keys)
        name = f"{digest(keys)}.parquet"
        self._write(name, keys, rows.select(self.schema.names).cast(self.schema))
        self._remember(name, keys, rows)
        if sum(not n.startswith("0-") for n, _ in self._blocks) >= FILES_BEFORE_MERGE:
            self._merge()

    def _write(self, name: str, keys: list[str], rows: pa.Table) -> None:
        table = to_relative(rows, self._manifest).replace_schema_metadata({SETTLED: json.dumps(keys).encode()})
        with storage.atomic_output(storage.join(self.folder, name)) as stream:
            pq.write_table(table, stream)

    def _merge(self) -> None:
        """Merged files sort before small ones ("0-…"): a reload sees them first."""
        small = [(n, k) for n, k in self._blocks if not n.startswith("0-")]
        keys = [key for _, block in small for key in block]
        name = f"0-{digest(keys)}.parquet"
        self._write(name, keys, pa.concat_tables([self._read(n) for n, _ in small]))
        for old, _ in small:
            storage.delete_file(storage.join(self.folder, old))
        self._blocks = [b for b in self._blocks if b[0].startswith("0-")] + [(name, keys)]

    def _read(self, name: str) -> pa.Table:
        filesystem, inner = storage.resolve(storage.join(self.folder, name))
        rows = pq.read_table(inner, filesystem=filesystem, partitioning=None).cast(self.schema)
        return to_absolute(rows, self._manifest)

    def forget_failures(self) -> int:
        """Take failed rows out, so that they are tried again; returns how many."""
        num, blocks = 0, self._blocks
        self._blocks, self.settled, self.counts, self.issue = [], set(), Counter(), ""
        for name, keys in blocks:
            rows = self._read(name)
            failed = _failed(rows)
            again = set(rows.filter(failed)[self.key].to_pylist())
            if again:
                num += len(again)
                rows = rows.filter(pc.invert(failed))
                storage.delete_file(storage.join(self.folder, name))
                keys = [k for k in keys if k not in again]
                name = f"{'0-' if name.startswith('0-') else ''}{digest(keys)}.parquet"
                self._write(name, keys, rows)
            self._remember(name, keys, rows)
        return num

    def in_order(self, source_keys: pa.Array) -> Iterator[pa.Table]:
        """All rows in the order of the source, a row group at a time; keys alone are held."""
        columns = [self._keys_of(name) for name, _ in self._blocks]
        if not columns:
            return
        offsets = np.cumsum([0, *map(len, columns)])
        rank = pc.index_in(pa.chunked_array(columns), value_set=source_keys)
        order = np.argsort(rank.to_numpy(), kind="stable")
        cache: OrderedDict[int, pa.Table] = OrderedDict()
        for start in range(0, len(order), ROWS_PER_GROUP):
            yield self._gather(order[start : start + ROWS_PER_GROUP], offsets, cache)

    def _gather(self, rows: np.ndarray, offsets: np.ndarray, cache: OrderedDict) -> pa.Table:
        block = np.searchsorted(offsets, rows, side="right") - 1
        tables, places = [], []
        for i in np.unique(block):
            if i not in cache:
                cache[i] = self._read(self._blocks[i][0])
                if len(cache) > 8:
                    cache.popitem(last=False)
            where = np.flatnonzero(block == i)
            tables.append(cache[i].take(pa.array(rows[where] - offsets[i])))
            places.append(where)
        return pa.concat_tables(tables).take(pa.array(np.argsort(np.concatenate(places), kind="stable")))

    def _keys_of(self, name: str) -> pa.Array:
        filesystem, inner = storage.resolve(storage.join(self.folder, name))
        return pq.read_table(inner, columns=[self.key], filesystem=filesystem,
                             partitioning=None)[self.key].combine_chunks()

    # What a local run was doing when it died. Under Ray the driver counts instead.

    def begin(self, keys: Sequence[str]) -> None:
        storage.write_bytes(storage.join(self.folder, "in-flight.json"), json.dumps(list(keys)).encode())

    def suspects(self) -> list[str]:
        """Rows that were being worked on when an earlier driver died."""
        file = storage.join(self.folder, "in-flight.json")
        keys = json.loads(storage.read_bytes(file)) if storage.exists(file) else []
        return [k for k in keys if k not in self.settled]

    def delete(self) -> None:
        storage.delete_folder(self.folder)


def _failed(rows: pa.Table) -> pa.ChunkedArray:
    return pc.fill_null(pc.starts_with(rows["drop_reason"], FAILED), False)
