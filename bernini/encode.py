"""Samples → features: VAE latents, ViT features and text embeddings, all in bfloat16.

One function for both ways: `bernini encode` stores what it gives, training from raw samples
uses it at once, and the two are equal to the bit. Latents are the normalised mode of the
posterior (spec 2.5), ViT features come after the merger (3.3), texts are system prompt + prompt
through the text encoder (2.4), not padded.

Sizes and frames follow `bernini/geometry.py` (spec 2.6 and 3.8): sides in multiples of 16, 4k + 1
frames at 16 fps, at most the first 97; the vision tower sees at most 12 frames at 2 fps.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from bernini.encoder_parts import LATENT, PART_OF, TEXT, VIT, fingerprints, part
from bernini.geometry import fit_size, latent_frames, renderer_frames, vision_frames
from bernini.layouts import ModelFolder
from bernini.memory import MemorySettings
from bernini.planner.model import RoundedVisionRotary
from bernini.prompts import clean_prompt, planner_system_prompt
from bernini.text import MAX_TOKENS, positive_text
from bernini.vae import resize
from bernini.vision import MAX_PIXELS, MIN_PIXELS, Eye
from manifests.errors import BackendError, ConfigError
from manifests.media import probe
from manifests.messages import MAX_FRAMES, TRAINER_FPS
from manifests.samples import SampleMedia, read_messages
from manifests.spans import image_size, read_image, read_numbered, span_times

STAGE_NEEDS = {"I": (VIT,), "II": (LATENT, TEXT), "III": (LATENT, VIT, TEXT)}
TEXTS = ("text", "cot_text")  # messages that are part of a prompt
TEXTS_HELD = 4096  # embeddings kept in memory by one encoder


@dataclass(frozen=True, kw_only=True)
class EncodeSettings:
    """What is encoded, and from which pixels. Paper, Table 2: stage I 256p at 2 fps, II and III 480p at 16 fps."""

    stage: str = "III"
    """I (ViT features), II (latents and text) or III (all)."""
    max_size: int = 848
    """Longest side of what the autoencoder sees, pixels."""
    min_size: int = 240
    """Shortest side that small media are enlarged to, pixels; the released full pipeline's value."""
    fps: float = TRAINER_FPS
    """Frames a second of latents."""
    max_frames: int = MAX_FRAMES
    """Most frames of a video, cut to 4k + 1; the released trainer reads 97."""
    vit_fps: int = 2
    """Frames a second that the vision tower sees (each has at most 50176 pixels, which is the paper's 256p)."""
    vit_max_frames: int = 12
    """Most frames that the vision tower sees; the released preprocessing takes 12."""

    def __post_init__(self):
        if self.stage not in STAGE_NEEDS:
            raise ConfigError(f"no stage {self.stage!r}; known: {', '.join(STAGE_NEEDS)}")
        if min(self.max_size, self.min_size, self.fps, self.max_frames, self.vit_fps, self.vit_max_frames) <= 0:
            raise ConfigError("sizes, rates and numbers of frames are above 0")

    @property
    def needs(self) -> tuple[str, ...]:
        return STAGE_NEEDS[self.stage]

    @property
    def planned(self) -> bool:
        """Do planner and renderer work together on these samples?"""
        return self.stage == "III"


