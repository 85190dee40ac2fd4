"""D9: a video, a reference, and the video with what the reference shows.

Paper section 3.4: triplets (input video, reference, target video) in which the input lacks the referenced object
rarely occur, so they are made from reference-to-video pairs. A language model writes an instruction that removes or
replaces the referenced object in the target video, and an editor that was trained before applies it: the
result is the *input* video. The original target and the reference complete the triplet. A pair with several
references gives a triplet for each: the other objects stay in the input.

    PAIRS of any recipe with the task r2v → CANDIDATES (object, instruction, edited target)
          → CANDIDATES (input and target in place, prompt, measures) → PAIRS → SAMPLES
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from datagen.build_samples import BuildSamples
from filters.consistency_rules import rule_set
from filters.rules import Rule
from manifests.columns import ACCOUNT, column
from manifests.ids import make_id
from manifests.manifest import Manifest, live
from manifests.schema import CANDIDATES, RIGHTS, SAMPLES

from ..backend_config import InpainterConfig
from ..clip_edits import ClipEditConfig
from ..recipe import JudgeConfig, Needs, Steps, apply_rules, open_pairs, stops
from ..stage import Stage

WHY = "the object of a reference is taken out of its video, which becomes the input; the video itself is the target"
RECIPE = "person-rv2v"
TASK = "r2v"  # of the pairs that go in
EDITS = ("removal", "replacement")
LACKS = "paper: the input lacks the referenced object"
NEEDS = Needs(
    makes=f"vr2v: {RECIPE}",
    laptop="nothing: the tracked object is filled with the background of other frames",
    cluster="our renderer as the editor (--video-editor-model, one 80 GB GPU a worker), GroundingDINO and SAM2, a "
            "served Qwen3-VL",
    cost="laptop: about 2 CPU hours a 1,000 samples at 240 lines and 33 frames (estimated from the removals of "
         "propagation-based-editing); cluster: three requests and one edited video a sample, "
         "at most 0.75 H200 hours (estimated: 200 forwards of 66,000 tokens, 5.1 PFLOP each, at 400 TFLOP/s)",
)
PLANNED = pa.schema([
    *CANDIDATES.fields,
    column("source_name", pa.string(), "data set that the pair counts as in a mixture"),
    column("clip_id", pa.string(), "the pair whose target is edited"),
    column("frame_id", pa.string(), "the same: seeds are drawn from it"),
    column("path", pa.string(), "file that holds that target"),
    column("start_s", pa.float64(), "its first moment", "s"),
    column("end_s", pa.float64(), "moment after its last frame", "s"),
    column("reference_path", pa.string(), "the reference, a picture"),
    column("other_references", pa.list_(pa.string()), "the pair's other references, of objects that stay"),
    column("object_name", pa.string(), "the object in words, as the given pairs or a segmenter call it"),
    column("edited_thing", pa.string(), "the same, or what the recipe is told: the segmenter looks for it"),
    column("edited_path", pa.string(), "first frame of the target, a picture"),
    column("forward_instruction", pa.string(), "the instruction that took the object out"),
    *ACCOUNT,
])


@dataclass(frozen=True, kw_only=True)
class Config(JudgeConfig, InpainterConfig, ClipEditConfig):
    """Settings of the recipe."""

    input: str
    """Folder OUT/pairs/NAME with the finished pairs of a recipe that makes pictures and the video that shows them
    (general-r2v, person-r2v, transforms, an import); those of the task r2v are used."""

    thing: str = "person"
    """What a segmenter that can read looks for where the given pairs have no `object_name`."""
    lost_share_min: float = 0.5
    """Least share of the object's likeness with the reference that the input lacks: on 15 removals of real clips whole
    ones lost 0.85 and more, parts mostly 0.45 and less."""
    remains_max: float = 0.8
    """Most likeness with the reference of a place around the removed object in the input, against the object's own;
    above it a part of the object may be left: 13 of 16 halved removals lay above, and 2 of 4 whole ones below. Both
    hold for any segmenter: a score says nothing of what a mask leaves out."""
    shown_min: float = 0.15
    """Least likeness of the reference and the object in the target; below it another object was taken out."""

    def triplet_rules(self) -> tuple[Rule, ...]:
        return (Rule(column="instruction", why="the prompt"),
                Rule(column="reference_in_target", min=self.shown_min, why="the object is that of the reference"),
                Rule(column="reference_lead", min=0.0, why="the object is not that of the pair's other references"),
                Rule(column="reference_lost_share", min=self.lost_share_min, why=LACKS),
                Rule(column="reference_remains", max=self.remains_max, why=LACKS),
                *rule_set("filmed-target"))

    def pair_rules(self) -> tuple[Rule, ...]:
        return *self.triplet_rules(), *self.judge_rules(reference=True)


PRESETS = {
    "laptop": {"short_px": 320, "max_frames": 49, "object_max": 0.35},
    "cluster": {"annotator": "openai", "segmenter": "grounded-sam2", "segmenter_gpus": 0.25, "score_min": 0.35,
                "video_editor": "bernini", "gpus": 1.0, "inpainter": ""},
}


def build(config: Config) -> dict[str, tuple[Stage, ...]]:
    media = config.media_root
    edit = Stage(op="datagen.propagate_edit:PropagateEdit", batch_size=1, num_gpus=config.gpus, workers=config.workers,
                 kwargs={"media": media, "backend": config.video_editor, "options": config.editor_options,
                         "inpainter": config.inpainter, "inpainter_options": config.inpainter_options,
                         "direct": EDITS, "listed": False, "edit": "removal_kind", "told": "removal_instruction",
                         "fps": config.fps, "seed": config.seed})
    measures = tuple(Stage(op=op, batch_size=1, workers=config.workers) for op in (
        "filters.reference_presence:MeasureReferencePresence", "filters.edit_region:MeasureEditRegion",
        "filters.edit_motion:MeasureEditMotion", "filters.faces_kept:MeasureFacesKept"))
    find = (config.track(phrased=not config.measured), apply_rules(*config.object_rules()))
    write = config.ask("annotators.removal_prompt:WriteRemoval")
    return {
        "candidates": (*((*find, write) if config.measured else (write, *find)),
                       apply_rules(Rule(column="removal_instruction", why="told to the editor")), edit,
                       apply_rules(Rule(column="target_path", why="a triplet has an input"))),
        "triplets": (config.ask("annotators.swap_prompt:RewriteSwapped"), *measures,
                     apply_rules(*config.triplet_rules()), *config.judge_reference()),
    }


@stops(hint=lambda name, _: f"Only pairs of the task {TASK} can be used." if name == "planned" else "")
def run_steps(config: Config) -> Iterator[tuple[str, Manifest]]:
    given = open_pairs(config.input, f"{RECIPE} needs --input OUT/pairs/NAME of a recipe with the task {TASK}")
    steps, stages = Steps(config, RECIPE), build(config)
    rows = (plan(live(b), config.thing) for b in given.batches())
    yield "planned", (planned := steps.finish("candidates", PLANNED, rows, parents=[given],
                                              settings=["planned", config.thing]))
    yield "candidates", (made := steps.run("candidates", planned, stages["candidates"], rows_per_block=1,
                                           parents=[planned], rules=config.object_rules()))
    back = steps.finish("candidates", made.schema, (turn(live(b)) for b in made.batches()), parents=[made],
                        settings="turned", made_by=made.header.get("owners"))
    yield "triplets", (found := steps.run("candidates", back, stages["triplets"], rows_per_block=1, parents=[back],
                                          rules=config.pair_rules(), made_by=made.header.get("owners")))
    yield "pairs", (pairs := steps.finish("pairs", found.schema, (by_reference(b) for b in found.batches()),
                                          parents=[found], rules=config.pair_rules(),
                                          made_by=found.header.get("owners")))
    yield "samples", steps.finish("samples", SAMPLES.schema, map(BuildSamples(), pairs.batches()), parents=[pairs])


def plan(pairs: pa.Table, thing: str) -> pa.Table:
    """One row a reference of a reference-to-video pair, because one object is taken out of one input; pairs of
    other tasks are left out."""
    rows = []
    for pair in pairs.to_pylist():
        references = [c for c in pair["conditions"] or () if c["role"] == "reference" and c["kind"] == "image"]
        names = pair.get("object_names") or [pair.get("object_name")] + [None] * len(references)
        for i, reference in enumerate(references if pair["task"] == TASK else ()):
            number = (i,) if len(references) > 1 else ()
            rows.append({
                "pair_id": make_id("pair", RECIPE, pair["pair_id"], *number), "video_id": pair["video_id"],
                "recipe": RECIPE, "source_name": RECIPE, "task": "vr2v", "edit": "removal", "clip_id": pair["pair_id"],
                "frame_id": pair["pair_id"], "path": pair["target_path"], "start_s": pair["target_start_s"],
                "end_s": pair["target_end_s"], "target_clip_id": pair["target_clip_id"], "conditions": [reference],
                "reference_path": reference["path"],
                "other_references": [c["path"] for c in references if c is not reference],
                "object_name": names[i], "edited_thing": names[i] or thing, "issues": [],
                "num_attempts": 1, **{f.name: pair[f.name] for f in RIGHTS}})
    return pa.Table.from_pylist(rows, PLANNED)


def turn(made: pa.Table) -> pa.Table:
    """The edited clip becomes the input, the film the target; what took the object out is to be written back."""
    rows = [row | {
        "forward_instruction": row["removal_instruction"],
        "edited_path": row["frame_path"], "frame_path": row["edited_path"],
        "edit": "addition" if row["removal_kind"] == "removal" else "replacement",
        **{f"{side}_{name}": row[f"{other}_{name}"] for side, other in (("source", "target"), ("target", "source"))
           for name in ("path", "start_s", "end_s", "duration_s")},
    } for row in made.to_pylist()]
    return pa.Table.from_pylist(rows, made.schema)


def by_reference(found: pa.Table) -> pa.Table:
    """Instructions that point to the reference for the looks."""
    rows = [row | ({"instruction": f"{row['instruction'].rstrip('. ')}, as the reference picture shows it."}
                   if row["instruction"] else {}) for row in found.to_pylist()]
    return pa.Table.from_pylist(rows, found.schema)
