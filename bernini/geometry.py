"""Sizes and frame choice: which pixels of a source the model sees.

For whoever prepares inputs. The rules are the released ones (spec 2.6 and 3.8), because the
weights were trained with them: sides in multiples of 16, no crop, no letterbox, `4k + 1`
frames for the video autoencoder and an even number for the vision tower.
"""

import math
from dataclasses import dataclass

from bernini.errors import CaseError

STRIDE_PX = 16  # autoencoder factor 8 times patch 2


def snap(length_px: float, stride_px: int = STRIDE_PX) -> int:
    """Nearest multiple of `stride_px`, halves to the even multiple, at least one stride."""
    return max(stride_px, round(length_px / stride_px) * stride_px)


def fit_size(width: int, height: int, *, max_size: int, min_size: int = 1) -> tuple[int, int]:
    """Size of a source for the renderer: `(width, height)`, both multiples of 16.

    The longer side is brought under `max_size`, then the shorter over `min_size`. When that
    pushes the longer side over the limit again it is brought back once more, so the shorter
    one may end below `min_size`: the released rule, kept.
    """
    if width < 1 or height < 1:
        raise CaseError(f"size {width}x{height} is empty; give a picture with at least one pixel")
    scale = min(max_size / max(width, height), 1.0)
    scale = max(scale, min_size / min(width, height))
    new_width, new_height = snap(round(width * scale)), snap(round(height * scale))
    longer = max(new_width, new_height)
    if longer > max_size:
        again = max_size / longer
        new_width, new_height = snap(round(new_width * again)), snap(round(new_height * again))
    return new_width, new_height


def whole_frames(num_frames: int) -> int:
    """`4k + 1` frames that the autoencoder can hold: 81 → 81, 80 → 81, 1 → 1."""
    return num_frames // 4 * 4 + 1


def latent_frames(num_frames: int) -> int:
    """Latent frames of `4k + 1` frames."""
    return (num_frames - 1) // 4 + 1


def _spread(total: int, count: int) -> list[int]:
    """`count` indices from 0 to `total - 1` at equal distance, in float32 with halves to even.

    torch's own linspace: it decides on which side of a half some frames fall.
    """
    import torch

    return torch.linspace(0, total - 1, count, device="cpu").round().long().tolist()


def renderer_frames(
    total_frames: int, video_fps: float, fps: float, num_frames: int, *, reduce_equal_fps: bool = True
) -> list[int]:
    """Frames of a source video that the autoencoder sees (spec 2.6).

    `reduce_equal_fps` is the rule of the renderer-only release: a clip at exactly the wanted
    rate is first cut to `4k + 1` frames, which may name one frame past the end; readers then
    repeat the last one. The planner release does not do this.
    """
    count = max(5, math.floor(total_frames / video_fps * fps / 4) * 4 + 1)
    if reduce_equal_fps and video_fps == fps:
        total_frames = total_frames // 4 * 4 + 1
    return _spread(total_frames, count)[: whole_frames(num_frames)]


def vision_frames(total_frames: int, video_fps: float, fps: float, num_frames: int) -> list[int]:
    """Frames that the planner's vision tower sees: an even number at `fps // 8` (spec 3.8)."""
    count = max(2, math.floor(total_frames / video_fps * (fps // 8) / 2) * 2)
    return _spread(total_frames, count)[: num_frames // 2 * 2]


@dataclass(frozen=True, kw_only=True)
class OutputSize:
    """Size of what is generated, in pixels and frames."""

    width: int
    height: int
    num_frames: int

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """`(T, Y, X)` of the latent."""
        return latent_frames(self.num_frames), self.height // 8, self.width // 8

    @property
    def num_tokens(self) -> int:
        """Tokens of the target in the renderer after the (1, 2, 2) patching."""
        t, y, x = self.latent_shape
        return t * (y // 2) * (x // 2)
