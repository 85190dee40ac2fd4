"""Which examples share a pack, and which rank works on which pack.

A window of examples (at least 16 a rank) becomes `world × rounds` packs: longest processing time
first, by floating-point operations, each example into the least loaded pack with room for its
tokens. Packs are then sorted by cost and handed out in rounds of `world`, so that the ranks that
wait for each other work on packs of nearly equal cost, and the rounds come in a drawn order.

With 16 examples a rank in view and one round the largest and the smallest pack differ by less than
1 % on the length mix of stage II (benchmarks/loader.py); with 4 nobody can do it, because one long
video costs more than the mean.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass


CLOSE_ENOUGH = 1.001  # largest to smallest; below it other things than cost decide who waits


@dataclass(frozen=True)
class Item:
    """What packing knows of an example: its place in the window, useful tokens, floating-point operations."""

    index: int
    num_tokens: int
    flops: float


@dataclass(frozen=True)
class Packing:
    """`rounds[k][rank]` are the indices that a rank works on in round k; `left` found no room."""

    rounds: tuple[tuple[tuple[int, ...], ...], ...]
    left: tuple[int, ...]


def num_rounds(total_tokens: int, *, world: int, budget: int, fill: float) -> int:
    """Packs a rank that a window needs when they may be filled to `fill`."""
    return max(1, math.ceil(total_tokens / (world * budget * fill)))


def pack(items: Sequence[Item], *, world: int, rounds: int, budget: int, max_items: int | None = None) -> Packing:
    """Distribute `items`, each of which fits the budget alone. No pack is empty where there are `world * rounds`."""
    bins, left = longest_first(items, world * rounds, budget, max_items)
    bins = improve(bins, budget, max_items=max_items)
    order = sorted(range(len(bins)), key=lambda b: (-sum(i.flops for i in bins[b]), min((i.index for i in bins[b]),
                                                                                         default=-1)))
    out = []
    for k in range(rounds):
        taken = order[k * world : (k + 1) * world]
        taken = taken[::-1] if k % 2 else taken  # so that no rank always gets the largest of its round
        out.append(tuple(tuple(sorted(i.index for i in bins[b])) for b in taken))
    return Packing(tuple(out), tuple(sorted(i.index for i in left)))


def longest_first(items: Sequence[Item], num_bins: int, budget: float = math.inf, max_items: int | None = None,
                  ) -> tuple[list[list[Item]], list[Item]]:
    """`(bins, items that found no room)`: the costliest first, always into the least loaded bin with room."""
    most = max_items or len(items)
    bins: list[list[Item]] = [[] for _ in range(num_bins)]
    tokens, heap, left = [0] * num_bins, [(0.0, b) for b in range(num_bins)], []
    for item in sorted(items, key=lambda i: (-i.flops, i.index)):
        full = []
        while heap and (tokens[heap[0][1]] + item.num_tokens > budget or len(bins[heap[0][1]]) >= most):
            full.append(heapq.heappop(heap))
        if heap:
            load, b = heapq.heappop(heap)
            bins[b].append(item)
            tokens[b] += item.num_tokens
            heapq.heappush(heap, (load + item.flops, b))
        else:
            left.append(item)
        for entry in full:
            heapq.heappush(heap, entry)
    return bins, left


def improve(bins: list[list[Item]], budget: float = math.inf, *, passes: int = 8,
            max_items: int | None = None) -> list[list[Item]]:
    """Swap two items of the most and the least loaded bin, or move one, while that brings them closer."""
    for _ in range(passes):
        loads = [sum(i.flops for i in b) for b in bins]
        high, low = max(range(len(bins)), key=loads.__getitem__), min(range(len(bins)), key=loads.__getitem__)
        if loads[high] <= loads[low] * CLOSE_ENOUGH:
            return bins
        may_move = max_items is None or len(bins[low]) < max_items
        swap = _best_swap(bins[high], bins[low], (loads[high] - loads[low]) / 2, budget, may_move)
        if swap is None:
            return bins
        a, b = swap
        bins = list(bins)
        bins[high] = [*(i for i in bins[high] if i is not a), *([b] if b else [])]
        bins[low] = [*(i for i in bins[low] if i is not b), a]
    return bins


def _best_swap(high: list[Item], low: list[Item], wanted: float, budget: float, may_move: bool,
               ) -> tuple[Item, Item | None] | None:
    """The pair (or one item to move) whose difference is nearest to `wanted` and that keeps both budgets."""
    room_high = budget - sum(i.num_tokens for i in high)
    room_low = budget - sum(i.num_tokens for i in low)
    best, found = wanted * (1 - 1e-9), None  # the gap that stays is |wanted - moved|; it must shrink
    for a in high:
        for b in (*low, None):
            if b is None and (len(high) == 1 or not may_move):
                continue
            moved = a.flops - (b.flops if b else 0.0)
            grows = a.num_tokens - (b.num_tokens if b else 0)
            if abs(wanted - moved) < best and grows <= room_low and -grows <= room_high:
                best, found = abs(wanted - moved), (a, b)
    return found
