"""Is a made pair edited where it should be, and only there, frame for frame?

For recipes D4 to D10. Measured at 240 lines; the mask is grown a little for what lies outside
(soft edges) and taken as it is for what lies inside. Alignment looks outside the mask. An empty mask is a
finding, not a failure: an editor that did nothing has an edit of area 0 and strength 0.
"""

from __future__ import annotations

import cv2
import numpy as np
import pyarrow as pa

from manifests.columns import column, map_rows
from manifests.errors import MediaError
from manifests.planes import shrink

from .pair_frames import READS, PairFrame, pair_frames

MARGIN_PX = 5        # at 240 lines: soft edges and block noise of the codec beside an edit
MAX_PSNR_DB = 100.0  # equal pixels
MAX_OFFSET = 3       # frames by which a target is looked for before and after
CLEARLY = 0.8        # another offset must bring the difference below this share of the one at 0
SMALL = (48, 27)     # size at which frames are compared for their alignment
STILL = 1.0          # of 255: a clip whose frames differ less than this has no alignment to find


class MeasureEditRegion:
    """Row by row over PAIRS with a mask."""

    reads = READS
    adds = (
        column("psnr_outside_mask_db", pa.float32(), "target against source outside the grown mask; 100 = equal", "dB"),
        column("edit_strength_inside", pa.float32(), "mean difference of colour (CIE76) inside the mask", "dE"),
        column("mask_area", pa.float32(), "mean share of the frame that the mask covers"),
        column("source_num_frames", pa.int32(), "frames of the source's span"),
        column("target_num_frames", pa.int32(), "frames of the target's span"),
        column("frame_offset", pa.int32(), "frames by which the target lags behind the source; 0 = in step", "frames"),
        column("num_frames_gap", pa.int32(), "frames that the longer side has more", "frames"),
        column("frames_aligned", pa.bool_(), "equal number of frames, and in step"),
    )

    def __call__(self, table: pa.Table) -> pa.Table:
        return map_rows(table, self, self._measure)

    def _measure(self, row: dict) -> dict:
        sums, smalls = _Sums(), ([], [])
        for frame in pair_frames(row):
            sums.add(frame)
            for kept, picture in zip(smalls, (frame.source, frame.target), strict=True):
                if picture is not None:
                    kept.append(_small(picture, frame.mask))
        offset = _offset(*smalls)
        counts = len(smalls[0]), len(smalls[1])
        return sums.measures() | {"source_num_frames": counts[0], "target_num_frames": counts[1],
                                  "frame_offset": offset, "num_frames_gap": abs(counts[0] - counts[1]),
                                  "frames_aligned": counts[0] == counts[1] and offset == 0}


class _Sums:
    def __init__(self):
        self.squares = self.delta = self.area = 0.0
        self.outside = self.inside = self.frames = 0

    def add(self, frame: PairFrame) -> None:
        if frame.source is None or frame.target is None:
            return
        grown = cv2.dilate(frame.mask.astype(np.uint8), np.ones((2 * MARGIN_PX + 1,) * 2, np.uint8)).astype(bool)
        gap = frame.source[~grown].astype(np.float32) - frame.target[~grown]
        self.squares, self.outside = self.squares + float(np.square(gap).sum()), self.outside + gap.size
        if frame.mask.any():
            labs = [_lab(p)[frame.mask] for p in (frame.source, frame.target)]
            self.delta += float(np.linalg.norm(labs[0] - labs[1], axis=1).sum())
        self.inside += int(frame.mask.sum())
        self.area, self.frames = self.area + float(frame.mask.mean()), self.frames + 1

    def measures(self) -> dict:
        if self.frames == 0:
            raise MediaError("source and target have no frame in common: there is nothing to compare")
        psnr = None  # an edit of the whole frame leaves nothing outside
        if self.outside:
            psnr = min(MAX_PSNR_DB, 10 * np.log10(255**2 / max(self.squares / self.outside, 1e-9)))
        return {"psnr_outside_mask_db": psnr, "edit_strength_inside": self.delta / max(self.inside, 1),
                "mask_area": self.area / self.frames}


def _lab(picture: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


def _small(picture: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Small grey picture, and where it lies wholly outside the mask."""
    grey = shrink(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), SMALL).astype(np.float32)
    if mask is None:
        return grey, np.ones(grey.shape, bool)
    return grey, shrink(mask.astype(np.float32), SMALL) < 0.05


def _offset(source: list, target: list) -> int:
    """The shift with the least difference; 0 unless another one is clearly better."""
    gaps = {}
    for shift in range(-MAX_OFFSET, MAX_OFFSET + 1):
        pairs = [(source[t - shift], target[t]) for t in range(len(target)) if 0 <= t - shift < len(source)]
        values = [np.abs(a[0] - b[0])[a[1] & b[1]] for a, b in pairs]
        values = [v.mean() for v in values if v.size >= 40]
        if len(values) >= 3:
            gaps[shift] = float(np.mean(values))
    if 0 not in gaps:
        return 0
    best = min(gaps, key=lambda s: (gaps[s], abs(s)))
    moves = np.mean([np.abs(a[0] - b[0]).mean() for a, b in zip(source, source[1:], strict=False)] or [0.0])
    return best if moves > STILL and gaps[best] < CLEARLY * gaps[0] else 0
