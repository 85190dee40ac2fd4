"""VACE (Jiang et al. 2025) on Wan: masked video editing and inpainting by diffusers id or folder.

The paper's section 3.3 makes its first replacement data with it. White in the mask is what is generated; the
pipeline encodes the clip outside of it (kept) and under it (control) apart, video * (1 - mask) and video * mask.
What lies under white pixels therefore says what the model is told about them:

    pose        the drawn poses themselves, as VACE's own pose control
    stylise,    the clip in grey tones, VACE's colourisation control: of its controls (depth, pose, scribble,
    recolour    flow, layout, grey) it is the one that needs no other model and keeps shapes and motion
    others      flat grey: nothing, it is made from the words, the first frame and the references

The first frame, where one is given, is kept as it is and the rest follows.
"""

from __future__ import annotations

import cv2
import diffusers
import numpy as np
import torch
from PIL import Image

from manifests.errors import BackendError

from ..cut_reference import largest_part
from ..edit_picture import changed_mask
from ..flow import camera_motion
from ..regions import blend, edge_px, feather, grow, masks_of
from . import EditRequest
from .diffusers_load import generator, load_pipeline
from .sizes import WorkSize, as_uint8, whole_clip

GREY = 127          # what VACE sees where it is to generate
MAX_PIXELS = 480 * 832  # 480p, as the 1.3B and 14B models were trained
AROUND = 0.05       # of the shorter side: what is added moves a little, and throws a shadow
WHOLE = ("pose", "stylise", "animate")  # edits of the whole picture, which need no mask
REMOVAL = "The background of the scene, empty, without the object."
NEGATIVE = "blurred, distorted, flickering, low quality, watermark, text"


class WanVACE:
    """`VideoEditor` and `Inpainter` on `WanVACEPipeline` (`Wan-AI/Wan2.1-VACE-1.3B-diffusers`, or 14B).

    `max_frames` refuses what no model takes at once; lengths are padded to 4k + 1 and cut back.
    With a mask only what lies under it (grown a little) is changed. Without one the whole clip is generated where the
    kind is pose, stylise or animate (from its first frame); an insertion takes its mask from the edited first frame;
    every other kind is refused, because nothing of the clip would be kept.
    """

    def __init__(self, model: str = "Wan-AI/Wan2.1-VACE-1.3B-diffusers", *, steps: int = 50, guidance: float = 5.0,
                 conditioning: float = 1.0, max_pixels: int = MAX_PIXELS, max_frames: int = 121, seed: int = 0,
                 max_tokens: int = 512, device: str = "", dtype: str = "", offload: bool = False):
        # Wan's autoencoder loses detail in half precision; the rest does not.
        vae = {"vae": _autoencoder(model)}
        self._pipe = load_pipeline(diffusers.WanVACEPipeline, model, device=device, dtype=dtype, offload=offload, **vae)
        self._asked = {"num_inference_steps": steps, "guidance_scale": guidance, "conditioning_scale": conditioning,
                       "negative_prompt": NEGATIVE, "max_sequence_length": max_tokens}
        self._multiple = self._pipe.vae_scale_factor_spatial * self._pipe.transformer.config.patch_size[1]
        self.max_pixels, self.max_frames, self.seed, self.version = max_pixels, max_frames, seed, model

    def edit(self, frames: np.ndarray, request: EditRequest, first_frame: np.ndarray | None = None) -> np.ndarray:
        if not request.instruction.strip():
            raise BackendError("VACE needs an instruction that says what is to be seen; this request has none")
        if first_frame is not None and first_frame.shape != frames.shape[1:]:
            raise BackendError(f"the edited first frame is {first_frame.shape} and the clip's {frames.shape[1:]}")
        masks = (_meant(frames, request.kind, first_frame) if request.mask is None else
                 masks_of(request.mask, len(frames), frames.shape[1:3], request.kind))
        return self._run(frames, masks, request.instruction, request.seed, first_frame, request.references,
                         _told(frames, request.kind))

    def inpaint(self, frames: np.ndarray, masks: np.ndarray) -> np.ndarray:
        masks = masks_of(masks, len(frames), frames.shape[1:3], "remove")
        return self._run(frames, masks, REMOVAL, self.seed, None, ())

    def _run(self, frames, masks, prompt: str, seed: int, first_frame, references, told=None) -> np.ndarray:
        """`told` `(T, H, W, 3)` uint8: what VACE sees under the masks; None = flat grey."""
        if len(frames) > self.max_frames:
            raise BackendError(f"the clip has {len(frames)} frames; {self.version} takes at most {self.max_frames} "
                               "at once: cut it first")
        size = WorkSize.of(*frames.shape[1:3], multiple=self._multiple, max_pixels=self.max_pixels)
        holes = np.stack([grow(m, 0.02 * min(m.shape) + 1) for m in masks])
        shown, asked = _control(frames, holes, np.full_like(frames, GREY) if told is None else told, first_frame, size)
        extra = {"reference_images": [Image.fromarray(r[..., :3]) for r in references]} if references else {}
        out = self._pipe(video=shown, mask=asked, prompt=prompt, height=size.work_height, width=size.work_width,
                         num_frames=len(shown), generator=generator(seed), output_type="np", **self._asked,
                         **extra).frames[0]
        made = as_uint8(out, frames.shape, self.version)[:len(frames)]
        return _composed(frames, np.stack([size.restore(f) for f in made]), holes, first_frame)


