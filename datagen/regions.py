"""Where an edit lies: grown, softened and exact masks, and values carried into holes.

Masks are bool `(H, W)`, mattes float32 `(H, W)` in [0, 1].
"""

from __future__ import annotations

import cv2
import numpy as np

from manifests.errors import BackendError

CHANGED = 6          # of 255, in any channel: less is rounding
SPECKLE_PX = 12      # changed spots below this many pixels belong to no edit


def grow(mask: np.ndarray, radius_px: float) -> np.ndarray:
    """`mask` dilated by a disc; eroded where `radius_px` is negative."""
    radius = round(abs(radius_px))
    if radius == 0:
        return mask.astype(bool)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    change = cv2.dilate if radius_px > 0 else cv2.erode
    return change(mask.astype(np.uint8), disc).astype(bool)


def feather(mask: np.ndarray, radius_px: float) -> np.ndarray:
    """Matte with an edge of about `radius_px` outside `mask`; 1 inside, exactly 0 further away."""
    if radius_px < 0.5:
        return mask.astype(np.float32)
    away = cv2.distanceTransform((~mask.astype(bool)).astype(np.uint8), cv2.DIST_L2, 5)
    ramp = np.clip(1 - away / (radius_px + 1), 0, 1)
    return (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)


def soft_matte(picture: np.ndarray, mask: np.ndarray, radius_px: float) -> np.ndarray:
    """Matte whose edge follows the picture's own (guided filter, He et al. 2010); 0 beyond `radius_px` of `mask`."""
    guide = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    radius, value = max(1, round(radius_px)), mask.astype(np.float32)
    mean = lambda v: cv2.blur(v, (2 * radius + 1, 2 * radius + 1))  # noqa: E731
    mean_guide, mean_value = mean(guide), mean(value)
    slope = (mean(guide * value) - mean_guide * mean_value) / (mean(guide * guide) - mean_guide**2 + 1e-3)
    matte = np.clip(mean(slope) * guide + mean(mean_value - slope * mean_guide), 0, 1)
    matte = np.clip((matte - 0.1) / 0.8, 0, 1)
    sure = grow(mask, -radius)
    return np.where(grow(mask, radius), np.where(sure, 1, matte), 0).astype(np.float32)


def blend(below: np.ndarray, above: np.ndarray, matte: np.ndarray) -> np.ndarray:
    """uint8: `above` over `below`; where the matte is 0 the bytes of `below` stay as they are."""
    mixed = below + (above.astype(np.float32) - below) * matte[..., None]
    out = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
    out[matte == 0] = below[matte == 0]
    return out


def changed(before: np.ndarray, after: np.ndarray, *, threshold: int = CHANGED) -> np.ndarray:
    """bool mask of what an edit changed between two pictures (or clips) of one size, without speckles."""
    if before.shape != after.shape:
        raise BackendError(f"an edit turned {before.shape} into {after.shape}; sizes must be equal")
    if before.ndim == 4:
        return np.stack([changed(b, a, threshold=threshold) for b, a in zip(before, after, strict=True)])
    mask = (cv2.absdiff(before, after).max(axis=2) > threshold).astype(np.uint8)
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    keep = stats[:, cv2.CC_STAT_AREA] >= SPECKLE_PX
    keep[0] = False
    return keep[labels]


def diffuse(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """`values` float32 `(H, W[, C])` with smooth ones where not `known`: push and pull through a pyramid."""
    if known.all() or not known.any():
        return values
    weight = known.astype(np.float32)
    shaped = weight[..., None] if values.ndim == 3 else weight
    total = _pull(values * shaped, weight)
    return np.where(shaped > 0, values, total).astype(np.float32)


def _pull(total: np.ndarray, weight: np.ndarray) -> np.ndarray:
    shape = lambda w, v: w[..., None] if v.ndim == 3 else w  # noqa: E731
    own = total / np.maximum(shape(weight, total), 1e-6)
    if weight.min() > 0.99 or min(weight.shape) < 2:
        return own
    size = (max(1, weight.shape[1] // 2), max(1, weight.shape[0] // 2))
    half_weight = cv2.resize(weight, size, interpolation=cv2.INTER_AREA)
    half_total = cv2.resize(total, size, interpolation=cv2.INTER_AREA).reshape(*size[::-1], *total.shape[2:])
    scale = 1 / np.maximum(half_weight, 1e-6)
    full = np.minimum(half_weight * 4, 1)
    below = _pull(half_total * shape(scale * full, half_total), full)
    below = cv2.resize(below, weight.shape[::-1], interpolation=cv2.INTER_LINEAR).reshape(total.shape)
    near = shape(np.minimum(weight, 1), total)
    return own * near + below * (1 - near)


def edge_px(shape: tuple[int, ...]) -> float:
    """Width of a soft edge for a picture of this size: 3 px at 480 lines."""
    return max(1.0, min(shape[:2]) / 160)


def masks_of(mask: np.ndarray | None, num_frames: int, size: tuple[int, int], kind: str) -> np.ndarray:
    """bool `(T, H, W)` of a request; `BackendError` where it is missing, empty or of another size."""
    if mask is None:
        raise BackendError(f"the edit {kind!r} needs a mask of what is meant")
    masks = np.broadcast_to(mask if mask.ndim == 3 else mask[None], (num_frames, *mask.shape[-2:]))
    if masks.shape[1:] != size or (mask.ndim == 3 and len(mask) != num_frames):
        raise BackendError(f"the mask is {mask.shape} and the picture {num_frames} x {size}; they must agree")
    if not masks.any():
        raise BackendError(f"the mask of the edit {kind!r} is empty")
    return masks.astype(bool)
