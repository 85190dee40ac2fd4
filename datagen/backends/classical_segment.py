"""A segmenter without weights: who is seen, else what moves, else what stands out; followed by optical flow.

1. A large frontal face makes a person (of a talking head only the mouth would move).
2. Else the camera is fitted and taken out: what departs from the median background is what moves;
   where nothing does, it is the region whose colours differ most from the border of the picture.
3. GrabCut finds the outline in the best frame, optical flow carries it to the neighbours, and there
   the evidence and GrabCut correct it, so that it neither drifts nor flickers.

It cannot read: phrases are not looked for, and a track is called what it is, "moving object",
"person" or "most prominent object". `score` is the steadiness of the mask under the flow (mean
overlap of each mask with the one before, carried on) times how clearly the inside differs from
what is around it; prominence alone counts 0.8, because nothing says that it is an object.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from manifests.errors import BackendError

from ..camera_fit import camera_path, departure
from . import Track

MIN_AREA, MAX_AREA = 0.01, 0.6  # of the picture
MIN_DEPARTURE = 16               # of 255: below it noise and compression
GRAB_MARGIN = 0.35               # band around an object that GrabCut may decide about, in object sizes
TRUST = 0.55                     # overlap with what was carried on, below which a correction is not believed


class ClassicalSegmenter:
    """`long_px` is the working size; masks come back at the size of the frames."""

    version = "classical 1"

    def __init__(self, *, long_px: int = 288, seed: int = 0):
        self._long_px, self._seed = long_px, seed
        self._faces = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")
        self._flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)

    def segment(self, frames: np.ndarray, phrases: Sequence[str] = ()) -> list[Track]:
        """One track, the object that stands out most. Raises `BackendError` where nothing does."""
        cv2.setRNGSeed(self._seed)  # GrabCut and RANSAC draw from it: equal clips give equal masks
        height, width = frames.shape[1:3]
        scale = min(1.0, self._long_px / max(height, width))
        small = [cv2.resize(f, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) for f in frames]
        greys = [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in small]
        forward = [self._flow.calc(a, b, None) for a, b in zip(greys[:-1], greys[1:], strict=True)]
        backward = [self._flow.calc(b, a, None) for a, b in zip(greys[:-1], greys[1:], strict=True)]
        phrase, start, mask, evidence = self._find(small, greys)
        masks = self._follow(small, start, mask, evidence, forward, backward)
        masks, steadiness = _smooth(masks, forward, backward)
        score = steadiness * _contrast(small, masks) * (0.8 if phrase == "most prominent object" else 1.0)
        big = np.stack([cv2.resize(m.astype(np.uint8) * 255, (width, height), interpolation=cv2.INTER_CUBIC) > 127
                        for m in masks])
        return [Track(phrase=phrase, score=round(float(score), 4), masks=big)]

    def _find(self, frames: list[np.ndarray], greys: list[np.ndarray]):
        """`(phrase, frame, mask, evidence)` of the object; evidence is bool `(T, h, w)` or None."""
        for start in (len(frames) // 2, 0):
            if (mask := self._person(frames[start], greys[start])) is not None:
                return "person", start, mask, None
        path = camera_path(greys) if len(frames) >= 8 else None
        evidence = _moving(departure(frames, path)) if path is not None else None
        if evidence is not None and (best := _best_component(evidence)) is not None:
            start, mask = best
            return "moving object", start, _grab(frames[start], mask, mask), evidence
        start = len(frames) // 2
        mask = _prominent(frames[start])
        if mask is None:
            raise BackendError("nothing moves and nothing stands out, so there is no object to follow")
        return "most prominent object", start, mask, None

    def _person(self, frame: np.ndarray, grey: np.ndarray) -> np.ndarray | None:
        """Head and shoulders below the largest frontal face."""
        side = max(12, min(grey.shape) // 6)
        found = self._faces.detectMultiScale(grey, 1.1, 6, minSize=(side, side))
        if not len(found):
            return None
        x, y, w, h = max(found.tolist(), key=lambda b: b[2] * b[3])
        sure, maybe = np.zeros((2, *grey.shape), np.uint8)
        cx = x + w // 2
        cv2.ellipse(sure, (cx, y + h // 2), (w // 3, h // 2), 0, 0, 360, 1, -1)
        cv2.rectangle(sure, (cx - w // 2, y + round(1.7 * h)), (cx + w // 2, grey.shape[0]), 1, -1)
        cv2.ellipse(maybe, (cx, y + h // 2), (round(0.75 * w), round(0.85 * h)), 0, 0, 360, 1, -1)
        cv2.rectangle(maybe, (cx - round(1.5 * w), y + round(1.15 * h)), (cx + round(1.5 * w), grey.shape[0]), 1, -1)
        return _in_range(_grab(frame, maybe > 0, sure > 0, rounds=4))

    def _follow(self, frames, start, mask, evidence, forward, backward) -> list[np.ndarray]:
        """The mask in all frames, from `start` to both ends."""
        masks: list = [None] * len(frames)
        masks[start] = mask
        for order, step in ((range(start + 1, len(frames)), -1), (range(start - 1, -1, -1), 1)):
            for t in order:
                # Where a pixel of this frame was in the neighbour that is known already.
                flow = backward[t - 1] if step < 0 else forward[t]
                masks[t] = _correct(frames[t], _carry(masks[t + step], flow), None if evidence is None else evidence[t])
        return masks


def _moving(departures: np.ndarray | None) -> np.ndarray | None:
    """bool `(T, h, w)`: clean regions that depart from the background."""
    if departures is None:
        return None
    threshold = max(MIN_DEPARTURE, 3.0 * float(np.percentile(departures[::4], 75)) + 8)
    small, large = np.ones((3, 3), np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
    return np.stack([_filled(cv2.morphologyEx(cv2.morphologyEx((d > threshold).astype(np.uint8), cv2.MORPH_OPEN, small),
                                              cv2.MORPH_CLOSE, large)) for d in departures])


def _filled(mask: np.ndarray) -> np.ndarray:
    """bool: holes are closed."""
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.zeros_like(mask), outlines, -1, 1, -1) > 0


def _best_component(evidence: np.ndarray) -> tuple[int, np.ndarray] | None:
    """The frame and component that is largest without being cut off by the border of the picture."""
    best, best_value, pixels = None, 0.0, evidence[0].size
    for t in range(0, len(evidence), 3):
        num, labels, stats, _ = cv2.connectedComponentsWithStats(evidence[t].astype(np.uint8))
        if evidence[t].mean() > MAX_AREA:  # the whole picture departs: a flash, or a camera that was fitted wrongly
            continue
        for i in range(1, num):
            area = stats[i, cv2.CC_STAT_AREA]
            if not MIN_AREA * pixels <= area <= MAX_AREA * pixels:
                continue
            inside = labels == i
            edge = inside[0].sum() + inside[-1].sum() + inside[:, 0].sum() + inside[:, -1].sum()
            value = area * max(0.1, 1 - 2 * edge / np.sqrt(area))
            if value > best_value:
                best, best_value = (t, inside), value
    return best


def _grab(frame: np.ndarray, maybe: np.ndarray, sure: np.ndarray, rounds: int = 3) -> np.ndarray:
    """GrabCut inside a box around `maybe`; the middle of `sure` is object, far from `maybe` is background."""
    ys, xs = np.nonzero(maybe)
    if len(ys) < 30:
        return maybe
    size = max(4.0, np.sqrt(len(ys)))
    margin = int(size * GRAB_MARGIN) + 3
    y0, y1 = max(0, ys.min() - margin), min(maybe.shape[0], ys.max() + margin + 1)
    x0, x1 = max(0, xs.min() - margin), min(maybe.shape[1], xs.max() + margin + 1)
    part, inner = maybe[y0:y1, x0:x1].astype(np.uint8), sure[y0:y1, x0:x1].astype(np.uint8)
    reach = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * max(2, margin // 4) + 1,) * 2)
    core = cv2.erode(inner, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (max(3, int(size / 5) | 1),) * 2))
    marks = np.full(part.shape, cv2.GC_BGD, np.uint8)
    marks[cv2.dilate(part, reach) > 0] = cv2.GC_PR_BGD
    marks[part > 0] = cv2.GC_PR_FGD
    marks[core > 0] = cv2.GC_FGD
    if not (marks == cv2.GC_BGD).any() and not (marks == cv2.GC_PR_BGD).any():
        return maybe
    cut = np.ascontiguousarray(frame[y0:y1, x0:x1])
    cv2.grabCut(cut, marks, None, np.zeros((1, 65)), np.zeros((1, 65)), rounds, cv2.GC_INIT_WITH_MASK)
    found = np.zeros(maybe.shape, np.uint8)
    found[y0:y1, x0:x1] = (marks == cv2.GC_FGD) | (marks == cv2.GC_PR_FGD)
    clean = _largest(_filled(cv2.morphologyEx(found, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))))
    return clean if _overlap(clean, maybe) >= 0.4 else maybe


def _largest(mask: np.ndarray) -> np.ndarray:
    """The largest component, and others that are at least a fifth of it (an arm behind a pole)."""
    num, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if num <= 2:
        return mask
    areas = stats[1:, cv2.CC_STAT_AREA]
    return np.isin(labels, 1 + np.flatnonzero(areas >= 0.2 * areas.max()))


def _carry(mask: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """`mask` of a neighbour as it lies in this frame; `flow` leads from this frame to the neighbour."""
    height, width = mask.shape
    xs, ys = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return cv2.remap(mask.astype(np.float32), xs + flow[..., 0], ys + flow[..., 1], cv2.INTER_LINEAR) > 0.5


def _correct(frame: np.ndarray, carried: np.ndarray, evidence: np.ndarray | None) -> np.ndarray:
    """What was carried on, corrected by what is seen in this frame."""
    if carried.sum() < 30:
        return carried  # it has left the picture
    wanted = carried
    if evidence is not None:
        near = cv2.dilate(carried.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
        seen = evidence & near
        if _overlap(seen, carried) >= TRUST:
            wanted = seen
    found = _grab(frame, wanted, wanted, rounds=1)
    return found if _overlap(found, wanted) >= TRUST + 0.15 else wanted


def _smooth(masks: list[np.ndarray], forward, backward) -> tuple[list[np.ndarray], float]:
    """Majority of each mask and its two neighbours carried to it; and the mean overlap with the one before."""
    smooth, overlaps = [], []
    for t, mask in enumerate(masks):
        votes = [mask]
        if t:
            votes.append(_carry(masks[t - 1], backward[t - 1]))
            overlaps.append(_overlap(votes[-1], mask))
        if t + 1 < len(masks):
            votes.append(_carry(masks[t + 1], forward[t]))
        smooth.append(np.sum(votes, axis=0) * 2 > len(votes))
    return smooth, float(np.mean(overlaps)) if overlaps else 1.0


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union; two empty masks agree."""
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


