"""The files of the released trainer: Parquet by task, data set and modality, and its `data.yaml`."""

from __future__ import annotations

import json
import posixpath
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack

import pyarrow as pa
import pyarrow.parquet as pq

from . import storage
from .ids import digest

SETTINGS = {"level": "sample", "stopping_strategy": "never_exhausted", "upstream_sharded": False}


class Shards:
    """The Parquet files, each of one task, data set and modality; they appear when all is written."""

    def __init__(self, output: str, schema: pa.Schema, stack: ExitStack, *, rows_at_once: int = 512):
        self._output, self._schema, self._stack, self._rows_at_once = output, schema, stack, rows_at_once
        self._writers: dict[tuple, pq.ParquetWriter] = {}
        self._waiting: dict[tuple, list[dict]] = {}
        self._files: dict[tuple, str] = {}
        self._weights: Counter = Counter()
        self._rows: Counter = Counter()

    @property
    def num_rows(self) -> int:
        return sum(self._rows.values())

    def add(self, row: Mapping, released: dict) -> dict:
        """Hand a row to its file; `{"file", "row"}` say where it will be."""
        modality = "+".join(k for k in ("images", "videos") if released[k])
        key = (row["task"], row["source_name"], modality)
        if key not in self._writers:
            self._open(key)
        place = {"file": posixpath.basename(self._files[key]), "row": self._rows[key]}
        self._rows[key] += 1
        self._weights[key] += row["weight"]
        self._waiting[key].append(released)
        if len(self._waiting[key]) >= self._rows_at_once:
            self._write(key)
        return place

    def _open(self, key: tuple) -> None:
        name = "-".join("".join(c if c.isalnum() or c in "._-" else "_" for c in word) for word in key)
        self._files[key] = storage.join(self._output, f"{name}-{digest(key, length=4)}.parquet")
        stream = self._stack.enter_context(storage.atomic_output(self._files[key]))
        self._writers[key] = self._stack.enter_context(pq.ParquetWriter(stream, self._schema))
        self._waiting[key] = []

    def _write(self, key: tuple) -> None:
        self._writers[key].write_table(pa.Table.from_pylist(self._waiting[key], self._schema))
        self._waiting[key] = []

    def flush(self) -> None:
        for key in self._waiting:
            if self._waiting[key]:
                self._write(key)

    def write_config(self) -> None:
        """`data.yaml` of the trainer: one source a file, weighted by the samples' weights."""
        total, keys = sum(self._weights.values()) or 1.0, sorted(self._files)
        files = [storage.absolute(self._files[k]) for k in keys]
        config = {"sources": files, "names": [f"{task}${source}" for task, source, _ in keys], **SETTINGS,
                  "schedule": [{"schedule_type": "const", "weights": [self._weights[k] / total for k in keys]}]}
        storage.write_bytes(storage.join(self._output, "data.yaml"), json.dumps(config, indent=1).encode())  # is YAML
