"""Decide over a whole table of measures: rules for rows, then policies for the set.

Columns are read one at a time and decisions kept as one small integer a row, so that a
million rows are decided again in a second, without Ray, media or models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from filters.balance import balance_classes, bins_of, cap_per_group
from filters.rules import Decisions, Rule
from manifests.columns import DROP_REASON, FAILED, set_column
from manifests.errors import ConfigError
from manifests.ids import order_key
from manifests.manifest import Manifest

HUMAN_EQUAL = "human : not human = 1 : 1"  # the drop reason of that policy
NUM_BINS = 10  # 0.03 wide over the paper's band


@dataclass(frozen=True, kw_only=True)
class PairPolicy:
    """What the set of pairs must look like (paper section 3.1 and Fig. 4a); None or False = off."""

    column: str = "video_similarity"
    low: float = 0.65
    high: float = 0.95
    max_pairs_per_video: int | None = 100
    human_equal: bool = True
    max_bin_ratio: float | None = 1.25  # fullest similarity bin against the mean of the filled ones
    seed: int = 0

    def __post_init__(self):
        if self.max_pairs_per_video is not None and self.max_pairs_per_video < 1:
            raise ConfigError(f"max_pairs_per_video is {self.max_pairs_per_video}; it must be at least 1")
        if self.max_bin_ratio is not None and self.max_bin_ratio < 1:
            raise ConfigError(f"max_bin_ratio is {self.max_bin_ratio}; the fullest bin cannot be below the mean")


def decide(manifest: Manifest, rules: Sequence[Rule], policy: PairPolicy | None = None) -> Decisions:
    """Decisions on all rows from their measures alone; earlier decisions are made anew."""
    decisions = Decisions(manifest.num_rows)
    for rule in rules:
        decisions.apply(rule, manifest.table([rule.column])[rule.column])
    if policy is not None:
        _apply_policy(manifest, decisions, policy)
    return decisions


def _apply_policy(manifest: Manifest, decisions: Decisions, policy: PairPolicy) -> None:
    """Cap, then evenness, then 1 : 1. What is held: a bin and a tie-breaking number for each row left."""
    if policy.human_equal:
        unknown = manifest.table(["is_human"])["is_human"].is_null().to_numpy()
        decisions.drop(unknown, f"{FAILED}is_human was not measured")
    rows = np.flatnonzero(decisions.accepted)
    values = _read(manifest, policy.column, rows).to_numpy()
    bins = bins_of(values, policy.low, policy.high, NUM_BINS)
    keys = order_key(_read(manifest, manifest.stop.key, rows), policy.seed)
    if policy.max_pairs_per_video is not None:
        videos = _read(manifest, "video_id", rows).combine_chunks().dictionary_encode().indices.to_numpy()
        keep = cap_per_group(videos, bins, keys, policy.max_pairs_per_video)
        decisions.drop(rows[~keep], f"pairs of this video>{policy.max_pairs_per_video}")
        rows, bins, keys = rows[keep], bins[keep], keys[keep]
    human = np.zeros(len(rows), bool)
    if policy.human_equal:
        human = _read(manifest, "is_human", rows).to_numpy(zero_copy_only=False)
    for equal, reason in ((False, "similarity bin is full"), (policy.human_equal, HUMAN_EQUAL)):
        keep = balance_classes(human, bins, keys, num_bins=NUM_BINS, equal=equal,
                               max_ratio=policy.max_bin_ratio or float("inf"))
        decisions.drop(rows[~keep], reason)


def _read(manifest: Manifest, name: str, rows: np.ndarray) -> pa.ChunkedArray:
    return manifest.table([name])[name].take(pa.array(rows))


class Decided:
    """A manifest with its `drop_reason` replaced by decisions; the source of a further run."""

    def __init__(self, manifest: Manifest, decisions: Decisions):
        self._manifest, self._decisions = manifest, decisions
        self.schema, self.num_rows = manifest.schema, manifest.num_rows

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        start = 0
        for batch in self._manifest.batches(columns):
            if DROP_REASON.name in batch.column_names:
                batch = set_column(batch, DROP_REASON, self._decisions.column(start, batch.num_rows))
            start += batch.num_rows
            yield batch
