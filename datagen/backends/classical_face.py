"""Faces without weights of a face model: OpenCV's cascade, and a descriptor of the crop.

Honest about what it is: the cascade sees frontal, upright faces of about 40 px and more, and the
descriptor (local binary patterns and gradients of the aligned crop, with skin and hair colour)
tells the same person in like light from another; it does not know a face under other light,
pose or age. Use it within one video; `arcface` is for real identities.
"""

from __future__ import annotations

import os

import cv2
import numpy as np

from manifests.planes import fit, shrink

from . import Face

CROP = 64
CELLS = 4
LONG_PX = 640        # long side in which faces are searched
MIN_SIDE = 0.06      # of the short side, and at least the cascade's own 20 px
VOTES = 5            # overlapping hits that make a face
PARTS = {"pattern": 0.45, "gradient": 0.35, "colour": 0.20}


class CascadeFaces:
    """`FaceEmbedder`; a score is 1 - 1 / hits of the cascade."""

    dim = CELLS * CELLS * 10 + CELLS * CELLS * 8 + CELLS * CELLS * 2

    def __init__(self, *, min_side: float = MIN_SIDE, votes: int = VOTES):
        name = "haarcascade_frontalface_alt2.xml"
        self._cascade = cv2.CascadeClassifier(os.path.join(cv2.data.haarcascades, name))
        self.min_side, self.votes = min_side, votes

    def faces(self, image: np.ndarray) -> list[Face]:
        size = fit(image.shape[1::-1], long_px=LONG_PX)
        grey = shrink(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), size)
        side = max(20, round(self.min_side * min(size)))
        boxes, hits = self._cascade.detectMultiScale2(grey, 1.1, self.votes, minSize=(side, side))
        scale = image.shape[1] / size[0]
        found = [_face(image, np.asarray(box) * scale, int(num)) for box, num in zip(boxes, np.ravel(hits),
                                                                                      strict=True)]
        return sorted(found, key=lambda f: (f.box[0] - f.box[2]) * (f.box[3] - f.box[1]))


def _face(image: np.ndarray, box: np.ndarray, hits: int) -> Face:
    x, y, width, height = np.rint(box).astype(int)
    x0, y0 = max(0, int(x)), max(0, int(y))
    x1, y1 = min(image.shape[1], int(x + width)), min(image.shape[0], int(y + height))
    return Face(box=(x0, y0, x1, y1), score=1 - 1 / (1 + hits), embedding=_describe(image[y0:y1, x0:x1]))


def _describe(crop: np.ndarray) -> np.ndarray:
    """float32 unit vector of a face crop of any size."""
    crop = cv2.resize(crop, (CROP, CROP), interpolation=cv2.INTER_AREA)
    grey = cv2.GaussianBlur(cv2.equalizeHist(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)), (0, 0), 0.8)
    parts = {"pattern": _patterns(grey), "gradient": _gradients(grey), "colour": _colours(crop)}
    joined = np.concatenate([np.sqrt(PARTS[k]) * v / max(float(np.linalg.norm(v)), 1e-6) for k, v in parts.items()])
    return (joined / np.linalg.norm(joined)).astype(np.float32)


def _cells(labels: np.ndarray, weights: np.ndarray, bins: int) -> np.ndarray:
    """Histogram of labels in every cell, as square roots about their mean over the face."""
    place = np.arange(labels.shape[0]) * CELLS // labels.shape[0]
    cell = place[:, None] * CELLS + (np.arange(labels.shape[1]) * CELLS // labels.shape[1])[None]
    counts = np.bincount((cell * bins + labels).ravel(), weights.ravel(), CELLS * CELLS * bins)
    shares = np.sqrt(counts.reshape(-1, bins) / np.maximum(counts.reshape(-1, bins).sum(axis=1, keepdims=True), 1e-6))
    return (shares - 1 / np.sqrt(bins)).ravel()


def _patterns(grey: np.ndarray) -> np.ndarray:
    """Rotation-invariant uniform local binary patterns (Ojala et al. 2002), 8 neighbours."""
    centre, bits = grey[1:-1, 1:-1], []
    for dy, dx in ((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0)):
        bits.append(grey[dy:dy + centre.shape[0], dx:dx + centre.shape[1]] >= centre)
    bits = np.stack(bits)
    changes = (bits != np.roll(bits, 1, axis=0)).sum(axis=0)
    labels = np.where(changes <= 2, bits.sum(axis=0), 9)
    return _cells(labels, np.ones(labels.shape), 10)


def _gradients(grey: np.ndarray) -> np.ndarray:
    dx, dy = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    strength, angle = cv2.cartToPolar(dx, dy)
    return _cells((angle * (8 / (2 * np.pi))).astype(int) % 8, strength.astype(np.float64), 8)


def _colours(crop: np.ndarray) -> np.ndarray:
    """Chroma of every cell about neutral grey: hair, skin, beard and glasses."""
    lab = cv2.cvtColor(crop.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[..., 1:]
    return cv2.resize(lab, (CELLS, CELLS), interpolation=cv2.INTER_AREA).ravel()
