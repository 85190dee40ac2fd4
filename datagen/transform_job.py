"""One planned pair at work: its frames as they stream by, the files it writes, the columns it fills.

What all transforms share. Frames are I420 planes at the working rate and size; a video is as long as
training wants it, 4 n + 1 frames, at least 17 and at most 97.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import ceil

import cv2
import numpy as np

from manifests.errors import BackendError, MediaError
from manifests.ids import digest
from manifests.media import colour_of
from manifests.media_store import MediaStore, StoredVideo, VideoWriter
from manifests.messages import MIN_FRAMES
from manifests.planes import rgb_of
from manifests.spans import EPSILON_S, read_span

from .backends import PoseEstimator, Segmenter, Track
from .planes import from_mask, stack_rgb
from .transform_prompts import write_prompt

Change = Callable[[int, np.ndarray], np.ndarray]  # number of a frame and its planes → new planes


def frames_of_part(duration_s: float, *, fps: float, parts: int, max_frames: int) -> int:
    """Frames of each of `parts` equal parts of a clip, 4 n + 1; 0 = the clip is too short."""
    available = ceil((duration_s - EPSILON_S) * fps)  # as many as `read_span` yields
    num = min(available // parts, max_frames)
    num = (num - 1) // 4 * 4 + 1
    return num if num >= MIN_FRAMES else 0


@dataclass(kw_only=True)
class Tools:
    """What transforms work with. `segmenter` and `pose` are None where no transform of the run needs them."""

    store: MediaStore
    fps: float = 16.0
    short_px: int = 480
    max_frames: int = 97
    segmenter: Segmenter | None = None
    phrases: tuple[str, ...] = ()
    pose: PoseEstimator | None = None
    fonts: tuple[str, ...] = ()
    seed: int = 0


@dataclass
class Job:
    """`row` is a planned pair, `parts` the number of videos that the clip is cut into."""

    row: dict
    tools: Tools
    parts: int = 1
    params: dict = field(default_factory=dict)    # how it was made, for the column `transform_params`
    measures: dict = field(default_factory=dict)

    def __post_init__(self):
        self.colour = colour_of(self.row["clip_path"])  # written files mean the same by the same numbers
        self.rng = np.random.default_rng(int(digest(self.row["pair_id"], self.tools.seed), 16))
        self.num_frames = frames_of_part(self.row["clip_end_s"] - self.row["clip_start_s"], fps=self.tools.fps,
                                         parts=self.parts, max_frames=self.tools.max_frames)
        if not self.num_frames:
            raise MediaError(f"the clip lasts {self.row['clip_end_s'] - self.row['clip_start_s']:.2f} s, too short for "
                             f"{self.parts} x {MIN_FRAMES} frames at {self.tools.fps:g} fps")

    def frames(self) -> Iterator[np.ndarray]:
        """Exactly `parts * num_frames` planes, decoded as they are asked for."""
        wanted, shape, num = self.parts * self.num_frames, None, 0
        for planes in read_span(self.row["clip_path"], self.row["clip_start_s"], self.row["clip_end_s"],
                                short_px=self.tools.short_px, fps=self.tools.fps, max_frames=wanted, planes=True):
            shape = shape or planes.shape
            if planes.shape != shape:
                raise MediaError(f"{self.row['clip_path']} changes its size inside the clip")
            num += 1
            yield planes
        if num < wanted:
            raise MediaError(f"{self.row['clip_path']} gave {num} of {wanted} frames of the clip")

    def part(self, frames: Iterator[np.ndarray]) -> StoredVideo:
        """The next part of the clip as a video."""
        return self.video(islice(frames, self.num_frames))

    def video(self, frames: Iterable[np.ndarray]) -> StoredVideo:
        return self.tools.store.video(frames, fps=self.tools.fps, colour=self.colour)

    def writer(self) -> VideoWriter:
        return self.tools.store.writer(fps=self.tools.fps, colour=self.colour)

    def change(self, frames: Iterator[np.ndarray], change: Change) -> tuple[StoredVideo, StoredVideo]:
        """`(changed, plain)`: both videos out of one pass over the frames."""
        with self.writer() as changed, self.writer() as plain:
            for i, planes in enumerate(frames):
                changed.push(change(i, planes))
                plain.push(planes)
        return changed.stored, plain.stored

    def rgb(self, planes: np.ndarray) -> np.ndarray:
        """`(height, width, 3)` uint8 of a frame, in its film's colours."""
        return rgb_of(planes, self.colour)

    def picture(self, planes: np.ndarray) -> str:
        """Path of a frame as an exact picture."""
        return self.tools.store.image(self.rgb(planes))

    def track(self, frames: Sequence[np.ndarray]) -> Track:
        """The object that the segmenter finds first; its measures become columns."""
        tracks = self.tools.segmenter.segment(stack_rgb(frames), self.tools.phrases)
        if not tracks or not tracks[0].masks.any():
            raise BackendError("the segmenter finds no object in the clip")
        track = tracks[0]
        self.params["phrase"] = track.phrase
        self.measures |= {"mask_area": np.count_nonzero(track.masks) / track.masks.size,
                          "mask_score": float(track.score), "mask_stability": stability(track.masks)}
        return track

    def mask_video(self, masks: Iterable[np.ndarray]) -> StoredVideo:
        return self.video(map(from_mask, masks))

    def filled(self, prompt: str, *, target: StoredVideo, source: StoredVideo | None = None,
               conditions: Sequence[dict] = (), mask: str | None = None, **words: object) -> dict:
        """The columns of a finished pair; `words` go into the instruction."""
        sides = {}
        for side, video in (("source", source), ("target", target)):
            sides |= {f"{side}_path": video and video.path, f"{side}_start_s": video and 0.0,
                      f"{side}_end_s": video and video.end_s, f"{side}_duration_s": video and video.end_s,
                      f"{side}_clip_id": video and self.row["clip_id"]}
        return {**sides, "conditions": list(conditions), "mask_path": mask, "num_frames": target.num_frames,
                "instruction": write_prompt(prompt, self.rng, seconds=target.end_s, **words),
                "transform_params": json.dumps(self.params, ensure_ascii=False, sort_keys=True), **self.measures}


def _centre(mask: np.ndarray) -> np.ndarray | None:
    """`(x, y)` of a mask uint8 `(h, w)`; None where it is empty."""
    m = cv2.moments(mask, binaryImage=True)
    return np.array([m["m10"], m["m01"]]) / m["m00"] if m["m00"] else None


def stability(masks: np.ndarray) -> float:
    """Mean overlap of each mask with the one before, laid upon it by their centres: 1 = a form that does not change.

    `masks` is bool `(T, H, W)`. Two empty masks agree; an empty one beside one that is not does not.
    """
    small = np.ascontiguousarray(masks[:, ::4, ::4]).view(np.uint8)
    height, width = small.shape[1:]
    centres = [_centre(m) for m in small]
    values = []
    for i in range(1, len(small)):
        if centres[i] is None or centres[i - 1] is None:
            values.append(float(centres[i] is centres[i - 1]))
            continue
        shift = np.rint(centres[i] - centres[i - 1])
        before = cv2.warpAffine(small[i - 1], np.hstack([np.eye(2), shift[:, None]]), (width, height),
                                flags=cv2.INTER_NEAREST)
        values.append(np.count_nonzero(before & small[i]) / np.count_nonzero(before | small[i]))
    return float(np.mean(values)) if values else 1.0
