"""D5: propagation-based editing, an edited first frame carried through its clip.

Paper section 3.3: initial removal data come from an inpainter, but show artifacts and little variety. So a
propagation model takes a source video, its edited first frame and the prompt and makes the target video;
with a strong image editor before it, it gives addition, removal, replacement and style data. To improve them
further, source and edited video are swapped and their prompts written again, for addition, removal and
replacement: the target is then a video that was really filmed.

    files → VIDEOS → CLIPS → CANDIDATES (planned; then object, instruction, edited first frame, target, measures)
          → CANDIDATES (swapped, with their own prompt and measures) → PAIRS → SAMPLES

Each clip gets `per_clip` kinds of edit, drawn by its id. The -Ref variant (Table 1) gives the edited object of
the target's first frame as a reference, and a model that judges sees it once more, with that; "propagation" rows
give the edited first frame itself, and so train the next propagation model. Of attempts that made the same video
the first is kept. With `keep_rejects`, edits that broke a rule stay beside one of the same source and instruction that
did not, as PREFERENCES.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa

from datagen.build_samples import BuildSamples
from datagen.list_clip_edits import KINDS, NEEDS_OBJECT, SWAPPED
from datagen.preferences import PairPreferences, drop_repeats
from filters.consistency_rules import rule_set
from filters.rules import Rule
from manifests.columns import ACCOUNT, column
from manifests.errors import ConfigError
from manifests.ids import digest, make_id
from manifests.manifest import Manifest, live
from manifests.messages import condition
from manifests.schema import CANDIDATES, PREFERENCES, RIGHTS, SAMPLES

from ..backend_config import InpainterConfig, MeasuredEditConfig
from ..checks import at_least, known
from ..clip_edits import ClipEditConfig
from ..recipe import ClipConfig, JudgeConfig, Needs, Steps, apply_rules, apply_rules_where, stops
from ..stage import Stage, pass_by

WHY = "a clip's first frame is edited and carried through it; swapped, the film itself becomes the target"
RECIPE = "propagation-based-editing"
REF, FRAME = f"{RECIPE}-ref", "propagation"
NEEDS = Needs(
    makes=f"v2v: {RECIPE}; vr2v: {REF}; vi2v: {FRAME}",
    laptop="nothing: tracked masks, classical edits, dense optical flow as the propagation model",
    cluster="our renderer in the preset propagation or VACE (--video-editor-model, one 80 GB GPU a worker), an image "
            "editor (Qwen-Image-Edit), GroundingDINO and SAM2, a served Qwen3-VL",
    cost="laptop: 0.7 CPU hours a 1,000 samples at 240 lines and 33 frames (measured: 26 edits of 5 real clips gave 65 "
         "samples), about 2.6 times that at the preset's 320 lines and 49 frames; "
         "cluster: at most 0.75 H200 hours a video of 81 frames (estimated: 200 forwards of 67,000 tokens, 5.3 PFLOP "
         "each, at 400 TFLOP/s)",
)
DIRECT = ("replacement", "style")
LOCAL = tuple(edit for edit in KINDS if edit != "style")
SCORES = ("psnr_outside_mask_db", "edit_strength_inside", "mask_area", "warp_error_inside", "warp_error_outside",
          "mask_stability", "faces_kept", "frame_offset")
MARKS = ("judge_instruction", "judge_consistency", "judge_quality", "judge_overall")

PLANNED = pa.schema([
    *CANDIDATES.fields,
    column("source_name", pa.string(), "data set that the pair counts as in a mixture"),
    column("clip_id", pa.string(), "the clip that is edited"),
    column("frame_id", pa.string(), "the attempt at it: seeds are drawn from this"),
    column("path", pa.string(), "the film that holds it"),
    column("start_s", pa.float64(), "first moment of the clip", "s"),
    column("end_s", pa.float64(), "moment after its last frame", "s"),
    column("swapped_from", pa.string(), "the pair that this one is the way back of; null = made forward"),
    column("forward_instruction", pa.string(), "the instruction of that pair"),
    *ACCOUNT,
])


@dataclass(frozen=True, kw_only=True)
class Config(JudgeConfig, MeasuredEditConfig, InpainterConfig, ClipEditConfig, ClipConfig):
    """Settings of the recipe."""

    edits: tuple[str, ...] = tuple(KINDS)
    """Kinds of edits: removal, addition, replacement, recolour, style."""
    per_clip: int = 2
    """Kinds that a clip gets, drawn by its id so that all occur evenly."""
    attempts: int = 1
    """Tries at each edit, with seeds of their own; more of them give PREFERENCES where some fail. What comes out a
    second time is dropped; of the classical editors' attempts, which differ by noise, one is accepted."""
    keep_rejects: bool = False
    """Also PREFERENCES: edits that broke a rule, with media and scores, beside one that did not."""
    swap: bool = True
    """Also the way back, with its own prompt: addition, removal and replacement (paper)."""
    refs: bool = True
    """Also the -Ref variant, with the edited object as reference."""
    frames: bool = True
    """Also "propagation" rows: source and edited first frame → target."""
    direct: tuple[str, ...] = DIRECT
    """Edits that the classical video editor makes frame by frame with steady settings, where flow is worse."""
    kept_min: float = 0.75
    """Least area of an added thing in any frame, against the first: flow loses what it cannot hold."""

    def __post_init__(self):
        super().__post_init__()
        if unknown := [e for e in self.edits if e not in KINDS]:
            raise ConfigError(f"no edit {unknown[0]!r}; known: {', '.join(KINDS)}")
        known(self, "direct", KINDS)
        at_least(self, 1, "per_clip", "attempts")
        if not self.edits:
            raise ConfigError(f"--edits is empty; at least one of {', '.join(KINDS)}")

    def left(self) -> tuple[str, ...]:
        """Edits whose first frame comes from whoever makes the clip, not from the image editor."""
        return (*self.direct, *(("removal",) if self.inpainter else ()))

    @property
    def attempts_alike(self) -> bool:
        """Do attempts at an edit differ by nothing that can be seen?"""
        return self.measured and self.video_editor == "classical" and self.inpainter in ("classical", "")

    def addition_rules(self) -> tuple[Rule, ...]:
        return (Rule(column="edit_kept", min=self.kept_min, optional=True, why="what was added must not dissolve"),)

    def edit_rules(self) -> tuple[Rule, ...]:
        return (Rule(column="edit_prompt", why="told to the image editor"),
                Rule(column="instruction", why="the prompt"))

    def pair_rules(self) -> tuple[Rule, ...]:
        return (Rule(column="target_path", why="a pair has two sides"), *rule_set("local-edit"), *self.addition_rules(),
                *self.judge_rules())


