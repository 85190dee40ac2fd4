"""Decisions: rules on rows, and what the set must look like."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from filters.balance import balance_classes, bins_of, cap_per_group, even_quota, rank_within
from filters.rules import ApplyRules, Decisions, Rule
from manifests.errors import ConfigError
from manifests.ids import make_id, order_key


@pytest.mark.parametrize("rule, values, expected", [
    (Rule(column="x", min=0.65, max=0.95), [0.64, 0.65, 0.95, 0.951, None, float("nan")],
     ["x<0.65", None, None, "x>0.95", "failed: x was not measured", "failed: x was not measured"]),
    (Rule(column="x", max=0), [0, 1], [None, "x>0"]),
    (Rule(column="x", allowed=("good",), failure=True), ["good", "empty", None], [None, "failed: empty", "failed: unknown"]),
    (Rule(column="x", allowed=("a",)), ["a", "b"], [None, "x is b"]),
    (Rule(column="x"), [[1.0], None], [None, "failed: x was not measured"]),
])
def test_a_rule_gives_the_reason(rule, values, expected):
    assert rule.reasons(pa.chunked_array([pa.array(values)])).to_pylist() == expected


@pytest.mark.parametrize("kwargs, words", [
    ({"min": 2, "max": 1}, "min 2 above max 1"), ({"min": 2, "allowed": ("a",)}, "not both"),
])
def test_a_senseless_rule_is_refused(kwargs, words):
    with pytest.raises(ConfigError, match=words):
        Rule(column="x", **kwargs)


def test_the_first_broken_rule_counts_and_an_earlier_reason_stays():
    table = pa.table({"a": [0.0, 5.0, 0.0], "b": [0.0, 0.0, 0.0],
                      "drop_reason": pa.array([None, None, "earlier"], pa.string())})
    out = ApplyRules((Rule(column="a", min=1), Rule(column="b", min=1)))(table)
    assert out["drop_reason"].to_pylist() == ["a<1", "b<1", "earlier"]


def test_decisions_agree_with_the_op_row_by_row():
    rng = np.random.default_rng(0)
    table = pa.table({"a": rng.random(1000), "b": rng.random(1000), "drop_reason": pa.nulls(1000, pa.string())})
    rules = (Rule(column="a", min=0.2, max=0.9), Rule(column="b", min=0.5))
    decisions = Decisions(1000)
    for rule in rules:
        decisions.apply(rule, table[rule.column])
    assert decisions.column(0, 1000).to_pylist() == ApplyRules(rules)(table)["drop_reason"].to_pylist()
    assert decisions.column(990, 10).to_pylist() == ApplyRules(rules)(table)["drop_reason"].to_pylist()[990:]


def test_order_key_depends_on_id_and_seed_alone():
    ids = pa.array([make_id("pair", i) for i in range(1000)])
    keys = order_key(ids)
    shuffled = np.random.default_rng(1).permutation(1000)
    assert np.array_equal(order_key(ids.take(pa.array(shuffled))), keys[shuffled])
    assert np.array_equal(order_key(pa.chunked_array([ids.slice(0, 400), ids.slice(400)])), keys)
    assert len(set(keys.tolist())) == 1000 and not np.array_equal(order_key(ids, seed=1), keys)
    assert abs(float((keys / 2.0**64).mean()) - 0.5) < 0.05  # uniform: sd of the mean of 1000 is 0.009


def test_bins_cover_the_band_with_both_borders():
    assert bins_of(np.array([0.65, 0.68, 0.6801, 0.95]), 0.65, 0.95, 10).tolist() == [0, 1, 1, 9]


def test_rank_within_counts_from_zero_by_key():
    groups, keys = np.array([1, 0, 1, 1, 0]), np.array([5, 2, 3, 9, 1])
    assert rank_within(groups, keys).tolist() == [1, 1, 0, 2, 0]
    assert rank_within(np.array([], int), np.array([], int)).tolist() == []


def test_a_video_gives_at_most_its_cap_evenly_over_similarity():
    rng = np.random.default_rng(0)
    groups = np.repeat([0, 1, 2], [500, 80, 120])
    bins = rng.integers(0, 10, 700).astype(np.uint8)
    bins[:500] = np.repeat(np.arange(10), [230, 100, 50, 40, 30, 20, 12, 8, 6, 4])  # skewed, as real ones are
    keep = cap_per_group(groups, bins, rng.integers(0, 2**63, 700).astype(np.uint64), 100)
    assert np.bincount(groups[keep]).tolist() == [100, 80, 100]
    kept = np.bincount(bins[:500][keep[:500]], minlength=10)
    # In turn: the three smallest bins give all (8 + 6 + 4), the seven others share the remaining 82.
    assert kept[7:].tolist() == [8, 6, 4] and sorted(kept[:7]) == [11, 11, 12, 12, 12, 12, 12]


def test_the_cap_does_not_depend_on_the_order_of_rows():
    rng = np.random.default_rng(0)
    groups, bins = rng.integers(0, 3, 900), rng.integers(0, 10, 900).astype(np.uint8)
    keys = rng.permutation(900).astype(np.uint64) << np.uint64(45)
    keep = cap_per_group(groups, bins, keys, 50)
    order = rng.permutation(900)
    assert np.array_equal(cap_per_group(groups[order], bins[order], keys[order], 50), keep[order])


@pytest.mark.parametrize("counts, ratio, total, expected", [
    ([0, 5, 40, 3, 100, 7, 2], 1.25, None, [0, 5, 5, 3, 5, 5, 2]),
    ([10, 10, 10], 1.25, None, [10, 10, 10]),
    ([1, 0, 0], 1.25, None, [1, 0, 0]),
    ([0, 0], 1.25, None, [0, 0]),
    ([10, 10, 10], 1.25, 7, [2, 2, 3]),
    ([100, 3], float("inf"), None, [100, 3]),
])
def test_even_quota(counts, ratio, total, expected):
    quota = even_quota(np.array(counts), max_ratio=ratio, total=total)
    assert sorted(quota.tolist()) == sorted(expected) and (quota <= counts).all()
    if total is not None:
        assert quota.sum() == total
    filled = quota[np.array(counts) > 0]
    if total is None and len(filled):
        assert filled.max() <= max(1, ratio * filled.mean())


@pytest.mark.parametrize("share_of_humans", [0.0, 0.1, 0.5])
def test_classes_are_equal_and_each_even(share_of_humans):
    rng = np.random.default_rng(0)
    bins = np.minimum(rng.geometric(0.3, 5000) - 1, 9).astype(np.uint8)
    human = rng.random(5000) < share_of_humans
    keep = balance_classes(human, bins, rng.integers(0, 2**63, 5000).astype(np.uint64), num_bins=10,
                           max_ratio=1.25, equal=True)
    assert (keep & human).sum() == (keep & ~human).sum()
    for c in (False, True):
        kept = np.bincount(bins[keep & (human == c)], minlength=10)
        if kept.sum():
            assert kept.max() <= 1.25 * kept[np.bincount(bins[human == c], minlength=10) > 0].mean() + 1
    if share_of_humans == 0:
        assert not keep.any()
