"""Brightness, contrast, and stretches that are black or frozen."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from manifests.columns import column
from manifests.frames import ClipFrames

BLACK_LUMA = 20.0     # mean luma below which a frame is black (video black is 16)
FROZEN_CHANGE = 0.05  # mean change below which two frames are the same picture; sensor noise gives 0.2 or more


class MeasureExposure:
    backend = "classical"
    adds = (
        column("brightness", pa.float32(), "mean luma over the clip", "0 to 255"),
        column("contrast", pa.float32(), "mean standard deviation of luma inside a frame", "0 to 255"),
        column("black_ratio", pa.float32(), "share of black frames"),
        column("frozen_ratio", pa.float32(), "share of frames equal to the frame before"),
    )

    def __call__(self, clip: ClipFrames) -> dict:
        spread = [float(image.std()) for image in clip.details]
        steps = clip.frame_change[1:]
        return {
            "brightness": float(clip.frame_luma.mean()),
            "contrast": float(np.mean(spread)) if spread else None,
            "black_ratio": float((clip.frame_luma < BLACK_LUMA).mean()),
            "frozen_ratio": float((steps < FROZEN_CHANGE).mean()) if len(steps) else None,
        }
