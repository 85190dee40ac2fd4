"""Edits of a clip without weights: tracked, steady in time, exact about what they touch.

Given an edited first frame, it is carried through the clip (`datagen/propagate.py`); without one
the edit is made on every frame with settings fitted once. `params` as in classical_edit.py.
"""

from __future__ import annotations

import numpy as np

from manifests.errors import BackendError

from ..background_fill import fill_background
from ..backgrounds import NewBackground, blur_background
from ..compositing import as_cut_out, match_light, paste, placed
from ..flow import DenseFlow
from ..propagate import propagate
from ..recolor import Recolor, wanted_color
from ..regions import masks_of
from ..stylise import Stylise, steady
from . import EditRequest
from .classical_edit import ClassicalImageEditor, insert_box, reference_of, replacement_box

KINDS = ("recolour", "remove", "insert", "replace", "blur-background", "swap-background", "stylise")
MAX_PIXELS = 600_000_000  # of a clip: what is edited at once lies in memory several times
SMOOTH_FRAMES = 5    # over which the place of a replacement is averaged


class ClassicalInpainter:
    """`Inpainter`: background from the frames that show it, patches where none does."""

    def __init__(self, *, work_px: int = 512, margin_px: float | None = None, seed: int = 0):
        self.flow, self.margin_px, self.seed = DenseFlow(work_px=work_px), margin_px, seed

    def inpaint(self, frames: np.ndarray, masks: np.ndarray) -> np.ndarray:
        check_clip(frames)
        masks = masks_of(masks, len(frames), frames.shape[1:3], "remove")
        return fill_background(frames, masks, margin_px=self.margin_px, seed=self.seed, flow=self.flow)


class ClassicalVideoEditor:
    """`VideoEditor`: `work_px` is the long side in which motion is searched."""

    def __init__(self, *, work_px: int = 512):
        self.flow = DenseFlow(work_px=work_px)

    def edit(self, frames: np.ndarray, request: EditRequest, first_frame: np.ndarray | None = None) -> np.ndarray:
        check_clip(frames)
        if first_frame is not None:
            masks = request.mask if request.mask is not None and request.mask.ndim == 3 else None
            if request.kind == "remove" and masks is not None:
                return self._removed_like(frames, tracked(frames, request), first_frame, request.seed)
            return propagate(frames, first_frame, masks=masks, flow=self.flow, seed=request.seed)
        if request.kind not in KINDS:
            raise BackendError(f"the classical editor has no edit {request.kind!r} of a clip; known: "
                               f"{', '.join(KINDS)}, or any with an edited first frame")
        return getattr(self, f"_{request.kind.replace('-', '_')}")(frames, request)

    def _recolour(self, frames: np.ndarray, request: EditRequest) -> np.ndarray:
        masks = tracked(frames, request)
        recolor = Recolor.fit(frames, masks, wanted_color(request.params.get("color"), seed=request.seed))
        return np.stack([recolor(f, m) for f, m in zip(frames, masks, strict=True)])

    def _remove(self, frames: np.ndarray, request: EditRequest) -> np.ndarray:
        return fill_background(frames, tracked(frames, request), seed=request.seed, flow=self.flow)

    def _removed_like(self, frames, masks, first_frame, seed: int) -> np.ndarray:
        """What a given first frame shows behind the object belongs to the background, not to the object's motion."""
        if first_frame.shape != frames.shape[1:]:
            raise BackendError(f"the edited first frame is {first_frame.shape} and the clip's {frames.shape[1:]}")
        shown = np.concatenate([first_frame[None], frames[1:]])
        return fill_background(shown, np.concatenate([masks[:1] & False, masks[1:]]), seed=seed, flow=self.flow)

    def _insert(self, frames: np.ndarray, request: EditRequest) -> np.ndarray:
        """Put into the first frame, then carried: it sticks to the scene and is covered by what passes before it."""
        if "box" not in request.params:  # a free place for the whole clip
            cut = as_cut_out(reference_of(request))
            box = insert_box(frames[0], cut, request)
            request = EditRequest(**{**vars(request), "params": {**request.params, "box": box}})
        first = ClassicalImageEditor().edit(frames[0], request)
        return propagate(frames, first, flow=self.flow, seed=request.seed)

    def _replace(self, frames: np.ndarray, request: EditRequest) -> np.ndarray:
        masks, cut = tracked(frames, request), as_cut_out(reference_of(request))
        clear = fill_background(frames, masks, seed=request.seed, flow=self.flow)
        boxes = _steady_boxes(cut, masks)
        offset = match_light(cut, clear[0], boxes[0])
        out = clear.copy()
        for t in np.flatnonzero(masks.any(axis=(1, 2))):
            out[t] = paste(clear[t], placed(cut, boxes[t], *masks.shape[1:]), matched=offset)
        return out

    def _blur_background(self, frames: np.ndarray, request: EditRequest) -> np.ndarray:
        masks, radius = tracked(frames, request), request.params.get("radius_px")
        return np.stack([blur_background(f, m, radius_px=radius) for f, m in zip(frames, masks, strict=True)])

    def _swap_background(self, frames: np.ndarray, request: EditRequest) -> np.ndarray:
        masks = tracked(frames, request)
        scene = NewBackground(reference_of(request), frames, masks)
        return np.stack([scene(f, m, t) for t, (f, m) in enumerate(zip(frames, masks, strict=True))])

    def _stylise(self, frames: np.ndarray, request: EditRequest) -> np.ndarray:
        style, out = Stylise(request.params.get("style"), frames, seed=request.seed), []
        for t, frame in enumerate(frames):
            styled = style(frame)
            out.append(styled if t == 0 else steady(frames[t - 1], frame, out[-1], styled, self.flow))
        return np.stack(out)


def check_clip(frames: np.ndarray) -> None:
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise BackendError(f"a clip is (T, H, W, 3) uint8, not {frames.shape} {frames.dtype}")
    if frames[..., 0].size > MAX_PIXELS:
        raise BackendError(f"the clip of {len(frames)} frames of {frames.shape[2]}x{frames.shape[1]} is larger than "
                           "is edited at once; make it shorter or smaller")


def tracked(frames: np.ndarray, request: EditRequest) -> np.ndarray:
    """The request's masks, one a frame."""
    return masks_of(request.mask, len(frames), frames.shape[1:3], request.kind)


def _steady_boxes(cut: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """float64 `(T, 4)` boxes of the replacement: those of the masks, smoothed over time."""
    there = np.flatnonzero(masks.any(axis=(1, 2)))
    boxes = np.array([replacement_box(cut, masks[t]) for t in there], float)
    middle, bottom = (boxes[:, 0] + boxes[:, 2]) / 2, boxes[:, 3]
    # A thing does not change its size from frame to frame: the median over a second is nearer the truth.
    tall = _smoothed(boxes[:, 3] - boxes[:, 1], 25)
    wide = tall * cut.shape[1] / cut.shape[0]
    middle, bottom = _smoothed(middle, SMOOTH_FRAMES), _smoothed(bottom, SMOOTH_FRAMES)
    steady_boxes = np.stack([middle - wide / 2, bottom - tall, middle + wide / 2, bottom], axis=1)
    out = np.zeros((len(masks), 4))
    for axis in range(4):
        out[:, axis] = np.interp(np.arange(len(masks)), there, steady_boxes[:, axis])
    return out


def _smoothed(values: np.ndarray, length: int) -> np.ndarray:
    """Running mean, with the ends repeated."""
    length = min(length, 2 * len(values) - 1) | 1
    padded = np.pad(values, length // 2, mode="edge")
    return np.convolve(padded, np.ones(length) / length, mode="valid")
