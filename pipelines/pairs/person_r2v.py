"""D8: a person's picture from one clip, and another clip in which the person appears.

Paper section 3.4: image editors do not keep faces, so references of people are not made but found. Clips are
grouped by their parent video or episode, and a face embedding is computed for every clip. For each good
target clip a clip of the same identity is retrieved from the same video or episode, with a filter across
episodes for visual diversity. The person is cropped from it as a full-body reference image.

    files → VIDEOS → CLIPS → CLIPS with faces → CANDIDATES (target, reference clip) → PAIRS → SAMPLES

Identities and episodes are hashes, the column that names an episode (which may be an actor's name) is left behind, and
embeddings stay in CLIPS: samples hold none of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from datagen.backends import check_backend
from datagen.build_samples import BuildSamples
from datagen.identity import FACE_COLUMNS, EmbedFaces
from datagen.person_pairs import PairPeople, grouped
from filters.balance import rank_within
from filters.consistency_rules import OTHER_SCENE
from filters.rules import Decisions, Rule
from manifests.columns import column, set_column
from manifests.errors import ConfigError
from manifests.ids import make_id, order_key
from manifests.manifest import Manifest, live
from manifests.schema import SAMPLES

from ..backend_config import SegmenterConfig
from ..checks import at_least
from ..decide import Decided, decide
from ..recipe import MEASURES, AskConfig, ClipConfig, Needs, Steps, apply_rules, scan_stage, stops
from ..scan import ScanVideos, measure_fields
from ..stage import Stage

WHY = "a full-body picture of a person from one clip, and another clip that shows the same person elsewhere"
RECIPE = "person-r2v"
NEEDS = Needs(
    makes="r2v: person-r2v",
    laptop="nothing: OpenCV's face and body detectors and a face descriptor, measured captions",
    cluster="a face model (insightface's ArcFace, a tenth of a GPU a worker), X-CLIP (a quarter), a served Qwen3-VL",
    cost="laptop: 1.1 CPU seconds a clip for scan and faces (measured on 10 real clips), retrieval among 1 M of them "
         "130 CPU seconds (benchmarks/results/identity.md); cluster: one request a pair",
)
VIDEO, FOLDER = "video", "folder"
GROUP = column("group_id", pa.string(), "the video or episode that the clip belongs to: an id, never its name")


@dataclass(frozen=True, kw_only=True)
class Config(AskConfig, SegmenterConfig, ClipConfig):
    """Settings of the recipe. The paper gives no thresholds; these are ours, each with its reason."""

    group_by: str = VIDEO
    """Where the same person is looked for: video, folder, or the column of the input list that names the episode."""
    face: str = "classical"
    """Face backend: classical (no weights), arcface, or module:Class."""
    face_model: str = ""
    """arcface: ONNX file of the recognition model."""
    face_detector: str = ""
    """arcface: ONNX file of its face detector."""
    face_gpus: float = 0.0
    """Share of a GPU that a worker takes for the face model."""
    identity_min: float = 0.8
    """Lowest cosine of two faces of one person. It belongs to the face backend: on six real clips the classical one
    gives at most 0.75 for two persons and mostly 0.9 for one; ArcFace is used with about 0.4."""
    same_look_max: float = 0.97
    """Highest cosine of the two clips' video embeddings; above it the reference shows the same scene."""
    background_max: float = OTHER_SCENE.max
    """Largest share of the target's background that the reference may show; above it a model can copy the place."""
    face_height_min: float = 0.06
    """Smallest face of a clip that is used, in frame heights."""
    people_max: int = 3
    """Most faces in a frame of the clip; in a crowd the reference does not say who is meant."""
    reference_min_px: int = 128
    """Shortest side of the cropped reference, as filmed."""
    per_identity_max: int = 20
    """Most targets of one person over all videos and episodes, taken from them in turn."""
    segmenter: str = ""
    """Finds the person to be cropped: grounded-sam2 or module:Class; empty = OpenCV's body detector and the face."""

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.identity_min < 1:
            raise ConfigError(f"identity_min is {self.identity_min:g}; a cosine between 0 and 1 tells persons apart")
        check_backend("face", self.face, self.face_options, {"model": "--face-model", "detector": "--face-detector"})
        at_least(self, 1, "per_identity_max", "people_max", "reference_min_px")

    @property
    def face_options(self) -> dict:
        given = {"model": self.face_model, "detector": self.face_detector}
        return {name: value for name, value in given.items() if value}

    def face_rules(self) -> tuple[Rule, ...]:
        return (
            Rule(column="num_people_seen", min=1, max=self.people_max, why="somebody, and no crowd"),
            Rule(column="face_height", min=self.face_height_min, why="smaller faces are not recognised"),
            Rule(column="face_embedding", why="without it nobody can be found again"),
        )

    def pair_rules(self) -> tuple[Rule, ...]:
        return (
            Rule(column="identity_similarity", min=self.identity_min, why="the same person"),
            Rule(column="video_similarity", max=self.same_look_max, why="another scene, or another take of it"),
        )

    def policy(self) -> None:
        """None for `bernini decide`: the cap over episodes belongs to the run."""

    def reference_rules(self) -> tuple[Rule, ...]:
        asked = (Rule(column="num_references_shown", min=1, why="the model sees the person in the clip"),)
        return (
            Rule(column="background_similarity", max=self.background_max, why=OTHER_SCENE.why),
            Rule(column="reference_width", min=self.reference_min_px, why="too small to show anybody"),
            Rule(column="reference_height", min=self.reference_min_px, why="too small to show anybody"),
            Rule(column="reference_caption", why="a pair without a prompt cannot be trained on"),
            *(() if self.measured else asked),
        )


