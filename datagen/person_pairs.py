"""Which clip shows the person of a target clip elsewhere: retrieval by face, in bounded memory (D8).

Paper section 3.4: for each good target clip a clip of the same identity is retrieved from the same video
or episode, filtered across episodes for diversity.

* Inside a group (a video or an episode) all faces are compared, a block of targets at a time. Of the clips
  that show the same person the one that *looks* least like the target becomes the reference.
* Across groups, persons are told apart by their first face alone (`Identities`): what is held is
  one vector a person, whatever the number of clips. Who appears in many episodes can then be
  capped over all of them.

A table of a million clips is parted into whole groups on disk (`grouped`).
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.columns import ACCOUNT, column, require
from manifests.ids import make_id
from manifests.schema import CANDIDATES, RIGHTS

from .identity import BOX

BLOCK, AGAINST = 1024, 8192  # targets and clips of a group that are compared at once: some 100 MB
ROWS = 2048   # faces that are compared with all known persons at once

PERSON_COLUMNS = (
    column("group_id", pa.string(), "the video or episode in which target and reference lie"),
    column("identity_id", pa.string(), "the same for clips of one person, over all groups; made from a clip's id"),
    column("identity_similarity", pa.float32(), "cosine of the faces of target and reference clip", "-1 to 1"),
    column("video_similarity", pa.float32(), "cosine of the two clips' video embeddings", "-1 to 1"),
    column("num_same_identity", pa.int32(), "other clips of the group that show this person"),
    column("reference_clip_id", pa.string(), "the clip that the reference is taken from"),
    column("reference_video_path", pa.string(), "the film that holds it"),
    column("reference_time_s", pa.float64(), "moment at which its face is seen best", "s"),
    column("reference_face_box", BOX, "that face: x0, y0, x1, y1", "share of frame width and height"),
    column("target_face_box", BOX, "the target's face", "share of frame width and height"),
    column("target_face_time_s", pa.float64(), "moment of the target's face", "s"),
)


@dataclass(frozen=True)
class Matches:
    """One reference for each target, `(n,)` each: its position (-1 = the only clip), cosines, clips of the person."""

    reference: np.ndarray
    identity: np.ndarray
    look: np.ndarray
    num_same: np.ndarray


def match_group(faces: np.ndarray, looks: np.ndarray, *, min_identity: float) -> Matches:
    """`faces` `(n, D)` and `looks` `(n, E)` float32 of unit length, one row a clip.

    Among the clips with a face cosine of at least `min_identity` the reference is the one with the lowest
    look cosine; where there is none, the one with the most alike face (a rule drops it, with its number).
    """
    if len(faces) == 1:
        nothing = np.full(1, -2.0, np.float32)
        return Matches(np.full(1, -1), nothing, nothing, np.zeros(1, np.int32))
    parts = [_match_block(faces, looks, start, min_identity) for start in range(0, len(faces), BLOCK)]
    return Matches(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _match_block(faces: np.ndarray, looks: np.ndarray, start: int, min_identity: float) -> tuple:
    """The four columns of `Matches` for `BLOCK` targets, compared with `AGAINST` clips at a time."""
    rows = np.arange(start, min(start + BLOCK, len(faces)))
    own, num = np.arange(len(rows)), np.zeros(len(rows), np.int32)
    least, unlike = np.full(len(rows), 3.0, np.float32), np.full(len(rows), -1)   # of the same person: the look
    most, nearest = np.full(len(rows), -3.0, np.float32), np.full(len(rows), -1)  # of anybody: the face
    for first in range(0, len(faces), AGAINST):
        part = slice(first, first + AGAINST)
        alike, look = faces[rows] @ faces[part].T, looks[rows] @ looks[part].T
        here = (rows >= first) & (rows < first + AGAINST)
        alike[own[here], rows[here] - first] = -2.0  # a clip is no reference for itself
        same = alike >= min_identity
        num += same.sum(axis=1, dtype=np.int32)
        look = np.where(same, look, 3.0)
        best, near = look.argmin(axis=1), alike.argmax(axis=1)
        better, nearer = look[own, best] < least, alike[own, near] > most
        least[better], unlike[better] = look[own, best][better], first + best[better]
        most[nearer], nearest[nearer] = alike[own, near][nearer], first + near[nearer]
    chosen = np.where(num > 0, unlike, nearest)
    return chosen, _cosines(faces, rows, chosen), _cosines(looks, rows, chosen), num


def _cosines(vectors: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("nd,nd->n", vectors[a], vectors[b])


class Identities:
    """Numbers for persons: a face belongs to the first known person it is like enough, else it is a new one.

    Held: one float16 vector a person. At most `ROWS` faces are compared with `block` persons at a time.
    """

    def __init__(self, min_identity: float, *, block: int = 16_384):
        self.min_identity, self.block, self.num = min_identity, block, 0
        self._known: list[np.ndarray] = []  # arrays (block, D) float16, the last one partly filled

    def assign(self, faces: np.ndarray) -> np.ndarray:
        """`(n,)` int64 person numbers of `(n, D)` float32 faces, in order."""
        parts = [self._assign(faces[start : start + ROWS]) for start in range(0, len(faces), ROWS)]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def _assign(self, faces: np.ndarray) -> np.ndarray:
        found = np.full(len(faces), -1, np.int64)
        for number, known in enumerate(self._known):
            filled = min(self.num - number * self.block, self.block)
            todo = np.flatnonzero(found < 0)
            alike = faces[todo] @ known[:filled].astype(np.float32).T
            best = alike.argmax(axis=1)
            like = alike[np.arange(len(todo)), best] >= self.min_identity
            found[todo[like]] = number * self.block + best[like]
        new = np.flatnonzero(found < 0)
        alike = faces[new] @ faces[new].T >= self.min_identity
        for i, row in enumerate(new):
            if found[row] < 0:
                later = new[i:]
                found[later[alike[i, i:] & (found[later] < 0)]] = self.num
                self._keep(faces[row])
        return found

    def _keep(self, face: np.ndarray) -> None:
        if self.num % self.block == 0:
            self._known.append(np.empty((self.block, len(face)), np.float16))
        self._known[-1][self.num % self.block] = face
        self.num += 1


def grouped(batches: Iterable[pa.Table], group: str, *, buckets: int = 64, folder: str | None = None,
            ) -> Iterator[pa.Table]:
    """Tables of whole groups of the rows of `batches`, however they lie: one of `buckets` files at a time.

    Rows are parted by a hash of their group and sorted by it; rows of a group keep their order.
    """
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        writers: dict[int, pa.ipc.RecordBatchFileWriter] = {}
        for batch in batches:
            bucket = np.array([_bucket(name, buckets) for name in batch[group].to_pylist()], np.int64)
            for number in np.unique(bucket):
                path = str(Path(temporary) / f"{number:05d}.arrow")
                if number not in writers:
                    writers[number] = pa.ipc.new_file(path, batch.schema)
                writers[number].write_table(batch.take(pa.array(np.flatnonzero(bucket == number))))
        for writer in writers.values():
            writer.close()
        for number in sorted(writers):
            with pa.ipc.open_file(str(Path(temporary) / f"{number:05d}.arrow")) as file:
                table = file.read_all()
            yield table.take(pc.sort_indices(table[group])).combine_chunks()  # stable


def _bucket(name: str, buckets: int) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") % buckets


def borders_of(table: pa.Table, group: str) -> list[tuple[int, int]]:
    """`(first, after last)` of each run of equal groups."""
    if not table.num_rows:
        return []
    names = np.asarray(table[group].to_numpy(zero_copy_only=False))
    borders = np.flatnonzero(np.r_[True, names[1:] != names[:-1], True]).tolist()
    return list(zip(borders[:-1], borders[1:], strict=True))


class PairPeople:
    """CLIPS of whole groups with faces → CANDIDATES: each clip as the target of its best reference.

    Call it with tables of whole groups (`grouped`), always in the same order: persons are numbered as they come.
    `measures` are clip columns that the target keeps as `target_…`.
    """

    def __init__(self, measures: Sequence[pa.Field], *, recipe: str, min_identity: float):
        self.recipe, self.min_identity = recipe, min_identity
        self.measures = tuple(measures)
        self.identities, self._names = Identities(min_identity), []
        kept = [pa.field(f"target_{f.name}", f.type, metadata=f.metadata) for f in self.measures]
        self.reads = ("group_id", "clip_id", "video_id", "path", "start_s", "end_s", "duration_s", "video_embedding",
                      "face_embedding", "face_time_s", "face_box", *(f.name for f in self.measures),
                      *(f.name for f in RIGHTS))
        self.makes = pa.schema([*CANDIDATES.fields, *PERSON_COLUMNS, *kept, *ACCOUNT])

    def __call__(self, table: pa.Table) -> pa.Table:
        require(table, self.reads, "PairPeople")
        faces, looks = (_matrix(table[name]) for name in ("face_embedding", "video_embedding"))
        rows, borders = table.drop_columns(["face_embedding", "video_embedding"]), borders_of(table, "group_id")
        persons = self._persons(faces, borders, rows["clip_id"])
        found = _joined([(a, match_group(faces[a:b], looks[a:b], min_identity=self.min_identity)) for a, b in borders])
        parts = [self._rows(rows, persons, found, part) for part in range(0, len(faces), ROWS)]
        return pa.concat_tables([self.makes.empty_table(), *parts])

    def _rows(self, clips: pa.Table, persons: list[str], found: Matches, start: int) -> pa.Table:
        """`ROWS` targets and their references: as Python objects they take ten times what they take in a table."""
        at = np.arange(start, min(start + ROWS, clips.num_rows))
        at = at[found.reference[at] >= 0]
        sides = (clips.take(pa.array(rows, pa.int64())).to_pylist() for rows in (at, found.reference[at]))
        return pa.Table.from_pylist([self._row(target, reference, persons[i], found, i)
                                     for i, target, reference in zip(at, *sides, strict=True)], self.makes)

    def _persons(self, faces: np.ndarray, borders: Sequence[tuple[int, int]],
                 clip_ids: pa.ChunkedArray) -> list[str]:
        """Identity ids: persons of each group first, then their first faces over all groups."""
        first = np.empty(len(faces), np.int64)  # row of the first face of the row's person in its group
        for a, b in borders:
            numbers = Identities(self.min_identity, block=64).assign(faces[a:b])
            first[a:b] = a + np.unique(numbers, return_index=True)[1][numbers]
        leaders, place = np.unique(first, return_inverse=True)
        numbers = self.identities.assign(faces[leaders])
        for number, row in zip(numbers, leaders, strict=True):
            if number == len(self._names):
                self._names.append(make_id("identity", clip_ids[row].as_py()))
        return [self._names[number] for number in numbers[place]]

    def _row(self, target: dict, reference: dict, person: str, found: Matches, i: int) -> dict:
        return {
            "pair_id": make_id("pair", self.recipe, target["clip_id"], reference["clip_id"]),
            "video_id": target["video_id"], "recipe": self.recipe, "task": "r2v", "edit": "person",
            **{f"target_{name}": target[name] for name in ("path", "start_s", "end_s", "duration_s", "clip_id",
                                                           "face_box", "face_time_s")},
            "conditions": [], "group_id": target["group_id"], "identity_id": person,
            "identity_similarity": float(found.identity[i]), "video_similarity": float(found.look[i]),
            "num_same_identity": int(found.num_same[i]), "reference_clip_id": reference["clip_id"],
            "reference_video_path": reference["path"], "reference_time_s": reference["face_time_s"],
            "reference_face_box": reference["face_box"], "issues": [], "num_attempts": 1,
            **{f"target_{f.name}": target[f.name] for f in self.measures},
            **{f.name: target[f.name] for f in RIGHTS},
        }


def _joined(groups: Sequence[tuple[int, Matches]]) -> Matches:
    """One `Matches` of those of groups; positions count from the first row of the first group."""
    if not groups:
        return Matches(*(np.empty(0, kind) for kind in (np.int64, np.float32, np.float32, np.int32)))
    reference = [np.where(found.reference < 0, -1, found.reference + first) for first, found in groups]
    rest = ([getattr(found, name) for _, found in groups] for name in ("identity", "look", "num_same"))
    return Matches(np.concatenate(reference), *map(np.concatenate, rest))


def _matrix(values: pa.ChunkedArray) -> np.ndarray:
    """`(n, D)` float32 of a list column whose rows are equally long."""
    array = values.combine_chunks()
    return array.flatten().to_numpy(zero_copy_only=False).reshape(len(array), -1)
