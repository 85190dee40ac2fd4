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
from einops import rearrange
from torch import Tensor, nn

from bernini.config import RendererConfig
from bernini.renderer.attention import Lengths, kernel
from bernini.renderer.layers import Attention, ConditionEmbedder, FeedForward, LayerNorm32, gated, modulate, wide
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
        keys_values: tuple[Tensor, Tensor] | Tensor,
        lengths: Lengths,
        context_lengths: Lengths,
        attend: Callable[..., Tensor],
        attend_self: Callable[..., Tensor] | None = None,
    ) -> Tensor:
        """x `[N, D]`, time `[B, 6, D]`, rope `[N, d/2]`, keys and values `[ΣL, H, d]` or the context `[ΣL, D]`.

        `attend_self` replaces `attend` between the tokens of x, for sequences that several processes share.
        """
        if isinstance(keys_values, Tensor):
            keys_values = self.attn2.keys_values(keys_values)
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.scale_shift_table + wide(time)).unbind(1)
        y = modulate(self.norm1(x), shift1, scale1, lengths).to(x.dtype)
        q, (k, v) = self.attn1.queries(y), self.attn1.keys_values(y)
        y = (attend_self or attend)(rotate(q, rope), rotate(k, rope), v, lengths, lengths)
        x = gated(x, self.attn1.merge(y), gate1, lengths)
        q = self.attn2.queries(self.norm2(x).to(x.dtype))
        x = x + self.attn2.merge(attend(q, *keys_values, lengths, context_lengths))
        y = modulate(self.norm3(x), shift2, scale2, lengths).to(x.dtype)
        return gated(x, wide(self.ffn(y)), gate2, lengths)


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
        """Time embedder, tables and norms in float32 again, as the renderer-only release holds them."""
        for name, parameter in self.named_parameters():
            if any(part in name.split(".") for part in FLOAT32_PARTS):
                parameter.data = parameter.data.float()
        return self

    def embed(self, latent: Tensor) -> Tensor:
        """Latent `[1, C, T, Y, X]` → tokens `[N, D]`, raster order t, h, w."""
        return self.patch_embedding(latent.to(self.dtype)).flatten(2).squeeze(0).transpose(0, 1)

    def embed_context(self, features: Tensor) -> Tensor:
        """Text (and plan) features `[1, L, text_dim]` → context `[L, D]`; padding rows are attended too."""
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
        shift, scale = (self.scale_shift_table + wide(temb).unsqueeze(1)).unbind(1)
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
