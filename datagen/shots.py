"""Where one shot ends and the next begins, found while the film streams by.

Hard cuts and fades come from PySceneDetect's detectors; dissolves from a test that every
frame inside the transition is a blend of the pictures before and after it. Each transition
is final `LAG_S` behind the newest frame, so memory does not grow with the film.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np
from scenedetect import ContentDetector, FrameTimecode

from manifests.media import Frame
from manifests.planes import fit, shrink

DETECT_LONG_PX = 160      # PySceneDetect itself shrinks to about 256; scores are means and hardly change
CONTENT_THRESHOLD = 27.0  # PySceneDetect's default for ContentDetector
CUT_MIN_CHANGE = 5.0      # mean absolute change of luma at a cut; below it colour noise in the dark
MIN_SHOT_S = 0.2          # cuts closer than this are one event (strobe, flash)
FLASH_S = 0.2             # a picture that is back after this long was a flash, not a cut
CUT_OVER_MOTION = 2.5     # a cut changes the picture this many times as much as the frames around it
BLACK_LUMA = 20.0         # mean luma of a black frame; video black is 16
LAG_S = 2.0               # longest look back of any test below

BLEND_WINDOWS_S = (0.5, 0.9, 1.4)   # lengths of gradual transitions that are tried
BLEND_STEP_S = 0.1
BLEND_MIN_CHANGE = 12.0   # rms change of luma between the two ends, 0 to 255
BLEND_MAX_RESIDUAL = 0.22  # what the blend may leave unexplained, against that change
BLEND_MAX_LIKENESS = 0.75  # correlation of the two ends; above it the light changed, not the shot
BLEND_MIN_AREA = 0.6       # share of the picture that changes; below it a title or an object came
BLEND_MAX_EDGES = 0.8      # energy of the edges half way, against the two ends; 0.5 for unlike pictures
THUMB = (48, 27)


@dataclass(frozen=True)
class Transition:
    """`kind` is cut, dissolve, fade or damage; a cut has start_s == end_s (first frame after it)."""

    kind: str
    start_s: float
    end_s: float


class FindShots:
    """Feed every frame to `push`; collect final transitions with `take_final`."""

    def __init__(self, fps: float | None):
        self._fps = fps or 25.0
        # Its own filter of close cuts is off: `_sharpest` and MIN_SHOT_S do that work here.
        self._content = ContentDetector(threshold=CONTENT_THRESHOLD, min_scene_len=0)
        self._last_hit_s = -MIN_SHOT_S
        self._thumbs: deque[tuple[float, np.ndarray]] = deque()   # the last LAG_S seconds
        self._changes: deque[tuple[float, float]] = deque()       # (time, change), the same seconds
        self._cuts: deque[tuple[float, np.ndarray]] = deque()     # (time, thumb before), to be confirmed
        self._found: list[Transition] = []
        self._black_since: float | None = None
        self._damage_since: float | None = None
        self._next_blend_s = -1e9
        self._now_s = 0.0

    def push(self, frame: Frame) -> tuple[float, float]:
        """Mean luma and mean absolute change against the frame before, both 0 to 255."""
        small = frame.bgr(fit(frame.shown_size, long_px=DETECT_LONG_PX), smooth=False)
        thumb = shrink(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), THUMB)
        thumb = thumb.astype(np.float32)
        before = self._thumbs[-1][1] if self._thumbs else thumb
        self._now_s = frame.time_s
        hit = self._content.process_frame(FrameTimecode(frame.index, self._fps), np.ascontiguousarray(small))
        if hit and frame.time_s - self._last_hit_s >= MIN_SHOT_S:
            self._last_hit_s = frame.time_s
            self._cuts.append((frame.time_s, before))
        luma, change = float(thumb.mean()), float(np.abs(thumb - before).mean())
        self._remember(thumb, change)
        self._confirm_cuts()
        self._track_black(luma)
        self._track_damage(frame.clean)
        if frame.time_s >= self._next_blend_s:
            self._next_blend_s = frame.time_s + BLEND_STEP_S
            self._find_blend()
        return luma, change

    def take_final(self, *, at_end: bool = False) -> list[Transition]:
        """Transitions that no later frame can change, in order, each once."""
        if at_end:
            self._close_runs()
            self._confirm_cuts(at_end=True)
        horizon = np.inf if at_end else self._now_s - LAG_S
        merged = _merge(self._found)
        final = [t for t in merged if t.end_s <= horizon]
        self._found = [t for t in merged if t.end_s > horizon]
        return final

    def _remember(self, thumb: np.ndarray, change: float) -> None:
        self._thumbs.append((self._now_s, thumb))
        self._changes.append((self._now_s, change))
        while self._thumbs[0][0] < self._now_s - LAG_S:
            self._thumbs.popleft()
            self._changes.popleft()

    def _confirm_cuts(self, *, at_end: bool = False) -> None:
        while self._cuts and (at_end or self._cuts[0][0] <= self._now_s - FLASH_S):
            time_s, before = self._cuts.popleft()
            if not self._is_flash(time_s, before) and (cut_s := self._sharpest(time_s)) is not None:
                self._found.append(Transition("cut", cut_s, cut_s))

    def _is_flash(self, time_s: float, before: np.ndarray) -> bool:
        at_cut = next(t for s, t in self._thumbs if s >= time_s)
        back = np.abs(self._thumbs[-1][1] - before).mean()
        return self._now_s >= time_s + FLASH_S and back < 0.5 * np.abs(at_cut - before).mean()

    def _sharpest(self, time_s: float) -> float | None:
        """The frame with the largest change, if it stands out of the frames around it.

        The detector names the first frame above its threshold, which may be motion just before
        the cut; and a whip pan changes every frame as much as a cut does.
        """
        changes = list(self._changes)
        near = [i for i, (s, _) in enumerate(changes) if time_s <= s < time_s + MIN_SHOT_S]
        at = max(near, key=lambda i: changes[i][1])
        around = [c for _, c in changes[max(0, at - 2) : at] + changes[at + 1 : at + 3]]
        quiet = float(np.median(around)) if around else 0.0
        return changes[at][0] if changes[at][1] > max(CUT_OVER_MOTION * quiet, CUT_MIN_CHANGE) else None

    def _track_black(self, luma: float) -> None:
        """A black stretch is a piece of its own: a fade into it and a fade out of it."""
        if luma < BLACK_LUMA and self._black_since is None:
            self._black_since = self._now_s
            self._found.append(Transition("fade", self._now_s, self._now_s))
        elif luma >= BLACK_LUMA and self._black_since is not None:
            self._black_since = None
            self._found.append(Transition("fade", self._now_s, self._now_s))

    def _track_damage(self, clean: bool) -> None:
        if not clean and self._damage_since is None:
            self._damage_since = self._now_s
            self._found.append(Transition("damage", self._now_s, self._now_s))
        elif clean and self._damage_since is not None:
            self._damage_since = None
            self._found.append(Transition("damage", self._now_s, self._now_s))

    def _close_runs(self) -> None:
        self._black_since = self._damage_since = None

    def _find_blend(self) -> None:
        """Is the picture of the last L seconds a blend that moves evenly from one to the other?"""
        for length in BLEND_WINDOWS_S:
            window = [(s, t) for s, t in self._thumbs if s >= self._now_s - length - 1e-6]
            if len(window) < 8 or window[0][0] > self._now_s - 0.8 * length:
                continue
            span = _blend_span([t for _, t in window])
            if span is not None:
                dark = min(window[0][1].mean(), window[-1][1].mean()) < 1.5 * BLACK_LUMA
                kind = "fade" if dark else "dissolve"
                self._found.append(Transition(kind, window[span[0]][0], window[span[1]][0]))
                return


def _blend_span(thumbs: list[np.ndarray]) -> tuple[int, int] | None:
    """Indices of the last picture before and the first after the blend; None where there is none."""
    first, last = thumbs[0], thumbs[-1]
    change = last - first
    energy = float((change * change).sum())
    if energy < BLEND_MIN_CHANGE**2 * change.size or (np.abs(change) > 6).mean() < BLEND_MIN_AREA:
        return None
    for share in (0.25, 0.5, 0.75):
        middle = thumbs[round(share * (len(thumbs) - 1))] - first
        alpha = float((middle * change).sum()) / energy
        residual = middle - alpha * change
        if abs(alpha - share) > 0.17 or float((residual * residual).sum()) > BLEND_MAX_RESIDUAL**2 * energy:
            return None
    if _same_picture(first, last) or _keeps_edges(first, thumbs[round(0.5 * (len(thumbs) - 1))], last):
        return None
    alphas = [float(((t - first) * change).sum()) / energy for t in thumbs]
    begin = max(i for i, a in enumerate(alphas) if a < 0.04)
    return begin, min(i for i, a in enumerate(alphas) if a > 0.96)


def _same_picture(first: np.ndarray, last: np.ndarray) -> bool:
    """Alike but for brightness and contrast. A black end is like nothing: that is a fade."""
    spread = first.std() * last.std()
    if min(first.mean(), last.mean()) < 1.5 * BLACK_LUMA or spread < 1.0:
        return False
    likeness = float(((first - first.mean()) * (last - last.mean())).mean()) / spread
    return likeness > BLEND_MAX_LIKENESS


def _keeps_edges(first: np.ndarray, middle: np.ndarray, last: np.ndarray) -> bool:
    """Half way through a blend of two pictures the edges of both are half as strong.

    A slow move over soft content passes for a blend otherwise, but its edges stay.
    """
    ends = (_edge_energy(first) + _edge_energy(last)) / 2
    return _edge_energy(middle) > BLEND_MAX_EDGES * ends


def _edge_energy(thumb: np.ndarray) -> float:
    return float(np.square(np.diff(thumb, axis=0)).sum() + np.square(np.diff(thumb, axis=1)).sum())


def _merge(found: list[Transition]) -> list[Transition]:
    """Overlapping gradual transitions become one; a cut inside one is part of it."""
    merged: list[Transition] = []
    for t in sorted(found, key=lambda t: (t.start_s, t.end_s)):
        last = merged[-1] if merged else None
        if last is not None and t.start_s <= last.end_s and last.end_s > last.start_s:
            if t.end_s > last.end_s:
                merged[-1] = Transition(last.kind, last.start_s, t.end_s)
        elif last is not None and t.start_s == t.end_s == last.start_s == last.end_s:
            continue
        elif last is not None and t.end_s > t.start_s and last.start_s == last.end_s >= t.start_s:
            merged[-1] = t
        else:
            merged.append(t)
    return merged
