"""Who sees whom in the planner (paper, section 2.1.1; spec 3.6).

Text and source visuals are causal. The target is bidirectional inside itself and sees all text
and sources before it; nobody else sees the target. Hence everything but the target is constant
while the target is planned, which `planner.plan` uses.

N tokens. Types: 0 text, 1 auxiliary (never in released chats), 2 source visual, 3 target visual.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

TEXT, AUXILIARY, SOURCE, TARGET = 0, 1, 2, 3


def visible(token_type: Tensor, segment_id: Tensor) -> Tensor:
    """Bool `[query, key]` from int64 `[N]` types and segments."""
    position = torch.arange(len(token_type), device=token_type.device)
    return rule(
        token_type[:, None],
        token_type[None],
        segment_id[:, None],
        segment_id[None],
        position[:, None],
        position[None],
    )


def rule(q_type, k_type, q_segment, k_segment, q_position, k_position):
    """The mask as one expression over anything that broadcasts."""
    causal = (k_position <= q_position) & ((k_type == TEXT) | (k_type == SOURCE))
    inside = (q_type == k_type) & (q_segment == k_segment) & ((k_type == TARGET) | (k_type == AUXILIARY))
    return causal | inside


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """Exact attention with grouped heads: q `[Nq, H, d]`, k, v `[Nk, H_kv, d]` → `[Nq, H, d]`."""
    q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=True)
    return out.squeeze(0).transpose(0, 1)


def block_mask(token_type: Tensor, segment_id: Tensor):
    """The same rule for FlexAttention; on a GPU it skips what nobody sees."""
    from torch.nn.attention.flex_attention import create_block_mask

    def mask(batch, head, q, k):
        return rule(token_type[q], token_type[k], segment_id[q], segment_id[k], q, k)

    n = len(token_type)
    return create_block_mask(mask, None, None, n, n, device=str(token_type.device))


def attend_flex(q: Tensor, k: Tensor, v: Tensor, mask) -> Tensor:
    """`attend` through FlexAttention with a block mask; on a CPU forward only, and slow."""
    q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (q, k, v))
    out = _flex(q.is_cuda)(q, k, v, block_mask=mask, enable_gqa=True)
    return out.squeeze(0).transpose(0, 1)


@lru_cache
def _flex(compiled: bool):
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention) if compiled else flex_attention
