"""Our renderer as the video editor of motion-aware data: dual-branch sampling of clips in memory (D6).

Loaded on the worker that names it ("pipelines.editors_motion:MotionAwareEditor"); it composes the
protocol of `datagen.backends` with `bernini`, which do not know each other.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bernini.errors import CaseError
from bernini.generate.cases import Case
from bernini.generate.guidance import DUAL_BRANCH
from bernini.generate.inputs import Inputs
from bernini.generate.pipeline import Pipeline
from bernini.generate.presets import Settings
from bernini.geometry import OutputSize, fit_size, vision_frames
from bernini.layouts import open_model
from bernini.memory import MemorySettings
from bernini.vae import resize
from datagen.backends import EditRequest
from manifests.errors import BackendError


class MotionAwareEditor:
    """A `VideoEditor`: source clip and edited first frame → target clip (paper, equation 4).

    `model` is a folder of any released layout. `alpha`, `schedule` and `weights` are those of
    `bernini/generate/dual_branch.py`. The prompt of the video-to-video branch is the request's
    `instruction`, that of the image-to-video branch its `params["motion_prompt"]` (else the same).
    The model works at sides in multiples of 16 and 4k + 1 frames; the result has the clip's own
    size and length. The same request with the same seed gives the same frames on one machine.
    """

    def __init__(self, model: str, *, base: str = "", alpha: float = 0.5, schedule: str = "constant",
                 weights: str = "table5", num_steps: int = 40, max_px: int = 848, fps: float = 16.0,
                 device: str = "auto", precision: str = "auto", offload: str = "none"):
        memory = MemorySettings(device=device, precision=precision, offload=offload)
        self.pipeline = Pipeline(open_model(model, base or None), memory, preset="paper")
        case = Case(prompt="-", task_type="rv2v", guidance_mode=DUAL_BRANCH)
        given = {"alpha": alpha, "alpha_schedule": schedule, "dual_weights": weights, "fps": fps,
                 "num_inference_steps": num_steps, "max_image_size": max_px}
        self.settings = self.pipeline.settings(case, given)
        self.pipeline.denoiser(self.settings, lambda *_: None)  # wrong numbers are refused before any clip is read

    def edit(self, frames: np.ndarray, request: EditRequest, first_frame: np.ndarray | None = None) -> np.ndarray:
        """`frames` `(T, H, W, 3)` uint8 RGB, `first_frame` `(H, W, 3)`; the result is like `frames`."""
        if first_frame is None:
            raise BackendError("motion-aware editing needs the edited first frame of the clip")
        case = Case(prompt=request.instruction, motion_prompt=str(request.params.get("motion_prompt") or ""),
                    task_type="rv2v", guidance_mode=DUAL_BRANCH)
        settings = replace(self.settings, seed=request.seed)
        try:
            made = self.pipeline.render(case, settings, self._inputs(frames, first_frame, settings))
        except CaseError as error:
            raise BackendError(str(error)) from None
        return resize(made.frames, frames.shape[2], frames.shape[1])[: len(frames)]

    def _inputs(self, frames: np.ndarray, first_frame: np.ndarray, settings: Settings) -> Inputs:
        """The clip filled up to 4k + 1 frames with its last one; what is made of those is cut off again."""
        num = -(-(len(frames) - 1) // 4) * 4 + 1
        whole = np.concatenate([frames, np.repeat(frames[-1:], num - len(frames), axis=0)])
        least = 240 if self.pipeline.model.has_planner else 1  # as released: the planner sees no smaller picture
        width, height = fit_size(frames.shape[2], frames.shape[1], max_size=settings.max_image_size, min_size=least)
        seen: tuple[np.ndarray, ...] = ()
        if self.pipeline.model.has_planner:
            seen = (whole[vision_frames(num, settings.fps, settings.fps, num) or [0, 0]],)
        return Inputs(videos=(resize(whole, width, height),), images=(first_frame[None],), seen_videos=seen,
                      size=OutputSize(width=width, height=height, num_frames=num))
