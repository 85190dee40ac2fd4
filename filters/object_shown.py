"""Does a reference show the object that it was made of? (D7)

Measured by colours: of all windows of the reference with the form of the object's box, the one that holds most of
the object's colours, each in the amount that the object has of it. The object may be mirrored, larger, elsewhere
and somewhat darker or lighter; a scene without it, or with another object, rarely has all its colours in one place.
Colours say nothing of form, so this tells that an object was lost, not that it was kept: of 45 references that show
their object 98 % reach 0.65, of 45 that show another one 31 %, and of 45 bare scenes 27 %.
"""

from __future__ import annotations

import cv2
import numpy as np
import pyarrow as pa

from manifests.columns import column, map_rows
from manifests.errors import MediaError
from manifests.spans import read_image, read_picture

from .pair_frames import mask_frames

LONG_PX = 512
REFERENCE_PX = 128
HEIGHTS = (0.35, 0.45, 0.55, 0.65, 0.8, 0.95)  # of the windows, in heights of the reference
STEP = 0.15                                     # between windows, in their sides
LIGHTS = (-24.0, -16.0, -8.0, 0.0, 8.0, 16.0, 24.0)  # of L: the light of another scene
TINTS = tuple((a, b) for a in (-8, 0, 8) for b in (-8, 0, 8) if a or b)  # of a and b: its tint
BINS, RANGE = (8, 12, 12), ((0, 100), (-96, 96), (-96, 96))  # CIELab
LEAST = 0.005                                   # share of the object from which a colour counts
MIN_PIXELS = 40


class MeasureObjectShown:
    """Row by row over pairs with a reference; `mask_path` is the object in the picture `target_path`."""

    reads = ("target_path", "target_start_s", "conditions", "mask_path")
    adds = (column("object_shown", pa.float32(), "share of the object's colours that one place of the reference has: "
                                                 "1 all of it is there, 0 nothing", "0 to 1"),)

    def __call__(self, table: pa.Table) -> pa.Table:
        return map_rows(table, self, self._measure)

    def _measure(self, row: dict) -> dict:
        references = [c["path"] for c in row["conditions"] or () if c["role"] == "reference" and c["kind"] == "image"]
        if not references or not row["mask_path"]:
            raise MediaError("there is no reference, or no mask of the object")
        frame = read_picture(row["target_path"], row["target_start_s"], long_px=LONG_PX)
        mask = next(mask_frames(row["mask_path"], frame.shape[1::-1]))
        return {"object_shown": min(object_shown(frame, mask, read_image(p, long_px=REFERENCE_PX)) for p in references)}


def object_shown(frame: np.ndarray, mask: np.ndarray, reference: np.ndarray) -> float:
    """`frame` `(H, W, 3)` and `reference` `(h, w, 3)` uint8 RGB, `mask` bool `(H, W)`."""
    inner = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    inner = inner if inner.sum() >= MIN_PIXELS else mask
    if inner.sum() < MIN_PIXELS:
        raise MediaError(f"the object has {int(inner.sum())} pixels; {MIN_PIXELS} are the least")
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    fill, aspect = mask.sum() / (height * width), width / height
    pixels, there = _lab(frame[inner][:, None]), _bin(_lab(reference))

    def held(light: float, a: float, b: float) -> float:
        return _best_window(_shares(pixels + np.float32((light, a, b))), there, aspect, fill)

    share, light = max((held(light, 0, 0), light) for light in LIGHTS)
    return max(share, *(held(light, a, b) for a, b in TINTS))


def _best_window(wanted: np.ndarray, there: np.ndarray, aspect: float, fill: float) -> float:
    """`wanted` shares of the object by colour; `there` `(h, w)` the colour of each pixel of the reference."""
    colours = np.flatnonzero(wanted >= LEAST)
    amounts, (height, width) = wanted[colours], there.shape
    sums = np.stack([cv2.integral((there == c).astype(np.uint8)) for c in colours]).astype(np.float32)
    best = 0.0
    for share in HEIGHTS:
        h = max(4, round(share * height))
        w = min(width, max(4, round(h * aspect)))
        ys, xs = (np.arange(0, free + 1, max(1, round(STEP * side))) for free, side in
                  ((height - h, h), (width - w, w)))
        counts = (sums[:, ys + h][:, :, xs + w] - sums[:, ys][:, :, xs + w] - sums[:, ys + h][:, :, xs]
                  + sums[:, ys][:, :, xs])
        held = np.minimum(amounts[:, None, None], counts / (h * w * fill)).sum(axis=0)
        best = max(best, float(held.max()))
    return min(1.0, best / max(float(amounts.sum()), 1e-6))


def _lab(rgb: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


def _bin(lab: np.ndarray) -> np.ndarray:
    """int: the number of each pixel's colour."""
    number = np.zeros(lab.shape[:2], int)
    for channel, (bins, (low, high)) in enumerate(zip(BINS, RANGE, strict=True)):
        number = number * bins + np.clip((lab[..., channel] - low) / (high - low) * bins, 0, bins - 1).astype(int)
    return number


def _shares(lab: np.ndarray) -> np.ndarray:
    counts = np.bincount(_bin(lab).ravel(), minlength=int(np.prod(BINS)))
    return counts / counts.sum()
