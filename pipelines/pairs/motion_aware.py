"""D6: human motion-aware editing, where people move otherwise because of what was edited.

Paper section 3.3: a strong editor adapts motion to the consequences of an edit. Given a source video and its
edited first frame, an image-to-video branch introduces motion adaptation and a video-to-video branch
preserves the source's motion; their outputs are fused with weighted guidance (equation 4,
bernini/generate/dual_branch.py), and alpha is the trade-off between the two.

    files → VIDEOS → CLIPS → CANDIDATES (planned; then edit, edited first frame, target) → PAIRS → SAMPLES

The -Ref variant (Table 2) gives the edited object of the first frame as a reference picture beside the source; a model
that judges sees the pair once more with it.

There is no sampler without weights. Without `--model` a miniature model with random weights is written into the
output folder and sampled with the same code: every step is real, and **the target pixels are noise**.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain

import pyarrow as pa

from datagen.build_samples import BuildSamples
from filters.consistency_rules import FACES, SAME_COUNT
from filters.rules import ApplyRules, Rule
from manifests import storage
from manifests.columns import ACCOUNT, column
from manifests.errors import ConfigError
from manifests.ids import make_id
from manifests.manifest import Manifest, live
from manifests.messages import condition
from manifests.schema import CANDIDATES, RIGHTS, SAMPLES

from ..backend_config import MeasuredEditConfig, SegmenterConfig
from ..checks import LEAST_PX, above_zero, at_least, known
from ..recipe import ClipConfig, JudgeConfig, Needs, Steps, apply_rules, stops
from ..stage import Stage, pass_by

WHY = "a first frame is edited so that people must move otherwise; two branches of the renderer make the rest"
RECIPE = "motion-aware-editing"
REF = f"{RECIPE}-ref"
NEEDS = Needs(
    makes=f"v2v: {RECIPE}; vr2v: {REF}",
    laptop="nothing, and so the targets are noise of a miniature model; --model DIR for real ones",
    cluster="our renderer (--model, one 80 GB GPU a worker), an image editor (Qwen-Image-Edit, one GPU), a segmenter "
            "(GroundingDINO + SAM2), a served Qwen3-VL",
    cost="laptop: targets are noise, so no cost to plan with; cluster: two requests, three with -Ref, and one video of "
         "81 frames a pair, 0.9 H200 hours (estimated: 240 forwards of 67,000 tokens, 5.3 PFLOP each, at 400 TFLOP/s)",
)
CAMERA = ("camera_pan", "camera_tilt", "camera_zoom", "camera_roll", "camera_fit")
NOTHING_NEW = ("removal", "other")  # kinds of edits that leave nothing to be referred to, or perhaps nothing
TINY = "tiny-model"
MIN_FRAMES = 5  # of a pair: the shortest 4 k + 1 that is no picture
# As bernini/generate/dual_branch.py has them; importing it takes torch, and settings are read without.
WEIGHTS = ("table5", "text-only", "firm-frame", "unguided")
SCHEDULES = ("constant", "falling", "rising")

PLANNED = pa.schema([
    *CANDIDATES.fields,
    column("source_name", pa.string(), "data set that the pair counts as in a mixture"),
    column("clip_id", pa.string(), "the clip that is edited"),
    column("frame_id", pa.string(), "the same: its first frame is what the image editor sees"),
    column("path", pa.string(), "the film that holds it"),
    column("time_s", pa.float64(), "moment of the first frame", "s"),
    column("start_s", pa.float64(), "first moment of the clip", "s"),
    column("end_s", pa.float64(), "moment after its last frame", "s"),
    column("is_human", pa.bool_(), "people were found in the clip"),
    *(column(name, pa.float32(), f"{name} of the clip, as the scan measured it") for name in CAMERA),
    *ACCOUNT,
])


@dataclass(frozen=True, kw_only=True)
class Config(JudgeConfig, MeasuredEditConfig, SegmenterConfig, ClipConfig):
    """Settings of the recipe. The paper gives neither weights nor alpha: the defaults are ours."""

    people_only: bool = True
    """Only clips with people, as in the paper."""
    model: str = ""
    """Folder of our renderer; empty = a miniature with random weights, whose pixels are noise."""
    base: str = ""
    """Its base model, for a folder that holds the two experts only."""
    gpus: float = 0.0
    """GPUs that a worker takes for the renderer."""
    alpha: float = 0.5
    """Share of the image-to-video branch: 0 keeps the source's motion, 1 follows the edited frame alone."""
    alpha_schedule: str = "constant"
    """constant, falling or rising over the noise levels."""
    weights: str = "table5"
    """Named guidance weights of equation 4: table5, text-only, firm-frame or unguided."""
    num_steps: int = 40
    """Denoising steps (Table 5)."""
    fps: float = 16.0
    """Frames a second of source and target."""
    max_frames: int = 81
    """Most frames of a pair; cut to 4k + 1."""
    short_px: int = 480
    """Shorter side of source and target."""
    edited_min: float = 0.005
    """Least share of the first frame that the edit visibly changes."""
    edited_max: float = 0.9
    """Largest such share: beyond it the scene is another one, and nothing of the source guides the motion."""
    faces_min: float = FACES.min
    """Least share of the faces beside the edit that the target shows at their place; 0 where people may leave it. Not
    asked of the miniature's noise."""
    refs: bool = True
    """Also the -Ref variant."""

    def __post_init__(self):
        super().__post_init__()
        above_zero(self, "fps")
        at_least(self, 1, "num_steps")
        at_least(self, MIN_FRAMES, "max_frames")
        at_least(self, LEAST_PX, "short_px")
        known(self, "weights", WEIGHTS)
        known(self, "alpha_schedule", SCHEDULES)
        if not 0 <= self.alpha <= 1:
            raise ConfigError(f"alpha is {self.alpha:g}; it is the share of the image-to-video branch, from 0 to 1")

    def edit_rules(self) -> tuple[Rule, ...]:
        return (Rule(column="edit_prompt", why="told to the image editor"),
                Rule(column="motion_prompt", why="T_i2v of equation 4"),
                Rule(column="instruction", why="T_v2v of equation 4"),
                Rule(column="motion_edit_kind", why="says whether the edit leaves something to be referred to"))

    def frame_rules(self) -> tuple[Rule, ...]:
        return (Rule(column="edited_share", min=self.edited_min, max=self.edited_max,
                     why="an edit, but not another scene"),)

    def pair_rules(self) -> tuple[Rule, ...]:
        # No rule on frame_offset, or on what changed outside the mask: motion that follows from the edit does both.
        return (Rule(column="target_path", why="the sampler gave a clip"),
                Rule(column="pair_num_frames", min=MIN_FRAMES, why="a clip, not a picture"), SAME_COUNT,
                *((replace(FACES, min=self.faces_min),) if self.model else ()), *self.judge_rules())


