"""D7: pictures of the objects of a clip, each in another scene, and the clip.

Paper section 3.4: for each source video key frames are sampled, and a model names the 3 to 5 most salient objects
and writes for each an editing instruction that takes it out and puts it into a different scene. This change
of scene keeps a model from copying and pasting what reference and target share. A key frame and each
instruction go to an image editor, which gives one reference image an object. Last, a caption is written from
the references and the target.

    files → VIDEOS → CLIPS → CANDIDATES (one a clip: its objects)
          → CANDIDATES (one an object: reference, measures, verdict; target = the key frame it was taken from)
          → PAIRS (one a clip with all its kept references; General-R2I beside it: one a key frame) → SAMPLES

That the background is another one is measured against that key frame, where the object's outline is known: what a
reference copies, it can only have from there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import pyarrow as pa

from datagen.build_samples import BuildSamples
from filters.consistency_rules import rule_set
from filters.rules import Rule
from manifests.columns import ACCOUNT, column
from manifests.errors import ConfigError
from manifests.ids import make_id
from manifests.manifest import Manifest, live
from manifests.messages import condition
from manifests.schema import CANDIDATES, RIGHTS, SAMPLES

from ..backend_config import MeasuredEditConfig, SegmenterConfig
from ..checks import LEAST_PX, at_least
from ..recipe import ClipConfig, Needs, Steps, apply_rules, stops, whole_videos
from ..scenes import Scenes, looks_of
from ..stage import Stage

WHY = "pictures of a clip's objects, each edited into another scene, and the clip that shows them together"
RECIPE = "general-r2v"
R2I = "general-r2i"
NEEDS = Needs(
    makes=f"r2v: {RECIPE}; r2i: {R2I}",
    laptop="nothing: what stands out is cut out and pasted before frames of other films",
    cluster="an image editor (Qwen-Image-Edit, one GPU a worker), GroundingDINO and SAM2 (a quarter), X-CLIP (a "
            "quarter), a served Qwen3-VL",
    cost="laptop, measured: 0.4 CPU hours for 1,000 pairs of either kind (20 films, 58 clips); cluster: a request a "
         "clip, an edited image an object, a request a pair; GPU hours not measured",
)
MEASURED = ("brightness", "colors", "camera_pan", "camera_tilt", "camera_zoom", "camera_roll", "camera_fit")
ROWS = 2            # that a worker is given at once: clips, or objects
SCENES_OFFERED = 3  # frames of other films for each object
_CLIP = (
    column("source_name", pa.string(), "data set that the pair counts as in a mixture"),
    column("clip_id", pa.string(), "the clip that is the target"),
    column("path", pa.string(), "the film that holds it"),
    column("start_s", pa.float64(), "first moment of the clip", "s"),
    column("end_s", pa.float64(), "moment after its last frame", "s"),
    column("target_colors", pa.list_(pa.string()), "main colours of the clip, as the scan measured them"),
    *(column(f"target_{name}", pa.float32(), f"{name} of the clip, as the scan measured it")
      for name in MEASURED if name != "colors"),
)
PLANNED = pa.schema([
    *CANDIDATES.fields, *_CLIP,
    column("key_times_s", pa.list_(pa.float64()), "moments of the clip's key frames", "s"),
    column("scene_paths", pa.list_(pa.string()), "files with other scenes, a few for each object"),
    column("scene_times_s", pa.list_(pa.float64()), "the moment of each", "s"),
    *ACCOUNT,
])
OBJECTS = pa.schema([
    *CANDIDATES.fields, *_CLIP,
    column("object_index", pa.int32(), "place among the objects of the clip, most salient first, from 0"),
    column("object_name", pa.string(), "the object in words"),
    column("object_place", pa.string(), "where it is in the key frame; null = the name says it"),
    column("edit_prompt", pa.string(), "instruction that takes it into another scene"),
    column("object_time_s", pa.float64(), "moment of its key frame", "s"),
    column("object_score", pa.float32(), "how sure the segmenter is", "0 to 1"),
    column("object_share", pa.float32(), "share of the key frame that it covers", "0 to 1"),
    column("object_cut", pa.float32(), "share of its box's outline that the frame cuts off"),
    column("object_solid", pa.float32(), "share of its convex hull that it fills", "0 to 1"),
    column("object_contrast", pa.float32(), "share of its colours that what surrounds it has not", "0 to 1"),
    column("scene_paths", pa.list_(pa.string()), "files with scenes that it may be put into"),
    column("scene_times_s", pa.list_(pa.float64()), "the moment of each", "s"),
    *ACCOUNT,
])
GROUPED = pa.schema([
    *CANDIDATES.fields, *_CLIP,
    column("num_references", pa.int32(), "references that were kept"),
    column("reference_paths", pa.list_(pa.string()), "the reference pictures, in the order of the messages"),
    column("object_names", pa.list_(pa.string()), "what each of them shows, in words"),
    column("object_places", pa.list_(pa.string()), "where each of it is in its key frame"),
    column("object_name", pa.string(), "what the first reference shows"),
    column("caption_times_s", pa.list_(pa.float64()), "moments of the target at which who writes the caption sees it",
           "s"),
    *ACCOUNT,
])


@dataclass(frozen=True, kw_only=True)
class Config(MeasuredEditConfig, SegmenterConfig, ClipConfig):
    """Settings of the recipe."""

    min_objects: int = 3
    """Fewest kept references of a pair; the paper names 3 to 5 objects."""
    max_objects: int = 5
    """Most objects of a clip."""
    num_key_frames: int = 4
    """Key frames of a clip that the model sees, evenly spread; 8 at most."""
    image_px: int = 1024
    """Longer side of key frames."""
    object_score_min: float = 0.4
    """Least score of the segmenter; below it the outline follows no object."""
    object_share_max: float = 0.4
    """Largest share of the key frame that an object covers; more is a background."""
    object_cut_max: float = 0.2
    """Largest share of an object's outline that the frame's border makes: a part says little about the whole."""
    object_solid_min: float = 0.7
    """Least share of its convex hull that an object fills; people on real clips filled 0.8 and more."""
    object_contrast_min: float = 0.4
    """Least share of its colours that what surrounds it lacks."""
    shown_min: float = 0.65
    """Least share of the object's colours that one place of the reference shows (filters/object_shown.py)."""
    reference_min_px: int = 128
    """Shortest side of a reference."""
    r2i: bool = True
    """Also pairs whose target is the key frame (General-R2I of Table 1)."""

    def __post_init__(self):
        super().__post_init__()
        if not 1 <= self.min_objects <= self.max_objects <= 5:
            raise ConfigError(f"min_objects is {self.min_objects} and max_objects {self.max_objects}; they are 1 to 5, "
                              "the smaller first")
        at_least(self, LEAST_PX, "image_px")
        if not 1 <= self.num_key_frames <= 8:
            raise ConfigError(f"num_key_frames is {self.num_key_frames}; it is 1 to 8")
        if self.measured != (self.segmenter == "classical"):
            raise ConfigError("the classical segmenter finds what stands out, and models look for a model's words: "
                              f"annotator {self.annotator} does not go with segmenter {self.segmenter}")

    def clip_object_rules(self) -> tuple[Rule, ...]:
        return (Rule(column="num_found", min=self.min_objects, why="paper: 3 to 5 objects"),)

    def object_rules(self) -> tuple[Rule, ...]:
        return (
            Rule(column="object_score", min=self.object_score_min, why="nothing that was found for sure"),
            Rule(column="object_share", min=0.006, max=self.object_share_max, why="a speck, or a background"),
            Rule(column="object_cut", max=self.object_cut_max, why="half of a thing"),
            Rule(column="object_solid", min=self.object_solid_min, why="a fringe of something, or several things"),
            Rule(column="object_contrast", min=self.object_contrast_min, why="looks like what surrounds it"),
        )

    def reference_rules(self) -> tuple[Rule, ...]:
        return (
            Rule(column="reference_px", min=self.reference_min_px, why="too small to show anything"),
            *rule_set("reference"),
            Rule(column="object_shown", min=self.shown_min, why="the editor lost the object"),
        )

    def pair_rules(self) -> tuple[Rule, ...]:
        return (Rule(column="num_references", min=self.min_objects, why="paper: 3 to 5 objects"),)

    def caption_rules(self) -> tuple[Rule, ...]:
        asked = (Rule(column="num_references_missed", max=0, why="the caption speaks of what the target lacks"),)
        return (Rule(column="reference_caption", why="a pair without a prompt cannot be trained on"),
                *(() if self.measured else asked))


