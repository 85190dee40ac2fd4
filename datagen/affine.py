"""Pictures of a subject: cut out of a frame, turned and sheared, and set before something else.

For the affine augmentation of subject images (OpenS2V in Table 1 of the paper) and for references
cut out of a first frame (its -Ref data): a model that is given the subject in another pose and place
cannot copy its pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

BACKGROUNDS = ("white", "grey", "colour", "gradient", "blurred")
ROOM = 0.12     # empty space around the subject, in subject sizes
LONG_PX = 640   # of a reference picture; never enlarged to it


@dataclass(frozen=True, kw_only=True)
class Affine:
    """Degrees, factors and shear of the subject; `mirror` turns left and right round."""

    rotation_deg: float
    scale: float
    shear: float
    mirror: bool

    def matrix(self) -> np.ndarray:
        """`(2, 2)` float64."""
        angle = np.deg2rad(self.rotation_deg)
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        return self.scale * turn @ np.array([[-1.0 if self.mirror else 1.0, self.shear], [0, 1]])


def draw_affine(rng: np.random.Generator) -> Affine:
    """Up to 25 degrees, 0.7 to 1.25 times, shear up to 0.2, half of them mirrored."""
    return Affine(rotation_deg=round(float(rng.uniform(-25, 25)), 2), scale=round(float(rng.uniform(0.7, 1.25)), 3),
                  shear=round(float(rng.uniform(-0.2, 0.2)), 3), mirror=bool(rng.random() < 0.5))


def cut_out(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """`(h, w, 4)` uint8 RGBA of what lies under `mask` (bool `(H, W)`), its edge softened by a pixel."""
    ys, xs = np.nonzero(mask)
    y0, y1 = max(0, ys.min() - 2), min(mask.shape[0], ys.max() + 3)
    x0, x1 = max(0, xs.min() - 2), min(mask.shape[1], xs.max() + 3)
    alpha = cv2.GaussianBlur(mask[y0:y1, x0:x1].astype(np.uint8) * 255, (3, 3), 0)
    return np.dstack([image[y0:y1, x0:x1], alpha])


def transform(cut: np.ndarray, affine: Affine) -> np.ndarray:
    """`cut` `(h, w, 4)` under `affine`, in the smallest picture that holds it."""
    height, width = cut.shape[:2]
    matrix = affine.matrix()
    corners = matrix @ np.array([[0, 0, width, width], [0, height, 0, height]], float)
    low, high = corners.min(1), corners.max(1)
    size = tuple(int(v) for v in np.ceil(high - low))
    where = np.hstack([matrix, -low[:, None]])
    # Premultiplied: else the edge takes on the colour of what was cut away.
    alpha = cut[..., 3:].astype(np.float32) / 255
    ready = np.dstack([cut[..., :3] * alpha, alpha * 255]).astype(np.float32)
    moved = cv2.warpAffine(ready, where, size, flags=cv2.INTER_AREA if affine.scale < 0.8 else cv2.INTER_LINEAR)
    solid = np.maximum(moved[..., 3:] / 255, 1e-3)
    return np.clip(np.dstack([moved[..., :3] / solid, moved[..., 3:]]) + 0.5, 0, 255).astype(np.uint8)


def set_before(cut: np.ndarray, kind: str, rng: np.random.Generator, scene: np.ndarray | None = None) -> np.ndarray:
    """`(H, W, 3)` uint8 RGB: the subject before a background of `kind`, with room around it.

    `scene` `(h, w, 3)` is what "blurred" makes its background of.
    """
    height, width = cut.shape[:2]
    room = round(ROOM * max(height, width))
    canvas = background(kind, (width + 2 * room, height + 2 * room), rng, scene)
    part = canvas[room : room + height, room : room + width]
    alpha = cut[..., 3:].astype(np.float32) / 255
    part[:] = np.clip(part * (1 - alpha) + cut[..., :3] * alpha + 0.5, 0, 255).astype(np.uint8)
    scale = LONG_PX / max(canvas.shape[:2])
    return canvas if scale >= 1 else cv2.resize(canvas, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def background(kind: str, size: tuple[int, int], rng: np.random.Generator, scene: np.ndarray | None) -> np.ndarray:
    width, height = size
    if kind == "blurred" and scene is not None:  # the colours of another place: mirrored, turned over, out of focus
        tiny = cv2.resize(scene[::-1, ::-1], (16, 9), interpolation=cv2.INTER_AREA)
        return cv2.resize(tiny, size, interpolation=cv2.INTER_CUBIC)
    first, second = rng.integers(40, 240, (2, 3))
    if kind == "gradient":
        ramp = np.linspace(0, 1, height)[:, None, None]
        return np.broadcast_to(first + (second - first) * ramp, (height, width, 3)).astype(np.uint8)
    colour = {"white": (255, 255, 255), "grey": (128, 128, 128)}.get(kind, tuple(first.tolist()))
    return np.full((height, width, 3), colour, np.uint8)
