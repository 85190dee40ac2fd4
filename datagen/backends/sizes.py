"""Sizes and lengths that diffusion models take: pictures and clips brought to them and back.

Models want sides in multiples of their stride, about the area that they were trained with, and
(for video) 4k + 1 frames. An editor's answer has the size and length of what went in.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from manifests.errors import BackendError

MEGAPIXEL = 1024 * 1024  # the area that open image editors are trained at


@dataclass(frozen=True, kw_only=True)
class WorkSize:
    """Size in which a model works on pictures of `height` x `width`."""

    height: int
    width: int
    work_height: int
    work_width: int

    @classmethod
    def of(cls, height: int, width: int, *, multiple: int, max_pixels: int) -> WorkSize:
        """Nearest multiples at the picture's own aspect, with at most `max_pixels`; never enlarged by choice."""
        scale = min(1.0, (max_pixels / (height * width)) ** 0.5)
        sides = [max(multiple, round(side * scale / multiple) * multiple) for side in (height, width)]
        while sides[0] * sides[1] > max_pixels and max(sides) > multiple:
            sides[sides.index(max(sides))] -= multiple
        return cls(height=height, width=width, work_height=sides[0], work_width=sides[1])

    def bring(self, picture: np.ndarray) -> np.ndarray:
        """uint8 `(H, W[, C])` at working size."""
        size = (self.work_width, self.work_height)
        if picture.shape[1::-1] == size:
            return picture
        smaller = size[0] * size[1] < picture.shape[0] * picture.shape[1]
        return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)

    def restore(self, picture: np.ndarray) -> np.ndarray:
        """A model's picture `(h, w, 3)`, of any size, at the size of the input."""
        if picture.shape[:2] == (self.height, self.width):
            return picture
        return cv2.resize(picture, (self.width, self.height), interpolation=cv2.INTER_CUBIC)


def whole_clip(frames: np.ndarray, *, step: int = 4) -> np.ndarray:
    """The clip with its last frame repeated up to `step` * k + 1 frames."""
    missing = -(len(frames) - 1) % step
    return frames if not missing else np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)])


def as_uint8(pictures: np.ndarray, shape: tuple[int, ...], who: str) -> np.ndarray:
    """A pipeline's float output in [0, 1] as uint8; `BackendError` where it is not finite or misshapen."""
    if pictures.ndim != len(shape) or pictures.shape[-1] != 3 or len(pictures) < shape[0]:
        raise BackendError(f"{who} answered with an array {pictures.shape}; {shape} was expected")
    if not np.isfinite(pictures).all():
        raise BackendError(f"{who} answered with values that are not finite; try another dtype or seed")
    return np.clip(np.rint(pictures * 255), 0, 255).astype(np.uint8)
