"""Fixtures that several folders of tests share. All media are real, encoded video."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="module", autouse=True)
def no_ray_left_behind():
    """A local Ray that a test started ends with its module: two gigabytes that later tests need."""
    yield
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        ray.shutdown()


@pytest.fixture(scope="session")
def media() -> Path:
    """Real clips and broken files; facts in media.json."""
    if not (SHARED / "media" / "media.json").exists():
        pytest.skip("needs ../shared/media, which is not beside this checkout")
    return SHARED / "media"


@pytest.fixture(scope="session")
def film(tmp_path_factory):
    """The built-in sample film, shot once a session."""
    from datagen.samples import write_sample_film

    return write_sample_film(tmp_path_factory.mktemp("sample-film"), quiet=True)


@pytest.fixture(scope="session")
def film_run(film, tmp_path_factory):
    """Finished stops of the video-pair recipe over the sample film, run in process: name -> Manifest."""
    from pipelines.pairs.video_pairs import Config, run_steps

    config = Config(input=str(film.videos_folder), output=str(tmp_path_factory.mktemp("film-out")), engine="local",
                    quiet=True)
    return dict(run_steps(config))


@pytest.fixture
def bernini(capsys):
    """Call the console command in process: `code, out, err = bernini("show", path)`."""
    from pipelines.__main__ import main

    def call(*argv: str):
        try:
            code = main([str(a) for a in argv])
        except SystemExit as error:  # tyro exits on --help and on a wrong flag
            code = error.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def moving_frames(num: int, *, size=(320, 240), seed: int = 0, step: float = 2.0):
    """`num` RGB frames (height, width, 3) uint8 of a smooth random picture that drifts to the left."""
    import cv2

    width, height = size
    rng = np.random.default_rng(seed)
    seeds = rng.integers(0, 256, (12, 24, 3), np.uint8)
    picture = cv2.resize(seeds, (width * 3, height), interpolation=cv2.INTER_CUBIC)
    picture = np.clip(picture.astype(int) + rng.integers(-25, 26, picture.shape), 0, 255).astype(np.uint8)
    for i in range(num):
        x = round(i * step) % (2 * width)
        yield np.ascontiguousarray(picture[:, x : x + width])


@pytest.fixture
def make_video(tmp_path):
    """Write a real mp4: `make_video("a.mp4", num_frames=50, shots=2)`; shots are hard cuts."""
    from manifests.video_writer import write_video

    def make(name: str, *, num_frames: int = 75, shots: int = 1, fps: int = 25, size=(320, 240), folder=None) -> Path:
        path = (folder or tmp_path) / name

        def frames():
            for shot in range(shots):
                yield from moving_frames(num_frames // shots, size=size, seed=shot + len(name))

        write_video(str(path), frames(), fps=fps)
        return path

    return make
