"""Faces: the classical embedder on a photograph, ArcFace's alignment and its loading of ONNX files."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from datagen.backends import open_backend
from datagen.samples_photos import photograph
from manifests.errors import BackendError, ConfigError


@pytest.fixture(scope="module")
def portrait():
    return np.ascontiguousarray(photograph("astronaut")[:320, 60:420])


@pytest.fixture(scope="module")
def embedder(tmp_path_factory):
    """A small network of ArcFace's inputs and outputs, as an ONNX file."""
    onnx = pytest.importorskip("onnx", reason="the small ArcFace model is built with onnx")
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = numpy_helper.from_array(rng.normal(size=(16, 3, 16, 16)).astype(np.float32) * 0.05, "w")
    mix = numpy_helper.from_array(rng.normal(size=(16 * 49, 32)).astype(np.float32), "m")
    nodes = [helper.make_node("Conv", ["input", "w"], ["c"], strides=[16, 16]),
             helper.make_node("Flatten", ["c"], ["f"]), helper.make_node("MatMul", ["f", "m"], ["embedding"])]
    graph = helper.make_graph(
        nodes, "arcface", [helper.make_tensor_value_info("input", TensorProto.FLOAT, [None, 3, 112, 112])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [None, 32])], [weights, mix])
    path = tmp_path_factory.mktemp("face") / "tiny_arcface.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return str(path)


def test_a_face_is_found_and_described_by_a_unit_vector(portrait):
    faces = open_backend("face", "classical").faces(portrait)
    (x0, y0, x1, y1), embedding = faces[0].box, faces[0].embedding
    assert 100 < (x0 + x1) / 2 < 225 and 60 < (y0 + y1) / 2 < 160 and x1 - x0 > 60  # the astronaut's
    assert embedding.dtype == np.float32 and np.linalg.norm(embedding) == pytest.approx(1, abs=1e-5)
    assert 0 < faces[0].score < 1


def test_the_same_face_is_nearer_in_other_light_than_another_face(portrait, media):
    embed = open_backend("face", "classical")
    own = embed.faces(portrait)[0].embedding
    darker = np.clip(portrait * 0.7, 0, 255).astype(np.uint8)
    smaller = cv2.resize(portrait, None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)
    from manifests.spans import read_frames

    again = [float(own @ embed.faces(p)[0].embedding) for p in (darker, smaller)]
    others = []
    for name in ("vertical_lakeside_woman.mp4", "vertical_selfie_man.mp4", "portrait_plants_woman.mp4"):
        found = [f for p in read_frames(str(media / "clips" / name), [0.5, 1.0, 1.5], long_px=720) for f in embed.faces(p)]
        others += [float(own @ f.embedding) for f in found[:2]]
    assert others and min(again) > max(others) + 0.1


def test_faces_come_largest_first_and_none_where_there_is_none(portrait):
    both = np.zeros((400, 700, 3), np.uint8) + 120
    both[:320, :360] = portrait
    both[100:340, 400:670] = cv2.resize(portrait, (270, 240))
    faces = open_backend("face", "classical").faces(both)
    sizes = [f.box[2] - f.box[0] for f in faces]
    assert len(faces) >= 2 and sizes == sorted(sizes, reverse=True)
    assert open_backend("face", "classical").faces(photograph("gravel")[:200, :200]
                                                   if photograph("gravel").ndim == 3 else both[:90, 400:]) == []


def test_a_turned_face_is_aligned_to_the_template():
    arcface = pytest.importorskip("datagen.backends.arcface", reason="needs onnxruntime")
    angle, scale = np.deg2rad(25), 1.7
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = arcface.TEMPLATE @ turn.T + [40, 90]
    matrix = arcface.similarity(points, arcface.TEMPLATE.astype(float))
    assert np.abs(points @ matrix[:, :2].T + matrix[:, 2] - arcface.TEMPLATE).max() < 1e-6
    picture = np.zeros((400, 400, 3), np.uint8)
    for n, (x, y) in enumerate(points):
        cv2.circle(picture, (round(x), round(y)), 5, (255, 60 * n, 0), -1)
    crop = arcface.aligned(picture, points)
    assert crop.shape == (112, 112, 3)
    assert all(crop[round(y), round(x), 0] > 200 for x, y in arcface.TEMPLATE)


def test_embeddings_are_those_of_the_onnx_model_at_unit_length(embedder, portrait):
    arcface = pytest.importorskip("datagen.backends.arcface", reason="needs onnxruntime")
    import onnxruntime

    backend = object.__new__(arcface.ArcFace)  # without a detector
    backend._session, backend.version = arcface._session(embedder, "cpu", 1), "tiny"
    crops = np.stack([cv2.resize(portrait, (112, 112)), cv2.resize(portrait[:, ::-1], (112, 112))])
    out = backend.embed(crops)
    plain = onnxruntime.InferenceSession(embedder, providers=["CPUExecutionProvider"]).run(
        None, {"input": (crops.transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 127.5})[0]
    assert out.shape == (2, 32) and np.abs(np.linalg.norm(out, axis=1) - 1).max() < 1e-5
    assert np.abs(out - plain / np.linalg.norm(plain, axis=1, keepdims=True)).max() < 1e-5


def test_found_faces_are_scaled_back_sorted_and_embedded(embedder, portrait):
    arcface = pytest.importorskip("datagen.backends.arcface", reason="needs onnxruntime")

    class KnownPlaces:
        """In the place of YuNet, whose weights are not shipped: two faces in the 960 px picture that it is shown."""

        def setInputSize(self, size):
            self.size = size

        def detect(self, picture):
            assert picture.shape[1::-1] == self.size == (960, 540)
            rows = [[100, 100, 60, 60, *(arcface.TEMPLATE * 0.5 + 100).ravel(), 0.8],
                    [400, 200, 120, 150, *(arcface.TEMPLATE + [400, 200]).ravel(), 0.9],
                    [5, 5, 8, 8, *([6] * 10), 0.9]]  # smaller than any face that can be told
            return 1, np.float32(rows)

    backend = object.__new__(arcface.ArcFace)
    backend._session, backend._detector = arcface._session(embedder, "cpu", 1), KnownPlaces()
    backend.version, backend.min_side_px = "tiny", 24
    picture = cv2.resize(portrait, (1920, 1080))
    faces = backend.faces(picture)
    assert [f.box for f in faces] == [(800, 400, 1040, 700), (200, 200, 320, 320)]  # twice the size, largest first
    crop = arcface.aligned(picture, (arcface.TEMPLATE + [400, 200]) * 2)
    assert np.abs(faces[0].embedding - backend.embed(crop[None])[0]).max() < 1e-4
    assert faces[1].score == pytest.approx(0.8, abs=1e-6)


def test_files_that_are_no_models_are_refused(embedder, tmp_path):
    with pytest.raises(ConfigError, match="model 'nowhere.onnx' is no file"):
        open_backend("face", "arcface", model="nowhere.onnx", detector=embedder)
    junk = tmp_path / "junk.onnx"
    junk.write_bytes(b"junk")
    with pytest.raises(BackendError, match="cannot load a YuNet face detector"):
        open_backend("face", "arcface", model=embedder, detector=str(junk))
    arcface = pytest.importorskip("datagen.backends.arcface", reason="needs onnxruntime")
    with pytest.raises(BackendError, match="cannot load an ONNX model"):
        arcface._session(str(junk), "cpu", 1)
