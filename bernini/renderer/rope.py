"""Segment-aware 3D rotary positions (paper, section 2.1.2, equation 2).

Tokens of different segments share coordinates `(t, h, w)`. Each segment turns its tokens by one
more phase, `r~(t,h,w,i) = r(t,h,w) * r_seg(i)`: attention inside a segment is unchanged, and the
target (segment 0) is turned by nothing, so plain Wan weights keep their meaning.

N tokens of a segment, P = head_dim / 2 complex pairs.
"""

import torch
from torch import Tensor

THETA = 10000.0
PATCH = (1, 2, 2)


def axis_widths(head_dim: int) -> tuple[int, int, int]:
    """Real channels for t, h, w: h and w get `2·(head_dim // 6)` each, t the rest (128: 44, 42, 42)."""
    side = 2 * (head_dim // 6)
    return head_dim - 2 * side, side, side


def _frequencies(width: int, device: torch.device | str | None = None) -> Tensor:
    """`theta^(-2k / width)` for k = 0 … width/2 - 1, float64."""
    return THETA ** (-torch.arange(0, width, 2, dtype=torch.float64, device=device) / width)


def position_phases(grid: tuple[int, int, int], head_dim: int, device=None) -> Tensor:
    """Phases of `r(t,h,w)` for a grid of patches: float64 `[N, P]`, raster order t, h, w."""
    axes = [torch.arange(n, dtype=torch.float64, device=device) for n in grid]
    coordinates = torch.meshgrid(*axes, indexing="ij")
    parts = [
        c.reshape(-1, 1) * _frequencies(width, device)
        for c, width in zip(coordinates, axis_widths(head_dim), strict=True)
    ]
    return torch.cat(parts, dim=1)


def segment_phases(source_id: float, head_dim: int, device=None) -> Tensor:
    """Phases of `r_seg(i)`: one turn over all pairs of the head, float64 `[P]`. Ids may be fractional."""
    return source_id * _frequencies(head_dim, device)


def segment_rope(grid: tuple[int, int, int], source_id: float, head_dim: int, device=None) -> Tensor:
    """`r(t,h,w) * r_seg(i)` of one segment, complex128 `[N, P]` (equation 2)."""
    r_thw = unit(position_phases(grid, head_dim, device))
    r_seg = unit(segment_phases(source_id, head_dim, device))
    return r_thw * r_seg


def unit(phases: Tensor) -> Tensor:
    """`exp(i·phase)`."""
    return torch.polar(torch.ones_like(phases), phases)


def patch_grid(latent_thw: tuple[int, int, int]) -> tuple[int, int, int]:
    """Grid of patches of a latent `(T, Y, X)`."""
    return tuple(n // p for n, p in zip(latent_thw, PATCH, strict=True))


def rotate(x: Tensor, rope: Tensor) -> Tensor:
    """Turns adjacent channel pairs of `x [N, heads, head_dim]` by `rope [N, P]`, result in x's dtype.

    Done in float32 (float64 for float64 input): the released float64 gives the same numbers to
    one rounding and costs twice the memory traffic.
    """
    wide = torch.complex128 if x.dtype == torch.float64 else torch.complex64
    pairs = torch.view_as_complex(x.to(wide.to_real()).unflatten(-1, (-1, 2)))
    turned = pairs * rope.to(wide).unsqueeze(1)
    return torch.view_as_real(turned).flatten(-2).to(x.dtype)