PRESETS = {
    # Patches smear behind more than a fifth of the picture, where no frame shows the background.
    "laptop": {"short_px": 320, "max_frames": 49, "object_max": 0.2},
    "cluster": {"embedder": "xclip", "gpus_per_worker": 0.25, "annotator": "openai", "image_editor": "qwen-image-edit",
                "image_editor_gpus": 1.0, "video_editor": "bernini", "gpus": 1.0, "inpainter": "", "direct": (),
                "segmenter": "grounded-sam2", "segmenter_gpus": 0.25, "score_min": 0.35,
                "attempts": 2, "keep_rejects": True},
}


def build(config: Config) -> dict[str, tuple[Stage, ...]]:
    media = config.media_root
    found = apply_rules_where(NEEDS_OBJECT, config.object_rules())
    write = config.ask("annotators.planned_edit:WritePlannedEdit")
    listed = Stage(op="datagen.list_clip_edits:ListClipEdits", kwargs={"seed": config.seed}, num_cpus=0.0)
    edit = Stage(op="datagen.edit_picture:EditPicture", batch_size=1, num_gpus=config.image_editor_gpus,
                 workers=config.workers,
                 kwargs={"media": media, "backend": config.image_editor, "options": config.image_editor_options,
                         "listed": config.measured, "picture": "frame_path", "leave": config.left(),
                         "seed": config.seed})
    carry = Stage(op="datagen.propagate_edit:PropagateEdit", batch_size=1, num_gpus=config.gpus, workers=config.workers,
                  kwargs={"media": media, "backend": config.video_editor, "options": config.editor_options,
                          "inpainter": config.inpainter, "inpainter_options": config.inpainter_options,
                          "direct": config.direct, "listed": config.measured, "fps": config.fps, "seed": config.seed})
    track = config.track(phrased=not config.measured)
    begin = (track, found, listed, write) if config.measured else (write, track, found)
    return {
        "candidates": (*begin, apply_rules(*config.edit_rules()), edit, carry, *checked(config, "local-edit")),
        "swapped": (config.ask("annotators.swap_prompt:RewriteSwapped"),
                    apply_rules(Rule(column="instruction", why="the way back has a prompt of its own")),
                    *checked(config, "filmed-target")),
        "references": config.judge_reference() if config.refs else (),
    }


