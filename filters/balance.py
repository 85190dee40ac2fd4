"""Decisions about the set, not the row: a cap for each video, even similarity, 1 : 1 people.

Paper section 3.1: at most 100 pairs a raw video, human-centric : not = 1 : 1, and Fig. 4a's
roughly uniform similarity. Ties are broken by a number drawn from the row's id: the result
depends neither on the order of the rows nor on how many workers there were.
"""

from __future__ import annotations

import numpy as np


def bins_of(values: np.ndarray, low: float, high: float, num_bins: int) -> np.ndarray:
    """uint8 bin of each value in [low, high]; the upper border belongs to the last bin."""
    scaled = (values - low) * (num_bins / (high - low))
    return np.clip(scaled, 0, num_bins - 1).astype(np.uint8)


def rank_within(groups: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Position of each row inside its group (int), ordered by key. Both `(N,)`."""
    order = np.argsort(keys, kind="stable")
    order = order[np.argsort(groups[order], kind="stable")]
    sorted_groups = groups[order]
    is_first = np.r_[True, sorted_groups[1:] != sorted_groups[:-1]] if len(order) else np.empty(0, bool)
    position = np.arange(len(order))
    first = np.maximum.accumulate(np.where(is_first, position, 0))
    ranks = np.empty(len(order), np.int64)
    ranks[order] = position - first
    return ranks


def cap_per_group(groups: np.ndarray, bins: np.ndarray, keys: np.ndarray, cap: int) -> np.ndarray:
    """Boolean `(N,)`: at most `cap` rows a group, taken in turn from its bins.

    The first of every bin, then the second of every bin, and so on: what a group keeps is as
    even over the bins as its rows allow.
    """
    counts = np.bincount(groups) if len(groups) else np.zeros(1, int)
    keep = np.ones(len(groups), bool)
    large = counts[groups] > cap
    if large.any():
        g, b, k = groups[large].astype(np.int64), bins[large], keys[large]
        turn = rank_within(g * 256 + b, k)
        # Within one turn the key decides; 24 bits of it are plenty to break ties.
        place = rank_within(g, (turn.astype(np.uint64) << np.uint64(24)) | (k >> np.uint64(40)))
        keep[large] = place < cap
    return keep


def even_quota(counts: np.ndarray, *, max_ratio: float, total: int | None = None) -> np.ndarray:
    """How many rows each bin may keep.

    The largest level L such that no bin keeps more than `max_ratio` times the mean of the
    non-empty bins when all keep min(count, L). With `total`, the quota then adds up to at
    most that: the fullest bins give first.
    """
    counts = np.asarray(counts, np.int64)
    filled = counts[counts > 0]
    if not len(filled):
        return np.zeros_like(counts)
    low, high = 1, int(filled.max())
    while low < high:  # L / mean(min(count, L)) never falls as L grows
        level = (low + high + 1) // 2
        low, high = (level, high) if level <= max_ratio * np.minimum(filled, level).mean() else (low, level - 1)
    quota = np.minimum(counts, low)
    while total is not None and quota.sum() > total:
        top = quota.max()
        fullest = np.flatnonzero(quota == top)
        below = int(quota[quota < top].max(initial=0))
        excess = int(quota.sum()) - total
        step = min(top - below, max(1, excess // len(fullest)))
        quota[fullest[: max(1, min(len(fullest), excess // step))]] -= step
    return quota


def balance_classes(is_human: np.ndarray, bins: np.ndarray, keys: np.ndarray, *, num_bins: int,
                    max_ratio: float, equal: bool) -> np.ndarray:
    """Boolean `(N,)`: rows to keep so that each class is even over the bins and both are as many."""
    counts = [np.bincount(bins[is_human == c], minlength=num_bins) for c in (False, True)]
    quotas = [even_quota(c, max_ratio=max_ratio) for c in counts]
    if equal:
        total = int(min(q.sum() for q in quotas))
        quotas = [even_quota(c, max_ratio=max_ratio, total=total) for c in counts]
    cell = is_human.astype(np.int64) * num_bins + bins
    return rank_within(cell, keys) < np.concatenate(quotas)[cell]
