"""Near-duplicates: groups without chains, the kept row, and what the index finds."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from filters.duplicates import Criterion, find_duplicates, quality_rank, scratch
from filters.rules import Rule
from manifests.errors import ConfigError
from manifests.ids import make_id, order_key

pytest.importorskip("faiss")


def find(tmp_path, vectors: np.ndarray, similarity: float, rank=None, column="video_embedding"):
    (stored,) = scratch(str(tmp_path), [Criterion(column=column, min_similarity=similarity)])
    stored.append(pa.array([None if np.isnan(v).any() else v.tolist() for v in vectors], pa.list_(pa.float32())))
    stored.close()
    return find_duplicates([stored], np.arange(len(vectors)) if rank is None else np.asarray(rank))


def turned(*degrees: float) -> np.ndarray:
    a = np.radians(degrees)
    return np.stack([np.cos(a), np.sin(a)], axis=1).astype(np.float32)


def test_a_chain_is_parted_and_every_duplicate_is_alike_to_its_kept_row(tmp_path):
    limit = float(np.cos(np.radians(12)))  # neighbours are 10 degrees apart, the ends of the chain 40
    found = find(tmp_path, turned(0, 10, 20, 30, 40, 120), limit)
    assert found.kept.tolist() == [0, 0, 2, 2, 4, 5]
    assert found.similarity[1] == pytest.approx(np.cos(np.radians(10)), abs=2e-3)
    assert np.isnan(found.similarity[[0, 2, 4, 5]]).all() and found.grouped.tolist() == [True] * 4 + [False] * 2


def test_the_best_row_is_kept_whatever_the_order(tmp_path):
    found = find(tmp_path, turned(0, 10, 20), float(np.cos(np.radians(12))), rank=[1, 0, 2])
    assert found.kept.tolist() == [1, 1, 1]


def test_rows_without_a_value_are_alike_to_nothing(tmp_path):
    vectors = turned(0, 1, 2)
    vectors[1] = np.nan
    assert find(tmp_path, vectors, 0.99).kept.tolist() == [0, 1, 0]
    vectors[:] = np.nan
    assert find(tmp_path, vectors, 0.99).kept.tolist() == [0, 1, 2]


def test_quality_then_a_number_of_the_key_decides():
    keys = order_key(pa.array([make_id("clip", n) for n in range(4)]))
    area, sharp = np.array([100.0, 200, 200, np.nan]), np.array([9.0, 5, 7, 99])
    assert quality_rank([area, sharp], keys).tolist() == [2, 1, 0, 3]
    tied = quality_rank([np.ones(4)], keys)
    assert tied.tolist() == np.argsort(np.argsort(keys)).tolist()


def test_the_index_finds_noisy_copies_among_many(tmp_path):
    """Above EXACT rows the inverted file is used; 30,000 rows, 2,000 of them copies."""
    rng = np.random.default_rng(0)
    base = rng.standard_normal((28_000, 32)).astype(np.float32)
    copies = base[:2000] + 0.1 * rng.standard_normal((2000, 32)).astype(np.float32)
    found = find(tmp_path, np.concatenate([base, copies]), 0.97)
    hit = found.kept[28_000:] == np.arange(2000)
    assert hit.mean() > 0.95 and (found.by[:28_000] >= 0).sum() == 0


def test_equal_bits_are_counted(tmp_path):
    rng = np.random.default_rng(0)
    one = rng.integers(0, 2, 256).astype(np.uint8)
    near, far = one.copy(), one.copy()
    near[:20] ^= 1   # 92 % of the bits agree
    far[:60] ^= 1    # 77 %
    (stored,) = scratch(str(tmp_path), [Criterion.parse("picture_hash")])
    stored.append(pa.array([np.packbits(b).tobytes().hex() for b in (one, near, far)]))
    stored.close()
    found = find_duplicates([stored], np.arange(3))
    assert found.kept.tolist() == [0, 0, 2] and found.similarity[1] == pytest.approx(1 - 20 / 256, abs=2e-3)


def hashes(tmp_path, *values: str | None):
    """What is found among these hashes, which come in batches of one."""
    (stored,) = scratch(str(tmp_path), [Criterion.parse("target_picture_hash")])
    try:
        for value in values:
            stored.append(pa.array([value], pa.string()))
    finally:
        stored.close()
    return find_duplicates([stored], np.arange(len(values)))


def test_hashes_of_two_versions_are_not_compared(tmp_path):
    found = hashes(tmp_path, "5a" * 64, None, "5a" * 64)
    assert found.kept.tolist() == [0, 1, 0] and found.similarity[2] == pytest.approx(1.0, abs=1e-6)
    with pytest.raises(ConfigError, match="target_picture_hash has hashes of 256 and of 512 bits.*measure them all"):
        hashes(tmp_path, "5a" * 64, "5a" * 32)
    (stored,) = scratch(str(tmp_path), [Criterion.parse("picture_hash")])
    with pytest.raises(ConfigError, match="hashes of 256 and of 512 bits"):
        stored.append(pa.array(["5a" * 32, "5a" * 64]))
    stored.close()
    with pytest.raises(ConfigError, match="holds words that are no hashes, e.g. 'no hash'"):
        hashes(tmp_path, "no hash")
    with pytest.raises(ConfigError, match="holds words that are no hashes, e.g. ''"):
        hashes(tmp_path, "")


@pytest.mark.parametrize("text, message", [("my_column", "needs a similarity"), ("picture_hash=x", "'x' is no number"),
                                           ("picture_hash=0.2", "must lie above 0.5"), ("picture_hash=nan", "is nan; it must lie")])
def test_a_wrong_criterion_says_so(text, message):
    with pytest.raises(ConfigError, match=message):
        Criterion.parse(text)


def test_a_rule_may_let_null_pass():
    values = pa.array([None, 0.95, 0.7], pa.float32())
    assert Rule(column="s", max=0.9, optional=True).reasons(values).to_pylist() == [None, "s>0.9", None]
    assert Rule(column="s", max=0.9).reasons(values).to_pylist() == ["failed: s was not measured", "s>0.9", None]
    kinds = pa.array([None, "a", "b"])
    assert Rule(column="k", allowed=("a",), optional=True).reasons(kinds).to_pylist() == [None, None, "k is b"]
