"""Is an edit steady in time? Frames are brought onto their successors along the flow and compared.

Outside the mask the target must move as the source does, so both are warped along the source's
flow; inside it may hold something else, so each is warped along its own. The source's own error
(noise, light, what flow cannot follow) is taken off: 0 = as steady as the real clip.
"""

from __future__ import annotations

import cv2
import numpy as np
import pyarrow as pa

from manifests.columns import column, map_rows
from manifests.errors import MediaError

from .pair_frames import READS, PairFrame, both, pair_frames

WORK_LINES = 180
CHECK_SHARE, CHECK_PX2 = 0.01, 0.5  # of the forward-backward check, Sundaram et al. 2010
MIN_PIXELS = 40      # in both frames, below which a step says nothing


class MeasureEditMotion:
    """Row by row over PAIRS of videos with a mask. Values are of 255."""

    reads = READS
    adds = (
        column("warp_error_inside", pa.float32(), "mean flow-warped frame error inside the mask: target less source"),
        column("warp_error_outside", pa.float32(), "the same outside the mask, along the source's motion"),
        column("mask_stability", pa.float32(), "mean overlap (IoU) of a mask with its predecessor brought onto it"),
    )

    def __call__(self, table: pa.Table) -> pa.Table:
        return map_rows(table, self, self._measure)

    def _measure(self, row: dict) -> dict:
        if row["target_start_s"] is None or row["source_start_s"] is None:
            raise MediaError("a picture has no motion: both sides must be videos")
        steps, before, dis = [], None, cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        for frame in both(pair_frames(row, short_px=WORK_LINES)):
            if before is not None:
                steps.append(_step(dis, before, frame))
            before = frame
        if not steps:
            raise MediaError("the pair has fewer than two frames in common")
        return {field.name: _mean([s[i] for s in steps]) for i, field in enumerate(self.adds)}


def _step(dis, before: PairFrame, now: PairFrame) -> tuple[float, float, float]:
    source, target = _Flow(dis, before.source, now.source), _Flow(dis, before.target, now.target)
    inside = now.mask & source.warp(before.mask)
    outside = ~_grown(now.mask) & ~_grown(source.warp(before.mask))
    own = _mean_of(source.error(before.source, now.source), inside & source.seen)
    made = _mean_of(target.error(before.target, now.target), inside & target.seen)
    rest = outside & source.seen
    apart = source.error(before.target, now.target) - source.error(before.source, now.source)
    warped = source.warp(before.mask)
    union = (warped | now.mask).sum()
    overlap = (warped & now.mask).sum() / union if union else np.nan
    return made - own, _mean_of(apart, rest), overlap


class _Flow:
    """From the later frame back to the earlier one, and where that can be trusted."""

    def __init__(self, dis, before: np.ndarray, now: np.ndarray):
        greys = [cv2.cvtColor(p, cv2.COLOR_RGB2GRAY) for p in (now, before)]
        flow, back = dis.calc(greys[0], greys[1], None), dis.calc(greys[1], greys[0], None)
        height, width = greys[0].shape
        x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
        self.places = np.dstack([x, y]) + flow
        home = self._at(back)
        motion = np.square(flow).sum(axis=2) + np.square(home).sum(axis=2)
        within = ((self.places >= 0) & (self.places <= np.float32([width - 1, height - 1]))).all(axis=2)
        self.seen = (np.square(flow + home).sum(axis=2) <= CHECK_SHARE * motion + CHECK_PX2) & within

    def _at(self, values: np.ndarray) -> np.ndarray:
        return cv2.remap(values, self.places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    def warp(self, mask: np.ndarray) -> np.ndarray:
        return self._at(mask.astype(np.float32)) > 0.5

    def error(self, before: np.ndarray, now: np.ndarray) -> np.ndarray:
        return cv2.absdiff(now, self._at(before)).mean(axis=2, dtype=np.float32)


def _grown(mask: np.ndarray) -> np.ndarray:
    return cv2.dilate(mask.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool)


def _mean_of(values: np.ndarray, where: np.ndarray) -> float:
    return float(values[where].mean()) if where.sum() >= MIN_PIXELS else np.nan


def _mean(values: list[float]) -> float | None:
    known = [v for v in values if v == v]
    return float(np.mean(known)) if known else None