PRESETS = {
    "laptop": {},
    "cluster": {"embedder": "xclip", "gpus_per_worker": 0.25, "face": "arcface", "identity_min": 0.4,
                "face_gpus": 0.1, "annotator": "openai"},
}


def build(config: Config) -> dict[str, tuple[Stage, ...]]:
    before, after = config.reference_rules()[:3], config.reference_rules()[3:]
    return {
        "faces": (
            Stage(op="datagen.identity:EmbedFaces", batch_size=4,
                  kwargs={"backend": config.face, "min_identity": config.identity_min, **config.face_options},
                  num_gpus=config.face_gpus),
            apply_rules(*config.face_rules()),
        ),
        "pairs": (
            Stage(op="datagen.person_crop:CropPerson", batch_size=4, num_gpus=config.segmenter_gpus,
                  kwargs={"media": config.media_root, "segmenter": config.segmenter,
                          "segmenter_options": config.segmenter_options}),
            Stage(op="filters.background_similarity:MeasureBackgroundSimilarity", batch_size=4),
            apply_rules(*before),
            config.ask("annotators.reference_prompt:CaptionPerson"),
            apply_rules(*after),
        ),
    }


@stops(may_be_empty=("candidates",))
def run_steps(config: Config) -> Iterator[tuple[str, Manifest]]:
    steps, stages = Steps(config, RECIPE), build(config)
    yield "videos", (videos := steps.videos(lambda listed: check_group(listed, config.group_by)))
    yield "clips", (clips := steps.clips(videos))
    faces_of, measured = stages["faces"][0].kwargs, ScanVideos.owners(**scan_stage(config).kwargs)
    yield "faces", (faces := steps.run("clips", clips, stages["faces"], parents=[clips], settings=config.face_rules(),
                                       rules=config.face_rules(), made_by=measured))

    compared = {name: {"op": "datagen.person_pairs:PairPeople", "backend": EmbedFaces.owners(**faces_of)[
        "face_embedding"]["backend"]} for name in ("identity_similarity", "identity_id")}
    pair = PairPeople(kept_measures(), recipe=RECIPE, min_identity=config.identity_min)
    groups = grouped((with_group(live(b), config.group_by) for b in faces.batches()), "group_id")
    yield "candidates", (found := steps.finish("candidates", pair.makes, map(pair, groups), parents=[faces],
                                               settings=[config.group_by, config.identity_min], made_by=compared))

    rules, cap = config.pair_rules(), f"targets of this person>{config.per_identity_max}"
    decisions = decide(found, rules)
    decisions.drop(over_cap(found, decisions, config.per_identity_max, config.seed), cap)
    yield "pairs", (pairs := steps.run("pairs", Decided(found, decisions), stages["pairs"], parents=[found],
                                       settings=[rules, cap, config.seed], made_by=compared,
                                       rules=(*rules, *config.reference_rules()), policy=cap))
    samples = BuildSamples(RECIPE, text="reference_caption")
    yield "samples", steps.finish("samples", SAMPLES.schema, map(samples, pairs.batches()), parents=[pairs],
                                  settings=RECIPE)


def check_group(listed: pa.Table, group_by: str) -> None:
    """`ConfigError` where no row of the input list has the column that is to name the episode."""
    names = {name for extra in listed["extra"].to_pylist() for name in json.loads(extra or "{}")}
    if group_by not in (VIDEO, FOLDER, *names):
        raise ConfigError(f"--group-by is {group_by!r}, and no row of the input has such a column; known: "
                          f"{', '.join((VIDEO, FOLDER, *sorted(names)))}")


def kept_measures() -> tuple[pa.Field, ...]:
    """Clip measures that a target keeps: what captions are made of, and what a later rule may ask for."""
    scan = [f for f in measure_fields(MEASURES) if f.name not in ("video_embedding", "is_human")]
    return (*scan, *(f for f in FACE_COLUMNS if f.name in ("face_score", "face_height", "num_people_seen")))


def with_group(clips: pa.Table, group_by: str) -> pa.Table:
    """The column `group_id`; a clip whose input row names no episode belongs to its own video. The column of the
    input list that names the episode leaves `extra`: it may be a person's name."""
    groups, extras = [], []
    for row in clips.select(["video_id", "path", "extra"]).to_pylist():
        extra = json.loads(row["extra"] or "{}")
        named = (None if group_by == VIDEO else os.path.dirname(row["path"]) if group_by == FOLDER
                 else extra.pop(group_by, None))
        groups.append(row["video_id"] if named in (None, "") else make_id("group", group_by, named))
        extras.append(json.dumps(extra, sort_keys=True, ensure_ascii=False) if extra else None)
    return set_column(set_column(clips, clips.schema.field("extra"), extras), GROUP, groups)


def over_cap(found: Manifest, decisions: Decisions, most: int, seed: int) -> np.ndarray:
    """Rows beyond `most` of one person: the first of each video or episode stay, then the second of each, …"""
    rows = np.flatnonzero(decisions.accepted)
    if not len(rows):
        return rows
    taken = found.table(["identity_id", "group_id", "pair_id"]).take(pa.array(rows)).combine_chunks()
    person, group = (taken[n].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
                     for n in ("identity_id", "group_id"))
    keys = order_key(taken["pair_id"], seed)
    turn = rank_within(person * (group.max() + 1) + group, keys).astype(np.uint64)
    return rows[rank_within(person, (turn << np.uint64(32)) | (keys >> np.uint64(32))) >= most]