def checked(config: Config, local: str) -> tuple[Stage, ...]:
    """Measures of a made pair, the judge where a model judges, rules by kind of edit (`local` names those of
    an edit of a part), and the reference."""
    measures = tuple(Stage(op=op, batch_size=1, workers=config.workers) for op in (
        "filters.edit_region:MeasureEditRegion", "filters.edit_motion:MeasureEditMotion",
        "filters.faces_kept:MeasureFacesKept"))
    judge = config.judge()
    cut = Stage(op="datagen.cut_reference:CutReference", batch_size=1, workers=config.workers,
                num_gpus=0.0 if config.measured else config.segmenter_gpus,
                kwargs={"media": config.media_root,
                        **({"mask": "new_mask_path"} if config.measured else
                           {"segmenter": config.segmenter, "options": config.segmenter_options,
                            "thing": "edited_result"})})
    return (apply_rules(Rule(column="target_path", why="a pair has two sides")), *measures, *judge,
            apply_rules_where(LOCAL, rule_set(local)), apply_rules_where(("style",), rule_set("global-edit")),
            apply_rules_where(("addition",), config.addition_rules()),
            *((apply_rules(*config.judge_rules()),) if judge else ()), *((cut,) if config.refs else ()))


# Nothing to swap, to refer to or rejected: no reason to stop.
@stops(may_be_empty=("swapped", "references", "preferences"))
def run_steps(config: Config) -> Iterator[tuple[str, Manifest]]:
    steps, stages, rules = Steps(config, RECIPE), build(config), config.pair_rules()
    yield "videos", (videos := steps.videos())
    yield "clips", (clips := steps.clips(videos))
    drawn = [config.edits, config.per_clip, config.attempts, config.seed]
    yield "planned", (planned := steps.finish("candidates", PLANNED, (plan(live(b), config) for b in clips.batches()),
                                              parents=[clips], settings=["planned", drawn]))
    yield "candidates", (made := steps.run("candidates", planned, stages["candidates"], rows_per_block=1,
                                           parents=[planned], rules=rules))
    both = [made]
    if config.swap:
        back = steps.finish("candidates", made.schema, (swap(live(b)) for b in distinct(made, config)), parents=[made],
                            settings="swapped", made_by=made.header.get("owners"))
        both.append(steps.run("candidates", back, stages["swapped"], rows_per_block=1, parents=[back],
                              rules=rules, made_by=made.header.get("owners")))
        yield "swapped", both[-1]
    judged = []
    if stages["references"]:
        rows = (references(b) for b in in_one_form(both, config))
        judged.append(steps.judge_references(rows, stages["references"], both))
        yield "references", judged[0]
    last = (both + judged)[-1]
    rows = chain((pass_by(explode(b, config), last.schema) for b in in_one_form(both, config)),
                 *(m.batches() for m in judged))
    # A column of marks belongs to the judge of most rows; `judge_prompt` tells of each who gave them.
    yield "pairs", (pairs := steps.finish("pairs", last.schema, rows, parents=both + judged,
                                          settings=[config.refs, config.frames], rules=rules,
                                          made_by=last.header.get("owners") | both[-1].header.get("owners")))
    if config.keep_rejects:
        prefer = PairPreferences((*SCORES, *(() if config.measured else MARKS)))
        yield "preferences", steps.finish("preferences", PREFERENCES.schema, map(prefer, whole_clips(made)),
                                          parents=[made])
    yield "samples", steps.finish("samples", SAMPLES.schema, map(BuildSamples(), pairs.batches()), parents=[pairs])


def plan(clips: pa.Table, config: Config) -> pa.Table:
    """`per_clip` kinds a clip, those with the least hash; each `attempts` times."""
    names = ["clip_id", "video_id", "path", "start_s", "end_s", *(f.name for f in RIGHTS)]
    rows = []
    for clip in clips.select(names).to_pylist():
        kinds = sorted(config.edits, key=lambda edit: digest(config.seed, "edit", clip["clip_id"], edit))
        rows += [clip | {
            "pair_id": make_id("pair", RECIPE, clip["clip_id"], edit, attempt), "recipe": RECIPE, "task": "v2v",
            "source_name": RECIPE, "edit": edit, "source_clip_id": clip["clip_id"], "conditions": [], "issues": [],
            "frame_id": make_id("frame", clip["clip_id"], attempt), "num_attempts": 1,
        } for edit in kinds[: config.per_clip] for attempt in range(config.attempts)]
    return pa.Table.from_pylist(rows, PLANNED)


