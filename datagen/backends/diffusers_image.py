"""Image editors of the field by diffusers id or folder: Qwen-Image-Edit, FLUX Kontext, inpainting.

Paper sections 3.2 and 3.3 name an image editor without saying which; these are two that are
open. A picture goes in at the model's own size (multiples of its stride, about one megapixel)
and comes back at the size that it had.
"""

from __future__ import annotations

import diffusers
import numpy as np
from PIL import Image

from manifests.errors import BackendError, ConfigError

from ..regions import blend, edge_px, feather, grow, masks_of
from . import EditRequest
from .diffusers_load import generator, load_pipeline
from .sizes import MEGAPIXEL, WorkSize, as_uint8

INPAINTERS = ("StableDiffusionInpaintPipeline", "StableDiffusionXLInpaintPipeline", "FluxFillPipeline")


class QwenImageEditor:
    """`ImageEditor` on `QwenImageEditPipeline` (`Qwen/Qwen-Image-Edit`).

    `steps` and `guidance` (true classifier-free) are the model card's. `max_pixels` bounds what
    is generated; the pipeline itself shows the model the source at one megapixel.
    """

    def __init__(self, model: str = "Qwen/Qwen-Image-Edit", *, steps: int = 50, guidance: float = 4.0,
                 negative_prompt: str = " ", max_pixels: int = MEGAPIXEL, device: str = "", dtype: str = "",
                 offload: bool = False):
        self._pipe = load_pipeline(diffusers.QwenImageEditPipeline, model, device=device, dtype=dtype, offload=offload)
        self._multiple = self._pipe.vae_scale_factor * 2
        self._asked = {"num_inference_steps": steps, "true_cfg_scale": guidance, "negative_prompt": negative_prompt}
        self.max_pixels, self.version = max_pixels, model

    def edit(self, image: np.ndarray, request: EditRequest) -> np.ndarray:
        size = WorkSize.of(*image.shape[:2], multiple=self._multiple, max_pixels=self.max_pixels)
        out = self._pipe(image=Image.fromarray(size.bring(image)), prompt=instruction_of(request),
                         height=size.work_height, width=size.work_width, generator=generator(request.seed),
                         output_type="np", **self._asked).images
        return size.restore(as_uint8(out, (1, *image.shape), self.version)[0])


class FluxKontextEditor:
    """`ImageEditor` on `FluxKontextPipeline` (`black-forest-labs/FLUX.1-Kontext-dev`); numbers from its model card."""

    def __init__(self, model: str = "black-forest-labs/FLUX.1-Kontext-dev", *, steps: int = 28, guidance: float = 2.5,
                 max_pixels: int = MEGAPIXEL, max_tokens: int = 512, device: str = "", dtype: str = "",
                 offload: bool = False):
        self._pipe = load_pipeline(diffusers.FluxKontextPipeline, model, device=device, dtype=dtype, offload=offload)
        self._multiple = self._pipe.vae_scale_factor * 2
        self._asked = {"num_inference_steps": steps, "guidance_scale": guidance, "max_sequence_length": max_tokens}
        self.max_pixels, self.version = max_pixels, model

    def edit(self, image: np.ndarray, request: EditRequest) -> np.ndarray:
        size = WorkSize.of(*image.shape[:2], multiple=self._multiple, max_pixels=self.max_pixels)
        # The pipeline would move the source to one of its preferred sizes and the answer with it.
        out = self._pipe(image=Image.fromarray(size.bring(image)), prompt=instruction_of(request),
                         height=size.work_height, width=size.work_width, max_area=size.work_height * size.work_width,
                         _auto_resize=False, generator=generator(request.seed), output_type="np", **self._asked).images
        return size.restore(as_uint8(out, (1, *image.shape), self.version)[0])


class DiffusersInpainter:
    """`Inpainter` frame by frame on an inpainting pipeline of diffusers (`pipeline` is one of INPAINTERS).

    For pictures, or where nothing moves: frames know nothing of each other. Pixels outside the
    grown mask keep their bytes.
    """

    def __init__(self, model: str, *, pipeline: str = "StableDiffusionInpaintPipeline",
                 prompt: str = "empty background, nothing there", steps: int = 30, guidance: float = 7.5,
                 max_pixels: int = MEGAPIXEL, seed: int = 0, device: str = "", dtype: str = "", offload: bool = False):
        if pipeline not in INPAINTERS:
            raise ConfigError(f"no inpainting pipeline {pipeline!r}; known: {', '.join(INPAINTERS)}")
        self._pipe = load_pipeline(getattr(diffusers, pipeline), model, device=device, dtype=dtype, offload=offload)
        self._asked = {"prompt": prompt, "num_inference_steps": steps, "guidance_scale": guidance}
        self._multiple = max(16, self._pipe.vae_scale_factor * 2)
        self.max_pixels, self.seed, self.version = max_pixels, seed, model

    def inpaint(self, frames: np.ndarray, masks: np.ndarray) -> np.ndarray:
        masks = masks_of(masks, len(frames), frames.shape[1:3], "remove")
        return np.stack([self._frame(f, m) if m.any() else f for f, m in zip(frames, masks, strict=True)])

    def _frame(self, frame: np.ndarray, mask: np.ndarray) -> np.ndarray:
        size = WorkSize.of(*frame.shape[:2], multiple=self._multiple, max_pixels=self.max_pixels)
        hole = grow(mask, 0.012 * min(mask.shape) + 1)
        out = self._pipe(image=Image.fromarray(size.bring(frame)),
                         mask_image=Image.fromarray(size.bring(hole.astype(np.uint8) * 255)),
                         height=size.work_height, width=size.work_width, generator=generator(self.seed),
                         output_type="np", **self._asked).images
        painted = size.restore(as_uint8(out, (1, *frame.shape), self.version)[0])
        return blend(frame, painted, feather(hole, edge_px(mask.shape)))


def instruction_of(request: EditRequest) -> str:
    if not request.instruction.strip():
        raise BackendError("an image editor needs an instruction; this request has none")
    return request.instruction
