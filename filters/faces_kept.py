"""Are the faces that no edit was meant for still there?

OpenCV's frontal cascade, as in people.py: it misses profiles and small faces, in the source as in
the target, and so speaks only of what it saw. A face is kept when the target has one at its place.
"""

from __future__ import annotations

import os

import cv2
import numpy as np
import pyarrow as pa

from manifests.columns import column, map_rows

from .pair_frames import READS, both, pair_frames

CASCADE = "haarcascade_frontalface_alt2.xml"
LINES = 360          # faces of a tenth of that are found
EVERY = 12           # frames between looks
MAX_LOOKS = 6
VOTES = 4            # overlapping hits that make a face of the source; one of the target needs half of that
SAME_PLACE = 0.3     # overlap (IoU) of a face with itself in the other clip
OUTSIDE = 0.3        # a face with more of it under the mask was meant to change


class MeasureFacesKept:
    """Row by row over PAIRS; without a mask every face of the source should be kept."""

    reads = READS
    adds = (
        column("num_faces_to_keep", pa.int32(), "faces seen in the source outside the mask, over the frames looked at"),
        column("faces_kept", pa.float32(), "share of them that the target shows at their place; 1 where there are "
                                           "none"),
    )

    def __init__(self):
        self._frontal = cv2.CascadeClassifier(os.path.join(cv2.data.haarcascades, CASCADE))

    def __call__(self, table: pa.Table) -> pa.Table:
        return map_rows(table, self, self._measure)

    def _measure(self, row: dict) -> dict:
        wanted = kept = looks = 0
        for n, frame in enumerate(both(pair_frames(row, short_px=LINES, needs_mask=False))):
            if n % EVERY:
                continue
            faces = [f for f in self._faces(frame.source, VOTES) if _share_under(f, frame.mask) <= OUTSIDE]
            if faces:
                found = self._faces(frame.target, VOTES // 2)
                wanted, kept = wanted + len(faces), kept + sum(
                    any(_overlap(f, g) >= SAME_PLACE for g in found) for f in faces)
            looks += 1
            if looks == MAX_LOOKS:
                break
        return {"num_faces_to_keep": wanted, "faces_kept": kept / wanted if wanted else 1.0}

    def _faces(self, picture: np.ndarray, votes: int) -> list[tuple[int, int, int, int]]:
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        side = max(24, round(0.08 * min(grey.shape)))
        found = self._frontal.detectMultiScale(grey, 1.1, votes, minSize=(side, side))
        return [tuple(int(v) for v in box) for box in found]


def _share_under(face: tuple[int, int, int, int], mask: np.ndarray | None) -> float:
    x, y, width, height = face
    return 0.0 if mask is None else float(mask[y:y + height, x:x + width].mean())


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    common = max(0, width) * max(0, height)
    return common / (a[2] * a[3] + b[2] * b[3] - common)