def _contrast(frames: list[np.ndarray], masks: list[np.ndarray]) -> float:
    """Share of the colour histogram that the inside does not have in common with its surroundings, 0 to 1."""
    values = []
    for t in np.unique(np.linspace(0, len(frames) - 1, 5).astype(int)):
        inside = masks[t].astype(np.uint8)
        if inside.sum() < 30:
            values.append(0.0)
            continue
        reach = 2 * int(max(4, np.sqrt(inside.sum()) / 3)) + 1
        ring = cv2.dilate(inside, np.ones((reach, reach), np.uint8)) - inside
        lab = cv2.cvtColor(frames[t], cv2.COLOR_RGB2LAB)
        a, b = (cv2.calcHist([lab], [0, 1, 2], m, [8, 12, 12], [0, 256, 64, 192, 64, 192]) for m in (inside, ring))
        a, b = a / max(1.0, a.sum()), b / max(1.0, b.sum())
        values.append(1.0 - float(np.minimum(a, b).sum()))
    return float(np.mean(values))


def _prominent(frame: np.ndarray) -> np.ndarray | None:
    """The region whose colours differ most from the border of the picture."""
    lab = cv2.GaussianBlur(cv2.cvtColor(frame, cv2.COLOR_RGB2LAB), (5, 5), 0).astype(np.float32)
    height, width = lab.shape[:2]
    rim = max(3, min(height, width) // 16)
    border = np.concatenate([lab[:rim].reshape(-1, 3), lab[-rim:].reshape(-1, 3),
                             lab[:, :rim].reshape(-1, 3), lab[:, -rim:].reshape(-1, 3)])
    _, _, centres = cv2.kmeans(border[::3], 4, None, (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 20, 1.0), 2,
                               cv2.KMEANS_PP_CENTERS)
    away = np.min(np.linalg.norm(lab[:, :, None] - centres, axis=-1), axis=2)
    ys, xs = np.mgrid[-1:1:height * 1j, -1:1:width * 1j]
    away *= np.exp(-(xs**2 + ys**2) * 0.7).astype(np.float32)
    level, rough = cv2.threshold(np.clip(away * 2, 0, 255).astype(np.uint8), 0, 1, cv2.THRESH_OTSU)
    if level < MIN_DEPARTURE:
        return None
    rough = cv2.morphologyEx(rough, cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
    mask = _largest(_filled(cv2.morphologyEx(rough, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))))
    return _in_range(_grab(frame, mask, mask, rounds=4)) if mask.any() else None


def _in_range(mask: np.ndarray) -> np.ndarray | None:
    return mask if MIN_AREA <= mask.mean() <= MAX_AREA else None
