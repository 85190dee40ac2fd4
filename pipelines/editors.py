"""Our own renderer as an editor of clips: what the paper's sections 3.3 to 3.5 call an intermediate Bernini.

For recipes, named as "pipelines.editors:BerniniEditor" or by the video-editor "bernini". It lies
here because datagen and bernini are siblings that do not import each other.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from bernini.errors import CaseError
from bernini.generate.cases import Case
from bernini.generate.pipeline import Pipeline
from bernini.geometry import fit_size
from bernini.layouts import open_model
from bernini.memory import MemorySettings
from datagen.backends import EditRequest
from manifests.errors import BackendError, ConfigError, MediaError
from manifests.video_writer import write_video

# Our task → the generator's, and what it is given: clip, first frame, references.
TASKS = {
    "v2v": ("v2v", (True, False, False)),
    "vi2v": ("vi2v", (True, True, False)),
    "vr2v": ("rv2v", (True, False, True)),
    "i2v": ("i2v", (False, True, False)),
    "r2v": ("r2v", (False, False, True)),
}
MIN_FRAMES = 5       # the video autoencoder's 4k + 1 that is no picture
INPUT_CRF = 4        # of the clip on its way to the model: finer than any model sees


class BerniniEditor:
    """`VideoEditor` over a model folder of any released layout.

    `task` is one of TASKS, or "auto": vi2v with an edited first frame, vr2v with references, else
    v2v. `settings` are fields of `bernini.generate.presets.Settings`. `fps` is what the model
    believes the clip to run at: frames go in and come out one for one.
    """

    def __init__(self, model: str, *, base: str = "", task: str = "auto", preset: str = "paper", fps: float = 16.0,
                 max_px: int = 848, max_frames: int = 121, device: str = "auto", precision: str = "auto",
                 offload: str = "none", settings: dict | None = None):
        if task != "auto" and task not in TASKS:
            raise ConfigError(f"no task {task!r} of the renderer; known: auto, {', '.join(TASKS)}")
        memory = MemorySettings(device=device, precision=precision, offload=offload)
        self._pipeline = Pipeline(open_model(model, base or None), memory, preset=preset)
        self.task, self.fps, self.max_px, self.max_frames = task, fps, max_px, max_frames
        self.settings, self.version = dict(settings or {}), str(model)

    def edit(self, frames: np.ndarray, request: EditRequest, first_frame: np.ndarray | None = None) -> np.ndarray:
        if not request.instruction.strip():
            raise BackendError("the renderer needs an instruction; this request has none")
        if len(frames) > self.max_frames:
            raise BackendError(f"the clip has {len(frames)} frames; the renderer makes at most {self.max_frames} at "
                               "once: cut it first")
        task, uses = TASKS[self._task_of(request, first_frame)]
        with tempfile.TemporaryDirectory(prefix="bernini-editor-") as folder:
            videos, images = self._inputs(Path(folder), frames, request, first_frame, uses)
            case = Case(prompt=request.instruction, task_type=task, videos=videos, images=images)
            try:
                made = self._pipeline.generate(case, self._settings(case, frames, request.seed)).frames
            except (CaseError, MediaError) as error:
                raise BackendError(f"{self.version}: {error}") from None
        return _restored(made, frames)

    def _task_of(self, request: EditRequest, first_frame: np.ndarray | None) -> str:
        task = self.task
        if task == "auto":
            task = "vi2v" if first_frame is not None else "vr2v" if request.references else "v2v"
        _, (_, needs_first, needs_references) = TASKS[task]
        if needs_first and first_frame is None:
            raise BackendError(f"the task {task} needs an edited first frame")
        if needs_references and not request.references:
            raise BackendError(f"the task {task} needs a reference picture")
        return task

    def _inputs(self, folder: Path, frames, request, first_frame, uses) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Files of a case: the clip padded to 4k + 1 frames, and its pictures."""
        videos, pictures = [], []
        if uses[0]:
            videos.append(str(folder / "source.mp4"))
            write_video(videos[0], _padded(frames), fps=self.fps, crf=INPUT_CRF)
        shown = ([first_frame] if uses[1] else []) + (list(request.references) if uses[2] else [])
        for n, picture in enumerate(shown):
            pictures.append(str(folder / f"image{n}.png"))
            Image.fromarray(np.ascontiguousarray(picture[..., :3])).save(pictures[-1])
        return tuple(videos), tuple(pictures)

    def _settings(self, case: Case, frames: np.ndarray, seed: int):
        width, height = fit_size(frames.shape[2], frames.shape[1], max_size=self.max_px,
                                 min_size=240 if self._pipeline.model.has_planner else 1)
        wanted = {"num_frames": len(_padded(frames)), "fps": self.fps, "max_image_size": self.max_px,
                  "width": width, "height": height, "seed": seed}
        return self._pipeline.settings(case, self.settings | wanted)


def _padded(frames: np.ndarray) -> np.ndarray:
    missing = max(MIN_FRAMES - len(frames), -(len(frames) - 1) % 4)
    return np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)]) if missing else frames


def _restored(made: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """uint8: generated frames at the size and length of the clip."""
    if len(made) < len(frames):
        raise BackendError(f"the renderer made {len(made)} frames of {len(frames)}")
    size = (frames.shape[2], frames.shape[1])
    return np.stack([f if f.shape[1::-1] == size else cv2.resize(f, size, interpolation=cv2.INTER_CUBIC)
                     for f in made[:len(frames)]])
