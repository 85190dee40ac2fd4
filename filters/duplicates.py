"""Near-duplicates among all rows of a corpus: who belongs together, and who is kept.

Rows are compared by one or more criteria: the perceptual hash (`picture_hash`, encoded or
resized copies) or any embedding column (`video_embedding`, `frame_embedding`; cropped and
shifted copies). Neighbours come from a vector index, are checked by exact cosines and joined
to connected components. A component may be a chain whose ends are not alike, so it is parted:
its best row is kept and takes only the rows that are themselves alike to it; what is left is
parted again. Every duplicate is therefore alike to the row that stands for it.

Memory: rows of vectors lie in a file; held are the index (a byte a dimension and row) and a few
numbers a row. Sentences about it are measured in benchmarks/results/curation.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.columns import column
from manifests.errors import ConfigError

HASH = "picture_hash"
CHECKED = 20_000        # pairs whose exact cosines are taken at once
NUM_NEIGHBOURS = 16     # a larger group is still found: its rows are linked through each other
# What the hash finds is measured in picture_hash.py. Of 105 copies of 21 clips of the sample film (encoded again at crf
# 36, halved, begun 0.3 s later, brightened, cut by 4 % on each side) it and the embedding together found 104; of the
# 210 pairs of clips one was marked: two shots of one photograph.
DEFAULTS = {HASH: 0.88, "video_embedding": 0.96, "frame_embedding": 0.97}
COLUMNS = (
    column("duplicate_group", pa.string(), "key of the row that stands for the group; null = nothing is alike"),
    column("duplicate_of", pa.string(), "key of the kept row that this one repeats; null = kept"),
    column("duplicate_similarity", pa.float32(), "similarity to the kept row; null = kept", "0 to 1"),
    column("duplicate_by", pa.string(), "column by which it was found; null = kept"),
)


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """Rows are alike when `column` agrees by `min_similarity`: share of equal bits, or cosine."""

    column: str
    min_similarity: float

    def __post_init__(self):
        if not 0.5 < self.min_similarity <= 1.0:
            raise ConfigError(f"the similarity of {self.column} is {self.min_similarity:g}; it must lie above 0.5 "
                              "and at most at 1")

    @classmethod
    def parse(cls, text: str) -> Criterion:
        """"COLUMN=SIMILARITY", or a column with a default."""
        name, _, value = text.partition("=")
        known = next((value for column, value in DEFAULTS.items() if name.endswith(column)), None)
        if not value and known is None:
            raise ConfigError(f"--by {text} needs a similarity, e.g. --by {name}=0.97; defaults are known for "
                              f"{', '.join(DEFAULTS)}")
        try:
            return cls(column=name, min_similarity=float(value) if value else known)
        except ValueError:
            raise ConfigError(f"--by {text}: {value!r} is no number") from None

    @property
    def is_hash(self) -> bool:
        """Columns of pairs and samples have their side before the name: target_picture_hash."""
        return self.column.endswith(HASH)

    @property
    def min_cosine(self) -> float:
        return 2 * self.min_similarity - 1 if self.is_hash else self.min_similarity

    def similarity(self, cosine: np.ndarray) -> np.ndarray:
        return (1 + cosine) / 2 if self.is_hash else cosine

    def check(self, kind: pa.DataType) -> None:
        """`ConfigError` where a column of this type cannot be compared."""
        is_vector = (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
                     ) and pa.types.is_floating(kind.value_type)
        if not (pa.types.is_string(kind) if self.is_hash else is_vector):
            raise ConfigError(f"--by {self.column}: the column holds {kind}; compared are vectors of floats, and "
                              f"hashes in columns whose name ends in {HASH}")


class Vectors:
    """Vectors in a file: appended once, then read by range or by row, of unit length. float16."""

    def __init__(self, path: str, criterion: Criterion):
        self.criterion, self._path, self._file = criterion, path, open(path, "wb")
        self.dim = 0
        self._rows: list[np.ndarray] = []  # row number of each stored vector
        self._seen = 0

    def append(self, values: pa.ChunkedArray | pa.Array) -> None:
        """One value a row: hex digits or a list of numbers. Null is never alike to anything."""
        values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
        valid = values.is_valid().to_numpy(zero_copy_only=False)
        vectors = self._bits(values.drop_null()) if self.criterion.is_hash else self._floats(values.drop_null())
        self._rows.append(self._seen + np.flatnonzero(valid).astype(np.int64))
        self._seen += len(values)
        if len(vectors):
            if self.dim and vectors.shape[1] != self.dim:
                raise self._mixed(self.dim, vectors.shape[1])
            self.dim = vectors.shape[1]
            self._file.write(vectors.astype(np.float16).tobytes())

    def _mixed(self, *dims: int) -> ConfigError:
        first, second = sorted(dims)
        if self.criterion.is_hash:
            return ConfigError(f"{self.criterion.column} has hashes of {first} and of {second} bits, which were made "
                               "by different versions and cannot be compared: measure them all again with "
                               "`bernini measure MANIFEST --filters picture_hash`")
        return ConfigError(f"{self.criterion.column} has vectors of {first} and of {second} numbers: they come from "
                           "different models and cannot be compared")

    def _bits(self, values: pa.Array) -> np.ndarray:
        """Hex digits as `(N, bits)` of +-1; `read` and `take` give them unit length."""
        if not len(values):
            return np.empty((0, 0), np.float32)
        try:
            raw = [np.frombuffer(bytes.fromhex(text), np.uint8) for text in values.to_pylist()]
            if not all(map(len, raw)):
                raise ValueError("an empty hash")
        except ValueError:
            raise ConfigError(f"{self.criterion.column} holds words that are no hashes, e.g. "
                              f"{values[0].as_py()[:40]!r}: hashes are written in hex digits") from None
        if len(lengths := sorted({len(digits) for digits in raw})) > 1:
            raise self._mixed(*(8 * n for n in lengths[:2]))
        return np.unpackbits(np.stack(raw), axis=1).astype(np.float32) * 2 - 1

    def _floats(self, values: pa.Array) -> np.ndarray:
        if not len(values):
            return np.empty((0, 0), np.float32)
        if len(pc.unique(pc.list_value_length(values))) > 1:
            raise ConfigError(f"{self.criterion.column} has lists of different lengths: it holds no vectors that could "
                              "be compared")
        flat = values.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
        vectors = flat.reshape(len(values), -1)
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)

    def close(self) -> None:
        """Ends the writing; from here on vectors are read."""
        self._file.close()
        self.rows = np.concatenate(self._rows) if self._rows else np.empty(0, np.int64)
        self._rows = []
        self.place = np.full(self._seen, -1, np.int32)  # row number -> vector
        self.place[self.rows] = np.arange(len(self.rows), dtype=np.int32)

    def read(self, start: int, stop: int) -> np.ndarray:
        data = np.fromfile(self._path, np.float16, (stop - start) * self.dim, offset=start * self.dim * 2)
        return data.reshape(-1, self.dim).astype(np.float32) * self._scale

    def take(self, places: np.ndarray) -> np.ndarray:
        """`(N, dim)` float32 of single vectors; the mapping is dropped at once, so that no pages pile up."""
        stored = np.memmap(self._path, np.float16, "r", shape=(len(self.rows), self.dim))
        return np.asarray(stored[places], np.float32) * self._scale

    @property
    def _scale(self) -> np.float32:
        """Bits lie as +-1: the cosine of two hashes is 1 - 2 * (differing bits) / (bits), exactly."""
        return np.float32(self.dim ** -0.5 if self.criterion.is_hash else 1)


def link(vectors: Vectors) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields `(i, j)` row numbers that are alike by exact cosine, each pair at least once."""
    from .backends.vector_index import neighbours

    if len(vectors.rows) < 2:
        return
    limit = vectors.criterion.min_cosine
    for first, second in neighbours(vectors.read, len(vectors.rows), vectors.dim, num_neighbours=NUM_NEIGHBOURS,
                                    min_cosine=limit):
        for start in range(0, len(first), CHECKED):
            i, j = first[start : start + CHECKED], second[start : start + CHECKED]
            good = np.einsum("nd,nd->n", vectors.take(i), vectors.take(j)) >= limit - 1e-3
            yield vectors.rows[i[good]], vectors.rows[j[good]]


