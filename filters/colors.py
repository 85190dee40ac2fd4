"""Colours by name and brightness by place, for prompts made of measured facts."""

from __future__ import annotations

import cv2
import numpy as np
import pyarrow as pa

from manifests.color_names import main_colors
from manifests.columns import column
from manifests.frames import ClipFrames
from manifests.planes import shrink

GRID = 3  # brightness is kept for 3 x 3 parts of the picture, row by row
NUM_FRAMES = 4


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
            "colors": main_colors(hsv.reshape(-1, 3)),
            "layout": grid.astype(np.float32).ravel().tolist(),
        }
