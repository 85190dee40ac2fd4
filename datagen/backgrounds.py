"""The background of an object blurred as by a lens, or another one put behind it."""

from __future__ import annotations

import cv2
import numpy as np

from manifests.errors import BackendError

from .flow import camera_motion
from .recolor import lab, rgb
from .regions import edge_px, grow, soft_matte

BLUR_SHARE = 0.028   # radius of the blur, of the short side
TOWARDS = 0.25       # how far the object goes towards the light of its new background


def blur_background(picture: np.ndarray, mask: np.ndarray, *, radius_px: float | None = None) -> np.ndarray:
    """uint8: what is not under the bool mask out of focus; the object leaves no halo in it."""
    radius = max(2, round(radius_px or BLUR_SHARE * min(picture.shape[:2])))
    y, x = np.mgrid[-radius:radius + 1, -radius:radius + 1]
    disc = (x * x + y * y <= radius * radius + 0.5).astype(np.float32)
    disc /= disc.sum()
    linear = (picture.astype(np.float32) / 255) ** 2.2  # bright spots spread as light does
    behind = (~grow(mask, 2)).astype(np.float32)
    weight = cv2.filter2D(behind, -1, disc, borderType=cv2.BORDER_REFLECT)
    blurred = cv2.filter2D(linear * behind[..., None], -1, disc, borderType=cv2.BORDER_REFLECT)
    wide = cv2.GaussianBlur(linear * behind[..., None], (0, 0), 4 * radius)
    wide /= np.maximum(cv2.GaussianBlur(behind, (0, 0), 4 * radius), 1e-4)[..., None]
    known = np.clip(weight * 6, 0, 1)[..., None]
    blurred = known * blurred / np.maximum(weight, 1e-3)[..., None] + (1 - known) * wide
    matte = soft_matte(picture, mask, edge_px(picture.shape))[..., None]
    mixed = linear * matte + blurred * (1 - matte)
    out = np.clip(np.rint(mixed.clip(0, 1) ** (1 / 2.2) * 255), 0, 255).astype(np.uint8)
    sure = matte[..., 0] == 1
    out[sure] = picture[sure]
    return out


class NewBackground:
    """Another picture behind the object of a clip; it moves with the camera.

    `frames` uint8 `(T, H, W, 3)`, `masks` bool `(T, H, W)`: the object that stays.
    """

    def __init__(self, background: np.ndarray, frames: np.ndarray, masks: np.ndarray):
        if background.ndim != 3 or min(background.shape[:2]) < 32:
            raise BackendError(f"a background must be a picture of at least 32 x 32 pixels, not {background.shape}")
        height, width = frames.shape[1:3]
        self.paths = _camera_path(frames, masks)
        corners = np.float32([[0, 0], [width, 0], [0, height], [width, height]])[None]
        reach = np.concatenate([cv2.perspectiveTransform(corners, p)[0] for p in self.paths])
        margin = min(0.5, max(0.02, float(np.max([-reach.min(axis=0), reach.max(axis=0) - [width, height]]
                                                 / np.float32([width, height])))))
        self.picture = cover(background[..., :3], round(width * (1 + 2 * margin)), round(height * (1 + 2 * margin)))
        self.shift = np.float64([[1, 0, width * margin], [0, 1, height * margin], [0, 0, 1]])
        self.offset = self._light(frames[0], masks[0])

    def __call__(self, frame: np.ndarray, mask: np.ndarray, index: int) -> np.ndarray:
        height, width = mask.shape
        behind = cv2.warpPerspective(self.picture, self.shift @ self.paths[index], (width, height),
                                     flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT)
        matte = soft_matte(frame, grow(mask, -0.6), edge_px(frame.shape))[..., None]
        shifted = lab(frame) + self.offset
        shifted[..., 0] = np.clip(shifted[..., 0], 0, 100)
        return np.clip(np.rint(rgb(shifted) * matte + behind * (1 - matte)), 0, 255).astype(np.uint8)

    def _light(self, frame: np.ndarray, mask: np.ndarray) -> np.ndarray:
        if not mask.any() or mask.all():
            return np.zeros(3, np.float32)
        gap = lab(self.picture).reshape(-1, 3).mean(axis=0) - lab(frame)[~mask].mean(axis=0)
        return np.clip(gap * TOWARDS, [-10, -6, -6], [10, 6, 6]).astype(np.float32)


def cover(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """`picture` scaled and cropped in the middle to that size."""
    scale = max(width / picture.shape[1], height / picture.shape[0])
    size = max(width, round(picture.shape[1] * scale)), max(height, round(picture.shape[0] * scale))
    scaled = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    x, y = (size[0] - width) // 2, (size[1] - height) // 2
    return np.ascontiguousarray(scaled[y:y + height, x:x + width])


def _camera_path(frames: np.ndarray, masks: np.ndarray) -> list[np.ndarray]:
    """Homographies that take each frame to frame 0."""
    paths = [np.eye(3)]
    for t in range(1, len(frames)):
        path = paths[-1] @ camera_motion(frames[t], frames[t - 1], grow(masks[t], 4))
        paths.append(path / path[2, 2])
    return paths
