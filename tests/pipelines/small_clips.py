"""Two short films with an object that can be followed: something blue crosses a table, something yellow a wall."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datagen.samples_photos import photograph
from manifests.media import write_video
from tests.datagen.moving_object import crossing

FILMS = {"coffee": ((40, 90, 200), 0.0), "motorcycle": ((230, 190, 30), 0.7)}  # background: colour, pan of the camera


def write_clips(folder: Path, num: int = 25) -> Path:
    """A list of films of 320x240, `num` frames at 16 fps, with their licences."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["path,licence"]
    for name, (color, pan) in FILMS.items():
        texture = np.full((192, 320, 3), color, np.uint8)
        texture[::12] = np.clip(np.add(color, 35), 0, 255)
        frames, _ = crossing(np.ascontiguousarray(photograph(name)), texture, pan=pan, num=num, size=(320, 240))
        write_video(str(folder / f"{name}.mp4"), frames, fps=16, crf=12)
        lines.append(f"{folder / name}.mp4,CC-BY-4.0")
    (folder / "list.csv").write_text("\n".join(lines))
    return folder / "list.csv"
