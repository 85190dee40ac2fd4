"""Which key frames of one film might make an image pair (paper section 3.1, image pairs).

All frames of a film are compared with each other, not only neighbours. As for clips, up to `max_listed`
pairs a film become rows and no threshold decides here (datagen/video_pairs.py).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from manifests.columns import ACCOUNT, column, require
from manifests.ids import make_id
from manifests.schema import CANDIDATES, RIGHTS

from .video_pairs import matrix, mine_video

S, F = pa.string(), pa.float64()
SIDE_MEASURES = ("sharpness", "width", "height", "shot_index")

PAIR_COLUMNS = (
    column("frame_similarity", pa.float32(), "cosine of the two frames' embeddings", "-1 to 1"),
    column("gap_s", F, "time from the source to the target", "s"),
    column("gap_share", F, "gap_s as a share of the time between the film's first and last good key frame", "0 to 1"),
    column("num_candidates", pa.int64(), "pairs of this film that were compared"),
    *(column(f"{side}_{name}", type_, doc, unit) for side in ("source", "target") for name, type_, doc, unit in (
        ("time_s", F, "moment of the frame in its film; null = the path is a picture", "s"),
        ("frame_id", S, "the frame it is; FRAMES has its moment and measures", ""),
        ("sharpness", pa.float32(), "variance of the Laplacian at 480p", "luma squared"),
        ("width", pa.int32(), "as shown, in the film", "px"), ("height", pa.int32(), "as shown, in the film", "px"),
        ("shot_index", pa.int32(), "position of its shot in the film, from 0", ""))),
)


class PairFrames:
    """FRAMES of whole films → CANDIDATES. `table` holds accepted frames; all of a film are in the same table.

    Picture files stand alone and make no pair.
    """

    reads = ("frame_id", "video_id", "frame_index", "path", "time_s", "frame_embedding", *SIDE_MEASURES,
             *(f.name for f in RIGHTS))
    makes = pa.schema([*CANDIDATES.fields, *PAIR_COLUMNS, *ACCOUNT])

    def __init__(self, *, recipe: str, band: tuple[float, float] = (0.75, 0.95), max_listed: int = 500):
        self.recipe, self.band, self.max_listed = recipe, band, max_listed

    def __call__(self, table: pa.Table) -> pa.Table:
        require(table, self.reads, "PairFrames")
        table = table.sort_by([("video_id", "ascending"), ("frame_index", "ascending")]).combine_chunks()
        videos = np.asarray(table["video_id"].to_numpy(zero_copy_only=False))
        borders = np.flatnonzero(np.r_[True, videos[1:] != videos[:-1], True]) if len(videos) else []
        rows = [row for a, b in zip(borders[:-1], borders[1:], strict=True) if b - a > 1
                for row in self._rows(table.slice(a, b - a))]
        return pa.Table.from_pylist(rows, self.makes)

    def _rows(self, table: pa.Table) -> Iterator[dict]:
        mined = mine_video(matrix(table["frame_embedding"]), band=self.band, max_listed=self.max_listed)
        frames = table.drop_columns(["frame_embedding"]).to_pylist()
        whole_s = frames[-1]["time_s"] - frames[0]["time_s"]
        for i, j, similarity in zip(mined.first.tolist(), mined.second.tolist(), mined.similarity.clip(-1, 1).tolist(),
                                    strict=True):
            source, target = frames[i], frames[j]
            gap_s = target["time_s"] - source["time_s"]
            sides = {f"{side}_{name}": frame[name] for side, frame in (("source", source), ("target", target))
                     for name in ("path", "time_s", "frame_id", *SIDE_MEASURES)}
            yield sides | {
                "pair_id": make_id("pair", self.recipe, source["frame_id"], target["frame_id"]),
                "video_id": source["video_id"], "recipe": self.recipe, "task": "i2i", "edit": "difference",
                "conditions": [], "frame_similarity": similarity, "gap_s": gap_s, "gap_share": gap_s / whole_s,
                "num_candidates": mined.num_candidates, "issues": [], "num_attempts": 1,
                **{f.name: source[f.name] for f in RIGHTS}}