def swap(made: pa.Table) -> pa.Table:
    """The way back of every pair that has one: source and target, their first frames and the kind change places."""
    rows = [row | turned_words(row) | {
        "pair_id": make_id("pair", "swapped", row["pair_id"]), "swapped_from": row["pair_id"],
        "edit": SWAPPED[row["edit"]], "forward_instruction": row["instruction"], "instruction": None,
        "edited_path": row["frame_path"], "frame_path": row["edited_path"], "reference_path": None,
        "new_mask_path": None if row["edit"] == "addition" else row["object_mask_path"], "edit_kept": None,
        # What was told to the image editor and what it could have done belong to the way there.
        "edit_prompt": None, "edit_kind": None, "possible_edits": None,
        **{f"{side}_{name}": row[f"{other}_{name}"] for side, other in (("source", "target"), ("target", "source"))
           for name in ("path", "start_s", "end_s", "duration_s", "clip_id")},
    } for row in made.to_pylist() if row["edit"] in SWAPPED]
    return pa.Table.from_pylist([{k: v for k, v in row.items() if k in made.column_names} for row in rows], made.schema)


def turned_words(row: dict) -> dict:
    """What the way back is about is what came in, and it shows what was there before."""
    return {"edited_thing": row["edited_result"] or row["edited_thing"],
            "edited_result": None if row["edit"] == "addition" else row["edited_thing"]}


def explode(made: pa.Table, config: Config) -> pa.Table:
    """Each pair, and behind an accepted one its -Ref variant, where nobody judges that first, and its "propagation"
    row."""
    rows = []
    for row in made.to_pylist():
        rows.append(row)
        if config.refs and config.measured:
            rows += _by_reference(row)
        if config.frames and row["drop_reason"] is None:
            rows.append(_variant(row, FRAME, "vi2v", condition("edited_frame", row["edited_path"]), row["instruction"]))
    return pa.Table.from_pylist(rows, made.schema)


def references(made: pa.Table) -> pa.Table:
    """The -Ref variants of accepted pairs alone."""
    return pa.Table.from_pylist([variant for row in made.to_pylist() for variant in _by_reference(row)], made.schema)


def _by_reference(row: dict) -> list[dict]:
    if row["drop_reason"] is not None or not row["reference_path"] or row["edit"] in ("removal", "style"):
        return []
    return [_variant(row, REF, "vr2v", condition("reference", row["reference_path"]),
                     f"{row['instruction'].rstrip('. ')}, as the reference picture shows it.")]


def _variant(row: dict, name: str, task: str, given: dict, instruction: str) -> dict:
    return row | {"pair_id": make_id("pair", name, row["pair_id"]), "source_name": name, "task": task,
                  "conditions": [given], "instruction": instruction}


def in_one_form(both: list[Manifest], config: Config) -> Iterator[pa.Table]:
    """Rows of the way there, distinct ones, and of the way back, with the columns of the last."""
    batches = chain(distinct(both[0], config), *(m.batches() for m in both[1:]))
    return (pass_by(batch, both[-1].schema) for batch in batches)


def distinct(made: Manifest, config: Config) -> Iterator[pa.Table]:
    """Rows of `made`, those dropped that an earlier attempt gave: no pair is swapped or learned twice."""
    return (drop_repeats(whole, alike=config.attempts_alike) for whole in whole_clips(made))


def whole_clips(made: Manifest) -> Iterator[pa.Table]:
    """Rows in tables that never part the attempts at one clip (they lie clip by clip)."""
    held: list[pa.Table] = []
    for batch in made.batches():
        held.append(batch)
        whole = pa.concat_tables(held)
        last = whole["clip_id"][-1].as_py() if whole.num_rows else None
        first = whole["clip_id"].to_pylist().index(last) if whole.num_rows else 0
        if first:
            yield whole.slice(0, first)
            held = [whole.slice(first)]
    if held:
        yield pa.concat_tables(held)
