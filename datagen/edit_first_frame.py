"""The first frame of a video edit as it was, and as it is after the edit: the visual step before the video (D12).

Paper section 3.6: the initial frame is edited under the reasoning text, and the target video follows from the edited
frame. The pair's own target says what its first frame must be; an image editor's frame is held against it.
"""

from __future__ import annotations

import cv2
import numpy as np
import pyarrow as pa

from manifests.columns import column, map_rows
from manifests.errors import BackendError, MediaError
from manifests.ids import draw_seed
from manifests.media_store import MediaStore
from manifests.spans import read_frames

from .backends import EditRequest, open_backend
from .edit_picture import changed_mask


class EditFirstFrame:
    """PAIRS of videos → `frame_path`, `edited_path`, and measures of both.

    Without `backend` the edited frame is the first one of the target. Else the `ImageEditor` of that name
    edits the source's first frame under the text in the column `told`.
    """

    adds = (
        column("frame_path", pa.string(), "first frame of the source, a picture"),
        column("edited_path", pa.string(), "the same after the edit, a picture"),
        column("edited_share", pa.float32(), "share of its pixels that visibly changed", "0 to 1"),
        column("edited_gap", pa.float32(), "mean distance of the edited frame from the target's first one; 0 = it is "
                                           "that one", "dE"),
    )
    neutral = ("media",)

    def __init__(self, media: str, *, backend: str = "", options: dict | None = None, told: str = "instruction",
                 seed: int = 0):
        self.reads, self.told = self.contract(told=told)[0], told
        self.store, self.seed = MediaStore(media), seed
        self.editor = open_backend("image-editor", backend, **(options or {})) if backend else None

    @classmethod
    def contract(cls, told: str = "instruction", **_: object) -> tuple[tuple[str, ...], tuple[pa.Field, ...]]:
        return ("pair_id", "source_path", "source_start_s", "target_path", "target_start_s", told), cls.adds

    @classmethod
    def owners(cls, backend: str = "", options: dict | None = None, **_: object) -> dict[str, dict]:
        by = {"op": "datagen.edit_first_frame:EditFirstFrame", "backend": backend or "the target's first frame",
              **(options or {})}
        return {field.name: by for field in cls.adds}

    def __call__(self, table: pa.Table) -> pa.Table:
        return map_rows(table, self, self._edit)

    def _edit(self, row: dict) -> dict:
        if row["source_start_s"] is None or row["target_start_s"] is None:
            raise MediaError("source and target must be videos: a picture has no first frame to begin with")
        first, wanted = (read_frames(row[f"{side}_path"], [row[f"{side}_start_s"]], long_px=4096)[0]
                         for side in ("source", "target"))
        edited = wanted
        if self.editor is not None:
            seed = draw_seed(self.seed, row["pair_id"])
            edited = self.editor.edit(first, EditRequest(instruction=row[self.told] or "", kind="", seed=seed))
        size = wanted.shape[1::-1]
        first, edited = (p if p.shape == wanted.shape else cv2.resize(p, size, interpolation=cv2.INTER_AREA)
                         for p in (first, edited))
        return {"frame_path": self.store.image(first), "edited_path": self.store.image(edited),
                "edited_share": float(changed_mask(first, edited).mean()), "edited_gap": gap(edited, wanted)}


def gap(a: np.ndarray, b: np.ndarray) -> float:
    """Mean CIE76 distance of two pictures of one size, without their finest detail."""
    if a.shape != b.shape:
        raise BackendError(f"pictures of {a.shape} and {b.shape} cannot be compared")
    labs = (cv2.cvtColor(cv2.GaussianBlur(p, (0, 0), 1.5).astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for p in (a, b))
    return float(np.linalg.norm(np.subtract(*labs), axis=2).mean())
