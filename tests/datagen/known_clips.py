"""Clips of real photographs with known truth: where the object is, and what lies behind it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from datagen.samples_photos import ASTRONAUT, photograph


@dataclass(frozen=True)
class KnownClip:
    """uint8 `(T, H, W, 3)` frames and the same without the object; bool masks `(T, H, W)` of the object."""

    frames: np.ndarray
    masks: np.ndarray
    clean: np.ndarray


def astronaut() -> np.ndarray:
    """RGBA cut-out of a person, 256 px high."""
    picture, mask = photograph("astronaut"), np.zeros((512, 512), np.uint8)
    cv2.fillPoly(mask, [np.array(ASTRONAUT)], 255)
    rgba = np.dstack([picture, cv2.GaussianBlur(mask, (0, 0), 1.0)])
    return cv2.resize(rgba, (256, 256), interpolation=cv2.INTER_AREA)


def walk(num_frames: int = 16, *, size=(320, 240), camera_px: float = 2.0, object_px: float = 6.0,
         background: str = "motorcycle") -> KnownClip:
    """A person crosses a photograph that the camera pans over; subpixel, with true soft edges."""
    width, height = size
    picture = photograph(background)
    scale = 1.35 * max(height / picture.shape[0], width / picture.shape[1])
    picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    cut = cv2.resize(astronaut(), (110, 110), interpolation=cv2.INTER_AREA).astype(np.float32)
    frames, masks, clean = [], [], []
    for t in range(num_frames):
        pan = np.float32([[1, 0, -20 - camera_px * t], [0, 1, -15 - 0.4 * camera_px * t]])
        below = cv2.warpAffine(picture, pan, size, flags=cv2.INTER_LINEAR).astype(np.float32)
        x, y = 30 + (object_px - camera_px) * t, height - 118 + 2 * np.sin(t / 2)
        layer = cv2.warpAffine(cut, np.float32([[1, 0, x], [0, 1, y]]), size, flags=cv2.INTER_LINEAR)
        alpha = layer[..., 3:] / 255
        frames.append(np.rint(below + (layer[..., :3] - below) * alpha).astype(np.uint8))
        masks.append(alpha[..., 0] > 0.5)
        clean.append(np.rint(below).astype(np.uint8))
    return KnownClip(np.stack(frames), np.stack(masks), np.stack(clean))


def psnr_db(a: np.ndarray, b: np.ndarray, where: np.ndarray | None = None) -> float:
    """Peak signal to noise ratio of uint8 arrays, of the pixels `where` when given."""
    gap = np.square(a.astype(np.float64) - b)
    return float(10 * np.log10(255**2 / max(gap.mean() if where is None else gap[where].mean(), 1e-9)))
