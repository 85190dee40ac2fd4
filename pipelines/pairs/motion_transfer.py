"""D10: motion transfer, a picture that moves as somebody in a reference video does.

Paper section 3.5: the task needs triplets of reference video, image and target video. Poses (DWPose) are
extracted from real videos, and pose-to-video generation makes a reference video with the same motion; the
reference image is a random frame of the target.

    files → VIDEOS → CLIPS → CANDIDATES (planned) → PAIRS (object tracked, motion rendered) → SAMPLES

Without `--video-editor` the drawn poses are the reference video. Without `--pose` nothing finds a skeleton: the
reference is then the **silhouette** of the tracked object coloured by its optical flow, a stand-in that the
column `motion_form` names; it carries place and speed, not limbs.

A reference that moves otherwise teaches nothing, so the video that was made is measured again: `motion_agreement`
compares its optical flow with the target's where the poses (the silhouette) are. What it cannot tell: left from right
limbs, and a still background from a moving one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from datagen.build_samples import BuildSamples
from filters.rules import Rule
from manifests.columns import ACCOUNT, column
from manifests.errors import ConfigError
from manifests.ids import make_id
from manifests.manifest import Manifest, live
from manifests.schema import CANDIDATES, RIGHTS, SAMPLES

from ..backend_config import PoseConfig
from ..clip_edits import ClipEditConfig
from ..recipe import ClipConfig, Needs, Steps, apply_rules, stops
from ..stage import Stage

WHY = "the motion of a real video as poses (or a video made of them), a frame of it, and the video itself as target"
RECIPE = "motion-transfer"
NEEDS = Needs(
    makes=f"vrc2v: {RECIPE}",
    laptop="nothing, and so the reference is a silhouette coloured by its flow, not a person",
    cluster="DWPose's two ONNX files, our renderer for pose to video (--video-editor-model, one 80 GB GPU a worker), "
            "X-CLIP, GroundingDINO and SAM2",
    cost="laptop: 1.1 CPU hours a 1,000 samples at 320 lines and 33 frames (measured: 4 of 7 clips kept); "
         "cluster: at most 0.75 H200 hours a pair (estimated: 200 forwards of 66,000 tokens, 5.1 PFLOP each, at 400 "
         "TFLOP/s)",
)
PLANNED = pa.schema([
    *CANDIDATES.fields,
    column("source_name", pa.string(), "data set that the pair counts as in a mixture"),
    column("clip_id", pa.string(), "the clip whose motion is taken"),
    column("path", pa.string(), "the film that holds it"),
    column("start_s", pa.float64(), "first moment of the clip", "s"),
    column("end_s", pa.float64(), "moment after its last frame", "s"),
    column("edited_thing", pa.string(), "what a segmenter that can read looks for"),
    column("is_human", pa.bool_(), "people were found in the clip"),
    *ACCOUNT,
])


@dataclass(frozen=True, kw_only=True)
class Config(PoseConfig, ClipEditConfig, ClipConfig):
    """Settings of the recipe."""

    people_only: bool = True
    """Only clips with people, as in the paper; without, whatever is tracked lends its motion."""
    pose: str = ""
    """dwpose (the paper's), or module:Class; empty = silhouettes, because nothing without weights finds skeletons."""
    video_editor: str = ""
    """Pose to video: bernini (our renderer), wan-vace, or module:Class; empty = the drawn poses are the reference."""
    presence_min: float = 0.9
    """Least share of frames with something drawn."""
    motion_min: float = 0.02
    """Least mean speed of what is drawn, in frame heights a second; a still subject has no motion to transfer."""
    agreement_min: float = 0.4
    """Least agreement of the reference video's motion with the target's, 0 to 1; 0 = any. A walker's
    drawn poses gave 0.55 to 0.74, the walker in another film 0.67 to 0.94, in flat colours 0.47 to 0.66; half the pace,
    another walk or noise 0.39 at most, a still video 0 (benchmarks/results/motion_agreement.md)."""

    def __post_init__(self):
        super().__post_init__()
        if self.video_editor and not self.pose:
            raise ConfigError(f"video editor {self.video_editor} makes a video of poses, and there is no --pose")
        if not 0 <= self.agreement_min <= 1:
            raise ConfigError(f"--agreement-min is {self.agreement_min:g}; it is a number from 0 to 1")

    def object_rules(self) -> tuple[Rule, ...]:
        """Poses need no mask."""
        return () if self.pose else super().object_rules()

    def pair_rules(self) -> tuple[Rule, ...]:
        return (Rule(column="target_path", why="could not be made"),
                Rule(column="motion_presence", min=self.presence_min, why="somebody must be there to move"),
                Rule(column="motion_amount", min=self.motion_min, why="no motion, nothing to transfer"),
                Rule(column="motion_agreement", min=self.agreement_min, optional=True,
                     why="the reference must move as the target does; null = neither moves"))


PRESETS = {
    "laptop": {"short_px": 320, "max_frames": 49},
    "cluster": {"embedder": "xclip", "gpus_per_worker": 0.25, "pose": "dwpose", "video_editor": "bernini", "gpus": 1.0,
                "segmenter": "grounded-sam2", "segmenter_gpus": 0.25, "score_min": 0.35},
}


def build(config: Config) -> dict[str, tuple[Stage, ...]]:
    render = Stage(op="datagen.render_motion:RenderMotion", batch_size=1, num_gpus=config.gpus, workers=config.workers,
                   kwargs={"media": config.media_root, "pose": config.pose, "pose_options": config.pose_options,
                           "editor": config.video_editor, "editor_options": config.editor_options, "fps": config.fps,
                           "seed": config.seed})
    return {"pairs": (config.track(phrased=True), apply_rules(*config.object_rules()), render,
                      apply_rules(*config.pair_rules()))}


@stops(hint=lambda name, _: "Clips without people: --no-people-only." if name == "planned" else "")
def run_steps(config: Config) -> Iterator[tuple[str, Manifest]]:
    steps = Steps(config, RECIPE)
    yield "videos", (videos := steps.videos())
    yield "clips", (clips := steps.clips(videos))
    yield "planned", (planned := steps.finish("candidates", PLANNED, (plan(live(b), config) for b in clips.batches()),
                                              parents=[clips], settings=["planned", config.people_only]))
    yield "pairs", (pairs := steps.run("pairs", planned, build(config)["pairs"], rows_per_block=1, parents=[planned],
                                       rules=(*config.object_rules(), *config.pair_rules())))
    yield "samples", steps.finish("samples", SAMPLES.schema, map(BuildSamples(), pairs.batches()), parents=[pairs])


def plan(clips: pa.Table, config: Config) -> pa.Table:
    """One row a clip, of people where only those are wanted."""
    names = ["clip_id", "video_id", "path", "start_s", "end_s", "is_human", *(f.name for f in RIGHTS)]
    return pa.Table.from_pylist([row | {
        "pair_id": make_id("pair", RECIPE, row["clip_id"]), "recipe": RECIPE, "source_name": RECIPE, "task": "vrc2v",
        "edit": "motion", "target_clip_id": row["clip_id"], "edited_thing": "person", "conditions": [], "issues": [],
        "num_attempts": 1} for row in clips.select(names).to_pylist() if row["is_human"] or not config.people_only],
        PLANNED)