@dataclass(frozen=True, kw_only=True)
class EncodedVisual:
    """`latent` `[C, T, Y, X]`, `vit` `[tokens, V]`, both bfloat16; `grid` `(t, h, w)` patches. None = not asked for."""

    kind: str
    is_target: bool
    latent: Tensor | None = None
    vit: Tensor | None = None
    grid: tuple[int, int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class EncodedSample:
    """`text` and `empty_text` (system prompt alone) bfloat16 `[rows, W]`, or None."""

    visuals: tuple[EncodedVisual, ...]
    text: Tensor | None = None
    empty_text: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class VisualCost:
    """What a visual will cost, before anything is decoded."""

    kind: str
    is_target: bool
    num_latent_tokens: int
    num_vit_tokens: int


def prompt_of(messages: list[Mapping]) -> str:
    """All texts of a sample joined with a space, reasoning included, as the released trainer does."""
    return " ".join(m["text"] for m in messages if m.get("text") and m["type"] in TEXTS)


def renderer_prompt(messages: list[Mapping], task: str, planned: bool) -> str:
    """The prompt that the text encoder reads: all texts, as the released trainer of the renderer alone joins them.

    Where a planner is beside the renderer (`planned`) and a sample has reasoning before its target, the reasoning
    is the prompt, as `generate --reasoning self_text` has it and as the planner's document does (`train.chats`).
    """
    thoughts = [m["text"] for m in messages if m["type"] in TEXTS and m.get("has_loss") and m.get("text")]
    makes = any(m["type"].endswith("_gen") for m in messages)
    return " ".join(thoughts) if planned and makes and thoughts and task != "interleaved" else prompt_of(messages)


class Encoders:
    """The frozen encoders of a model folder, each loaded when first used.

    Threads may share it: they decode side by side and encode in turn, because the autoencoder keeps
    its frame cache in the module.
    """

    def __init__(self, model: ModelFolder, settings: EncodeSettings, *, device: str = "auto"):
        self.model, self.settings = model, settings
        self.memory = MemorySettings(device=device).resolved()
        self._texts: OrderedDict[str, Tensor] = OrderedDict()
        self._lock = threading.RLock()
        for need in settings.needs:
            part(model, PART_OF[need])  # a missing one is refused before any work

    @cached_property
    def _parts(self):
        from bernini.generate.parts import Parts

        return Parts(self.model, self.memory)

    @cached_property
    def _vision(self):
        dtype = torch.float32 if self.memory.precision == "fp32" else torch.bfloat16
        tower = part(self.model, "vision").load(dtype=dtype, device=self.memory.device)
        tower.rotary_pos_emb = RoundedVisionRotary(tower.rotary_pos_emb)  # as when it generates
        return tower, Eye.of(tower.config)

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Name of each encoder that the stage needs -> hash of its configuration and weights."""
        return fingerprints(self.model, self.settings.needs)

    def encode(self, row: Mapping, *, texts: bool = True) -> EncodedSample:
        """All features of a SAMPLES row, or all but those of its texts.

        `MediaError` where a file cannot be read, `BackendError` where a feature is not finite.
        """
        messages = read_messages(row)
        visuals = tuple(self._visual(media) for media in SampleMedia.of(row, messages))
        text = empty = None
        if texts and TEXT in self.settings.needs:
            text, empty = map(self.text, self.texts_of(row))
        sample = EncodedSample(visuals=visuals, text=text, empty_text=empty)
        _check_finite(sample)
        return sample

    def texts_of(self, row: Mapping) -> tuple[str, str]:
        """What the text encoder reads of a row: its prompt below the system prompt, and the system prompt alone."""
        prompt = renderer_prompt(read_messages(row), row["task"], self.settings.planned)
        return positive_text(row["task"], prompt), positive_text(row["task"], "")

    def cut(self, text: str) -> str | None:
        """What is lost of a text that is longer than the encoder reads, in words; None where all is read."""
        count = len(self._text_tokenizer(text)["input_ids"])
        if count <= MAX_TOKENS:
            return None
        return f"the prompt has {count:,} tokens with the system prompt, the text encoder reads the first {MAX_TOKENS}"

    def text(self, text: str) -> Tensor:
        """bfloat16 `[rows, W]` of a text; equal texts are encoded once."""
        with self._lock:
            if text not in self._texts:
                self._texts[text] = self._parts["text"](text).to(torch.bfloat16)
                if len(self._texts) > TEXTS_HELD:
                    self._texts.popitem(last=False)
            return self._texts[text]

    @property
    def text_width(self) -> int:
        return part(self.model, "text").config["d_model"]

    def num_text_tokens(self, row: Mapping) -> tuple[int, int]:
        """Rows that the text embeddings of a raw sample will have: of the prompt, of the system prompt alone."""
        if TEXT not in self.settings.needs:
            return 0, 0
        return tuple(min(MAX_TOKENS, len(self._text_tokenizer(text)["input_ids"])) for text in self.texts_of(row))

    @cached_property
    def _text_tokenizer(self):
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.model.tokenizer)

    def num_planner_tokens(self, row: Mapping) -> int:
        """Tokens of the system prompt and all texts in the planner; 0 for a model without one."""
        if not self.model.has_planner:
            return 0
        text = planner_system_prompt(row["task"]) + clean_prompt(prompt_of(read_messages(row)))
        return len(self._planner_tokenizer(text)["input_ids"])

    @cached_property
    def _planner_tokenizer(self):
        return self._parts.planner_tokenizer()

    def _visual(self, media: SampleMedia) -> EncodedVisual:
        shown, seen = read_media(media, self.settings)
        with self._lock:
            return self._look(media, shown, seen)

    @torch.no_grad()
    def _look(self, media: SampleMedia, shown: np.ndarray, seen: np.ndarray) -> EncodedVisual:
        latent = vit = grid = None
        if LATENT in self.settings.needs:
            latent = self._parts["vae"].encode(shown)[0].to(torch.bfloat16)
        if VIT in self.settings.needs:
            tower, eye = self._vision
            patches, grid = eye.video(seen) if media.kind == "video" else eye.image(seen[0])
            grids = torch.tensor([grid], device=self.memory.device)
            vit = tower(patches.to(self.memory.device, tower.dtype), grids).pooler_output.to("cpu", torch.bfloat16)
        return EncodedVisual(kind=media.kind, is_target=media.is_target, latent=latent, vit=vit, grid=grid)


def read_media(media: SampleMedia, settings: EncodeSettings) -> tuple[np.ndarray, np.ndarray]:
    """Frames `[F, H, W, 3]` for the autoencoder (resized, 4k + 1) and for the vision tower (as they are)."""
    if media.kind == "image":
        frames = read_image(media.path)[None].copy()  # torch wants it writable
        shown = seen = frames
    else:
        times = span_times(media.path, media.start_s, media.end_s)
        first, second = _numbers(times, settings)
        found = read_numbered(media.path, media.start_s, media.end_s, {*first, *second})
        shown, seen = (np.stack([found[i] for i in numbers]) for numbers in (first, second))
    if LATENT in settings.needs:
        height, width = shown.shape[1:3]
        shown = resize(shown, *fit_size(width, height, max_size=settings.max_size, min_size=settings.min_size))
    return shown, seen


def _numbers(times: list[float], settings: EncodeSettings) -> tuple[list[int], list[int]]:
    """Which frames of a span the autoencoder and the vision tower see."""
    seconds = times[-1] - times[0]
    # Rounded, because a rate that is off in the last digit moves the floor of the frame rule.
    rate = round((len(times) - 1) / seconds, 3) if seconds > 0 else settings.fps
    shown = renderer_frames(len(times), rate, settings.fps, settings.max_frames, reduce_equal_fps=False)
    seen = vision_frames(len(times), rate, 8 * settings.vit_fps, settings.vit_max_frames)
    return [min(i, len(times) - 1) for i in shown], seen or [0, 0]


def visual_costs(row: Mapping, settings: EncodeSettings) -> tuple[VisualCost, ...]:
    """Token costs of a raw sample from file headers and packets; nothing is decoded. Raises `MediaError`."""
    return tuple(_cost(media, settings) for media in SampleMedia.of(row, read_messages(row)))


def _cost(media: SampleMedia, settings: EncodeSettings) -> VisualCost:
    if media.kind == "image":
        width, height = image_size(media.path)
        frames, seen = 1, 1
    else:
        header = probe(media.path)
        width, height = header.width, header.height
        first, second = _numbers(span_times(media.path, media.start_s, media.end_s), settings)
        frames, seen = len(first), len(second) // 2
    w, h = fit_size(width, height, max_size=settings.max_size, min_size=settings.min_size)
    tokens = latent_frames(frames) * (h // 16) * (w // 16) if LATENT in settings.needs else 0
    return VisualCost(kind=media.kind, is_target=media.is_target, num_latent_tokens=tokens,
                      num_vit_tokens=seen * _vit_tokens(width, height) if VIT in settings.needs else 0)


def _vit_tokens(width: int, height: int) -> int:
    """Merged tokens of one temporal patch: the processors' own rule, multiples of 28 between the pixel limits."""
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    h, w = smart_resize(height, width, factor=28, min_pixels=MIN_PIXELS, max_pixels=MAX_PIXELS)
    return (h // 28) * (w // 28)


def _check_finite(sample: EncodedSample) -> None:
    tensors = {"text": sample.text, "empty text": sample.empty_text}
    for i, visual in enumerate(sample.visuals):
        tensors |= {f"latent of visual {i}": visual.latent, f"vit of visual {i}": visual.vit}
    for name, tensor in tensors.items():
        if tensor is not None and not torch.isfinite(tensor).all():
            raise BackendError(f"the {name} is not finite (NaN or infinite)")
