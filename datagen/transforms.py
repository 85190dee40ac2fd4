"""D13: training pairs that need no generator, because the film itself is one side (paper, Table 1).

`PlanTransforms` draws the transforms of each clip (arithmetic), `ApplyTransform` makes the media and
fills the row. Each transform has the `source_name` under which Table 1 weighs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import pyarrow as pa

from manifests.columns import ACCOUNT, column, map_rows, require
from manifests.errors import ConfigError
from manifests.ids import digest, make_id
from manifests.media_store import MediaStore
from manifests.schema import PAIRS, RIGHTS

from . import transform_makers as makers
from .backends import open_backend
from .transform_job import Job, Tools, frames_of_part

S, F = pa.string(), pa.float64()


@dataclass(frozen=True, kw_only=True)
class Transform:
    """`parts`: videos that a clip is cut into. `needs`: roles of backends. `colourful`: a grey film teaches nothing."""

    make: Callable[[Job], dict]
    source_name: str
    task: str
    parts: int = 1
    needs: tuple[str, ...] = ()
    colourful: bool = False


SEGMENTER, POSE = ("segmenter",), ("pose",)
TRANSFORMS = {
    "video-extension": Transform(make=makers.video_extension, source_name="video-extension", task="v2v", parts=2),
    "video-completion": Transform(make=makers.video_completion, source_name="video-completion", task="mv2v", parts=3),
    "frame-to-video": Transform(make=makers.frame_to_video, source_name="frame-to-video", task="i2v"),
    "sketch-to-video": Transform(make=makers.sketch_to_video, source_name="sketch-to-video", task="v2v"),
    "colorization": Transform(make=makers.colorization, source_name="colorization", task="v2v", colourful=True),
    "movie-with-subtitles": Transform(make=makers.movie_with_subtitles, source_name="movie-with-subtitles", task="v2v"),
    "inpainting-nomask": Transform(make=makers.inpainting_nomask, source_name="inpainting-nomask", task="v2v",
                                   needs=SEGMENTER),
    # Not in Table 1, whose -Ref sets are made of edited videos: it counts in the group of its task.
    "inpainting-nomask-ref": Transform(make=makers.inpainting_nomask_ref, source_name="inpainting-nomask-ref",
                                       task="vr2v", needs=SEGMENTER),
    "video2mask": Transform(make=makers.video2mask, source_name="video2mask", task="v2v", needs=SEGMENTER),
    "pose2video": Transform(make=makers.pose2video, source_name="pose2video", task="v2v", needs=POSE),
    "propagation": Transform(make=makers.propagation, source_name="propagation", task="vi2v", colourful=True),
    "opens2v-affine": Transform(make=makers.opens2v_affine, source_name="opens2v-top200k", task="r2v",
                                needs=SEGMENTER),
}
MASKED = tuple(name for name, t in TRANSFORMS.items() if "segmenter" in t.needs)

PLANNED = (
    column("source_name", S, "data set that the pair counts as in a mixture (Table 1)"),
    column("clip_id", S, "the clip that the transform works on"),
    column("clip_path", S, "path or URI of the film that holds the clip"),
    column("clip_start_s", F, "first moment of the clip in that film", "s"),
    column("clip_end_s", F, "moment after the last frame of the clip", "s"),
)
_FILLED = ("source_path", "source_start_s", "source_end_s", "source_duration_s", "source_clip_id", "target_path",
           "target_start_s", "target_end_s", "target_duration_s", "target_clip_id", "conditions", "mask_path")


def known_transform(name: str) -> Transform:
    if name not in TRANSFORMS:
        raise ConfigError(f"no transform {name!r}; known: {', '.join(TRANSFORMS)}")
    return TRANSFORMS[name]


class PlanTransforms:
    """CLIPS → planned PAIRS, `per_clip` a clip, drawn by hash: all transforms occur evenly, and what one
    clip gets does not depend on the others. A clip gets only what it is long and colourful enough for."""

    makes = pa.schema([*PAIRS.fields, *PLANNED, *ACCOUNT])
    reads = ("clip_id", "video_id", "path", "start_s", "end_s", "saturation", *(f.name for f in RIGHTS))

    def __init__(self, transforms: Sequence[str], *, recipe: str = "transforms", per_clip: int = 1, fps: float = 16.0,
                 max_frames: int = 97, min_saturation: float = 20.0, seed: int = 0):
        self._known = {name: known_transform(name) for name in transforms}
        self._recipe, self._per_clip, self._seed = recipe, per_clip, seed
        self._fps, self._max_frames, self._min_saturation = fps, max_frames, min_saturation

    def __call__(self, table: pa.Table) -> pa.Table:
        require(table, self.reads, "PlanTransforms")
        rows = [self._row(clip, name) for clip in table.select(list(self.reads)).to_pylist()
                for name in self.choose(clip)]
        return pa.Table.from_pylist(rows, self.makes)

    def choose(self, clip: Mapping[str, object]) -> list[str]:
        able = [name for name, t in self._known.items() if self._fits(clip, t)]
        return sorted(able, key=lambda name: digest("transform", self._seed, clip["clip_id"], name))[: self._per_clip]

    def _fits(self, clip: Mapping[str, object], transform: Transform) -> bool:
        if transform.colourful and (clip["saturation"] or 0.0) < self._min_saturation:
            return False
        return frames_of_part(clip["end_s"] - clip["start_s"], fps=self._fps, parts=transform.parts,
                              max_frames=self._max_frames) > 0

    def _row(self, clip: Mapping[str, object], name: str) -> dict:
        transform = self._known[name]
        return {
            "pair_id": make_id("pair", self._recipe, clip["clip_id"], name), "video_id": clip["video_id"],
            "recipe": self._recipe, "task": transform.task, "edit": name, "source_name": transform.source_name,
            "clip_id": clip["clip_id"], "clip_path": clip["path"], "clip_start_s": clip["start_s"],
            "clip_end_s": clip["end_s"], "conditions": [], "issues": [], "num_attempts": 1,
            **{f.name: clip[f.name] for f in RIGHTS},
        }


class ApplyTransform:
    """Makes the media of planned pairs and fills their columns.

    `media` is a folder or URI that all workers see. `segmenter` and `pose` name backends; "" = none,
    and rows that need one are then a `ConfigError`. `fonts` are further folders with fonts.
    """

    reads = ("pair_id", "edit", "clip_id", "clip_path", "clip_start_s", "clip_end_s")
    adds = (
        *(PAIRS.schema.field(name) for name in _FILLED),
        column("instruction", S, "what the model is told to do"),
        column("num_frames", pa.int32(), "frames of the target, 4 n + 1"),
        column("mask_area", pa.float32(), "mean share of the picture that the mask covers; null = no mask was needed"),
        column("mask_stability", pa.float32(), "mean overlap of each mask with the one before, laid on its centre"),
        column("mask_score", pa.float32(), "what the segmenter says of its mask, 0 to 1"),
        column("pose_presence", pa.float32(), "share of frames in which a person was found"),
        column("transform_params", S, "how it was made (form, fill, font, cues, angles, …), as a JSON object"),
    )
    neutral = ("media",)

    def __init__(self, media: str, *, fps: float = 16.0, short_px: int = 480, max_frames: int = 97,
                 segmenter: str = "", segmenter_options: Mapping[str, object] | None = None,
                 phrases: Sequence[str] = (), pose: str = "", pose_options: Mapping[str, object] | None = None,
                 fonts: Sequence[str] = (), seed: int = 0):
        cv2.setNumThreads(1)  # Ray gives each worker one core
        self._tools = Tools(store=MediaStore(media), fps=fps, short_px=short_px, max_frames=max_frames,
                            phrases=tuple(phrases), fonts=tuple(fonts), seed=seed,
                            segmenter=open_backend("segmenter", segmenter, **segmenter_options or {}) if segmenter
                            else None,
                            pose=open_backend("pose", pose, **pose_options or {}) if pose else None)

    def __call__(self, table: pa.Table) -> pa.Table:
        return map_rows(table, self, self.apply)

    def apply(self, row: Mapping[str, object]) -> dict:
        """The filled columns of one planned pair."""
        transform = known_transform(row["edit"])
        for role in transform.needs:
            if getattr(self._tools, role) is None:
                raise ConfigError(f"{row['edit']} needs a {role}: name one with {role}=…")
        return transform.make(Job(dict(row), self._tools, transform.parts))
