"""Small media and lists of which data sets are made, and the import in process."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from manifests.video_writer import write_video
from pipelines.datasets.command import Config, import_dataset
from tests.conftest import moving_frames

# A row of OpenS2V: its metadata, and its annotation.
OPEN = {"path": "a.mp4", "crop": [0, 1, 0, 1], "face_cut": [0, 9], "face_cap_qwen": "x", "fps": 10}
MARKS = {"ann_frame_data": {"ann_frame_idx": "1", "annotations": [{"bbox": [1, 2, 3, 4]}]}}


def picture(path: Path, seed: int = 0, size=(96, 64)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(next(iter(moving_frames(1, size=size, seed=seed)))).save(path)
    return path


def video(path: Path, seed: int = 0, num: int = 20, size=(160, 96)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(str(path), moving_frames(num, size=size, seed=seed), fps=10)
    return path


def lines(path: Path, *rows: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def run(name: str, root: Path, tmp_path: Path, **settings) -> tuple[list[dict], list[dict]]:
    """Rows of PAIRS and SAMPLES."""
    done = list(import_dataset(Config(dataset=name, input=str(root), output=str(tmp_path / "out"), engine="local",
                                      quiet=True, **settings)))
    assert not any(m.validate() for m in done)
    return done[1].table().to_pylist(), done[2].table().to_pylist()