class Components:
    """Union-find over row numbers; only rows that are linked take memory beside one integer a row."""

    def __init__(self, num: int):
        self._parent = np.arange(num, dtype=np.int32)

    def join(self, first: np.ndarray, second: np.ndarray) -> None:
        parent = self._parent
        for i, j in zip(first.tolist(), second.tolist(), strict=True):
            i, j = self._root(i), self._root(j)
            if i != j:
                parent[max(i, j)] = min(i, j)

    def _root(self, i: int) -> int:
        parent = self._parent
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = int(parent[i])
        return i

    def groups(self) -> Iterator[np.ndarray]:
        """Row numbers of each component of more than one row."""
        for _ in range(64):  # pointer jumping: roots of all rows at once
            jumped = self._parent[self._parent]
            if np.array_equal(jumped, self._parent):
                break
            self._parent = jumped
        order = np.argsort(self._parent, kind="stable")
        roots = self._parent[order]
        starts = np.flatnonzero(np.r_[True, roots[1:] != roots[:-1]])
        for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
            if stop - start > 1:
                yield order[start:stop]


@dataclass
class Duplicates:
    """For each row: number of the kept row (itself where it is kept), similarity to it, criterion (-1 = none)."""

    kept: np.ndarray
    similarity: np.ndarray
    by: np.ndarray

    @property
    def grouped(self) -> np.ndarray:
        """Rows that are duplicates or have some."""
        mask = self.by >= 0
        mask[self.kept[mask]] = True
        return mask


