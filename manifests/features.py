"""Tensors of encoded samples: plain bytes in files that are mapped into memory, named by content.

LATENTS rows say where each tensor lies: file, offset, length, shape, dtype and a CRC-32. The
tensors themselves are little-endian bytes in `*.bin` files of a few dozen samples each, aligned
to 64 bytes. Why not in the table: a Parquet page must be read and unpacked whole, so a random
sample costs its whole row group, and Arrow IPC maps into memory but puts a batch's columns apart,
so that one sample touches many pages and a broken one cannot be told from its neighbours. Bytes
beside an index need one seek a sample, no decoding, no pickle, and any language reads them
(benchmarks/loader.py has the numbers).

Text embeddings lie one file a text, named after the text and the encoder: a prompt that comes
again, here or in a later run, is neither encoded nor stored again.

This module knows numpy only; bfloat16 travels as its 16 bits (`uint16`).
"""

from __future__ import annotations

import hashlib
import mmap
import os
import posixpath
import threading
import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from . import storage
from .errors import ManifestError, MediaError
from .manifest import Manifest, live

ALIGN = 64
DTYPES = {"bfloat16": np.dtype("<u2"), "float32": np.dtype("<f4")}
OPEN_FILES = 256  # mapped at once by one reader; a map costs an address range and a descriptor


@dataclass(frozen=True, kw_only=True)
class Feature:
    """A tensor on its way into a file: `data` are the raw bits as numpy sees them (`DTYPES`)."""

    name: str
    visual: int | None
    data: np.ndarray
    dtype: str = "bfloat16"


def feature_root(manifest_path: str, folder: str) -> str:
    """The folder of features that a manifest's header names, relative to the manifest's own or a URI."""
    if storage.is_uri(folder):
        return folder
    scheme, colon, inner = manifest_path.rpartition("://")
    return scheme + colon + posixpath.normpath(posixpath.join(inner, folder))


def write_features(root: str, rows: Sequence[Sequence[Feature]]) -> list[list[dict]]:
    """Store the features of several samples in one file below `root`; entries of the column `features`, row by row.

    The file is named after its bytes and appears only when whole, so that a repeated run writes nothing new.
    """
    blob, entries = bytearray(), []
    for features in rows:
        entries.append([])
        for feature in features:
            blob.extend(b"\0" * (-len(blob) % ALIGN))
            entries[-1].append(_entry(feature, offset=len(blob)))
            blob.extend(_bytes(feature))
    if not blob:
        return entries
    name = hashlib.blake2b(blob, digest_size=16).hexdigest()
    file = f"{name[:2]}/{name}.bin"
    _write_once(storage.join(root, file), bytes(blob))
    return [[{**entry, "file": file} for entry in row] for row in entries]


def text_file(key: str) -> str:
    """Where the embedding of a text lies below the root; `key` names text and encoder."""
    return f"text/{key[:2]}/{key}.bin"


def write_text(root: str, key: str, feature: Feature) -> dict:
    """Store one text embedding under its key, once; the entry of the column `features`."""
    _write_once(storage.join(root, text_file(key)), _bytes(feature))
    return {**_entry(feature, offset=0), "file": text_file(key)}


def known_text(root: str, key: str, name: str, width: int) -> dict | None:
    """The entry of a text embedding that is stored already, else None."""
    path = storage.join(root, text_file(key))
    if not storage.exists(path):
        return None
    data = np.frombuffer(storage.read_bytes(path), DTYPES["bfloat16"])
    return {**_entry(Feature(name=name, visual=None, data=data.reshape(-1, width)), offset=0), "file": text_file(key)}


def _write_once(path: str, data: bytes) -> None:
    if not storage.exists(path):
        storage.write_bytes(path, data)


def _bytes(feature: Feature) -> bytes:
    return np.ascontiguousarray(feature.data, DTYPES[feature.dtype]).tobytes()


def _entry(feature: Feature, *, offset: int) -> dict:
    data = _bytes(feature)
    return {"name": feature.name, "visual": feature.visual, "file": None, "offset": offset, "num_bytes": len(data),
            "shape": list(feature.data.shape), "dtype": feature.dtype, "crc32": zlib.crc32(data)}


def broken_features(m: Manifest) -> list[str]:
    """Every feature of the accepted rows of a LATENTS manifest that cannot be read whole, in words."""
    reader, problems = FeatureReader(feature_root(m.path, m.header["feature_folder"])), []
    for batch in m.batches(["sample_id", "features", "drop_reason"]):
        for row in live(batch).to_pylist():
            for entry in row["features"]:
                try:
                    reader.read(entry)
                except MediaError as error:
                    problems.append(f"{row['sample_id']}, {entry['name']}: {error}")
    return problems


class FeatureReader:
    """Reads features below `root`. Local files are mapped into memory; threads may share a reader."""

    def __init__(self, root: str, *, verify: bool = True):
        self.root, self.verify = root, verify
        self._maps: OrderedDict[str, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, entry: Mapping[str, object]) -> np.ndarray:
        """A copy of the raw values in their shape. `MediaError` where file, length or checksum is wrong."""
        if entry["dtype"] not in DTYPES:
            raise ManifestError(f"a feature has the dtype {entry['dtype']!r}; known: {', '.join(DTYPES)}")
        raw = self._raw(entry["file"], entry["offset"], entry["num_bytes"])
        if self.verify and zlib.crc32(raw) != entry["crc32"]:
            raise MediaError(f"{storage.join(self.root, entry['file'])} at {entry['offset']}: the checksum is wrong, "
                             "the file was changed or damaged; remove it and the manifest's folder and encode again")
        values = np.frombuffer(raw, DTYPES[entry["dtype"]]).copy()
        try:
            return values.reshape(entry["shape"])
        except ValueError:
            raise MediaError(f"{entry['file']}: {values.size} values do not fit the shape {entry['shape']}") from None

    def _raw(self, file: str, offset: int, num_bytes: int) -> memoryview | bytes:
        path = storage.join(self.root, file)
        if storage.is_uri(path):
            return self._fetch(path, offset, num_bytes)
        mapped = self._mapped(path)
        if offset + num_bytes > len(mapped):
            raise MediaError(f"{path} has {len(mapped)} bytes, a feature ends at {offset + num_bytes}: the file is cut")
        return mapped[offset : offset + num_bytes].data

    def _fetch(self, path: str, offset: int, num_bytes: int) -> bytes:
        filesystem, inner = storage.resolve(path)
        try:
            with filesystem.open_input_file(inner) as stream:
                return stream.read_at(num_bytes, offset)
        except OSError as error:
            raise MediaError(f"cannot read {path}: {error}") from None

    def _mapped(self, path: str) -> np.ndarray:
        with self._lock:
            if path in self._maps:
                self._maps.move_to_end(path)
                return self._maps[path]
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except OSError as error:
                raise MediaError(f"cannot read {path}: {error.strerror}; run `bernini encode` again") from None
            try:
                size = os.fstat(descriptor).st_size
                mapped = mmap.mmap(descriptor, size, access=mmap.ACCESS_READ) if size else b""
            finally:
                os.close(descriptor)
            self._maps[path] = np.frombuffer(mapped, np.uint8)  # unmapped when the last view goes
            if len(self._maps) > OPEN_FILES:
                self._maps.popitem(last=False)
            return self._maps[path]
