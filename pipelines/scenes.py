"""Frames of other films, to put an object of a clip into (D7)."""

from __future__ import annotations

import heapq

import numpy as np
import pyarrow as pa

from manifests.ids import digest, order_key
from manifests.manifest import Manifest, live

HELD = 512       # frames that are held to choose from
SAME_FILM = 0.9  # cosine of clips; 7 real clips encoded again gave 0.97 and more, other films at most 0.77, two
                 # films of one room 0.85


class Scenes:
    """Frames of other films as scenes: a sample of all clips of bounded size, the same however they are batched.

    A film of which a held clip looks the same is no other film but a copy: encoded again, cut, or from the same room.
    A clip without an embedding lends no frame, because nothing says what film it is.
    """

    def __init__(self, clips: Manifest, seed: int):
        names, self.seed = ["clip_id", "video_id", "path", "start_s", "end_s"], seed
        held: list[tuple] = []
        for batch in clips.batches():
            batch = live(batch)
            keys = order_key(batch["clip_id"], seed).tolist()
            for key, row, look in zip(keys, batch.select(names).to_pylist(), looks_of(batch), strict=True):
                if look is not None:
                    entry = (-key, row["video_id"], row["path"], round((row["start_s"] + row["end_s"]) / 2, 6),
                             look.tobytes())
                    (heapq.heappush if len(held) < HELD else heapq.heappushpop)(held, entry)
        self.held = [entry[1:4] for entry in sorted(held)]
        self.looks = np.array([np.frombuffer(entry[4], np.float32) for entry in sorted(held)])
        self.copies = {video: {video} for video, *_ in self.held}
        for (video, *_), look in zip(self.held, self.looks, strict=True):
            self.copies[video] |= self._like(look)

    def of(self, clip: dict, look: np.ndarray | None, num: int) -> list[tuple[str, float]]:
        """`num` (path, moment) of other films, drawn by the clip's id; fewer where there are fewer. `look` `(D,)` is
        the clip's embedding."""
        same = {clip["video_id"]} | self._like(look)
        same = same.union(*(self.copies.get(video, ()) for video in same))
        others = [(path, time_s) for video, path, time_s in self.held if video not in same]
        return sorted(others, key=lambda s: digest(self.seed, clip["clip_id"], *s))[:num]

    def _like(self, look: np.ndarray | None) -> set[str]:
        """Films of which a held clip looks the same."""
        if look is None or not self.held:
            return set()
        return {self.held[i][0] for i in np.flatnonzero(self.looks @ look >= SAME_FILM)}


def looks_of(clips: pa.Table) -> list[np.ndarray | None]:
    """float32 `(D,)` of unit length for each clip: its embedding of the scan, None where it has none."""
    return [look.values.to_numpy(zero_copy_only=False).astype(np.float32) if look.is_valid else None
            for look in clips["video_embedding"]]