def find_duplicates(vectors: Sequence[Vectors], rank: np.ndarray) -> Duplicates:
    """`rank` `(N,)`: 0 for the best row; of rows that are alike the one with the lowest is kept."""
    components = Components(len(rank))
    for stored in vectors:
        for first, second in link(stored):
            components.join(first, second)
    found = Duplicates(np.arange(len(rank), dtype=np.int64), np.full(len(rank), np.nan, np.float32),
                       np.full(len(rank), -1, np.int8))
    for members in components.groups():
        _part(members[np.argsort(rank[members], kind="stable")], vectors, found)
    return found


def _part(members: np.ndarray, vectors: Sequence[Vectors], found: Duplicates) -> None:
    """Give each row of a component to the best row that it is alike to itself."""
    loaded = [_load(stored, members) for stored in vectors]
    waiting = np.arange(len(members))
    while len(waiting) > 1:
        best, rest = waiting[0], waiting[1:]
        excess, similar, by = np.full(len(rest), -np.inf), np.zeros(len(rest)), np.full(len(rest), -1)
        for n, (stored, (data, valid)) in enumerate(zip(vectors, loaded, strict=True)):
            cosine = np.where(valid[rest] & valid[best], data[rest] @ data[best], -np.inf)
            over = (cosine - stored.criterion.min_cosine) / (1 - stored.criterion.min_cosine + 1e-6)
            better = over > excess
            excess = np.where(better, over, excess)
            similar = np.where(better, stored.criterion.similarity(cosine), similar)
            by = np.where(better, n, by)
        alike = excess >= -1e-2
        rows = members[rest[alike]]
        found.kept[rows], found.by[rows] = members[best], by[alike]
        found.similarity[rows] = np.minimum(similar[alike], 1.0)
        waiting = rest[~alike]


def _load(stored: Vectors, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    place = stored.place[members]
    valid = place >= 0
    data = np.zeros((len(members), max(1, stored.dim)), np.float32)
    if valid.any():
        data[valid] = stored.take(place[valid])
    return data, valid


def quality_rank(qualities: Sequence[np.ndarray], keys: np.ndarray) -> np.ndarray:
    """`(N,)` int64, 0 = best. `qualities` most important first, higher is better; null (nan) is worst."""
    columns = [keys, *(-np.nan_to_num(q, nan=-np.inf) for q in reversed(qualities))]
    order = np.lexsort(columns)
    rank = np.empty(len(keys), np.int64)
    rank[order] = np.arange(len(keys))
    return rank


def scratch(folder: str, criteria: Sequence[Criterion]) -> list[Vectors]:
    return [Vectors(os.path.join(folder, f"{n}.f16"), c) for n, c in enumerate(criteria)]
