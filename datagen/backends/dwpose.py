"""DWPose (Yang et al. 2023), the paper's pose estimator (Table 1), through onnxruntime.

Two ONNX files as published with it: a person detector (YOLOX: `yolox_l.onnx`) and whole-body keypoints
(RTMPose with SimCC heads: `dw-ll_ucoco_384.onnx`, 133 points: 17 body, 6 feet, 68 face, 42 hands). What
goes in and out is written here, not taken from `rtmlib`, which brings another OpenCV and fetches weights.

* Detector in: `(1, 3, S, S)` float32 BGR 0 to 255, the picture shrunk into the upper left corner, the rest 114.
  Out: either raw `(1, N, 5 + classes)` in grid units of strides 8, 16, 32, or boxes and scores
  `(1, N, 5)` after its own suppression.
* Pose in: `(1, 3, H, W)` float32 RGB, normalised with ImageNet's mean and deviation, a person box with a
  quarter more on all sides in the model's aspect. Out: `simcc_x (1, K, 2 W)` and `simcc_y (1, K, 2 H)`,
  whose largest bins are the place in half pixels.
"""

from __future__ import annotations

import cv2
import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as runtime

from manifests.errors import BackendError

from . import Poses

MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
PADDING = 1.25
SIMCC_SPLIT = 2.0
NMS_OVERLAP = 0.45
BODY = ((15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8), (7, 9), (8, 10),
        (1, 2), (0, 1), (0, 2), (1, 3), (2, 4))
FEET = ((15, 17), (15, 18), (15, 19), (16, 20), (16, 21), (16, 22))


def hand(first: int) -> tuple[tuple[int, int], ...]:
    """Limbs of a hand of 21 points: five fingers of four joints from the wrist."""
    return tuple((first if j == 0 else first + 4 * f + j, first + 4 * f + j + 1) for f in range(5) for j in range(4))


WHOLE_BODY = BODY + FEET + hand(91) + hand(112)


class DWPose:
    """`model` is the file of the keypoints, `detector` that of the people."""

    def __init__(self, *, model: str, detector: str, device: str = "auto", min_score: float = 0.4,
                 max_people: int = 8):
        self._pose, self._people = _session(model, device, "pose"), _session(detector, device, "detector")
        self._min_score, self._max_people = min_score, max_people
        num = _outputs(self._pose, 2)[0][1]
        self.skeleton = WHOLE_BODY if num == 133 else BODY
        self.version = f"{model} + {detector} (onnxruntime {onnxruntime.__version__})"

    def estimate(self, frames: np.ndarray) -> list[Poses]:
        return [self._one(frame) for frame in frames]

    def _one(self, frame: np.ndarray) -> Poses:
        found = [self._keypoints(frame, box) for box in self.people(frame)]
        num = _outputs(self._pose, 2)[0][1]
        if not found:
            return Poses(keypoints=np.zeros((0, num, 2), np.float32), scores=np.zeros((0, num), np.float32))
        return Poses(keypoints=np.stack([k for k, _ in found]), scores=np.stack([s for _, s in found]))

    def people(self, frame: np.ndarray) -> np.ndarray:
        """`(P, 4)` float32 boxes x0, y0, x1, y1 in pixels, surest first."""
        side = _side(self._people)
        scale = min(side / frame.shape[0], side / frame.shape[1])
        small = cv2.resize(frame, (round(frame.shape[1] * scale), round(frame.shape[0] * scale)))
        padded = np.full((side, side, 3), 114, np.uint8)
        padded[: small.shape[0], : small.shape[1]] = small[..., ::-1]
        blob = np.ascontiguousarray(padded.transpose(2, 0, 1)[None], np.float32)
        out = self._people.run(None, {self._people.get_inputs()[0].name: blob})[0][0]
        boxes, scores = (out[:, :4], out[:, 4]) if out.shape[1] == 5 else _decode_grid(out, side)
        sure = scores >= self._min_score
        boxes, scores = boxes[sure] / scale, scores[sure]
        sizes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
        keep = cv2.dnn.NMSBoxes(sizes.tolist(), scores.tolist(), self._min_score, NMS_OVERLAP)
        return boxes[np.asarray(keep, int).ravel()[: self._max_people]].astype(np.float32)

    def _keypoints(self, frame: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`(K, 2)` pixels and `(K,)` scores of one person."""
        height, width = _height_width(self._pose)
        centre, size = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) * PADDING
        size = np.array([max(size[0], size[1] * width / height), max(size[1], size[0] * height / width)])
        step = size / (width, height)
        where = np.array([[1 / step[0], 0, width / 2 - centre[0] / step[0]],
                          [0, 1 / step[1], height / 2 - centre[1] / step[1]]])
        part = (cv2.warpAffine(frame, where, (width, height)).astype(np.float32) - MEAN) / DEVIATION
        blob = np.ascontiguousarray(part.transpose(2, 0, 1)[None], np.float32)
        along_x, along_y = self._pose.run(None, {self._pose.get_inputs()[0].name: blob})[:2]
        places = np.stack([along_x[0].argmax(-1), along_y[0].argmax(-1)], -1) / SIMCC_SPLIT
        scores = np.minimum(along_x[0].max(-1), along_y[0].max(-1))
        return ((places - (width / 2, height / 2)) * step + centre).astype(np.float32), np.clip(scores, 0, 1)


def _decode_grid(out: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and person scores of YOLOX's raw output; class 0 is a person."""
    cells, strides = [], []
    for stride in (8, 16, 32):
        n = side // stride
        ys, xs = np.mgrid[:n, :n]
        cells.append(np.stack([xs, ys], -1).reshape(-1, 2))
        strides.append(np.full((n * n, 1), stride))
    cells, strides = np.concatenate(cells), np.concatenate(strides)
    if len(cells) != len(out):
        raise BackendError(f"the detector gives {len(out)} boxes for {side} px; YOLOX gives {len(cells)}")
    centre, size = (out[:, :2] + cells) * strides, np.exp(out[:, 2:4]) * strides
    return np.concatenate([centre - size / 2, centre + size / 2], 1), out[:, 4] * out[:, 5]


def _session(path: str, device: str, what: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # warnings about its own graph passes
    options.intra_op_num_threads = 1 if device == "cpu" else 0
    known = onnxruntime.get_available_providers()
    wanted = ["CPUExecutionProvider"]
    if device != "cpu" and "CUDAExecutionProvider" in known:
        wanted.insert(0, "CUDAExecutionProvider")
    try:
        return onnxruntime.InferenceSession(path, options, providers=wanted)
    except (runtime.NoSuchFile, runtime.InvalidProtobuf, runtime.InvalidGraph, runtime.Fail,
            runtime.InvalidArgument) as error:
        raise BackendError(f"cannot load the {what} model {path!r}: {error}. Give DWPose's ONNX files with "
                           "--pose-model and --pose-detector") from None


def _outputs(session: onnxruntime.InferenceSession, num: int) -> list:
    shapes = [o.shape for o in session.get_outputs()]
    if len(shapes) < num:
        raise BackendError(f"the pose model has {len(shapes)} outputs; SimCC models have simcc_x and simcc_y")
    return shapes


def _height_width(session: onnxruntime.InferenceSession) -> tuple[int, int]:
    height, width = session.get_inputs()[0].shape[2:]
    return int(height), int(width)


def _side(session: onnxruntime.InferenceSession) -> int:
    return _height_width(session)[0]