PRESETS = {
    "laptop": {"num_steps": 4, "max_frames": 17, "short_px": 240},
    "cluster": {"embedder": "xclip", "gpus_per_worker": 0.25, "annotator": "openai", "image_editor": "qwen-image-edit",
                "image_editor_gpus": 1.0, "segmenter": "grounded-sam2", "segmenter_gpus": 0.25,
                "gpus": 1.0},
}


def build(config: Config, tiny: str = "") -> dict[str, tuple[Stage, ...]]:
    """`tiny` is the folder of the miniature model where the settings name none."""
    media, segmenter = config.media_root, {"segmenter": config.segmenter, "options": config.segmenter_options}
    sampler = {"model": config.model or TINY, "base": config.base, "alpha": config.alpha,
               "schedule": config.alpha_schedule, "weights": config.weights, "num_steps": config.num_steps,
               "fps": config.fps}
    listed = Stage(op="datagen.list_edits:ListEdits", batch_size=4, num_gpus=config.segmenter_gpus,
                   kwargs={"media": media, "seed": config.seed, **segmenter})
    edit = Stage(op="datagen.edit_picture:EditPicture", batch_size=4, num_gpus=config.image_editor_gpus,
                 kwargs={"media": media, "backend": config.image_editor, "listed": config.measured, "seed": config.seed,
                         "options": config.image_editor_options})
    sample = Stage(op="datagen.edit_clip:EditClip", batch_size=1, num_gpus=config.gpus,
                   kwargs={"media": media, "backend": "pipelines.editors_motion:MotionAwareEditor", "options": sampler,
                           "places": {"model": tiny} if tiny else {}, "fps": config.fps,
                           "max_frames": config.max_frames, "short_px": config.short_px, "seed": config.seed})
    measures = (Stage(op="filters.edit_region:MeasureEditRegion", batch_size=1),
                Stage(op="filters.faces_kept:MeasureFacesKept", batch_size=1))
    cut = Stage(op="datagen.cut_reference:CutReference", batch_size=4, num_gpus=config.segmenter_gpus,
                kwargs={"media": media, **segmenter})
    return {"references": config.judge_reference() if config.refs else (), "candidates": (
        *((listed,) if config.measured else ()),
        config.ask("annotators.motion_edit:InventMotionEdit"), apply_rules(*config.edit_rules()),
        edit, apply_rules(*config.frame_rules()),
        sample, *measures, *config.judge(),
        apply_rules(*config.pair_rules()),
        *((cut,) if config.refs else ()),
    )}


