"""The nearest neighbours of each of many vectors, by faiss.

Up to EXACT vectors are compared with all others. More go into an inverted file of 8-bit
vectors (IndexIVFScalarQuantizer, inner product). Tried on 1 M random vectors of 256
dimensions on two cores (benchmarks/results/curation.md has the run of the whole command):
faiss's inverted file builds in 37 s and finds 99 % of the noisy copies at 58 s for a million
questions; its HNSW (100,000 vectors: 29 s to build, 55 % found) and usearch's (32 s, 92 %)
build an order of magnitude slower for a graph that near-duplicates do not need. What it finds
is checked again by exact cosines (`filters/duplicates.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import faiss
import numpy as np

EXACT = 20_000
BLOCK = 20_000
LIST_ROWS = 250        # vectors of one inverted list, on average; a million give 4,000 lists
TRAIN_PER_LIST = 40    # faiss asks for 39
NUM_PROBES = 4         # lists searched: a copy lies in the list of its original or in a neighbouring one
SLACK = 0.03           # 8-bit cosines are off by less than this


def neighbours(read: Callable[[int, int], np.ndarray], num: int, dim: int, *, num_neighbours: int,
               min_cosine: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields `(i, j)` int64 arrays, i != j, whose approximate cosine is at least `min_cosine` - SLACK.

    `read(start, stop)` gives `(stop - start, dim)` float32 vectors of unit length; `num` in all.
    """
    index = _build(read, num, dim)
    for start in range(0, num, BLOCK):
        stop = min(num, start + BLOCK)
        cosines, found = index.search(read(start, stop), min(num_neighbours + 1, num))
        rows = np.broadcast_to(np.arange(start, stop)[:, None], found.shape)
        good = (found >= 0) & (found != rows) & (cosines >= min_cosine - SLACK)
        yield rows[good], found[good].astype(np.int64)


def _build(read: Callable[[int, int], np.ndarray], num: int, dim: int) -> faiss.Index:
    if num <= EXACT:
        index = faiss.IndexFlatIP(dim)
        index.add(read(0, num))
        return index
    num_lists = max(1, num // LIST_ROWS)
    quantizer = faiss.IndexFlatIP(dim)
    index = faiss.IndexIVFScalarQuantizer(quantizer, dim, num_lists, faiss.ScalarQuantizer.QT_8bit,
                                          faiss.METRIC_INNER_PRODUCT)
    index.cp.seed, index.cp.niter, index.nprobe = 0, 10, NUM_PROBES
    index.train(_sample(read, num, min(num, num_lists * TRAIN_PER_LIST)))
    for start in range(0, num, BLOCK):
        index.add(read(start, min(num, start + BLOCK)))
    return index


def _sample(read: Callable[[int, int], np.ndarray], num: int, wanted: int) -> np.ndarray:
    """`wanted` vectors evenly spaced over all, read block by block."""
    picks = np.linspace(0, num - 1, wanted).astype(np.int64)
    return np.concatenate([read(start, min(num, start + BLOCK))[picks[(picks >= start) & (picks < start + BLOCK)]
                                                                - start]
                           for start in range(0, num, BLOCK)])