PRESETS = {
    # Without a model only what moves, who is seen and what has its own colours is found: one or two things a clip.
    "laptop": {"min_objects": 1},
    # A model's word vouches for an object, and its outline is exact: things with thin parts, and camouflage, may stay;
    # its editor may turn the object and change the light. These four are not measured.
    "cluster": {"embedder": "xclip", "gpus_per_worker": 0.25, "annotator": "openai", "segmenter": "grounded-sam2",
                "segmenter_gpus": 0.25, "image_editor": "qwen-image-edit", "image_editor_gpus": 1.0,
                "object_score_min": 0.3, "object_solid_min": 0.3, "object_contrast_min": 0.15, "shown_min": 0.5},
}


def build(config: Config) -> dict[str, tuple[Stage, ...]]:
    media = config.media_root
    find = Stage(op="datagen.find_objects:FindObjects", batch_size=2, num_gpus=config.segmenter_gpus,
                 workers=config.workers,
                 kwargs={"media": media, "segmenter": config.segmenter, "options": config.segmenter_options,
                         "phrased": not config.measured, "num": config.max_objects, "long_px": config.image_px})
    place = Stage(op="datagen.place_object:PlaceObject", batch_size=4, num_gpus=config.image_editor_gpus,
                  workers=config.workers, kwargs={"media": media, "backend": config.image_editor,
                                                  "options": config.image_editor_options, "seed": config.seed})
    measures = (Stage(op="filters.background_similarity:MeasureBackgroundSimilarity", batch_size=4),
                Stage(op="filters.object_shown:MeasureObjectShown", batch_size=4))
    return {
        "found": (*(() if config.measured else (config.ask("annotators.objects:NameObjects"),)), find,
                  apply_rules(*config.clip_object_rules())),
        "references": (apply_rules(*config.object_rules()), place, *measures, apply_rules(*config.reference_rules())),
        "pairs": (apply_rules(*config.pair_rules()), config.ask("annotators.reference_prompt:CaptionReferences"),
                  apply_rules(*config.caption_rules())),
    }


