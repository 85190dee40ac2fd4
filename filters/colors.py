"""Colours by name and brightness by place, for prompts made of measured facts."""

from __future__ import annotations

import cv2
import numpy as np
import pyarrow as pa

from manifests.columns import column
from manifests.frames import ClipFrames
from manifests.planes import shrink

GRID = 3  # brightness is kept for 3 x 3 parts of the picture, row by row
NUM_FRAMES = 4
# Hue borders in OpenCV's half degrees; red wraps around.
HUES = ((8, "red"), (22, "orange"), (34, "yellow"), (85, "green"), (100, "cyan"), (130, "blue"),
        (150, "purple"), (170, "pink"), (181, "red"))
_NAMES = (*(name for _, name in HUES), "black", "white", "grey")
_HUE_TABLE = np.array([next(k for k, (top, _) in enumerate(HUES) if h < top) for h in range(181)], np.uint8)


class MeasureColors:
    backend = "classical"
    adds = (
        column("saturation", pa.float32(), "mean saturation", "0 to 255"),
        column("colors", pa.list_(pa.string()), "names of the colours that cover most of the picture, most first"),
        column("layout", pa.list_(pa.float32()), "mean luma of the 3 x 3 parts of the picture, row by row", "0 to 255"),
    )

    def __call__(self, clip: ClipFrames) -> dict:
        frames = [shrink(clip.bgr[i], (64, 36)) for i in np.unique(clip.spread(NUM_FRAMES))]
        hsv = cv2.cvtColor(np.concatenate(frames), cv2.COLOR_BGR2HSV)
        mean = np.mean(frames, axis=0).astype(np.uint8)
        grid = cv2.resize(cv2.cvtColor(mean, cv2.COLOR_BGR2GRAY), (GRID, GRID), interpolation=cv2.INTER_AREA)
        return {
            "saturation": float(hsv[..., 1].mean()),
            "colors": _color_names(hsv.reshape(-1, 3)),
            "layout": grid.astype(np.float32).ravel().tolist(),
        }


def _color_names(hsv: np.ndarray) -> list[str]:
    """Names that cover at least an eighth of the pixels, most first, at most three."""
    hue, saturation, value = hsv[:, 0], hsv[:, 1], hsv[:, 2]
    index = _HUE_TABLE[hue].astype(int)
    grey = saturation < 40
    index[grey] = len(HUES) + 2
    index[grey & (value > 200)] = len(HUES) + 1
    index[value < 45] = len(HUES)
    counts: dict[str, int] = {}
    for name, count in zip(_NAMES, np.bincount(index, minlength=len(_NAMES)).tolist(), strict=True):
        counts[name] = counts.get(name, 0) + count
    most = sorted(counts, key=lambda name: (-counts[name], name))[:3]
    return [name for name in most if counts[name] >= len(hsv) / 8] or most[:1]
