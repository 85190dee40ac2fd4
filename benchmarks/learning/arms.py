"""The repo's own renderer in miniature, in arms that differ in nothing but the position code.

* `sa`: segment-aware 3D rotary positions, as released (paper, equation 2);
* `plain`: 3D rotary positions; segments of equal size look alike;
* `segment`: plain positions and a learned vector of the segment added at every block, the paper's own baseline;
* `both`: the phase and the vector.

B samples of a batch, S sources of each, n tokens of a segment, D width, L context rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bernini.config import RendererConfig
from bernini.renderer import attention
from bernini.renderer.rope import axis_widths, patch_grid, unit
from bernini.renderer.transformer import Block, Renderer
from bernini.train.passes import PassOptions, RenderInput, velocities

ARMS = ("sa", "plain", "segment", "both")
MAX_ID = 8


@dataclass(frozen=True, kw_only=True)
class ArmConfig:
    """Size of a renderer, and what the arms may tune."""

    channels: int = 3
    """Latent channels."""
    num_layers: int = 4
    """Blocks."""
    num_heads: int = 4
    """Heads."""
    head_dim: int = 24
    """Width of a head; the model's is heads times that."""
    ffn_ratio: int = 3
    """Width of the feed-forward in widths of the model."""
    text_dim: int = 64
    """Width of a text row."""
    theta: float = 100.0
    """Base of the rotary frequencies. The released 10,000 suits heads of 128; a head of 24 has 12 pairs and
    grids of 4 patches, and the same base for all arms keeps the comparison fair."""
    segment_init: float = 0.02
    """Deviation of the segment vectors at the start."""

    def renderer(self) -> RendererConfig:
        width = self.num_heads * self.head_dim
        return RendererConfig(num_layers=self.num_layers, num_attention_heads=self.num_heads,
                              attention_head_dim=self.head_dim, in_channels=self.channels, out_channels=self.channels,
                              text_dim=self.text_dim, freq_dim=64, ffn_dim=self.ffn_ratio * width)


class ArmBlock(Block):
    """A block of the renderer that takes the segment ids off `rope` (its last column) and adds their vectors."""

    def __init__(self, config: RendererConfig):
        super().__init__(config)
        self.register_parameter("segments", None)  # one table for all blocks

    def forward(self, x: Tensor, time: Tensor, rope: Tensor, *rest) -> Tensor:
        if self.segments is not None:
            x = x + interpolate(self.segments, rope[:, -1].real)
        return super().forward(x, time, rope[:, :-1], *rest)


class ArmRenderer(Renderer):
    """`bernini.renderer.transformer.Renderer` with another position code.

    `rope` carries the segment id of each token in one more column, which the blocks take off again: so
    whoever builds sequences for a renderer builds them for every arm.
    """

    def __init__(self, config: ArmConfig, arm: str):
        super().__init__(config.renderer(), "benchmarks.learning.arms:equal_lengths")
        if arm not in ARMS:
            raise ValueError(f"unknown arm {arm!r}; known: {', '.join(ARMS)}")
        self.phase, self.theta, self.ropes = arm in ("sa", "both"), config.theta, {}
        self.blocks = nn.ModuleList([ArmBlock(self.config) for _ in self.blocks])
        if arm in ("segment", "both"):
            vectors = nn.Parameter(torch.randn(MAX_ID + 1, self.config.inner_dim) * config.segment_init)
            for block in self.blocks:
                block.segments = vectors
        self._open_gates()

    @torch.no_grad()
    def _open_gates(self) -> None:
        """Residual gates begin at 1 and the output at 0: a model of this size learns hundreds of steps sooner."""
        for block in self.blocks:
            block.scale_shift_table[:, (2, 5)] = 1.0
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def rope(self, segments: Sequence[tuple[tuple[int, int, int], float]]) -> Tensor:
        """As the base class, with the ids in a last column: complex64 `[N, d/2 + 1]`."""
        if (key := (tuple(segments), str(self.proj_out.weight.device))) not in self.ropes:
            self.ropes[key] = self._rope(segments)
        return self.ropes[key]

    def _rope(self, segments: Sequence[tuple[tuple[int, int, int], float]]) -> Tensor:
        parts = []
        for thw, source_id in segments:
            phases = positions(patch_grid(thw), self.config.attention_head_dim, self.theta)
            if self.phase:
                phases = phases + source_id * frequencies(self.config.attention_head_dim, self.theta)
            ids = torch.full((len(phases), 1), float(source_id), dtype=torch.float64)
            parts.append(torch.cat([unit(phases), torch.complex(ids, torch.zeros_like(ids))], 1))
        return torch.cat(parts).to(self.proj_out.weight.device, torch.complex64)


def frequencies(width: int, theta: float) -> Tensor:
    return theta ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)


def positions(grid: tuple[int, int, int], head_dim: int, theta: float) -> Tensor:
    """`bernini.renderer.rope.position_phases` with another base."""
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in grid), indexing="ij")
    widths = axis_widths(head_dim)
    return torch.cat([a.reshape(-1, 1) * frequencies(w, theta) for a, w in zip(axes, widths, strict=True)], 1)


def interpolate(table: Tensor, ids: Tensor) -> Tensor:
    """Rows of a table at ids that may lie between whole numbers, `[N, D]`."""
    low = ids.floor().long()
    share = (ids - low).unsqueeze(1)
    return table[low] * (1 - share) + table[(low + 1).clamp(max=len(table) - 1)] * share


def equal_lengths(q: Tensor, k: Tensor, v: Tensor, q_lengths: Sequence[int], k_lengths: Sequence[int]) -> Tensor:
    """The renderer's attention over a pack, as one call where all sequences are equally long."""
    if len(set(q_lengths)) > 1 or len(set(k_lengths)) > 1:
        return attention.sdpa(q, k, v, q_lengths, k_lengths)
    num = len(q_lengths)
    q, k, v = (x.unflatten(0, (num, -1)).transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(0, 1)


def velocity(model: Renderer, noisy: Tensor, sources: Tensor, timesteps: Tensor, context: Tensor,
             ids: Sequence[float]) -> Tensor:
    """Velocity tokens `[B, n, C·4]` of noisy targets `[B, C, T, Y, X]` beside sources `[B, S, C, T, Y, X]`
    with segment `ids`, for context rows `[B, L, text_dim]` and timesteps `[B]` in 0…1000: the packed pass
    of `bernini train`.
    """
    inputs = [RenderInput([*sources[b].split(1), noisy[b : b + 1]], list(ids), context[b], timesteps[b])
              for b in range(len(noisy))]
    return torch.stack([v.values for v in velocities(model, inputs, PassOptions())])
