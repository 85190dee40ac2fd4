"""A clip whose object is known: a textured ellipse that crosses a photograph, with noise, under a still or moving camera."""

from __future__ import annotations

import cv2
import numpy as np


def crossing(background: np.ndarray, texture: np.ndarray, *, pan: float = 0.0, num: int = 49, size=(320, 192)):
    """`(frames (T, H, W, 3) uint8, masks bool (T, H, W))`; `pan` in pixels a frame."""
    width, height = size
    wide = cv2.resize(background, (width * 3 // 2, height * 3 // 2), interpolation=cv2.INTER_AREA)
    frames, masks, rng = [], [], np.random.default_rng(0)
    for t in range(num):
        frame = cv2.warpAffine(wide, np.float32([[1, 0, -10 - pan * t], [0, 1, -20]]), size)
        x, y = 50 + (width - 100) * t / (num - 1), height / 2 + 20 * np.sin(t / 6)
        mask = np.zeros((height, width), np.uint8)
        cv2.ellipse(mask, ((x, y), (62, 84), 10 * np.sin(t / 5)), 255, -1)
        moved = cv2.warpAffine(texture, np.float32([[1, 0, x - 50], [0, 1, y - 55]]), size, borderMode=cv2.BORDER_REFLECT)
        frame = np.where(mask[..., None] > 0, moved, frame) + rng.normal(0, 2, (height, width, 3))
        frames.append(np.clip(frame, 0, 255).astype(np.uint8))
        masks.append(mask > 0)
    return np.stack(frames), np.stack(masks)


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of each frame."""
    return (a & b).sum((1, 2)) / (a | b).sum((1, 2))