@stops(may_be_empty=("references",),  # nothing to refer to: no reason to stop
       hint=lambda name, _: "Clips without people: --no-people-only." if name == "planned" else "")
def run_steps(config: Config) -> Iterator[tuple[str, Manifest]]:
    steps = Steps(config, RECIPE)
    yield "videos", (videos := steps.videos())
    yield "clips", (clips := steps.clips(videos))
    yield "planned", (planned := steps.finish("candidates", PLANNED, (plan(live(b), config) for b in clips.batches()),
                                              parents=[clips], settings=["planned", config.people_only]))
    tiny = "" if config.model else tiny_model(storage.absolute(config.output))
    stages = build(config, tiny)
    rules = (*config.edit_rules(), *config.frame_rules(), *config.pair_rules())
    yield "candidates", (made := steps.run("candidates", planned, stages["candidates"], rows_per_block=1,
                                           parents=[planned], rules=rules))
    judged = []
    if stages["references"]:
        rows = (references(batch) for batch in made.batches())
        judged.append(steps.judge_references(rows, stages["references"], [made]))
        yield "references", judged[0]
    last = (judged or [made])[0]
    accept = ApplyRules((Rule(column="target_path", why="a pair has two sides"),))
    rows = chain((accept(pass_by(explode(b, config.refs and config.measured), last.schema)) for b in made.batches()),
                 *(m.batches() for m in judged))
    # A column of marks belongs to the judge of most rows; `judge_prompt` tells of each who gave them.
    yield "pairs", (pairs := steps.finish("pairs", last.schema, rows, parents=[made, *judged],
                                          settings=["both", config.refs], rules=rules,
                                          made_by=last.header.get("owners") | made.header.get("owners")))
    yield "samples", steps.finish("samples", SAMPLES.schema, map(BuildSamples(), pairs.batches()), parents=[pairs])


def plan(clips: pa.Table, config: Config) -> pa.Table:
    """One row a clip, of people where only those are wanted."""
    names = ["clip_id", "video_id", "path", "start_s", "end_s", "is_human", *CAMERA, *(f.name for f in RIGHTS)]
    rows = [row for row in clips.select(names).to_pylist() if row["is_human"] or not config.people_only]
    return pa.Table.from_pylist([row | {
        "pair_id": make_id("pair", RECIPE, row["clip_id"]), "recipe": RECIPE, "source_name": RECIPE, "task": "v2v",
        "edit": "motion", "source_clip_id": row["clip_id"], "frame_id": row["clip_id"], "time_s": row["start_s"],
        "conditions": [], "issues": [], "num_attempts": 1} for row in rows], PLANNED)


def explode(made: pa.Table, refs: bool) -> pa.Table:
    """Each pair, and behind it its -Ref variant."""
    rows = [variant for row in made.to_pylist() for variant in (row, *(_by_reference(row) if refs else ()))]
    return pa.Table.from_pylist(rows, made.schema)


def references(made: pa.Table) -> pa.Table:
    """The -Ref variants alone."""
    return pa.Table.from_pylist([variant for row in made.to_pylist() for variant in _by_reference(row)], made.schema)


def _by_reference(row: dict) -> list[dict]:
    """The variant of an accepted pair whose edit brought something in that could be cut out."""
    if row["drop_reason"] is not None or not row["reference_path"] or row["motion_edit_kind"] in NOTHING_NEW:
        return []
    return [row | {"pair_id": make_id("pair", REF, row["clip_id"]), "source_name": REF, "task": "vr2v",
                   "conditions": [condition("reference", row["reference_path"])],
                   "instruction": f"{row['instruction'].rstrip('. ')}, as the reference picture shows it."}]


def tiny_model(output: str) -> str:
    """Folder of the miniature model in the output, written once: the same weights on every machine."""
    folder = storage.join(output, TINY)
    if storage.is_uri(folder):
        raise ConfigError("without --model a miniature model is written into the output folder: name one on a disk")
    if not os.path.exists(os.path.join(folder, "config.json")):
        from bernini.tiny import write_tiny

        write_tiny(folder, "diffusers")
    return folder
