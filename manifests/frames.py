"""The frames of one clip as the measures receive them: small, sampled, gone afterwards.

A film is decoded once; every measure of a stage group reads the same `ClipFrames`. Frames
never travel in a table.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from .media import Frame
from .planes import fit

SAMPLES_PER_S = 4.0    # a 2 s clip still has the 8 frames that X-CLIP reads
SAMPLE_SHORT_PX = 224  # input side of CLIP and X-CLIP
DETAIL_PER_S = 1.0     # frames large enough to tell sharp from blurred
DETAIL_SHORT_PX = 480  # the training resolution (480p)


@dataclass(frozen=True, kw_only=True)
class ClipFrames:
    """Frames of one clip. F sampled frames, K detail frames, N frames in all.

    `bgr` F arrays (y, x, 3) uint8, at `times_s` (F,) seconds; `details` K arrays (Y, X) uint8
    of luma; `frame_times_s`, `frame_luma` (mean, 0 to 255), `frame_change` (mean absolute
    difference to the frame before, 0 to 255) and `frame_clean` (bool) have one entry a frame.
    """

    start_s: float
    end_s: float
    times_s: np.ndarray
    bgr: list[np.ndarray]
    details: list[np.ndarray]
    frame_times_s: np.ndarray
    frame_luma: np.ndarray
    frame_change: np.ndarray
    frame_clean: np.ndarray

    def spread(self, num: int) -> np.ndarray:
        """Indices `(num,)` of sampled frames evenly spread over the clip (repeated if too few)."""
        middle = (np.arange(num) + 0.5) / num
        return np.minimum((middle * len(self.times_s)).astype(int), len(self.times_s) - 1)


@dataclass
class ClipBuffer:
    """Holds what the coming clips may need; `take` hands a span out and forgets what lies before."""

    _samples: deque = field(default_factory=deque)   # (time_s, bgr)
    _details: deque = field(default_factory=deque)   # (time_s, luma)
    _frames: deque = field(default_factory=deque)    # (time_s, luma, change, clean)
    _next_sample_s: float = -1e9
    _next_detail_s: float = -1e9

    def push(self, frame: Frame, luma: float, change: float) -> None:
        self._frames.append((frame.time_s, luma, change, frame.clean))
        if frame.time_s >= self._next_sample_s:
            self._samples.append((frame.time_s, frame.bgr(fit(frame.shown_size, short_px=SAMPLE_SHORT_PX))))
            self._next_sample_s = _next_tick(frame.time_s, SAMPLES_PER_S)
        if frame.time_s >= self._next_detail_s:
            self._details.append((frame.time_s, frame.luma(fit(frame.shown_size, short_px=DETAIL_SHORT_PX))))
            self._next_detail_s = _next_tick(frame.time_s, DETAIL_PER_S)

    def take(self, start_s: float, end_s: float) -> ClipFrames | None:
        """The clip [start_s, end_s); None where no frame lies in it. Earlier frames are dropped."""
        for queue in (self._samples, self._details, self._frames):
            while queue and queue[0][0] < start_s - 1e-6:
                queue.popleft()
        frames = _take_before(self._frames, end_s)
        samples = _take_before(self._samples, end_s)
        details = _take_before(self._details, end_s)
        if not frames or not samples:
            return None
        times, luma, change, clean = (np.array(column) for column in zip(*frames, strict=True))
        change = change.copy()
        change[0] = 0.0  # the step into the clip belongs to the transition, not to the clip
        return ClipFrames(
            start_s=start_s, end_s=end_s, times_s=np.array([t for t, _ in samples]),
            bgr=[image for _, image in samples], details=[image for _, image in details],
            frame_times_s=times, frame_luma=luma, frame_change=change, frame_clean=clean,
        )


def _next_tick(time_s: float, per_s: float) -> float:
    return (np.floor(time_s * per_s + 1e-6) + 1) / per_s - 1e-6


def _take_before(queue: deque, end_s: float) -> list:
    taken = []
    while queue and queue[0][0] < end_s - 1e-6:
        taken.append(queue.popleft())
    return taken
