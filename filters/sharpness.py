"""Sharp or blurred: the variance of the Laplacian, the field's usual measure (Pech-Pacheco 2000).

It is taken on luma at the training resolution (short side 480), because a blur that is gone
at that size does no harm.
"""

from __future__ import annotations

import cv2
import numpy as np
import pyarrow as pa

from manifests.columns import column
from manifests.frames import ClipFrames


def sharpness_of(luma: np.ndarray) -> float:
    """Of one `(Y, X)` uint8 picture with a short side of 480 px."""
    return float(cv2.Laplacian(luma, cv2.CV_16S).var())


class MeasureSharpness:
    backend = "classical"
    adds = (column("sharpness", pa.float32(), "median over frames of the variance of the Laplacian at 480p",
                   "luma squared"),)

    def __call__(self, clip: ClipFrames) -> dict:
        values = [sharpness_of(image) for image in clip.details]
        return {"sharpness": float(np.median(values)) if values else None}
