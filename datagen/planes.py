"""Small steps on I420 planes, the form in which films are decoded and encoded.

Transforms work on planes `(height * 3 / 2, width)` uint8 (Y, then U and V at half size), so that a
picture is converted to RGB only where a model or a PNG needs it.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from manifests.planes import shrink

BLACK, WHITE, NEUTRAL = 16, 235, 128  # limited range, as H.264 players expect it


def luma(planes: np.ndarray) -> np.ndarray:
    """`(height, width)` view of Y."""
    return planes[: planes.shape[0] * 2 // 3]


def chroma(planes: np.ndarray) -> np.ndarray:
    """`(2, height / 2, width / 2)` view of U and V."""
    height, width = planes.shape[0] * 2 // 3, planes.shape[1]
    return planes[height:].reshape(2, height // 2, width // 2)


def grey(planes: np.ndarray) -> np.ndarray:
    """The same brightness without colour."""
    made = planes.copy()
    chroma(made)[:] = NEUTRAL
    return made


def from_luma(values: np.ndarray) -> np.ndarray:
    """Planes of a grey picture `(height, width)` uint8 in limited range; both sides even."""
    height, width = values.shape
    made = np.empty((height * 3 // 2, width), np.uint8)
    made[:height] = values
    made[height:] = NEUTRAL
    return made


def from_mask(mask: np.ndarray) -> np.ndarray:
    """White where `mask` (bool `(height, width)`) is set, black elsewhere."""
    return from_luma(mask.view(np.uint8) * np.uint8(WHITE - BLACK) + np.uint8(BLACK))


def stack_rgb(frames: Sequence[np.ndarray]) -> np.ndarray:
    """`(T, height, width, 3)` uint8 of several planes, for models: near enough for all colour spaces."""
    made = np.empty((len(frames), frames[0].shape[0] * 2 // 3, frames[0].shape[1], 3), np.uint8)
    for planes, rgb in zip(frames, made, strict=True):
        cv2.cvtColor(planes, cv2.COLOR_YUV2RGB_I420, dst=rgb)
    return made


def sketch(planes: np.ndarray, strength: float = 1.0) -> np.ndarray:
    """Canny edges in white on black. `strength` scales the thresholds: above 1 = fewer lines.

    The thresholds follow the picture's own gradients, so that dim films have lines too.
    """
    smooth = cv2.GaussianBlur(luma(planes), (5, 5), 0)
    spread = float(cv2.meanStdDev(smooth[::4, ::4])[1][0, 0])
    high = strength * min(max(2.0 * spread, 30.0), 160.0)
    return from_mask(cv2.Canny(smooth, high * 0.4, high) > 0)


def fill_region(planes: np.ndarray, mask: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    """The picture with its masked region taken away: `kind` is black, grey, noise or blur."""
    made = planes.copy()
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    if not width:
        return made
    rows, columns = slice(y // 2, (y + height + 1) // 2), slice(x // 2, (x + width + 1) // 2)  # of the half-size planes
    inside = mask[2 * rows.start : 2 * rows.stop, 2 * columns.start : 2 * columns.stop].view(np.uint8)
    half = inside[::2, ::2] | inside[1::2, ::2] | inside[::2, 1::2] | inside[1::2, 1::2]
    bright, colours = luma(made)[2 * rows.start : 2 * rows.stop, 2 * columns.start : 2 * columns.stop], chroma(made)
    if kind == "blur":  # so strong that only the colours of large areas are left
        cv2.copyTo(_blurred(luma(planes))[2 * rows.start : 2 * rows.stop, 2 * columns.start : 2 * columns.stop],
                   inside, bright)
    elif kind == "noise":
        cv2.copyTo(rng.integers(BLACK, WHITE, inside.shape, np.uint8, endpoint=True), inside, bright)
    else:
        cv2.copyTo(np.full(inside.shape, {"black": BLACK, "grey": 126}[kind], np.uint8), inside, bright)
    for plane in colours:
        flat = _blurred(plane)[rows, columns] if kind == "blur" else np.full(half.shape, NEUTRAL, np.uint8)
        cv2.copyTo(flat, half, plane[rows, columns])
    return made


FILLS = ("black", "grey", "noise", "blur")


def _blurred(plane: np.ndarray) -> np.ndarray:
    tiny = shrink(plane, (12, max(2, round(12 * plane.shape[0] / plane.shape[1]))))
    return cv2.resize(tiny, plane.shape[::-1], interpolation=cv2.INTER_CUBIC)
