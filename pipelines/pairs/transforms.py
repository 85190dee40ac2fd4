"""D13: transforms, training pairs made of the film itself (paper, Table 1).

Video-Extension (two parts, the second is the target), Video-Completion (three parts, the middle one is),
Frame-to-Video (first; first and last; first, middle and last frame), Sketch-to-Video (Canny), Colorization,
Movie-with-Subtitles (the target is the film without them), Inpainting-NoMask and Video2Mask (GroundingDINO and
SAM2), Pose2Video (DWPose), Propagation (a video and the first frame of its target), subject images under
affine augmentation (OpenS2V), and a -Ref form of inpainting whose reference is the object itself.

    files → VIDEOS (decoded once) → CLIPS → CANDIDATES (planned) → PAIRS (media made) → SAMPLES

Each clip gets `per_clip` of them, drawn by its id. Media are H.264 of 4 n + 1 frames at the trainer's 16 fps
and 480p, named by content below `<output>/media`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from datagen.build_samples import BuildSamples
from datagen.subtitles import LINES, scripts_here
from datagen.transforms import MASKED, PLANNED, TRANSFORMS, PlanTransforms, known_transform
from filters.rules import Rule
from manifests.errors import ConfigError
from manifests.manifest import Manifest, live
from manifests.messages import MAX_FRAMES, MIN_FRAMES, TRAINER_FPS
from manifests.schema import SAMPLES

from ..backend_config import PoseConfig, SegmenterConfig
from ..checks import LEAST_PX, above_zero
from ..recipe import ClipConfig, Needs, Steps, apply_rules, apply_rules_where, scan_stage, stops
from ..stage import Stage

WHY = "the film is one side, and what is taken from it the other: parts, frames, edges, grey, subtitles, masks, poses"
RECIPE = "transforms"
WITHOUT_WEIGHTS = tuple(name for name, t in TRANSFORMS.items() if "pose" not in t.needs)


@dataclass(frozen=True, kw_only=True)
class Config(SegmenterConfig, PoseConfig, ClipConfig):
    """Settings of the recipe."""

    transforms: tuple[str, ...] = WITHOUT_WEIGHTS
    """Which transforms; pose2video needs --pose, the rest works without weights."""
    per_clip: int = 2
    """Transforms of a clip, drawn by its id so that all occur evenly."""
    fps: float = TRAINER_FPS
    """Frame rate of the media; the trainer's is 16."""
    short_px: int = 480
    """Short side of the media; nothing is enlarged."""
    max_frames: int = MAX_FRAMES
    """Most frames of a video, 4 n + 1; the trainer uses the first 97."""
    min_saturation: float = 20.0
    """Least mean saturation (0 to 255) of a clip whose colours are taken away."""
    phrases: tuple[str, ...] = ("person", "animal", "vehicle", "toy", "bag", "cup", "food")
    """What grounded-sam2 looks for; the classical segmenter cannot read."""
    fonts: tuple[str, ...] = ()
    """Further folders with fonts; a script that no font can write is left out."""
    min_mask_area: float = 0.01
    """Least mean share of the picture under a mask."""
    max_mask_area: float = 0.6
    """Largest mean share of the picture under a mask."""
    min_mask_stability: float = 0.75
    """Least mean overlap of neighbouring masks, laid on their centres."""
    min_mask_score: float = 0.5
    """Least score of the segmenter; GroundingDINO's own threshold is 0.35."""
    min_pose_presence: float = 0.8
    """Least share of frames with a person, of pose2video."""
    segmenter_gpus: float = 0.0
    """Share of a GPU that a worker takes for segmenter and pose."""

    def __post_init__(self):
        super().__post_init__()
        needs = {role for name in self.transforms for role in known_transform(name).needs}
        if not self.transforms or self.per_clip < 1:
            raise ConfigError("transforms and per_clip: at least one of each")
        if self.max_frames < MIN_FRAMES or self.max_frames % 4 != 1:
            raise ConfigError(f"max_frames is {self.max_frames}; it is 4 n + 1 and at least {MIN_FRAMES}")
        above_zero(self, "fps")
        if self.short_px < LEAST_PX or self.short_px % 2:
            raise ConfigError(f"--short-px is {self.short_px}; it is even and at least {LEAST_PX}")
        for folder in self.fonts:
            if not os.path.isdir(folder):
                raise ConfigError(f"there is no folder {folder}, which --fonts names")
        if "segmenter" in needs and not self.segmenter:
            raise ConfigError(f"{', '.join(n for n in self.transforms if n in MASKED)} need a segmenter: "
                              "--segmenter classical or grounded-sam2")
        if "pose" in needs and not self.pose:
            raise ConfigError("pose2video needs --pose dwpose --pose-model FILE --pose-detector FILE (ONNX): nothing "
                              "without weights finds skeletons")

    def mask_rules(self) -> tuple[Rule, ...]:
        return (
            Rule(column="mask_area", min=self.min_mask_area, max=self.max_mask_area, why="a speck, or everything"),
            Rule(column="mask_stability", min=self.min_mask_stability, why="the mask does not follow one object"),
            Rule(column="mask_score", min=self.min_mask_score, why="the segmenter is not sure"),
        )

    def pose_rules(self) -> tuple[Rule, ...]:
        return (Rule(column="pose_presence", min=self.min_pose_presence, why="nobody there"),)

    def backends(self) -> dict:
        found: dict = {}
        if any("segmenter" in TRANSFORMS[n].needs for n in self.transforms):
            found |= {"segmenter": self.segmenter, "segmenter_options": self.segmenter_options,
                      "phrases": () if self.segmenter == "classical" else self.phrases}
        if any("pose" in TRANSFORMS[n].needs for n in self.transforms):
            found |= {"pose": self.pose, "pose_options": self.pose_options}
        return found


