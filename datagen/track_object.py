"""A clip and the object in it: cut to the frames that show it, followed, and put into words (D5, D9, D10).

The clip is stored at the size and rate that editors work at, and its first frame as it decodes from
there: an edit of that frame and the clip then differ by the edit alone.
"""

from __future__ import annotations

import cv2
import numpy as np
import pyarrow as pa

from manifests.columns import column, map_rows
from manifests.errors import BackendError, MediaError
from manifests.media_store import MediaStore
from manifests.spans import read_span

from .backends import Track, open_backend
from .list_edits import color_name, place_name

SHOWN = 0.3  # of its median area: with less of it an object is entering, leaving or lost
MASK_CRF = 10  # sharp edges of a mask survive it


class TrackObject:
    """Clips → their working copy, the object's masks as a video of equal frames, and its name.

    At most `max_frames` at `fps`, cut to 4 n + 1, the shorter side at most `short_px`; the longest run of frames
    that shows the object. With `phrased` the segmenter looks for the words of `edited_thing`, else for
    `phrases`. A clip in which nothing is found, or for less than `min_frames`, keeps its frames and has null
    (score and share: 0) in the object's columns: not every edit needs one.
    """

    adds = (
        column("work_path", pa.string(), "the clip as editors work on it"),
        column("work_end_s", pa.float64(), "its length", "s"),
        column("work_num_frames", pa.int32(), "its frames, 4 n + 1"),
        column("frame_path", pa.string(), "its first frame, a picture"),
        column("track_path", pa.string(), "video of its frames, white = the object; null = none was found"),
        column("object_mask_path", pa.string(), "picture, white = the object in the first frame"),
        column("object_name", pa.string(), "the object in words: looks and place"),
        column("object_phrase", pa.string(), "what the segmenter calls it"),
        column("object_score", pa.float32(), "how sure the segmenter is; 0 = nothing was found", "0 to 1"),
        column("object_share", pa.float32(), "mean share of the picture that it covers; 0 = nothing", "0 to 1"),
    )
    neutral = ("media",)

    def __init__(self, media: str, *, segmenter: str = "classical", options: dict | None = None, phrased: bool = False,
                 phrases: tuple[str, ...] = (), fps: float = 16.0, max_frames: int = 97, min_frames: int = 17,
                 short_px: int = 480):
        self.reads, self.phrased, self.phrases = self.contract(phrased=phrased)[0], phrased, tuple(phrases)
        self.store, self.fps, self.short_px = MediaStore(media), fps, short_px
        self.max_frames, self.min_frames = max_frames, min_frames
        self.segmenter = open_backend("segmenter", segmenter, **(options or {}))

    @classmethod
    def contract(cls, phrased: bool = False, **_: object) -> tuple[tuple[str, ...], tuple[pa.Field, ...]]:
        return ("clip_id", "path", "start_s", "end_s", *(("edited_thing",) if phrased else ())), cls.adds

    @classmethod
    def owners(cls, segmenter: str = "classical", options: dict | None = None, **_: object) -> dict[str, dict]:
        by = {"op": "datagen.track_object:TrackObject", "segmenter": segmenter, **(options or {})}
        return {field.name: by for field in cls.adds}

    def __call__(self, table: pa.Table) -> pa.Table:
        return map_rows(table, self, self._track)

    def _track(self, row: dict) -> dict:
        frames = np.stack(list(read_span(row["path"], row["start_s"], row["end_s"], short_px=self.short_px,
                                         fps=self.fps, max_frames=self.max_frames)))
        if len(frames) < self.min_frames:
            raise MediaError(f"the clip has {len(frames)} frames at {self.fps:g}/s; {self.min_frames} are the least")
        track = self._find(frames, (row["edited_thing"],) if self.phrased and row["edited_thing"] else self.phrases)
        run = shown_run(track.masks) if track else range(0)
        if len(run) < self.min_frames:
            track, run = None, range(len(frames))
        start, num = run.start, (len(run) - 1) // 4 * 4 + 1
        found = {"object_score": 0.0, "object_share": 0.0}
        if track:
            found = self._object(frames[start], track, track.masks[start : start + num])
        return self._copy(frames[start : start + num]) | found

    def _find(self, frames: np.ndarray, phrases: tuple[str, ...]) -> Track | None:
        try:
            return next(iter(self.segmenter.segment(frames, phrases)), None)
        except BackendError:  # a finding about the clip: nothing stands out
            return None

    def _copy(self, frames: np.ndarray) -> dict:
        video = self.store.video(frames, fps=self.fps)
        first = next(read_span(video.path, 0.0, video.end_s, max_frames=1))
        return {"work_path": video.path, "work_end_s": video.end_s, "work_num_frames": video.num_frames,
                "frame_path": self.store.image(first)}

    def _object(self, first: np.ndarray, track: Track, masks: np.ndarray) -> dict:
        return {"track_path": self.store.video(mask_frames(masks), fps=self.fps, crf=MASK_CRF).path,
                "object_mask_path": self.store.image(masks[0].astype(np.uint8) * 255),
                "object_name": name_object(first, masks[0], track.phrase), "object_phrase": track.phrase,
                "object_score": track.score, "object_share": float(masks.mean())}


def shown_run(masks: np.ndarray) -> range:
    """Longest run of frames in which the object is about as large as it usually is."""
    areas = masks.sum(axis=(1, 2))
    if not areas.any():
        return range(0)
    shown = areas >= SHOWN * np.median(areas[areas > 0])
    edges = np.flatnonzero(np.diff(np.concatenate([[0], shown.astype(np.int8), [0]])))
    return max((range(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True)), key=len)


def mask_frames(masks: np.ndarray) -> np.ndarray:
    """uint8 `(T, H, W, 3)` of bool masks `(T, H, W)`: what a video encoder takes."""
    return np.repeat(masks[..., None].astype(np.uint8) * 255, 3, axis=3)


def read_masks(path: str, size: tuple[int, int]) -> np.ndarray:
    """bool `(T, H, W)` of a stored mask video, at `size` = (width, height)."""
    return np.stack([cv2.resize(f, size)[..., 0] > 127 for f in read_span(path, 0.0, float("inf"))])


def name_object(first: np.ndarray, mask: np.ndarray, phrase: str) -> str:
    """ "the person on the left", "the moving red object in the middle": colour and place as measured."""
    what = {"person": "person", "moving object": f"moving {color_name(first, mask)} object",
            "most prominent object": f"{color_name(first, mask)} object"}.get(phrase, phrase)
    return f"the {what}{place_name(mask)}"
