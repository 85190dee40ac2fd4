"""A clip and its edit: a video editor's work, stored beside its source frame for frame (D5, D6, D9).

The source is stored too, at the size and rate the editor worked at: a pair is only a pair when its sides
have equal frames. The first frame may have been edited before (`edited_path`); it leads the editor.
"""

from __future__ import annotations

import cv2
import numpy as np
import pyarrow as pa

from manifests.columns import column, map_rows
from manifests.errors import BackendError
from manifests.ids import draw_seed
from manifests.media_store import MediaStore
from manifests.schema import PAIRS
from manifests.spans import read_image, read_span

from .backends import EditRequest, open_backend

SIDES = tuple(PAIRS.schema.field(f"{side}_{name}") for side in ("source", "target")
              for name in ("path", "start_s", "end_s", "duration_s"))


class EditClip:
    """Clips with `instruction`, `motion_prompt` and `edited_path` → source and target video of a pair.

    `backend` is a `VideoEditor` by name, `options` are its arguments, and `places` those of them that only say where
    something lies (they change no result, and a folder may be moved). At most `max_frames` at `fps` are
    edited, cut to 4k + 1 (what video autoencoders hold), the shorter side at most `short_px`.
    """

    reads = ("clip_id", "path", "start_s", "end_s", "instruction", "motion_prompt", "edited_path")
    adds = (*SIDES, column("pair_num_frames", pa.int32(), "frames of source and of target"),
            column("target_change", pa.float32(), "mean difference of target and source", "0 to 255"))
    neutral = ("media", "places")

    def __init__(self, media: str, *, backend: str, options: dict | None = None, places: dict | None = None,
                 fps: float = 16.0, max_frames: int = 81, short_px: int = 480, seed: int = 0):
        self.store, self.seed = MediaStore(media), seed
        self.fps, self.max_frames, self.short_px = fps, max_frames, short_px
        self.editor = open_backend("video-editor", backend, **(options or {}) | (places or {}))

    @classmethod
    def owners(cls, backend: str, options: dict | None = None, **_: object) -> dict[str, dict]:
        by = {"op": "datagen.edit_clip:EditClip", "backend": backend, **(options or {})}
        return {field.name: by for field in cls.adds}

    def __call__(self, table: pa.Table) -> pa.Table:
        return map_rows(table, self, self._edit)

    def _edit(self, row: dict) -> dict:
        if not row["instruction"] or not row["edited_path"]:
            raise BackendError("there is no instruction or no edited first frame")
        frames = np.stack(list(read_span(row["path"], row["start_s"], row["end_s"], short_px=self.short_px,
                                         fps=self.fps, max_frames=self.max_frames)))
        frames = frames[: (len(frames) - 1) // 4 * 4 + 1]
        first = cv2.resize(read_image(row["edited_path"]), frames.shape[2:0:-1], interpolation=cv2.INTER_AREA)
        seed = draw_seed(self.seed, row["clip_id"])
        request = EditRequest(instruction=row["instruction"], kind="motion", seed=seed,
                              params={"motion_prompt": row["motion_prompt"]})
        made = self.editor.edit(frames, request, first)
        if made.shape != frames.shape:
            raise BackendError(f"the editor gave {made.shape} for a clip of {frames.shape}")
        change = np.mean([cv2.absdiff(a, b).mean() for a, b in zip(frames, made, strict=True)])
        return {**self._side("source", frames), **self._side("target", made), "pair_num_frames": len(frames),
                "target_change": float(change)}

    def _side(self, side: str, frames: np.ndarray) -> dict:
        video = self.store.video(frames, fps=self.fps)
        return {f"{side}_path": video.path, f"{side}_start_s": 0.0, f"{side}_end_s": video.end_s,
                f"{side}_duration_s": video.end_s}
