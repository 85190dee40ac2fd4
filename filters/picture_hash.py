"""A perceptual hash of a clip or picture: what stays the same when it is encoded or resized again.

512 bits, 128 of each of four moments evenly spread over a clip. Of every moment another quarter is taken: 64 of the
14 x 14 lowest DCT coefficients of a 32 x 32 luma picture (pHash: signs about their median), and for the 4 x 4 cells of
the picture on which side of +-2 their mean chroma lies along two of eight directions of the Cb-Cr plane. A single
picture gives all four quarters itself, so a still clip has the hash of its picture. Copies differ in a few bits in a
hundred, different pictures in half of the luma bits (`filters/duplicates.py` compares). A picture of one colour has
nothing that could be alike: null, and so has a clip where that holds for two of the moments.

Measured 2026-11-21 at the default similarity of 0.88 on 129 pictures (photographs of scikit-image, frames of real
films) and 63 clips of 3 s; in brackets the 256 bits of luma alone that this was before. Copies found: crf 35 98 % (98,
chessboards are missed), JPEG 40, half the size and brightness +-5 % 100 % (98 to 100), cut by 2 % on each side 99 %
(37), by 4 % 69 % (2); of clips crf 36 100 % (98), begun 0.3 s later 94 % (84), cut by 2 % 98 % (92), by 4 % 57 % (40).
Taken for copies: none of 81 coloured pictures with the hue turned by 60, 120 or 180 degrees or made grey (86, 96, 77
and 100 %), and none of 8,137 pairs of different pictures (the most alike agree by 0.80).
A repainted object that fills a small part of the picture changes few bits: such an edit is alike to its source.
"""

from __future__ import annotations

import cv2
import numpy as np
import pyarrow as pa

from manifests.columns import column
from manifests.frames import ClipFrames

NUM_BITS = 512
NUM_FRAMES = 4
SIDE = 14          # 8 would collide among a million grey pictures, with 16 fewer cut copies are found
LUMA_BITS = 64     # of a moment
CELLS = 4          # a side
DIRECTIONS = 8     # two thresholds each: a turned hue changes a third of these bits, a lost colour half
NO_COLOUR = 2.0    # chroma below it is noise (0 to 127)
FLAT = 1.0         # standard deviation of the 32 x 32 luma picture below which all is noise (0 to 255)


class HashPictures:
    backend = "classical"
    version = 2  # 1 had 256 bits, and saw no colours
    adds = (column("picture_hash", pa.string(), "perceptual hash, 512 bits as 128 hex digits; alike bit by bit for "
                                                "copies"),)

    def __call__(self, clip: ClipFrames) -> dict:
        moments = [cv2.resize(clip.bgr[i], (32, 32), interpolation=cv2.INTER_AREA) for i in clip.spread(NUM_FRAMES)]
        if sum(cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY).std() < FLAT for bgr in moments) > 1:
            return {}
        bits = [part for n, bgr in enumerate(moments) for part in (_luma_bits(bgr, n), _chroma_bits(bgr, n))]
        return {"picture_hash": np.packbits(np.concatenate(bits)).tobytes().hex()}


def _quarters() -> list[np.ndarray]:
    """For each moment the numbers `(LUMA_BITS,)` of its coefficients: low and high ones alike, together all."""
    by_frequency = sorted(range(SIDE * SIDE), key=lambda i: (i // SIDE + i % SIDE, i))
    dealt = np.concatenate([by_frequency[n::NUM_FRAMES] for n in range(NUM_FRAMES)])
    return [np.take(dealt, np.arange(LUMA_BITS) + n * len(dealt) // NUM_FRAMES, mode="wrap") for n in range(NUM_FRAMES)]


QUARTERS = _quarters()


def _luma_bits(bgr: np.ndarray, moment: int) -> np.ndarray:
    """`(LUMA_BITS,)` bool of `(32, 32, 3)` uint8: low DCT coefficients above their median."""
    low = cv2.dct(cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY).astype(np.float32))[:SIDE, :SIDE].ravel()
    low[0] = 0.0  # brightness is no feature
    low[np.abs(low) < 1e-3] = 0.0
    return (low > np.median(low))[QUARTERS[moment]]


def _chroma_bits(bgr: np.ndarray, moment: int) -> np.ndarray:
    """`(CELLS * CELLS * 4,)` bool: mean chroma of each cell along two directions at right angles, above -+NO_COLOUR."""
    chroma = cv2.cvtColor(bgr.astype(np.float32) / 255, cv2.COLOR_BGR2YCrCb)[..., 1:] * 255 - 127.5
    cells = cv2.resize(chroma, (CELLS, CELLS), interpolation=cv2.INTER_AREA).reshape(-1, 2)
    angles = np.pi * (moment + np.array([0, DIRECTIONS / 2])) / DIRECTIONS
    along = cells @ np.stack([np.cos(angles), np.sin(angles)])
    return (along[..., None] > (-NO_COLOUR, NO_COLOUR)).ravel()
