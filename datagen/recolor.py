"""Another colour for an object, with its light and shade kept.

Chroma is turned to the wanted colour in Lab and scaled by what it was, so that highlights and
shadows stay nearly grey as they are on real things; lightness moves only part of the way.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from manifests.errors import BackendError

from .regions import blend, edge_px, soft_matte

COLORS = {
    "red": (200, 30, 35), "orange": (235, 125, 25), "yellow": (240, 205, 40), "green": (45, 140, 60),
    "teal": (20, 140, 140), "blue": (35, 80, 200), "purple": (125, 50, 165), "pink": (235, 110, 165),
    "brown": (115, 70, 40), "black": (28, 28, 30), "grey": (125, 125, 125), "white": (238, 238, 235),
}
LIGHTNESS_SHARE = 0.55   # of the way to the wanted lightness; more flattens the shading
OWN_SHARE = 0.25         # of the object's own variation of colour that stays


def lab(picture: np.ndarray) -> np.ndarray:
    """float32 CIE Lab (L 0 to 100) of a uint8 RGB picture."""
    return cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


def rgb(picture_lab: np.ndarray) -> np.ndarray:
    """uint8 RGB of float32 Lab."""
    return np.clip(np.rint(cv2.cvtColor(picture_lab, cv2.COLOR_LAB2RGB) * 255), 0, 255).astype(np.uint8)


def wanted_color(value: object, *, seed: int = 0) -> tuple[int, int, int]:
    """RGB of a name of COLORS, or of three numbers; null picks a strong hue by the seed."""
    if value is None:
        hue = np.random.default_rng(seed).random()
        return tuple(round(255 * c) for c in colorsys.hsv_to_rgb(hue, 0.8, 0.75))
    if isinstance(value, str):
        if value.lower() not in COLORS:
            raise BackendError(f"no colour {value!r}; known: {', '.join(COLORS)}, or three numbers 0 to 255")
        return COLORS[value.lower()]
    if isinstance(value, Sequence) and len(value) == 3 and all(0 <= v <= 255 for v in value):
        return tuple(int(v) for v in value)
    raise BackendError(f"a colour is a name or three numbers 0 to 255, not {value!r}")


@dataclass(frozen=True, kw_only=True)
class Recolor:
    """Fitted once for a clip, so that the colour does not breathe from frame to frame."""

    mean: np.ndarray    # Lab of the object
    target: np.ndarray  # Lab that is wanted

    @classmethod
    def fit(cls, frames: np.ndarray, masks: np.ndarray, color: tuple[int, int, int]) -> Recolor:
        """From uint8 `(T, H, W, 3)` frames and bool `(T, H, W)` masks."""
        picks = [lab(f)[m] for f, m in zip(frames[::4], masks[::4], strict=True) if m.any()]
        if not picks:
            raise BackendError("there is nothing under the mask to recolour")
        return cls(mean=np.median(np.concatenate(picks), axis=0), target=lab(np.uint8([[color]]))[0, 0])

    def __call__(self, frame: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """uint8 `(H, W, 3)`: the frame with what lies under the bool mask recoloured."""
        if not mask.any():
            return frame.copy()
        return blend(frame, rgb(self._turned(lab(frame))), soft_matte(frame, mask, 2 * edge_px(frame.shape)))

    def _turned(self, picture: np.ndarray) -> np.ndarray:
        light = picture[..., 0]
        wanted = self.mean[0] + LIGHTNESS_SHARE * (self.target[0] - self.mean[0])
        # Contrast shrinks where the wanted lightness leaves less room than there was.
        room = min(1.0, max(0.35, min(wanted, 100 - wanted) / max(min(self.mean[0], 100 - self.mean[0]), 1)))
        new = np.clip(wanted + (light - self.mean[0]) * max(room, 0.6), 0, 100)
        # Real dyes have little chroma in deep shadow and in highlights, and most at their own lightness.
        own = float(self.target[0])
        strength = np.minimum(new / max(own, 1), (102 - new) / max(102 - own, 1)).clip(0, 1.1)
        chroma = self.target[1:] * strength[..., None] + OWN_SHARE * (picture[..., 1:] - self.mean[1:])
        return np.dstack([new, chroma]).astype(np.float32)
