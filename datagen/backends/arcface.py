"""Face identities by ArcFace (Deng et al. 2019) through onnxruntime, faces found by YuNet.

The paper's section 3.4 groups clips by face embedding. Both models are files that the user
gives: nothing is fetched. The detector is OpenCV's YuNet (`face_detection_yunet_*.onnx`), the
embedder any ArcFace-like ONNX with one input `(N, 3, 112, 112)` and one output `(N, D)`, such
as insightface's `w600k_r50.onnx`, whose weights are for research only.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, InvalidGraph, InvalidProtobuf

from manifests.errors import BackendError, ConfigError
from manifests.planes import fit

from . import Face

SIZE = 112
# Eyes, nose and corners of the mouth in the 112 x 112 crop that ArcFace is trained on.
TEMPLATE = np.float32([(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655),
                       (70.7299, 92.2041)])
UNUSABLE = (Fail, InvalidArgument, InvalidGraph, InvalidProtobuf)  # they share no public base
LONG_PX = 960        # long side in which faces are searched
LARGEST = 8          # faces of one picture that are embedded


class ArcFace:
    """`FaceEmbedder`. `model` and `detector` are paths of ONNX files; `min_score` is YuNet's own."""

    def __init__(self, model: str, detector: str, *, min_score: float = 0.7, min_side_px: int = 24,
                 device: str = "cpu", threads: int = 1):
        for name, path in (("model", model), ("detector", detector)):
            if not Path(path).is_file():
                raise ConfigError(f"{name} {path!r} is no file; give the path of an ONNX model")
        try:
            self._detector = cv2.FaceDetectorYN.create(detector, "", (320, 320), min_score, 0.3, 200)
        except cv2.error as error:
            raise BackendError(f"cannot load a YuNet face detector from {detector!r}: {error.err}") from None
        self._session = _session(model, device, threads)
        self.min_side_px, self.version = min_side_px, Path(model).name

    def faces(self, image: np.ndarray) -> list[Face]:
        width, height = fit(image.shape[1::-1], long_px=LONG_PX)
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        self._detector.setInputSize((width, height))
        _, found = self._detector.detect(np.ascontiguousarray(small[..., ::-1]))
        if found is None:
            return []
        found = found.astype(np.float64)
        found[:, :14] *= np.tile([image.shape[1] / width, image.shape[0] / height], 7)
        found = found[found[:, 2:4].min(axis=1) >= self.min_side_px]
        found = found[np.argsort(-found[:, 2] * found[:, 3], kind="stable")][:LARGEST]
        if not len(found):
            return []
        crops = np.stack([aligned(image, row[4:14].reshape(5, 2)) for row in found])
        return [_face(row, e, image.shape) for row, e in zip(found, self.embed(crops), strict=True)]

    def embed(self, crops: np.ndarray) -> np.ndarray:
        """float32 `(N, D)` of unit length for aligned uint8 RGB crops `(N, 112, 112, 3)`."""
        values = (crops.astype(np.float32).transpose(0, 3, 1, 2) - 127.5) / 127.5
        name = self._session.get_inputs()[0].name
        rows = [self._session.run(None, {name: values[i:i + 1]})[0] for i in range(len(values))]  # some take one only
        out = np.concatenate(rows).astype(np.float32)
        if out.ndim != 2 or not np.isfinite(out).all():
            raise BackendError(f"{self.version} answered with an array {out.shape} that is no embedding")
        return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-9)


def aligned(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """uint8 `(112, 112, 3)`: the face turned and scaled so that its five `points` (x, y) lie on the template.

    `points` are right eye, left eye, nose, right and left corner of the mouth, as seen by the
    person: that is left to right in the picture.
    """
    matrix = similarity(np.asarray(points, np.float64), TEMPLATE.astype(np.float64))
    return cv2.warpAffine(image, matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR)


def similarity(points: np.ndarray, onto: np.ndarray) -> np.ndarray:
    """2x3 least-squares rotation, scale and shift (Umeyama 1991) of `points` `(N, 2)`."""
    centre, target = points.mean(axis=0), onto.mean(axis=0)
    a, b = points - centre, onto - target
    left, strength, right = np.linalg.svd(b.T @ a)
    turn = np.array([1.0, np.sign(np.linalg.det(left @ right)) or 1.0])
    rotation = left @ np.diag(turn) @ right
    scale = (strength * turn).sum() / max(np.square(a).sum(), 1e-9)
    return np.column_stack([scale * rotation, target - scale * rotation @ centre])


def _face(row: np.ndarray, embedding: np.ndarray, shape: tuple[int, ...]) -> Face:
    x0, y0 = np.maximum(np.rint(row[:2]), 0).astype(int)
    x1, y1 = np.minimum(np.rint(row[:2] + row[2:4]), [shape[1], shape[0]]).astype(int)
    return Face(box=(int(x0), int(y0), int(x1), int(y1)), score=float(np.clip(row[14], 0, 1)), embedding=embedding)


def _session(model: str, device: str, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"] if device.startswith("cuda") else [
        "CPUExecutionProvider"]
    missing = [p for p in providers if p not in onnxruntime.get_available_providers()]
    if missing:
        raise ConfigError(f"onnxruntime has no {missing[0]} here; install onnxruntime-gpu or give device='cpu'")
    try:
        session = onnxruntime.InferenceSession(model, options, providers=providers)
    except UNUSABLE as error:
        raise BackendError(f"cannot load an ONNX model from {model!r}: {str(error)[:300]}") from None
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or list(inputs[0].shape[1:]) != [3, SIZE, SIZE] or len(outputs) < 1:
        raise BackendError(f"{model!r} takes {[i.shape for i in inputs]}; an ArcFace model has one input "
                           f"(N, 3, {SIZE}, {SIZE})")
    return session
