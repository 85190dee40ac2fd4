"""Sequence parallelism: P processes hold the tokens of one pack in turn (paper, section 5.1).

Each process has a run of tokens with all heads; for attention, one all-to-all gives it all tokens
with a P-th of the heads, and another brings the result back. Everything else is local to a token.
Lengths need not divide: sizes differ by at most one token.

Every process computes its part of the loss; gradients add up over the group.

N tokens of the pack, n of this process, H heads, d head width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from manifests.errors import ConfigError


@dataclass(frozen=True)
class SequenceGroup:
    """The processes that share a pack; alone (`size` 1) everything is the identity."""

    rank: int = 0
    size: int = 1
    group: dist.ProcessGroup | None = None

    def sizes(self, count: int) -> list[int]:
        """Tokens of each process."""
        return [count // self.size + (r < count % self.size) for r in range(self.size)]

    def span(self, count: int) -> tuple[int, int]:
        """First token of this process and the one after its last."""
        sizes = self.sizes(count)
        start = sum(sizes[: self.rank])
        return start, start + sizes[self.rank]

    def local_lengths(self, lengths: Sequence[int]) -> list[int]:
        """How many tokens of each sequence this process holds."""
        start, stop = self.span(sum(lengths))
        out, at = [], 0
        for length in lengths:
            out.append(max(0, min(at + length, stop) - max(at, start)))
            at += length
        return out

    def check_heads(self, heads: int, what: str, shared: int | None = None) -> None:
        """Each process needs whole heads, also of the `shared` ones of keys and values, which can be repeated."""
        if heads % self.size:
            raise ConfigError(f"{what} has {heads} heads, which do not divide by --sequence-parallel {self.size}")
        if shared and shared % self.size and self.size % shared:
            fit = [str(p) for p in range(1, heads + 1) if not heads % p and (not shared % p or not p % shared)]
            raise ConfigError(f"{what} has {shared} heads of keys and values, which cannot be shared out over "
                              f"--sequence-parallel {self.size}; it can be {', '.join(fit)}")

    def around(self, attend: Callable[..., Tensor], count: int) -> Callable[..., Tensor]:
        """`attend(q, k, v, …)` over all `count` tokens, for q, k, v `[n, heads, d]` of this process."""
        if self.size == 1:
            return attend

        def exchanged(q: Tensor, k: Tensor, v: Tensor, *rest) -> Tensor:
            q, k, v = (self.to_heads(self._enough(x), count) for x in (q, k, v))
            return self.to_tokens(attend(q, k, v, *rest), count)

        return exchanged

    def _enough(self, x: Tensor) -> Tensor:
        """Grouped keys and values repeated until every process has a head."""
        heads = x.shape[1]
        return x if heads % self.size == 0 else x.repeat_interleave(self.size // heads, dim=1)

    def to_heads(self, x: Tensor, count: int) -> Tensor:
        """`[n, H, d]` → `[N, H/P, d]`."""
        return _ToHeads.apply(x, self, count)

    def to_tokens(self, x: Tensor, count: int) -> Tensor:
        """`[N, H/P, d]` → `[n, H, d]`."""
        return _ToTokens.apply(x, self, count)

    def gather(self, x: Tensor, count: int) -> Tensor:
        """`[n, …]` → `[N, …]` on every process; gradients are summed over them."""
        return x if self.size == 1 else _Gather.apply(x, self, count)


def _to_heads(x: Tensor, group: SequenceGroup, count: int) -> Tensor:
    n, heads, width = x.shape
    sent = x.reshape(n, group.size, heads // group.size, width).transpose(0, 1)
    sent = sent.reshape(group.size * n, heads // group.size * width)
    got = sent.new_empty(count, sent.shape[1])
    dist.all_to_all_single(got, sent.contiguous(), group.sizes(count), [n] * group.size, group=group.group)
    return got.view(count, heads // group.size, width)


def _to_tokens(x: Tensor, group: SequenceGroup, count: int) -> Tensor:
    _, heads, width = x.shape
    n = group.sizes(count)[group.rank]
    got = x.new_empty(group.size * n, heads * width)
    sent = x.reshape(count, heads * width).contiguous()
    dist.all_to_all_single(got, sent, [n] * group.size, group.sizes(count), group=group.group)
    return got.view(group.size, n, heads, width).transpose(0, 1).reshape(n, group.size * heads, width)


class _ToHeads(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, group: SequenceGroup, count: int) -> Tensor:
        ctx.args = group, count
        return _to_heads(x, group, count)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return _to_tokens(grad, *ctx.args), None, None


class _ToTokens(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, group: SequenceGroup, count: int) -> Tensor:
        ctx.args = group, count
        return _to_tokens(x, group, count)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return _to_heads(grad, *ctx.args), None, None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, group: SequenceGroup, count: int) -> Tensor:
        ctx.args = group, count
        sizes = group.sizes(count)
        parts = [x.new_empty(max(sizes), *x.shape[1:]) for _ in sizes]
        padded = torch.cat([x, x.new_zeros(max(sizes) - len(x), *x.shape[1:])])
        dist.all_gather(parts, padded.contiguous(), group=group.group)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx, grad: Tensor):
        group, count = ctx.args
        grad = grad.contiguous().clone()
        dist.all_reduce(grad, group=group.group)
        start, stop = group.span(count)
        return grad[start:stop], None, None
