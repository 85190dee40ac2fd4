"""Weights of large linears stored in 8 bits (float8 e4m3) with one scale a row.

Halves the memory of bfloat16; arithmetic stays in the dtype of the input. Approximate: off unless
asked for. Norms, tables, time embedder and everything small stay as they are.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGEST = torch.finfo(torch.float8_e4m3fn).max


class Float8Linear(nn.Module):
    """A linear whose weight is `float8 [out, in]` times `scale [out, 1]`."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype):
        super().__init__()
        scale = linear.weight.detach().abs().amax(1, keepdim=True).float().clamp_min(1e-12) / LARGEST
        self.register_buffer("weight", (linear.weight.detach().float() / scale).to(torch.float8_e4m3fn))
        self.register_buffer("scale", scale)
        self.bias = (
            None if linear.bias is None else nn.Parameter(linear.bias.detach().to(dtype), requires_grad=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        weight = (self.weight.float() * self.scale).to(x.dtype)
        return F.linear(x, weight, None if self.bias is None else self.bias.to(x.dtype))


def store_in_fp8(blocks: nn.Module, dtype: torch.dtype) -> None:
    """Replaces every linear under `blocks`, in place."""
    for name, child in blocks.named_children():
        if isinstance(child, nn.Linear):
            setattr(blocks, name, Float8Linear(child, dtype))
        else:
            store_in_fp8(child, dtype)
