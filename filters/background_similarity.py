"""Does a reference show its object before the target's own background?

Paper section 3.4: references are moved to another scene because equal backgrounds teach a model
to copy and paste. What is measured is how much of the target's background, outside the object,
is found again in the reference: SIFT matches that agree on one homography, and where a
background has no corners its colours. Corners do not survive a blur, so the layout is compared too: both
pictures at 32 px without their coarsest shades, the reference as any part of the target that has its mean colour.
The larger number counts. The object itself may, and should, be in both. A background that is mirrored, turned or
lit anew is not recognised by its layout.

Tried with the target's own background, blurred by 0.5 to 2 % of the shorter side around the sharp object: corners
alone gave medians of 0.00 to 0.18 on 24 pictures, the layout 0.58 and more for the whole picture and above 0.2 for 47
of 48 parts of it; on 21 key frames of real clips, blurred by 2 %, above 0.2 for 41 of 42. Before one of the other 23
pictures 3 of 1,104 references were above 0.2.
"""

from __future__ import annotations

import cv2
import numpy as np
import pyarrow as pa

from manifests.columns import column, map_rows
from manifests.errors import MediaError
from manifests.pictures import is_picture_file
from manifests.planes import fit, shrink
from manifests.spans import read_picture

from .pair_frames import mask_frames

LONG_PX = 512
MAX_CORNERS = 400
MIN_CORNERS = 25     # of the background; below that its colours are compared
RATIO = 0.8          # Lowe's: nearest match against the second nearest
MIN_AGREED = 8       # matches on one homography that are no accident
LAYOUT_PX = 32       # longer side at which a blur of 2 % is no longer seen
COARSE_PX = 3.0      # sigma of the shades that are taken away there: sky above ground is no layout of its own
PARTS = (1.0, 0.93, 0.87, 0.81, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5)  # sides of the reference's part of the target
MIN_SEEN = 0.3       # of that part must be background
MIN_DETAIL = 1.0     # CIELab, standard deviation: less is no layout
MAX_GAP = 15.0       # CIELab: out of focus, a background keeps its mean colour
CHANCE = 0.52        # correlation that another scene's layout reaches by chance


class MeasureBackgroundSimilarity:
    """Row by row over PAIRS with references; `mask_path` marks the object in the target where it is known."""

    reads = ("target_path", "target_start_s", "target_end_s", "conditions", "mask_path")
    adds = (
        column("background_similarity", pa.float32(), "largest share of the target's background that a reference "
                                                      "shows: 0 another scene, 1 the same picture"),
    )

    def __init__(self):
        self._sift = cv2.SIFT_create(nfeatures=2 * MAX_CORNERS, contrastThreshold=0.02)

    def __call__(self, table: pa.Table) -> pa.Table:
        return map_rows(table, self, self._measure)

    def _measure(self, row: dict) -> dict:
        references = [c for c in row["conditions"] or [] if c["role"] == "reference" and c["kind"] == "image"]
        if not references:
            raise MediaError("the pair has no reference image")
        pictures = [read_picture(c["path"], None, long_px=LONG_PX) for c in references]
        targets = list(self._backgrounds(row))
        return {"background_similarity": max(self._alike(p, *t) for p in pictures for t in targets)}

    def _backgrounds(self, row: dict):
        """Frames of the target and where their background is."""
        if row["target_path"] is None:
            raise MediaError("the pair has no target")
        start_s, end_s = row["target_start_s"], row["target_end_s"]
        times = [None] if start_s is None else [start_s + (end_s - start_s) * s for s in (0.02, 0.5, 0.95)]
        frames = [read_picture(row["target_path"], t, long_px=LONG_PX) for t in times]
        masks = self._masks_at(row["mask_path"], frames[0].shape[1::-1], len(frames))
        for frame, mask in zip(frames, masks, strict=True):
            yield frame, np.ones(frame.shape[:2], bool) if mask is None else ~_grown(mask)

    @staticmethod
    def _masks_at(path: str | None, size: tuple[int, int], num: int) -> list[np.ndarray | None]:
        if path is None:
            return [None] * num
        masks = mask_frames(path, size)
        if is_picture_file(path):
            return [next(masks)] * num
        every = list(masks)
        return [every[min(len(every) - 1, int(s * len(every)))] for s in (0.02, 0.5, 0.95)[:num]]

    def _alike(self, reference: np.ndarray, target: np.ndarray, background: np.ndarray) -> float:
        if not background.any():
            raise MediaError("the object fills the target: there is no background to compare")
        return max(self._corners_alike(reference, target, background), _layout_alike(reference, target, background))

    def _corners_alike(self, reference: np.ndarray, target: np.ndarray, background: np.ndarray) -> float:
        there, there_features = self._corners(target, background)
        if len(there) < MIN_CORNERS:
            return _colours_alike(reference, target, background)
        found, features = self._corners(reference, None)
        if len(found) < MIN_AGREED:
            return 0.0
        pairs = cv2.BFMatcher().knnMatch(there_features, features, k=2)
        good = [p[0] for p in pairs if len(p) == 2 and p[0].distance < RATIO * p[1].distance]
        if len(good) < MIN_AGREED:
            return 0.0
        here = np.float32([there[m.queryIdx].pt for m in good])
        away = np.float32([found[m.trainIdx].pt for m in good])
        matrix, agreed = cv2.findHomography(here, away, cv2.RANSAC, 4.0, maxIters=500)
        num = 0 if matrix is None else int(agreed.sum())
        return min(1.0, num / len(there)) if num >= MIN_AGREED else 0.0

    def _corners(self, picture: np.ndarray, where: np.ndarray | None):
        mask = None if where is None else where.astype(np.uint8) * 255
        points, features = self._sift.detectAndCompute(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), mask)
        order = np.argsort([-p.response for p in points])[:MAX_CORNERS]
        return [points[i] for i in order], features[order] if len(order) else np.empty((0, 128), np.float32)


