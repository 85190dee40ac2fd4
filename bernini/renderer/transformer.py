"""The diffusion transformer of the renderer (paper, section 2.1.2; spec 2.3).

One call takes a pack of sequences (several samples, or several guidance branches of one clip)
and gives the velocity on the target tokens of each. Parameter names are those of diffusers'
`WanTransformer3DModel`, so released Wan and Bernini weights load as they are.

B sequences in a pack, N tokens of all of them, D width, H heads, d head_dim, L context rows,
C latent channels, T Y X latent frames, height, width.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from bernini.config import RendererConfig
from bernini.renderer.attention import Lengths, kernel
from bernini.renderer.rope import patch_grid, rotate, segment_rope

KeysValues = list[tuple[Tensor, Tensor]]
FLOAT32_PARTS = ("time_embedder", "scale_shift_table", "norm1", "norm2", "norm3")


@dataclass
class SequenceInputs:
    """One sequence of a pack, with all that does not change over the denoising steps.

    `sources [S, D]` embedded source tokens, `rope [S + n, d/2]` complex, `context [L, D]` embedded
    text, `keys_values` the cross-attention inputs of every block (made from `context` when absent).
    """

    sources: Tensor
    rope: Tensor
    context: Tensor
    keys_values: KeysValues | None = None


def linear_layers(*sizes: int) -> list[nn.Linear]:
    """Linears from size to size."""
    return [nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False)]


class LayerNorm32(nn.LayerNorm):
    """Layer norm computed in float32 whatever comes in."""

    def forward(self, x: Tensor) -> Tensor:
        weight = None if self.weight is None else self.weight.float()
        bias = None if self.bias is None else self.bias.float()
        return F.layer_norm(x.float(), self.normalized_shape, weight, bias, self.eps)


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
        return (x.float() + update * gate).to(x.dtype)
    parts = zip(x.split(list(lengths)), update.split(list(lengths)), gate, strict=True)
    return torch.cat([(a.float() + u * g).to(x.dtype) for a, u, g in parts])


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


class Block(nn.Module):
    """Self-attention, cross-attention to the context, feed-forward; modulated by the timestep."""

    def __init__(self, config: RendererConfig):
        super().__init__()
        width, eps = config.inner_dim, config.eps
        self.norm1 = LayerNorm32(width, eps, elementwise_affine=False)
        self.attn1 = Attention(config)
        self.norm2 = LayerNorm32(width, eps)
        self.attn2 = Attention(config)
        self.norm3 = LayerNorm32(width, eps, elementwise_affine=False)
        self.ffn = FeedForward(config)
        self.scale_shift_table = nn.Parameter(torch.randn(1, 6, width) / width**0.5)

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        rope: Tensor,
        keys_values: tuple[Tensor, Tensor],
        lengths: Lengths,
        context_lengths: Lengths,
        attend: Callable[..., Tensor],
    ) -> Tensor:
        """x `[N, D]`, time `[B, 6, D]`, rope `[N, d/2]`, keys and values `[ΣL, H, d]`."""
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.scale_shift_table + time.float()).unbind(1)
        y = modulate(self.norm1(x), shift1, scale1, lengths).to(x.dtype)
        q, (k, v) = self.attn1.queries(y), self.attn1.keys_values(y)
        y = attend(rotate(q, rope), rotate(k, rope), v, lengths, lengths)
        x = gated(x, self.attn1.merge(y), gate1, lengths)
        q = self.attn2.queries(self.norm2(x).to(x.dtype))
        x = x + self.attn2.merge(attend(q, *keys_values, lengths, context_lengths))
        y = modulate(self.norm3(x), shift2, scale2, lengths).to(x.dtype)
        return gated(x, self.ffn(y).float(), gate2, lengths)


class Renderer(nn.Module):
    """One noise expert."""

    def __init__(self, config: RendererConfig, attention: str = "auto"):
        super().__init__()
        self.config = config
        width, patch = config.inner_dim, config.patch_size
        self.patch_embedding = nn.Conv3d(config.in_channels, width, kernel_size=patch, stride=patch)
        self.condition_embedder = ConditionEmbedder(config)
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.num_layers)])
        self.norm_out = LayerNorm32(width, config.eps, elementwise_affine=False)
        self.proj_out = nn.Linear(width, config.out_channels * math.prod(patch))
        self.scale_shift_table = nn.Parameter(torch.randn(1, 2, width) / width**0.5)
        self.attend = kernel(attention)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the big matrices and of the hidden states."""
        return self.patch_embedding.weight.dtype

    def keep_in_float32(self) -> "Renderer":
        """Time embedder, tables and norms back to float32 after a cast, as the renderer-only release holds them."""
        for name, parameter in self.named_parameters():
            if any(part in name.split(".") for part in FLOAT32_PARTS):
                parameter.data = parameter.data.float()
        return self

    def embed(self, latent: Tensor) -> Tensor:
        """Latent `[1, C, T, Y, X]` → tokens `[N, D]`, raster order t, h, w."""
        return self.patch_embedding(latent.to(self.dtype)).flatten(2).squeeze(0).transpose(0, 1)

    def embed_context(self, features: Tensor) -> Tensor:
        """Text (and plan) features `[1, L, text_dim]` → context `[L, D]`. All rows are attended, padding too."""
        return self.condition_embedder.text_embedder(features.to(self.dtype)).squeeze(0)

    def keys_values(self, context: Tensor) -> KeysValues:
        """Cross-attention inputs of every block for one context: constant over a clip."""
        return [block.attn2.keys_values(context) for block in self.blocks]

    def rope(self, segments: Sequence[tuple[tuple[int, int, int], float]]) -> Tensor:
        """Rotary factors of segments `(latent (T, Y, X), source_id)` in order: complex64 `[N, d/2]`."""
        device, head_dim = self.proj_out.weight.device, self.config.attention_head_dim
        parts = [segment_rope(patch_grid(thw), i, head_dim, device) for thw, i in segments]
        return torch.cat(parts).to(torch.complex128 if self.dtype == torch.float64 else torch.complex64)

    def forward(
        self, targets: Sequence[Tensor], timesteps: Tensor, sequences: Sequence[SequenceInputs]
    ) -> list[Tensor]:
        """Velocity `[n, C·4]` on the target tokens of each sequence, values ordered (pt, ph, pw, c).

        `targets` embedded noisy targets `[n, D]`, `timesteps [B]`, one for all tokens of a sequence,
        sources included. Sources stand first, the target last.
        """
        x = torch.cat([part for t, s in zip(targets, sequences, strict=True) for part in (s.sources, t)])
        lengths = [len(s.sources) + len(t) for t, s in zip(targets, sequences, strict=True)]
        temb, time = self.condition_embedder.time(timesteps.to(x.device), x.dtype)
        x = self.run_blocks(x, time, sequences, lengths)
        shift, scale = (self.scale_shift_table + temb.float().unsqueeze(1)).unbind(1)
        x = torch.cat([part[-len(t) :] for part, t in zip(x.split(lengths), targets, strict=True)])
        target_lengths = [len(t) for t in targets]
        x = modulate(self.norm_out(x), shift, scale, target_lengths).to(x.dtype)
        return list(self.proj_out(x).split(target_lengths))

    def run_blocks(
        self, x: Tensor, time: Tensor, sequences: Sequence[SequenceInputs], lengths: Lengths
    ) -> Tensor:
        """All blocks over the packed tokens `[N, D]`."""
        rope = join([s.rope for s in sequences])
        context_lengths = [len(s.context) for s in sequences]
        cached = [s.keys_values or self.keys_values(s.context) for s in sequences]
        for i, block in enumerate(self.blocks):
            k, v = (join([layers[i][part] for layers in cached]) for part in (0, 1))
            x = block(x, time, rope, (k, v), lengths, context_lengths, self.attend)
        return x

    def unpatch(self, tokens: Tensor, latent_thw: tuple[int, int, int]) -> Tensor:
        """Tokens `[n, C·4]` → latent `[1, C, T, Y, X]`."""
        return unpatch(tokens, latent_thw, self.config.patch_size)


def join(parts: Sequence[Tensor]) -> Tensor:
    """Concatenation along the first axis; a single part is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def unpatch(tokens: Tensor, latent_thw: tuple[int, int, int], patch=(1, 2, 2)) -> Tensor:
    """Tokens `[n, (pt ph pw c)]` → latent `[1, C, T, Y, X]`."""
    t, y, x = (n // p for n, p in zip(latent_thw, patch, strict=True))
    pt, ph, pw = patch
    return rearrange(
        tokens, "(t y x) (pt ph pw c) -> 1 c (t pt) (y ph) (x pw)", t=t, y=y, x=x, pt=pt, ph=ph, pw=pw
    )


def patchify(latent: Tensor, patch=(1, 2, 2)) -> Tensor:
    """Inverse of `unpatch`: latent `[1, C, T, Y, X]` → `[n, (pt ph pw c)]`."""
    pt, ph, pw = patch
    return rearrange(latent, "1 c (t pt) (y ph) (x pw) -> (t y x) (pt ph pw c)", pt=pt, ph=ph, pw=pw)
