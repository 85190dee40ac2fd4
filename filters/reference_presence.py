"""Does the input of a reference-and-video triplet lack what the reference shows, and the target show it? (D9)

Paper section 3.4: the input video lacks the referenced object. Looked at is the region where the object was
(the pair's mask): its colours in the target and in the input, against those of the reference. Colours say
nothing of form, but here both sides are the same place of the same film.
"""

from __future__ import annotations

import cv2
import numpy as np
import pyarrow as pa

from manifests.columns import column, map_rows
from manifests.errors import MediaError
from manifests.spans import read_picture

from .pair_frames import READS, both, pair_frames

LONG_PX = 256
MIDDLE = 0.6         # of the reference's sides: what surrounds the object is not counted
WHITE = 244          # of 255 in all channels: the empty ground of a cut-out
BINS = (8, 12, 12)   # of CIELab
EVERY = 8            # frames between looks
MIN_PIXELS = 40


class MeasureReferencePresence:
    """Row by row over PAIRS with a reference image and a mask. Likenesses are common parts of histograms, 0 to 1."""

    reads = (*READS, "conditions")
    adds = (
        column("reference_in_target", pa.float32(), "likeness of the reference and the masked part of the target"),
        column("reference_in_source", pa.float32(), "likeness of the reference and the masked part of the source"),
        column("reference_lost", pa.float32(), "what the source lacks of it: target less source"),
    )

    def __call__(self, table: pa.Table) -> pa.Table:
        return map_rows(table, self, self._measure)

    def _measure(self, row: dict) -> dict:
        paths = [c["path"] for c in row["conditions"] or () if c["role"] == "reference" and c["kind"] == "image"]
        if not paths:
            raise MediaError("the pair has no reference image")
        wanted = [reference_colours(read_picture(path, None, long_px=LONG_PX)) for path in paths]
        likeness = {"source": [], "target": []}
        for n, frame in enumerate(both(pair_frames(row))):
            if n % EVERY or frame.mask.sum() < MIN_PIXELS:
                continue
            for side, values in likeness.items():
                inside = histogram(getattr(frame, side)[frame.mask])
                values.append(max(float(np.minimum(inside, w).sum()) for w in wanted))
        if not likeness["target"]:
            raise MediaError("the mask is empty wherever it was looked at")
        source, target = (float(np.mean(likeness[side])) for side in ("source", "target"))
        return {"reference_in_target": target, "reference_in_source": source, "reference_lost": target - source}


def reference_colours(picture: np.ndarray) -> np.ndarray:
    """Histogram of the middle of the reference, without a white ground."""
    height, width = picture.shape[:2]
    y, x = int(height * (1 - MIDDLE) / 2), int(width * (1 - MIDDLE) / 2)
    middle = picture[y : height - y, x : width - x].reshape(-1, 3)
    shown = middle[(middle < WHITE).any(axis=1)]
    return histogram(shown if len(shown) >= MIN_PIXELS else middle)


def histogram(pixels: np.ndarray) -> np.ndarray:
    """Shares of `(n, 3)` uint8 RGB pixels in coarse bins of CIELab."""
    lab = cv2.cvtColor(pixels.reshape(-1, 1, 3).astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[:, 0]
    counts, _ = np.histogramdd(lab, bins=BINS, range=((0, 100), (-96, 96), (-96, 96)))
    return counts / max(counts.sum(), 1)