def _layout_alike(reference: np.ndarray, target: np.ndarray, background: np.ndarray) -> float:
    """Best correlation of the reference with a part of the target's background, both without detail; chance = 0."""
    width, height = fit(target.shape[1::-1], long_px=LAYOUT_PX)
    seen = cv2.resize(background.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA) > 0.9
    seen, best = seen.astype(np.float32), 0.0
    there = _layout(target, seen)
    for part in PARTS:
        scale = part * min(width / reference.shape[1], height / reference.shape[0])
        size = round(scale * reference.shape[0]), round(scale * reference.shape[1])
        here = _layout(reference, np.ones(size, np.float32))
        best = max(best, float(_correlation(there, seen, here).max()))
    return max(0.0, (best - CHANCE) / (1 - CHANCE))


def _layout(picture: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """float32 `(h, w, 6)`: CIELab at the size of `seen`, and the same without its coarsest shades; where `seen` is 0
    nothing counts, or the object's glow around it would be taken for a layout."""
    small = cv2.resize(picture, seen.shape[::-1], interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    lab, weight = cv2.cvtColor(small, cv2.COLOR_RGB2LAB), seen[..., None]
    total = cv2.GaussianBlur(seen, (0, 0), COARSE_PX)[..., None]
    coarse = cv2.GaussianBlur(weight * lab, (0, 0), COARSE_PX) / np.maximum(total, 1e-3)
    return weight * np.dstack([lab, lab - coarse])


def _correlation(there: np.ndarray, seen: np.ndarray, here: np.ndarray) -> np.ndarray:
    """Correlation of the detail of `here` `(h, w, 6)` with that of each equally large part of `there`, where `seen` is
    1; 0 where little is seen, nothing has detail, or the mean colours differ."""
    def summed(large, small):
        return cv2.matchTemplate(np.ascontiguousarray(large, np.float32), np.ascontiguousarray(small, np.float32),
                                 cv2.TM_CCORR)

    one = np.ones(here.shape[:2], np.float32)
    num = np.maximum(summed(seen, one), 1)
    both = first = second = gap = 0.0
    for a, b in zip(np.moveaxis(there, 2, 0)[:3], np.moveaxis(here, 2, 0)[:3], strict=True):
        gap = gap + ((summed(seen * a, one) - summed(seen, b)) / num) ** 2
    for a, b in zip(np.moveaxis(there, 2, 0)[3:], np.moveaxis(here, 2, 0)[3:], strict=True):
        mean_a, mean_b = summed(seen * a, one) / num, summed(seen, b) / num
        both = both + summed(seen * a, b) / num - mean_a * mean_b
        first = first + summed(seen * a * a, one) / num - mean_a**2
        second = second + summed(seen, b * b) / num - mean_b**2
    told = (num >= MIN_SEEN * one.size) & (first > MIN_DETAIL**2) & (second > MIN_DETAIL**2) & (gap < MAX_GAP**2)
    return np.where(told, both / np.sqrt(np.maximum(first * second, 1e-9)), 0.0)


def _colours_alike(reference: np.ndarray, target: np.ndarray, background: np.ndarray) -> float:
    """Common part of the colour histograms of the target's background and the reference's rim."""
    size = fit(reference.shape[1::-1], long_px=128)
    small = shrink(reference, size)
    rim = np.ones(small.shape[:2], bool)
    rim[size[1] // 6:-(size[1] // 6), size[0] // 6:-(size[0] // 6)] = False
    first, second = _histogram(target[background]), _histogram(small[rim])
    return float(np.minimum(first, second).sum())


def _histogram(pixels: np.ndarray) -> np.ndarray:
    lab = cv2.cvtColor(pixels.reshape(-1, 1, 3).astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[:, 0]
    counts, _ = np.histogramdd(lab, bins=(8, 12, 12), range=((0, 100), (-96, 96), (-96, 96)))
    return counts / max(counts.sum(), 1)


def _grown(mask: np.ndarray) -> np.ndarray:
    return cv2.dilate(mask.astype(np.uint8), np.ones((15, 15), np.uint8)).astype(bool)
