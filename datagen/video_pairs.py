"""Which clips of one raw video might make a pair (paper section 3.1).

All clips of a video are compared with each other in one matrix product. Up to `max_listed`
pairs a video become rows, with their similarity and the measures of both clips; where there
are more, those inside the band come first, evenly spread over it, and `num_candidates` tells
how many there were. No threshold decides here: that is done by rules, later and again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.columns import ACCOUNT, column, require
from manifests.ids import make_id
from manifests.schema import CANDIDATES, RIGHTS

SIDE_COLUMNS = ("path", "start_s", "end_s", "duration_s", "clip_id")
NUM_BINS = 10

PAIR_COLUMNS = (
    column("video_similarity", pa.float32(), "cosine of the two clips' video embeddings", "-1 to 1"),
    column("is_human", pa.bool_(), "people were found in the source or the target"),
    column("num_candidates", pa.int64(), "pairs of this video that were compared"),
)


@dataclass(frozen=True)
class Mined:
    """`first`, `second` (P,) int: clip positions, first earlier; `similarity` (P,) float32."""

    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray
    num_candidates: int


_UPPER: dict[int, tuple[np.ndarray, np.ndarray]] = {}


def mine_video(embeddings: np.ndarray, *, band: tuple[float, float] = (0.65, 0.95), max_listed: int = 1000) -> Mined:
    """Compare all clips of one video. `embeddings` (n, D) float32 of unit length, in time order."""
    n = len(embeddings)
    if n not in _UPPER:
        if len(_UPPER) > 256:
            _UPPER.clear()
        _UPPER[n] = np.triu_indices(n, 1)
    first, second = _UPPER[n]
    similarity = (embeddings @ embeddings.T)[first, second]
    if len(first) <= max_listed:
        return Mined(first, second, similarity, len(first))
    keep = _spread_choice(similarity, band, max_listed)
    return Mined(first[keep], second[keep], similarity[keep], len(first))


def _spread_choice(similarity: np.ndarray, band: tuple[float, float], num: int) -> np.ndarray:
    """Positions of `num` pairs, ascending: from inside the band first, in turn from its bins."""
    low, high = band
    position = np.flatnonzero((similarity >= low) & (similarity <= high))
    bins = np.minimum((similarity[position] - low) * (NUM_BINS / (high - low)), NUM_BINS - 1).astype(np.int64)
    counts = np.bincount(bins, minlength=NUM_BINS)
    order = np.argsort((bins << 32) | _scramble(position))  # by bin, and pseudo-randomly inside it
    turn = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    chosen = position[order[turn < np.repeat(_fair_shares(counts, num), counts)]]
    if len(chosen) < num:
        outside = np.flatnonzero((similarity < low) | (similarity > high))
        chosen = np.r_[chosen, outside[np.argsort(_scramble(outside))[: num - len(chosen)]]]
    return np.sort(chosen)


def _fair_shares(counts: np.ndarray, num: int) -> np.ndarray:
    """How many each bin gives when they give in turn until `num` are there."""
    shares, left = np.zeros_like(counts), num
    while left and (open_ := np.flatnonzero(counts > shares)).size:
        step = min(left // len(open_), int((counts - shares)[open_].min()))
        shares[open_[: left]] += max(step, 1)
        left = num - int(shares.sum())
    return shares


def _scramble(position: np.ndarray) -> np.ndarray:
    """31-bit pseudo-random number of a position (multiplicative hashing)."""
    return (position.astype(np.int64) * 2654435761 >> 3) & 0x7FFFFFFF


class PairClips:
    """CLIPS of whole videos → CANDIDATES, with every clip measure as source_… and target_…."""

    def __init__(self, measures: pa.Schema, *, recipe: str = "video-pairs",
                 band: tuple[float, float] = (0.65, 0.95), max_listed: int = 1000):
        self.recipe, self.band, self.max_listed = recipe, band, max_listed
        self.measures = [f for f in measures if f.name not in ("video_embedding", "is_human")]
        sides = [pa.field(f"{side}_{f.name}", f.type, metadata=f.metadata)
                 for side in ("source", "target") for f in self.measures]
        self.reads = ("video_id", "clip_index", *SIDE_COLUMNS, "video_embedding", "is_human",
                      *(f.name for f in self.measures), *(f.name for f in RIGHTS))
        self.makes = pa.schema([*CANDIDATES.fields, *PAIR_COLUMNS, *sides, *ACCOUNT])

    def __call__(self, table: pa.Table) -> pa.Table:
        """`table` holds accepted clips; all clips of a video must be in the same table."""
        require(table, self.reads, "PairClips")
        table = table.sort_by([("video_id", "ascending"), ("clip_index", "ascending")]).combine_chunks()
        videos = np.asarray(table["video_id"].to_numpy(zero_copy_only=False))
        borders = np.flatnonzero(np.r_[True, videos[1:] != videos[:-1], True]) if len(videos) else []
        made = [self._pair(table.slice(a, b - a)) for a, b in zip(borders[:-1], borders[1:], strict=True) if b - a > 1]
        return pa.concat_tables(made) if made else self.makes.empty_table()

    def _pair(self, clips: pa.Table) -> pa.Table:
        mined = mine_video(matrix(clips["video_embedding"]), band=self.band, max_listed=self.max_listed)
        source, target = clips.take(pa.array(mined.first)), clips.take(pa.array(mined.second))
        ids = [make_id("pair", self.recipe, s, t)
               for s, t in zip(source["clip_id"].to_pylist(), target["clip_id"].to_pylist(), strict=True)]
        num = len(ids)
        columns = {
            "pair_id": pa.array(ids), "video_id": source["video_id"], "recipe": pa.array([self.recipe] * num),
            "task": pa.array(["v2v"] * num), "edit": pa.array(["transition"] * num),
            "conditions": pa.array([[]] * num, CANDIDATES.schema.field("conditions").type),
            "video_similarity": pa.array(mined.similarity.clip(-1, 1)),
            "is_human": pc.or_kleene(source["is_human"], target["is_human"]),
            "num_candidates": pa.array([mined.num_candidates] * num, pa.int64()),
            "issues": pa.array([[]] * num, pa.list_(pa.string())),
            "num_attempts": pa.array([1] * num, pa.int32()),
        }
        for name in (*SIDE_COLUMNS, *(f.name for f in self.measures)):
            columns |= {f"source_{name}": source[name], f"target_{name}": target[name]}
        for field in RIGHTS:
            columns[field.name] = source[field.name]
        return pa.table([columns[f.name] if f.name in columns else pa.nulls(num, f.type) for f in self.makes],
                        schema=self.makes)


def matrix(column: pa.ChunkedArray) -> np.ndarray:
    """`(n, D)` float32 view of a list column whose rows are equally long."""
    array = column.combine_chunks()
    return array.flatten().to_numpy(zero_copy_only=False).reshape(len(array), -1)