def _autoencoder(model: str):
    try:
        return diffusers.AutoencoderKLWan.from_pretrained(model, subfolder="vae", torch_dtype=torch.float32,
                                                          use_safetensors=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BackendError(f"cannot load the autoencoder of a WanVACEPipeline from {model!r}: {reason[:300]}. Give "
                           "the folder or id of a diffusers pipeline (model=...)") from None


def _meant(frames: np.ndarray, kind: str, first_frame: np.ndarray | None) -> np.ndarray:
    """bool `(T, H, W)` of an edit without a mask: the whole picture, or what an edited first frame brought in."""
    if kind in WHOLE:
        if kind == "animate" and first_frame is None:
            raise BackendError("VACE animates a first frame; this request has none")
        return np.ones(frames.shape[:3], bool)
    if kind != "insert":
        raise BackendError(f"VACE needs a mask for the edit {kind!r}, or it keeps nothing of the clip; without one it "
                           f"does {', '.join(WHOLE)}, and insert with an edited first frame")
    if first_frame is None:
        raise BackendError("VACE needs a mask or an edited first frame to know where something is added")
    changed = changed_mask(frames[0], first_frame)
    if not changed.any():
        raise BackendError("the edited first frame does not differ from the clip's: nothing says where to add")
    # Grown first: the parts of one thing, and its shadow, then hang together.
    return _carried(frames, largest_part(grow(changed, AROUND * min(changed.shape))))


def _carried(frames: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """bool `(T, H, W)`: the mask `(H, W)` of the first frame, moved as the camera moves the scene."""
    moved, matrix = [mask], np.eye(3)
    for before, now in zip(frames, frames[1:], strict=False):
        matrix = camera_motion(before, now) @ matrix
        moved.append(cv2.warpPerspective(mask.astype(np.uint8), matrix, mask.shape[::-1],
                                         flags=cv2.INTER_NEAREST) > 0)
    return np.stack(moved)


def _told(frames: np.ndarray, kind: str) -> np.ndarray | None:
    """uint8 `(T, H, W, 3)`: the control video of an edit of this kind; None where it has none."""
    if kind == "pose":
        return frames
    if kind in ("stylise", "recolour"):
        return np.stack([cv2.cvtColor(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB) for f in frames])
    return None


def _control(frames, holes, told, first_frame, size: WorkSize) -> tuple[list[Image.Image], list[Image.Image]]:
    """What VACE sees: the clip with `told` under the masks, and the masks; a given first frame is not masked."""
    shown, asked = [], []
    for t, (frame, hole, under) in enumerate(zip(*map(whole_clip, (frames, holes, told)), strict=True)):
        if t == 0 and first_frame is not None:
            frame, hole = first_frame, np.zeros_like(hole)
        shown.append(Image.fromarray(size.bring(np.where(hole[..., None], under, frame))))
        asked.append(Image.fromarray(size.bring(hole.astype(np.uint8) * 255)).convert("L"))
    return shown, asked


def _composed(frames, made, holes, first_frame) -> np.ndarray:
    """Generated pixels only where they were asked for."""
    edge = edge_px(frames.shape[1:3])
    out = np.stack([blend(f, m, feather(h, edge)) for f, m, h in zip(frames, made, holes, strict=True)])
    if first_frame is not None:
        out[0] = first_frame
    return out
