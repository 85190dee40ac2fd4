"""Attention over packed sequences, one function a kernel.

For the renderer's self- and cross-attention. A pack holds several sequences end to end;
`q_lengths` and `k_lengths` say where each ends. Shapes: q `[Nq, H, d]`, k and v `[Nk, H, d]`,
result `[Nq, H, d]`. To add a kernel: one function and one line in `KERNELS`.
"""

from collections.abc import Callable, Sequence
from pkgutil import resolve_name

import torch
import torch.nn.functional as F
from torch import Tensor

from bernini.errors import CaseError

Lengths = Sequence[int]


def sdpa(q: Tensor, k: Tensor, v: Tensor, q_lengths: Lengths, k_lengths: Lengths) -> Tensor:
    """torch's scaled dot product, one call a sequence: any device, has a gradient everywhere."""
    if len(q_lengths) == 1:
        return _one(q, k, v)
    parts = zip(q.split(list(q_lengths)), k.split(list(k_lengths)), v.split(list(k_lengths)), strict=True)
    return torch.cat([_one(*part) for part in parts])


def _one(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).squeeze(0).transpose(0, 1)


def cudnn(q: Tensor, k: Tensor, v: Tensor, q_lengths: Lengths, k_lengths: Lengths) -> Tensor:
    """The same through cuDNN's fused kernel (NVIDIA, half precision)."""
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.CUDNN_ATTENTION):
        return sdpa(q, k, v, q_lengths, k_lengths)


def varlen(q: Tensor, k: Tensor, v: Tensor, q_lengths: Lengths, k_lengths: Lengths) -> Tensor:
    """torch's own variable-length kernel: the whole pack in one call (NVIDIA, half precision)."""
    from torch.nn.attention.varlen import varlen_attn

    q_ends, k_ends = _ends(q_lengths, q.device), _ends(k_lengths, q.device)
    return varlen_attn(q, k, v, q_ends, k_ends, max(q_lengths), max(k_lengths))


def flash2(q: Tensor, k: Tensor, v: Tensor, q_lengths: Lengths, k_lengths: Lengths) -> Tensor:
    """flash-attn 2, when that package is installed."""
    from flash_attn import flash_attn_varlen_func

    q_ends, k_ends = _ends(q_lengths, q.device), _ends(k_lengths, q.device)
    return flash_attn_varlen_func(q, k, v, q_ends, k_ends, max(q_lengths), max(k_lengths))


def flash3(q: Tensor, k: Tensor, v: Tensor, q_lengths: Lengths, k_lengths: Lengths) -> Tensor:
    """flash-attn 3 (Hopper), when that package is installed."""
    from flash_attn_interface import flash_attn_varlen_func

    q_ends, k_ends = _ends(q_lengths, q.device), _ends(k_lengths, q.device)
    out = flash_attn_varlen_func(q, k, v, q_ends, k_ends, max(q_lengths), max(k_lengths))
    return out[0] if isinstance(out, tuple) else out


def _ends(lengths: Lengths, device: torch.device) -> Tensor:
    ends = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    return ends.to(device)


KERNELS: dict[str, Callable[..., Tensor]] = {
    "sdpa": sdpa,
    "cudnn": cudnn,
    "varlen": varlen,
    "flash2": flash2,
    "flash3": flash3,
}


def kernel(name: str) -> Callable[..., Tensor]:
    """The function behind `name`: of the table, "auto", or `module:function` for one that is not in it."""
    if name == "auto":
        return auto
    if ":" in name:
        try:
            return resolve_name(name)
        except (ImportError, AttributeError) as error:
            raise CaseError(f"attention kernel {name!r} cannot be imported: {error}") from None
    if name not in KERNELS:
        raise CaseError(f"unknown attention kernel {name!r}; known: auto, {', '.join(KERNELS)}")
    return KERNELS[name]


def auto(q: Tensor, k: Tensor, v: Tensor, q_lengths: Lengths, k_lengths: Lengths) -> Tensor:
    """`varlen` for packs in half precision on NVIDIA without gradients, `sdpa` otherwise."""
    half = q.dtype in (torch.bfloat16, torch.float16)
    packed = len(q_lengths) > 1
    if q.is_cuda and half and packed and not q.requires_grad and _has_varlen():
        return varlen(q, k, v, q_lengths, k_lengths)
    return sdpa(q, k, v, q_lengths, k_lengths)


def _has_varlen() -> bool:
    try:
        import torch.nn.attention.varlen  # noqa: F401
    except ImportError:
        return False
    return torch.cuda.get_device_capability()[0] >= 8
