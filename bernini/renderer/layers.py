"""Building blocks of the renderer's transformer: norms, embedders, modulation, attention, feed-forward.

B sequences in a pack, N tokens of all of them, D width, H heads, d head width, L context rows.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from bernini.config import RendererConfig
from bernini.renderer.attention import Lengths


def linear_layers(*sizes: int) -> list[nn.Linear]:
    """Linears from size to size."""
    return [nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False)]


def wide(x: Tensor) -> Tensor:
    """x in float32, or in float64 when it already is: what must not be computed in half precision."""
    return x if x.dtype == torch.float64 else x.float()


class LayerNorm32(nn.LayerNorm):
    """Layer norm computed in float32 (float64 for float64) whatever comes in."""

    def forward(self, x: Tensor) -> Tensor:
        x = wide(x)
        weight = None if self.weight is None else self.weight.to(x.dtype)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)


class TwoLinears(nn.Module):
    """linear_1, activation, linear_2: the time and the text embedder."""

    def __init__(self, width_in: int, width: int, activation: Callable[[Tensor], Tensor]):
        super().__init__()
        self.linear_1, self.linear_2 = linear_layers(width_in, width, width)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(self.activation(self.linear_1(x)))


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU in its tanh form, as Wan was trained with."""
    return F.gelu(x, approximate="tanh")


def timestep_features(timesteps: Tensor, width: int) -> Tensor:
    """Sinusoids of timesteps `[B]` in 0…1000: float32 `[B, width]`, cosines first."""
    half = width // 2
    k = torch.arange(half, dtype=torch.float32, device=timesteps.device)
    angles = timesteps.float()[:, None] * torch.exp(-math.log(10000) * k / half)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class ConditionEmbedder(nn.Module):
    """Timesteps → modulation, text features → context."""

    def __init__(self, config: RendererConfig):
        super().__init__()
        width = config.inner_dim
        self.freq_dim = config.freq_dim
        self.time_embedder = TwoLinears(config.freq_dim, width, F.silu)
        self.time_proj = nn.Linear(width, 6 * width)
        self.text_embedder = TwoLinears(config.text_dim, width, gelu_tanh)

    def time(self, timesteps: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """`temb [B, D]` and six modulation vectors `[B, 6, D]`: one row a sequence, never a token."""
        features = timestep_features(timesteps, self.freq_dim)
        temb = self.time_embedder(features.to(self.time_embedder.linear_1.weight.dtype)).to(dtype)
        return temb, self.time_proj(F.silu(temb)).unflatten(-1, (6, -1))


def modulate(x: Tensor, shift: Tensor, scale: Tensor, lengths: Lengths) -> Tensor:
    """`x·(1 + scale) + shift` with one row of shift and scale `[B, D]` a sequence."""
    if len(lengths) == 1:
        return x * (1 + scale) + shift
    parts = x.split(list(lengths))
    return torch.cat([p * (1 + s) + b for p, b, s in zip(parts, shift, scale, strict=True)])


def gated(x: Tensor, update: Tensor, gate: Tensor, lengths: Lengths) -> Tensor:
    """`x + gate·update` in float32, back in x's dtype; one row of gate `[B, D]` a sequence."""
    if len(lengths) == 1:
        return (wide(x) + update * gate).to(x.dtype)
    parts = zip(x.split(list(lengths)), update.split(list(lengths)), gate, strict=True)
    return torch.cat([(wide(a) + u * g).to(x.dtype) for a, u, g in parts])


class Attention(nn.Module):
    """Multi-head attention with RMS norms over the whole width of queries and keys."""

    def __init__(self, config: RendererConfig):
        super().__init__()
        width = config.inner_dim
        self.heads = config.num_attention_heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])
        self.norm_q, self.norm_k = (nn.RMSNorm(width, eps=config.eps) for _ in range(2))

    def split_heads(self, x: Tensor) -> Tensor:
        return rearrange(x, "n (h d) -> n h d", h=self.heads)

    def queries(self, x: Tensor) -> Tensor:
        """`[N, D]` → `[N, H, d]`."""
        return self.split_heads(self.norm_q(self.to_q(x)))

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`[L, D]` → keys and values `[L, H, d]`."""
        return self.split_heads(self.norm_k(self.to_k(x))), self.split_heads(self.to_v(x))

    def merge(self, x: Tensor) -> Tensor:
        """`[N, H, d]` → `[N, D]`."""
        return self.to_out[0](rearrange(x, "n h d -> n (h d)"))


class FeedForward(nn.Module):
    """Two linears with tanh-GELU; the layout of names is diffusers'."""

    def __init__(self, config: RendererConfig):
        super().__init__()
        up, down = linear_layers(config.inner_dim, config.ffn_dim, config.inner_dim)
        self.net = nn.ModuleList([nn.ModuleDict({"proj": up}), nn.Identity(), down])

    def forward(self, x: Tensor) -> Tensor:
        return self.net[2](gelu_tanh(self.net[0]["proj"](x)))
