"""The person of another clip as a reference picture: the whole body with a margin, as filmed (D8).

Paper section 3.4: "the person is cropped as a full-body reference image"; no editor touches it, because
editors do not keep faces. `mask_path` says where the person is in the target, so that the likeness of the
two backgrounds can be measured beside the person (filters/background_similarity.py).
"""

from __future__ import annotations

import cv2
import numpy as np
import pyarrow as pa

from manifests.columns import column, map_rows
from manifests.media_store import MediaStore
from manifests.messages import condition
from manifests.planes import fit, shrink
from manifests.schema import PAIRS
from manifests.spans import read_frames

from .backends import open_backend

# A standing body around its face, in face widths and heights of a frontal detector: shoulders are three
# faces wide, a body is seven to eight heads high.
HALF_WIDTH, ABOVE, BELOW = 1.7, 0.7, 7.0
NARROW = 1.2              # half width of the mask: elbows and hands may be left out, background must be left in
MARGIN = 0.06             # of the body's box, on each side
DETECT_PX = 480           # long side at which bodies are searched
LONG_PX = 1024            # of the stored reference
MIN_BODY_SCORE = 0.5      # SVM margin; a body counts only around a face that is known
MASK_PX = 256             # long side of the target's mask
MIN_BACKGROUND = 0.1      # share of the picture that must be left beside the person

Box = tuple[float, float, float, float]


class CropPerson:
    """CANDIDATES of people → the reference picture, and a mask of the person in the target.

    `media` is the root of the stored pictures. `segmenter` names a backend that finds "person" (a model);
    without one OpenCV's body detector is tried, then a body's proportions around the face.
    """

    reads = ("reference_video_path", "reference_time_s", "reference_face_box", "target_path", "target_face_time_s",
             "target_face_box")
    adds = (
        PAIRS.schema.field("conditions"),
        PAIRS.schema.field("mask_path"),
        column("reference_paths", pa.list_(pa.string()), "the reference pictures, in the order of the messages"),
        column("reference_found_by", pa.string(), "what set the crop: segmenter, body detector or face"),
        column("reference_width", pa.int32(), "of the crop as filmed", "px"),
        column("reference_height", pa.int32(), "of the crop as filmed", "px"),
    )
    neutral = ("media",)

    def __init__(self, media: str, *, segmenter: str = "", segmenter_options: dict | None = None):
        self.store = MediaStore(media)
        self.segmenter = open_backend("segmenter", segmenter, **(segmenter_options or {})) if segmenter else None
        self._hog = cv2.HOGDescriptor()
        self._hog.setSVMDetector(cv2.HOGDescriptor_getDefaultPeopleDetector())

    def __call__(self, table: pa.Table) -> pa.Table:
        return map_rows(table, self, self._crop)

    def _crop(self, row: dict) -> dict:
        frame = read_frames(row["reference_video_path"], [row["reference_time_s"]], long_px=4096)[0]
        box, found_by = self._body(frame, tuple(row["reference_face_box"]))
        x0, y0, x1, y1 = pixels(box, frame.shape)
        crop = np.ascontiguousarray(frame[y0:y1, x0:x1])
        path = self.store.image(shrink(crop, fit(crop.shape[1::-1], long_px=LONG_PX)))
        return {"conditions": [condition("reference", path)], "reference_paths": [path], "reference_found_by": found_by,
                "reference_width": x1 - x0, "reference_height": y1 - y0, "mask_path": self._target_mask(row)}

    def _target_mask(self, row: dict) -> str | None:
        """A picture, white where the person's body may be; null where that leaves too little background to compare."""
        frame = read_frames(row["target_path"], [row["target_face_time_s"]], long_px=MASK_PX)[0]
        mask = np.zeros(frame.shape[:2], np.uint8)
        x0, y0, x1, y1 = pixels(body_around(row["target_face_box"], NARROW), mask.shape)
        mask[y0:y1, x0:x1] = 255
        return self.store.image(mask) if (mask == 0).mean() >= MIN_BACKGROUND else None

    def _body(self, frame: np.ndarray, face: Box) -> tuple[Box, str]:
        """The person around a face, in shares of the frame, with a margin."""
        found_by, box = "face", body_around(face)
        if self.segmenter is not None:
            masks = [t.masks[0] for t in self.segmenter.segment(frame[None], ("person",))]
            boxes, name = [b for b in map(mask_box, masks) if b is not None], "segmenter"
        else:
            boxes, name = self._bodies(frame), "body"
        boxes = [b for b in boxes if holds_face(b, face)]
        if boxes:
            found_by, box = name, min(boxes, key=lambda b: (b[2] - b[0]) * (b[3] - b[1]))
            box = (min(box[0], face[0]), min(box[1], face[1]), max(box[2], face[2]), max(box[3], face[3]))
        return widened(box, MARGIN), found_by

    def _bodies(self, frame: np.ndarray) -> list[Box]:
        small = shrink(frame, fit(frame.shape[1::-1], long_px=DETECT_PX))
        height, width = small.shape[:2]
        if height < 128 or width < 64:  # smaller than the detector's window
            return []
        grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        boxes, scores = self._hog.detectMultiScale(grey, winStride=(8, 8), scale=1.05)
        return [(x / width, y / height, (x + w) / width, (y + h) / height)
                for (x, y, w, h), score in zip(boxes, np.ravel(scores), strict=True) if score > MIN_BODY_SCORE]


def body_around(face: Box, half_width: float = HALF_WIDTH) -> Box:
    """Box of a body by the proportions of its face, cut off at the frame."""
    x0, y0, x1, y1 = face
    centre, width, height = (x0 + x1) / 2, x1 - x0, y1 - y0
    return (max(centre - half_width * width, 0.0), max(y0 - ABOVE * height, 0.0),
            min(centre + half_width * width, 1.0), min(y0 + BELOW * height, 1.0))


def widened(box: Box, margin: float) -> Box:
    x0, y0, x1, y1 = box
    across, down = margin * (x1 - x0), margin * (y1 - y0)
    return (max(x0 - across, 0.0), max(y0 - down, 0.0), min(x1 + across, 1.0), min(y1 + down, 1.0))


def holds_face(box: Box, face: Box) -> bool:
    """Does the face lie in the upper half of the box?"""
    x, y = (face[0] + face[2]) / 2, (face[1] + face[3]) / 2
    return box[0] <= x <= box[2] and box[1] - 0.02 <= y <= (box[1] + box[3]) / 2


def mask_box(mask: np.ndarray) -> Box | None:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    height, width = mask.shape
    return (columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height)


def pixels(box: Box, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """At least 2 pixels a side."""
    height, width = shape[:2]
    x0, y0 = min(int(box[0] * width), width - 2), min(int(box[1] * height), height - 2)
    return x0, y0, max(round(box[2] * width), x0 + 2), max(round(box[3] * height), y0 + 2)
