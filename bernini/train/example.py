"""What the loader hands to the losses: examples with their random draws, packed.

The loader (`dataset`, `draws`, `packing`) makes these, the losses read them; neither knows the
other. All tensors are on the CPU until the loop moves a pack.

C latent channels, T Y X latent frames, height and width, V width of a ViT feature, W width of a
text embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Visual:
    """One image or video of a sample, as features.

    `latent` `[1, C, T, Y, X]` normalised (bfloat16 mean of the posterior) or None; `vit` `[n, V]`
    merged ViT features or None; `grid` `(t, h, w)` patches before merging; `is_target` for what
    is to be generated.
    """

    kind: str
    is_target: bool
    latent: Tensor | None
    vit: Tensor | None
    grid: tuple[int, int, int] | None


@dataclass(frozen=True, kw_only=True)
class Part:
    """One message in order: a text, or the `visual`-th visual. `has_loss` marks text to be learned."""

    text: str = ""
    visual: int | None = None
    has_loss: bool = False

    @property
    def is_learned(self) -> bool:
        """Is it a text to be learned? Visuals to be generated carry `has_loss` too."""
        return self.has_loss and self.visual is None


@dataclass(frozen=True, kw_only=True)
class Example:
    """One sample. `text_embedding` `[L, W]` (system prompt + prompt, unpadded), `empty_embedding` `[L0, W]`
    (system prompt alone, what text dropout leaves). Either is None where the stage needs no text encoder.
    """

    sample_id: str
    task: str
    source_name: str
    parts: tuple[Part, ...]
    visuals: tuple[Visual, ...]
    text_embedding: Tensor | None = None
    empty_embedding: Tensor | None = None

    @property
    def target(self) -> Visual | None:
        """The last visual that is to be generated; None for understanding."""
        return next((v for v in reversed(self.visuals) if v.is_target), None)


@dataclass(frozen=True, kw_only=True)
class Draws:
    """All that is random about one example in one epoch: a function of (seed, epoch, sample id, purpose).

    `sigma` in [0, 1] and `timestep` in [0, 1000] of the renderer; `mask_ratio` in [0, 1] of the planner's
    target tokens, `mask_seed` orders them, `noise_seed` and `vit_noise_seed` make the noises, `vit_sigma`
    is the decoder's level; the flags drop conditions for guidance: the prompt, source images, source videos
    (from renderer and planner), sources from what the planner sees, the planned target from what the renderer
    is shown.
    """

    sigma: float
    timestep: float
    noise_seed: int
    mask_ratio: float
    mask_seed: int
    vit_sigma: float
    vit_noise_seed: int
    drop_text: bool = False
    drop_images: bool = False
    drop_videos: bool = False
    drop_vit: bool = False
    drop_plan: bool = False


@dataclass(frozen=True, kw_only=True)
class Pack:
    """What one rank works on in one micro-step: examples in order with their draws.

    `num_tokens` useful tokens, `flops` of one forward by the exact formula.
    """

    examples: Sequence[Example]
    draws: Sequence[Draws]
    num_tokens: int
    flops: float
    epoch: int = 0
    skipped: tuple[str, ...] = field(default=())  # "sample id: why" of samples that could not be used


def wrong_latent(shape: Sequence[int], channels: int) -> str | None:
    """What is wrong with the shape of a latent, or None. Patches of 2 × 2 cover it: sides are even."""
    wanted = f"[1, {channels}, T, Y, X] with T above 0, Y and X even and above 0"
    if len(shape) != 5 or shape[0] != 1 or min(shape) < 1 or shape[3] % 2 or shape[4] % 2:
        return f"has the shape {list(shape)}, not {wanted}"
    if shape[1] != channels:
        return f"has {shape[1]} channels, the renderer wants {channels}; encoded with another autoencoder"
    return None


def wrong_vit(shape: Sequence[int], grid: Sequence[int] | None, width: int, merge: int) -> str | None:
    """What is wrong with the shape of ViT features and their grid of patches, or None. `merge` is that of the tower."""
    if len(shape) != 2 or min(shape) < 1:
        return f"have the shape {list(shape)}, not [rows, {width}]"
    if shape[1] != width:
        return f"are {shape[1]} wide, the planner wants {width}; encoded with another vision tower"
    if grid is None:
        return "have no grid (t, h, w)"
    if len(grid) != 3 or min(grid) < 1 or grid[1] % merge or grid[2] % merge:
        return f"have the grid {list(grid)}, not three numbers above 0 with h and w in multiples of {merge}"
    if (rows := grid[0] * (grid[1] // merge) * (grid[2] // merge)) != shape[0]:
        return f"have {shape[0]} rows, their grid {list(grid)} has {rows}"
    return None
