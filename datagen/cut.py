"""Shots become clips of 2 to 10 s (paper section 3.1), and clips become rows.

A shot longer than `max_s` is split; the last two pieces share what is left, so that no
piece gets shorter than `min_s` without need. A shot shorter than `min_s` stays whole and
is dropped later by a rule, with its reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, inf

import pyarrow as pa

from manifests.columns import ACCOUNT, require
from manifests.ids import make_id
from manifests.schema import CLIPS

from .shots import LAG_S, Transition

EPSILON_S = 1e-6


@dataclass(frozen=True)
class Span:
    """One clip: `transition_in` says what lies before it."""

    start_s: float
    end_s: float
    transition_in: str


class CutClips:
    """Turns the stream of transitions into spans, holding at most one unfinished shot."""

    def __init__(self, *, min_s: float = 2.0, max_s: float = 10.0):
        self.min_s, self.max_s = min_s, max_s
        self._start_s: float | None = None
        self._kind = "start"

    def begin(self, first_s: float) -> None:
        self._start_s = first_s

    def push(self, transitions: list[Transition], now_s: float) -> Iterator[Span]:
        """Spans that are final once every transition before `now_s - LAG_S` is known."""
        for t in transitions:
            yield from self._close(t.start_s)
            self._start_s, self._kind = max(t.end_s, self._start_s), t.kind
        # As long as more than max + min is left the rest can still be cut well.
        while now_s - LAG_S - self._start_s >= self.max_s + self.min_s:
            yield self._piece(self._start_s + self.max_s)

    def finish(self, transitions: list[Transition], end_s: float) -> Iterator[Span]:
        yield from self.push(transitions, -inf)
        yield from self._close(end_s)

    def _close(self, end_s: float) -> Iterator[Span]:
        while end_s - self._start_s >= self.max_s + self.min_s:
            yield self._piece(self._start_s + self.max_s)
        left = end_s - self._start_s
        pieces = max(1, ceil((left - EPSILON_S) / self.max_s))
        for i in range(pieces, 0, -1):
            if end_s - self._start_s > EPSILON_S:
                yield self._piece(end_s if i == 1 else self._start_s + left / pieces)

    def _piece(self, end_s: float) -> Span:
        span = Span(self._start_s, end_s, self._kind)
        self._start_s, self._kind = end_s, "split"
        return span


class MakeClips:
    """One row a clip out of the `clips` list that the scan left in each video row."""

    reads = ("video_id", "path", "width", "height", "fps", "clips", "licence", "source_url", "consent", "extra")

    def __init__(self, measures: pa.Schema):
        self.measures = measures
        self.makes = pa.schema([*CLIPS.fields, *measures, *ACCOUNT])

    def __call__(self, table: pa.Table) -> pa.Table:
        require(table, self.reads, "MakeClips")
        rows = [row for video in table.select(list(self.reads)).to_pylist() for row in self._rows(video)]
        return pa.Table.from_pylist(rows, self.makes)

    def _rows(self, video: dict) -> Iterator[dict]:
        clips = video.pop("clips") or []
        for i, clip in enumerate(clips):
            span = (round(clip["start_s"], 6), round(clip["end_s"], 6))
            yield video | clip | {
                "clip_id": make_id("clip", video["video_id"], *span),
                "clip_index": i, "num_siblings": len(clips),
                "start_s": span[0], "end_s": span[1], "duration_s": round(span[1] - span[0], 6),
                "num_attempts": 1,
            }