PRESETS = {"laptop": {},
           "cluster": {"embedder": "xclip", "gpus_per_worker": 0.25, "segmenter": "grounded-sam2", "pose": "dwpose",
                       "min_mask_score": 0.35, "segmenter_gpus": 0.5, "transforms": tuple(TRANSFORMS)}}
NEEDS = Needs(makes="v2v, mv2v, i2v, vi2v, vr2v, r2v: " + ", ".join(t.source_name for t in TRANSFORMS.values()),
              cluster="X-CLIP, GroundingDINO and SAM2 (half a GPU a worker), DWPose's two ONNX files",
              cost="1.06 times bare decode and encode at most (measured on two cores, without the segmenter)")


def build(config: Config) -> dict[str, tuple[Stage, ...]]:
    """Stages of the stops that need workers."""
    kwargs = {"media": config.media_root, "fps": config.fps, "short_px": config.short_px,
              "max_frames": config.max_frames, "fonts": config.fonts, "seed": config.seed, **config.backends()}
    return {
        "videos": (scan_stage(config),),
        "pairs": (
            Stage(op="datagen.transforms:ApplyTransform", batch_size=1, workers=config.workers, kwargs=kwargs,
                  num_gpus=config.segmenter_gpus),
            apply_rules(Rule(column="target_path", why="could not be made"),
                        Rule(column="num_frames", min=MIN_FRAMES, max=config.max_frames, why="the trainer's clips")),
            apply_rules_where(MASKED, config.mask_rules()),
            apply_rules_where(("pose2video",), config.pose_rules()),
        ),
    }


def tell_scripts(fonts: tuple[str, ...]) -> None:
    """What subtitles will be written in; empty boxes are never drawn."""
    here = scripts_here(fonts)
    missing = [script for script in LINES if script not in here]
    note = f"; no font here writes {', '.join(missing)}: name a folder with --fonts" if missing else ""
    print(f"subtitles are drawn in {', '.join(here)}{note}")


@stops()
def run_steps(config: Config) -> Iterator[tuple[str, Manifest]]:
    steps, stages = Steps(config, RECIPE), build(config)
    if "movie-with-subtitles" in config.transforms and not config.quiet:
        tell_scripts(config.fonts)
    yield "videos", (videos := steps.videos())
    yield "clips", (clips := steps.clips(videos))

    settings = {"per_clip": config.per_clip, "fps": config.fps, "max_frames": config.max_frames,
                "min_saturation": config.min_saturation, "seed": config.seed}
    plan = PlanTransforms(config.transforms, recipe=RECIPE, **settings)
    made_by = {f.name: {"op": "datagen.transforms:PlanTransforms", **settings} for f in PLANNED}
    yield "candidates", (planned := steps.finish("candidates", plan.makes, (plan(live(b)) for b in clips.batches()),
                                                 parents=[clips], settings=[config.transforms, settings],
                                                 made_by=made_by))
    yield "pairs", (pairs := steps.run("pairs", planned, stages["pairs"], parents=[planned], made_by=made_by,
                                       rules=config.mask_rules()))
    yield "samples", steps.finish("samples", SAMPLES.schema, map(BuildSamples(), pairs.batches()), parents=[pairs],
                                  settings=RECIPE)
