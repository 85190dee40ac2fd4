"""Two short films with an object that can be followed: something blue crosses a table, something yellow a wall."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from datagen.samples_photos import photograph
from manifests.video_writer import write_video
from tests.datagen.moving_object import crossing

FILMS = {"coffee": ((40, 90, 200), 0.0), "motorcycle": ((230, 190, 30), 0.7)}  # background: colour, pan of the camera
# Settings of a recipe over them: shorter, smaller and smoother than what is kept of real films.
SMALL = {"engine": "local", "quiet": True, "clip_min_s": 1.0, "min_side_px": 144, "min_sharpness": 1.0, "max_frozen": 1.0,
         "short_px": 144, "max_frames": 17}


def write_clips(folder: Path, num: int = 25) -> Path:
    """A list of films of 320x240, `num` frames at 16 fps, with their licences."""
    folder.mkdir(parents=True, exist_ok=True)
    lines, rng = ["path,licence"], np.random.default_rng(0)
    for name, (color, pan) in FILMS.items():
        grain = cv2.GaussianBlur(rng.normal(0, 90, (192, 320, 1)), (0, 0), 1.5)[..., None]
        texture = np.clip(np.array(color) + grain, 0, 255).astype(np.uint8)
        frames, _ = crossing(np.ascontiguousarray(photograph(name)), texture, pan=pan, num=num, size=(320, 240))
        write_video(str(folder / f"{name}.mp4"), frames, fps=16, crf=12)
        lines.append(f"{name}.mp4,CC-BY-4.0")  # relative: the ids, and what is drawn by them, are the same in every folder
    (folder / "list.csv").write_text("\n".join(lines))
    return folder / "list.csv"
