from __future__ import annotations

import cv2
import numpy as np
import pyarrow as pa
import pytest

from annotators.backends import classical
from manifests.columns import ISSUES
from manifests.video_writer import write_video

from .vllm_server import MISSING, PYTHON, make_model, vllm_server

TYPES = {"colors": pa.list_(pa.string()), "layout": pa.list_(pa.float32()), "num_faces": pa.int32(),
         "num_bodies": pa.int32()}
MEASURE_FIELDS = [pa.field(name, TYPES.get(name.split("_", 1)[1], pa.float32())) for name in classical.MEASURES]
STRINGS = ("pair_id", "source_path", "target_path", "transition")
TIMES = ("source_start_s", "source_end_s", "target_start_s", "target_end_s")
PAIR_SCHEMA = pa.schema([*((n, pa.string()) for n in STRINGS), *((n, pa.float64()) for n in TIMES),
                         *MEASURE_FIELDS, ISSUES])


@pytest.fixture(scope="session")
def film(tmp_path_factory) -> str:
    """Eight seconds: a red, then a blue half, with a white square that walks to the right."""
    path = str(tmp_path_factory.mktemp("film") / "film.mp4")
    noise = np.random.default_rng(0).integers(0, 60, (120, 160, 3), np.uint8)

    def frames():
        for i in range(80):
            image = noise.copy()
            image[..., 0 if i < 40 else 2] += 150
            cv2.rectangle(image, (10 + i, 50), (30 + i, 70), (255, 255, 255), -1)
            yield image

    write_video(path, frames(), fps=10)
    return path


@pytest.fixture
def pairs(film) -> pa.Table:
    """Five pairs of that film; the fourth one's file is not there."""
    rows = [{"pair_id": f"p-{i:016x}", "source_path": film, "target_path": film if i != 3 else "/nowhere/x.mp4",
             "source_start_s": 0.0, "source_end_s": 2.0 + i / 10, "target_start_s": 4.0, "target_end_s": 6.0,
             "transition": "red turns blue", **measures()} for i in range(5)]
    return pa.Table.from_pylist(rows, PAIR_SCHEMA)


def measures(**changes: object) -> dict:
    side = {"camera_pan": 0.0, "camera_tilt": 0.0, "camera_zoom": 0.0, "camera_roll": 0.0, "camera_fit": 0.9,
            "moving_area": 0.03, "moving_x": 0.5, "moving_y": 0.5, "moving_drift": 0.0, "num_faces": 0,
            "num_bodies": 0, "face_size": 0.0, "brightness": 100.0, "saturation": 80.0, "contrast": 50.0,
            "sharpness": 300.0, "colors": ["red", "grey"], "layout": [100.0] * 9}
    both = {f"{s}_{name}": value for s in ("source", "target") for name, value in side.items()}
    return {name: value for name, value in {**both, **changes}.items() if name in classical.MEASURES}


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> str:
    if not PYTHON.exists():
        pytest.skip(MISSING)
    return make_model(tmp_path_factory.mktemp("tiny-qwen3-vl"))


@pytest.fixture(scope="package")  # two gigabytes and a busy core that later tests need
def vllm_url(tiny_model, tmp_path_factory):
    with vllm_server(tiny_model, tmp_path_factory.mktemp("vllm") / "server.log") as url:
        yield url


@pytest.fixture(scope="session")
def photo_film(tmp_path_factory) -> str:
    """Six seconds made of photographs: slow moves over two of those that ship with scikit-image."""
    from skimage import data

    path = str(tmp_path_factory.mktemp("photos") / "photos.mp4")
    photos = (data.astronaut(), data.coffee())
    pictures = [cv2.resize(image, (480, 360), interpolation=cv2.INTER_AREA) for image in photos]
    steps = [(pictures[i // 36], i % 36) for i in range(72)]
    write_video(path, (image[step : step + 240, 2 * step : 2 * step + 320] for image, step in steps), fps=12)
    return path
