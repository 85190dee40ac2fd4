"""A perceptual hash of a clip or picture: what stays the same when it is encoded or resized again.

256 bits. Of a clip: the 64 bits of pHash (signs of the lowest 8 x 8 DCT coefficients about their
median, of a 32 x 32 luma picture) of four frames evenly spread over it. Of a single picture: the
lowest 16 x 16 coefficients, because 64 bits collide among a million pictures. Copies differ in a
few bits in a hundred, different pictures in half of them (`filters/duplicates.py` compares).
"""

from __future__ import annotations

import cv2
import numpy as np
import pyarrow as pa

from manifests.columns import column
from manifests.frames import ClipFrames

NUM_BITS = 256
NUM_FRAMES = 4


class HashPictures:
    backend = "classical"
    adds = (column("picture_hash", pa.string(), "perceptual hash, 256 bits as 64 hex digits; alike bit by bit for "
                                                "copies"),)

    def __call__(self, clip: ClipFrames) -> dict:
        if len(clip.bgr) == 1:
            bits = _signs(clip.bgr[0], 16)
        else:
            bits = np.concatenate([_signs(clip.bgr[i], 8) for i in clip.spread(NUM_FRAMES)])
        return {"picture_hash": np.packbits(bits).tobytes().hex()}


def _signs(bgr: np.ndarray, side: int) -> np.ndarray:
    """`(side * side,)` bool: low DCT coefficients above their median. A flat picture gives zeros."""
    luma = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY).astype(np.float32)
    grey = cv2.resize(luma, (32, 32), interpolation=cv2.INTER_AREA)
    low = cv2.dct(grey)[:side, :side].ravel()
    low[0] = 0.0  # brightness is no feature
    low[np.abs(low) < 1e-3] = 0.0
    return low > np.median(low)