@stops()
def run_steps(config: Config) -> Iterator[tuple[str, Manifest]]:
    steps, stages = Steps(config, RECIPE), build(config)
    yield "videos", (videos := steps.videos())
    yield "clips", (clips := steps.clips(videos))
    scenes = Scenes(clips, config.seed) if config.measured else None
    planned = steps.finish("candidates", PLANNED, (plan(live(b), config, scenes) for b in clips.batches()),
                           parents=[clips], settings=["clips", config.num_key_frames, config.max_objects,
                                                      config.measured, config.seed])
    yield "found", (found := steps.run("candidates", planned, stages["found"], parents=[planned], rows_per_block=ROWS,
                                       rules=config.clip_object_rules()))
    rules = (*config.object_rules(), *config.reference_rules())
    exploded = steps.finish("candidates", OBJECTS, (explode(live(b)) for b in found.batches()), parents=[found],
                            settings="objects", made_by=found.header.get("owners"))
    yield "references", (made := steps.run("candidates", exploded, stages["references"], parents=[exploded],
                                           rows_per_block=ROWS, rules=rules, made_by=found.header.get("owners")))
    grouped = steps.finish("candidates", GROUPED, (regroup(b, config.r2i) for b in whole_videos(made)), parents=[made],
                           settings=["clips again", config.r2i], made_by=made.header.get("owners"))
    yield "pairs", (pairs := steps.run("pairs", grouped, stages["pairs"], parents=[grouped], rules=(
        *rules, *config.pair_rules(), *config.caption_rules()), made_by=made.header.get("owners")))
    samples = BuildSamples(text="reference_caption")
    yield "samples", steps.finish("samples", SAMPLES.schema, map(samples, pairs.batches()), parents=[pairs])


