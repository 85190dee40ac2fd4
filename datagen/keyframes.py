"""Key frames of a film: every shot gives at least one, long shots one every few seconds (D2, D3).

Paper section 3.1 samples key frames from raw videos without a word on how. Here a shot gives
frames at the middles of equal parts: never its first or last one, which a dissolve may touch.
Picture files of the input are one frame each, with a null `time_s`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from manifests.columns import ACCOUNT, column, require
from manifests.ids import make_id
from manifests.manifest import live
from manifests.schema import FRAMES, RIGHTS

NEIGHBOUR = column("neighbour_s", pa.float64(), "moment of the key frame before this one, with which it is compared; "
                                                "null = there is none", "s")
SHOT = column("shot_index", pa.int32(), "position of its shot in the film, from 0; pieces of a split shot count as one")


def is_picture(container: str | None) -> bool:
    """Does the format's name stand for a file with one picture (`png_pipe`, `jpeg_pipe`, `image2`, `avif`)?"""
    return bool(container) and (container.endswith("_pipe") or container in ("image2", "avif"))


def key_times(clips: Sequence[Mapping], *, every_s: float, max_frames: int) -> list[tuple[float, int]]:
    """`(time_s, shot index)` ascending. `clips` have `start_s`, `end_s` and `transition_in`, in order of time.

    Where there are more than `max_frames`, those that are kept are evenly spread.
    """
    found, shot = [], -1
    for clip in clips:
        shot += shot < 0 or clip["transition_in"] != "split"
        length = clip["end_s"] - clip["start_s"]
        num = max(1, round(length / every_s))
        found += [(round(clip["start_s"] + length * (i + 0.5) / num, 6), shot) for i in range(num)]
    if len(found) > max_frames:
        found = [found[i] for i in np.linspace(0, len(found) - 1, max_frames).round().astype(int)]
    return found


class PlanFrames:
    """VIDEOS with their `clips` → FRAMES to be read: one row a key frame, one a picture file."""

    reads = ("video_id", "path", "container", "width", "height", "clips", *(f.name for f in RIGHTS))
    makes = pa.schema([*FRAMES.fields, SHOT, NEIGHBOUR, *ACCOUNT])

    def __init__(self, *, every_s: float = 2.0, max_frames: int = 60):
        self.every_s, self.max_frames = every_s, max_frames

    def __call__(self, table: pa.Table) -> pa.Table:
        require(table, self.reads, "PlanFrames")
        videos = live(table).select(list(self.reads)).to_pylist()
        return pa.Table.from_pylist([row for video in videos for row in self._rows(video)], self.makes)

    def _rows(self, video: dict) -> Iterator[dict]:
        clips, container = video.pop("clips") or [], video.pop("container")
        times = [(None, 0)] if is_picture(container) else key_times(
            clips, every_s=self.every_s, max_frames=self.max_frames)
        before = None
        for i, (time_s, shot) in enumerate(times):
            yield video | {
                "frame_id": make_id("frame", video["video_id"], time_s), "frame_index": i, "num_siblings": len(times),
                "time_s": time_s, "shot_index": shot, "neighbour_s": before, "issues": [], "num_attempts": 1}
            before = time_s