def plan(clips: pa.Table, config: Config, scenes: Scenes | None) -> pa.Table:
    """One row a clip, with the moments of its key frames and scenes for as many objects as it may have."""
    names = ["clip_id", "video_id", "path", "start_s", "end_s", *MEASURED, *(f.name for f in RIGHTS)]
    rows, num = [], config.num_key_frames
    for clip, look in zip(clips.select(names).to_pylist(), looks_of(clips), strict=True):
        offered = scenes.of(clip, look, SCENES_OFFERED * config.max_objects) if scenes else []
        rows.append(clip | {f"target_{name}": clip.pop(name) for name in MEASURED} | _target(clip) | {
            "pair_id": make_id("pair", RECIPE, clip["clip_id"]), "recipe": RECIPE, "source_name": RECIPE,
            "task": "r2v", "edit": "scene", "conditions": [], "issues": [], "num_attempts": 1,
            "key_times_s": [clip["start_s"] + (clip["end_s"] - clip["start_s"]) * (i + 0.5) / num for i in range(num)],
            "scene_paths": [path for path, _ in offered], "scene_times_s": [time_s for _, time_s in offered]})
    return pa.Table.from_pylist(rows, PLANNED)


def _target(clip: dict) -> dict:
    """The clip as the target's side."""
    return {"target_path": clip["path"], "target_start_s": clip["start_s"], "target_end_s": clip["end_s"],
            "target_duration_s": clip["end_s"] - clip["start_s"], "target_clip_id": clip["clip_id"]}


def explode(found: pa.Table) -> pa.Table:
    """One row an object: its key frame as the target, its outline as the mask."""
    rows = []
    for clip in found.to_pylist():
        for i, thing in enumerate(clip["found_objects"]):
            mine = slice(i * SCENES_OFFERED, (i + 1) * SCENES_OFFERED)
            scenes = {n: clip[n][mine] or clip[n][:SCENES_OFFERED] for n in ("scene_paths", "scene_times_s")}
            rows.append(clip | {
                "pair_id": make_id("pair", RECIPE, clip["clip_id"], "object", i), "task": "r2i", "object_index": i,
                "target_path": thing["frame_path"], "target_start_s": None, "target_end_s": None,
                "target_duration_s": None, "mask_path": thing["mask_path"], "object_name": thing["name"],
                "object_place": thing["place"], "edit_prompt": thing["instruction"], "object_time_s": thing["time_s"],
                **{f"object_{name}": thing[name] for name in ("score", "share", "cut", "solid", "contrast")},
                **scenes})
    return pa.Table.from_pylist(rows, OBJECTS)


def regroup(made: pa.Table, r2i: bool) -> pa.Table:
    """Kept references, clip by clip, back to pairs: the clip with all of them, and its key frame with those from it."""
    rows = []
    for _, references in groupby(made.to_pylist(), key=lambda row: row["clip_id"]):
        references = list(references)
        rows.append(_pair(references) | _target(references[0]))
        if r2i:
            rows.append(_key_frame_pair(references))
    return pa.Table.from_pylist(rows, GROUPED)


def _pair(references: list[dict]) -> dict:
    first, length = references[0], references[0]["end_s"] - references[0]["start_s"]
    paths = [row["reference_path"] for row in references]
    return first | {
        "pair_id": make_id("pair", RECIPE, first["clip_id"]), "task": "r2v", "source_name": RECIPE, "mask_path": None,
        "conditions": [condition("reference", path) for path in paths], "reference_paths": paths,
        "num_references": len(paths), "object_names": [row["object_name"] for row in references],
        "object_places": [row["object_place"] for row in references], "issues": [],
        "caption_times_s": [first["start_s"] + length * (i + 0.5) / 4 for i in range(4)]}


def _key_frame_pair(references: list[dict]) -> dict:
    """The picture that most references were taken from, with those; nothing moves in it, and no camera does."""
    (frame, _), = Counter(row["target_path"] for row in references).most_common(1)
    mine = _pair([row for row in references if row["target_path"] == frame])
    return mine | {"pair_id": make_id("pair", R2I, mine["clip_id"]), "task": "r2i", "source_name": R2I,
                   "caption_times_s": [0.0], **{f"target_{n}": None for n in MEASURED if n.startswith("camera")}}
