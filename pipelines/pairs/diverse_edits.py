"""D4: diverse image edits, and the videos that begin with them.

Paper section 3.2: editing knowledge is carried over from pictures to videos. Prompts come from two mechanisms.
The first draws candidates from a pool of real user instructions; a model picks the most suitable one for
the picture and rewrites it. The second keeps a dynamic prompt bank: the model writes an instruction that is
unlike those in the bank, novel ones enter, and at capacity the least diverse leave. After the edited images
are made, motion prompts are written for them, and videos synthesised. Two kinds of data come out:
(source image, edited image, edit prompt) and (source image, video, edit prompt + motion prompt).

    files → VIDEOS → FRAMES → CANDIDATES (prompts; one stop a mechanism, one a round of the bank)
          → CANDIDATES (edited image, video) → PAIRS (i2i and i2v) → SAMPLES

The bank goes forward in `rounds`: each picture belongs to one by its id, all pictures of a round see the bank
as the round before left it, and the driver closes the round. So the result depends neither on the number of
workers nor on where a run was stopped. It lies in OUT/prompt-bank; `--bank DIR` begins with one that other
runs filled, and takes in what this run found when it ends.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from annotators.edit_prompt import read_pool
from annotators.prompt_bank import PromptBank
from datagen.backends import check_backend
from datagen.build_samples import BuildSamples
from datagen.film_picture import CAMERA, FPS, frames_of
from filters.consistency_rules import EDITED, FACES, UNTOUCHED
from filters.rules import ApplyRules, ApplyRulesWhere, Rule
from manifests import storage
from manifests.columns import ACCOUNT, DROP_REASON, column, set_column
from manifests.errors import ConfigError
from manifests.ids import digest, make_id
from manifests.manifest import Manifest, live
from manifests.messages import MIN_FRAMES
from manifests.schema import CANDIDATES, RIGHTS, SAMPLES

from ..backend_config import MeasuredEditConfig, SegmenterConfig
from ..checks import LEAST_PX, above_zero, at_least, known
from ..key_frames import FrameConfig, find_frames
from ..recipe import JudgeConfig, Needs, Steps, apply_rules, stops
from ..stage import Stage

WHY = "pictures edited by very different instructions, and videos that begin with the edited pictures"
RECIPE = "diverse-edits"
I2I, I2V = "diverse-i2i", "diverse-i2v"
POOL, BANK = "pool", "bank"
MECHANISMS = (POOL, BANK)
REPEATED = "the other mechanism asks for the same edit"
INSTRUCTION = column("instruction", pa.string(), "edit prompt, for a video with its motion prompt")
NEEDS = Needs(
    makes=f"i2i: {I2I}; i2v: {I2V}",
    laptop="nothing: classical edits and a camera that moves over the edited picture",
    cluster="an image editor (Qwen-Image-Edit or FLUX Kontext, one GPU a worker), an image-to-video model (our "
            "renderer with task i2v, one 80 GB GPU a worker), a served Qwen3-VL",
    cost="laptop: 0.25 CPU hours a 1,000 samples (measured: 66 samples of 6 real films); cluster: three requests, one "
         "edited image and one video of 81 frames for two samples, at most 0.25 H200 hours (estimated: 200 forwards of "
         "34,000 tokens, 1.8 PFLOP each, at 400 TFLOP/s)",
)
PLANNED = pa.schema([
    *CANDIDATES.fields,
    column("source_name", pa.string(), "data set that the pair counts as in a mixture"),
    column("frame_id", pa.string(), "the picture that is edited"),
    column("path", pa.string(), "file that holds it"),
    column("time_s", pa.float64(), "its moment; null = the file is a picture", "s"),
    column("mechanism", pa.string(), "how its prompt was found: pool or bank"),
    column("round", pa.int32(), "round of the prompt bank; null = pool"),
    *ACCOUNT,
])


@dataclass(frozen=True, kw_only=True)
class Config(JudgeConfig, MeasuredEditConfig, SegmenterConfig, FrameConfig):
    """Settings of the recipe."""

    mechanisms: tuple[str, ...] = MECHANISMS
    """Where edit prompts come from: pool, bank, or both (then every picture is edited twice)."""
    instructions: str = ""
    """File with instructions of real users, one a line or .jsonl with `prompt`; empty = a small built-in pool."""
    num_candidates: int = 6
    """Instructions of the pool that are drawn for a picture."""
    bank: str = ""
    """Folder of a prompt bank to begin with and to add to; empty = the run's own begins empty."""
    bank_capacity: int = 2000
    """Most prompts of the bank; beyond it the least diverse leave."""
    bank_min_novelty: float = 0.35
    """1 - cosine to the nearest prompt from which on a prompt is novel and enters."""
    rounds: int = 4
    """Rounds in which the bank grows; more rounds, fewer prompts alike in one of them."""
    image_px: int = 1024
    """Longer side of source and edited image."""
    animate: str = CAMERA
    """Image to video: camera (moves over the still picture), bernini, wan-vace, or module:Class."""
    animate_model: str = ""
    """Folder of its model."""
    animate_gpus: float = 0.0
    """GPUs that a worker takes for it."""
    seconds: float = 5.0
    """Length of the videos."""
    video_short_px: int = 480
    """Shorter side of the videos."""
    edited_min: float = 0.004
    """Least share of the picture that the edit visibly changes; a smaller one does nothing that could be learned."""
    video_start_min_db: float = 18.0
    """Lowest PSNR of a video's first frame against the edited picture, for image-to-video models: their autoencoders
    alone leave 25 dB and more, and another picture has 15 or less."""
    video_moved_min: float = 1.0
    """Least mean difference (of 255) that some frame of a video has from its first: below it the picture stands."""

    def __post_init__(self):
        super().__post_init__()
        known(self, "mechanisms", MECHANISMS)
        if not self.mechanisms:
            raise ConfigError(f"--mechanisms is empty; known: {', '.join(MECHANISMS)}")
        for name, mechanism in (("instructions", POOL), ("bank", BANK)):
            if getattr(self, name) and mechanism not in self.mechanisms:
                raise ConfigError(f"--{name} belongs to the mechanism {mechanism}, and --mechanisms is "
                                  f"{' '.join(self.mechanisms)}")
        at_least(self, 1, "rounds", "num_candidates", "bank_capacity")
        at_least(self, LEAST_PX, "image_px", "video_short_px")
        above_zero(self, "seconds")
        if frames_of(self.seconds) < MIN_FRAMES:
            raise ConfigError(f"--seconds is {self.seconds:g}, which gives {frames_of(self.seconds)} frames at {FPS} a "
                              f"second; a video has at least {MIN_FRAMES}")
        read_pool(self.instructions)
        if self.measured != (self.animate == CAMERA):
            raise ConfigError(f"annotator {self.annotator} does not go with animate {self.animate}: measured motion "
                              "prompts tell a camera move, and a model's prompt needs an image-to-video model")
        editor = "" if self.animate == CAMERA else self.animate
        if editor == "classical":
            raise ConfigError("--animate is 'classical', and the classical video editor moves nothing; known: camera, "
                              "bernini, wan-vace, or module:Class")
        check_backend("video-editor", editor, self.animate_options, {"model": "--animate-model"})

    @property
    def animate_options(self) -> dict:
        task = {"task": "i2v"} if self.animate == "bernini" else {}
        return {"model": self.animate_model, **task} if self.animate_model else {}

    def edit_rules(self) -> tuple[Rule, ...]:
        return (Rule(column="edit_prompt", why="nothing to edit"),
                Rule(column="edited_share", min=self.edited_min, why="an edit that nobody sees teaches to do nothing"),
                EDITED, replace(UNTOUCHED, optional=True), FACES,  # a new style leaves nothing untouched
                *self.judge_rules())

    def video_rules(self) -> tuple[Rule, ...]:
        return (Rule(column="video_start_db", min=self.video_start_min_db, optional=True,
                     why="section 3.2: the videos begin with the edited pictures"),
                Rule(column="video_moved", min=self.video_moved_min, why="a video that stands still teaches no motion"))


PRESETS = {
    "laptop": {},
    "cluster": {"frame_embedder": "open_clip", "gpus_per_worker": 0.25, "annotator": "openai",
                "image_editor": "qwen-image-edit", "image_editor_gpus": 1.0, "animate": "bernini", "animate_gpus": 1.0,
                "rounds": 100},
}


def build(config: Config) -> dict[str, tuple[Stage, ...]]:
    media, seed = config.media_root, config.seed
    listed = (Stage(op="datagen.list_edits:ListEdits", batch_size=4, num_gpus=config.segmenter_gpus,
                    kwargs={"media": media, "segmenter": config.segmenter, "options": config.segmenter_options,
                            "long_px": config.image_px, "seed": seed}),) if config.measured else ()
    draw = Stage(op="annotators.edit_prompt:DrawCandidates", num_cpus=0.0,
                 kwargs={"pool": config.instructions, "num": config.num_candidates, "seed": seed})
    edit = Stage(op="datagen.edit_picture:EditPicture", batch_size=4, num_gpus=config.image_editor_gpus,
                 kwargs={"media": media, "backend": config.image_editor, "options": config.image_editor_options,
                         "listed": config.measured, "long_px": config.image_px, "seed": seed})
    move = (Stage(op="datagen.film_picture:PlanMove", kwargs={"seed": seed}, num_cpus=0.0),) if config.measured else ()
    film = Stage(op="datagen.film_picture:FilmPicture", batch_size=1, num_gpus=config.animate_gpus,
                 kwargs={"media": media, "backend": config.animate, "options": config.animate_options,
                         "seconds": config.seconds, "short_px": config.video_short_px, "seed": seed})
    judge = () if config.measured else (config.ask("annotators.judge:JudgePictureEdit"),)
    prompted, *rules = config.edit_rules()
    return {
        POOL: (*listed, draw, config.ask("annotators.edit_prompt:ChooseInstruction")),
        BANK: listed,  # and one stage that knows its round
        "edited": (apply_rules(prompted), edit, Stage(op="filters.edit_region:MeasureEditRegion", batch_size=4),
                   Stage(op="filters.faces_kept:MeasureFacesKept", batch_size=4), *judge, apply_rules(*rules), *move,
                   config.ask("annotators.motion_prompt:WriteMotionPrompt"), film),
    }


def invent(config: Config, bank: str, number: int) -> Stage:
    return config.ask("annotators.edit_prompt:InventInstruction", bank=bank, round=number)


@stops(may_be_empty=(BANK,))  # a round may be without pictures
def run_steps(config: Config) -> Iterator[tuple[str, Manifest]]:
    steps, stages = Steps(config, RECIPE), build(config)
    yield "videos", (videos := steps.videos())
    yield "frames", (frames := find_frames(steps, videos))
    prompted: list[Manifest] = []
    if POOL in config.mechanisms:
        planned = _planned(steps, frames, POOL, None, digest(read_pool(config.instructions)))
        prompted.append(steps.run("candidates", planned, stages[POOL], parents=[planned]))
        yield POOL, prompted[-1]
    if BANK in config.mechanisms:
        for name, manifest in _bank_rounds(steps, frames, stages[BANK]):
            prompted.append(manifest)
            yield name, manifest
    both = steps.finish("candidates", with_prompts(PLANNED, prompted), _all(prompted), parents=prompted,
                        settings="prompts")
    yield "edited", (made := steps.run("candidates", both, stages["edited"], parents=[both], rows_per_block=2,
                                       rules=config.edit_rules(), made_by=_owners(prompted)))
    whole = ApplyRules((Rule(column="target_path", why="a pair has two sides"),))
    moving = ApplyRulesWhere("task", ("i2v",), config.video_rules())
    rules = (*config.edit_rules(), *config.video_rules())
    yield "pairs", (pairs := steps.finish("pairs", made.schema, (moving(whole(explode(b))) for b in made.batches()),
                                          parents=[made], settings=["both", config.video_rules()], rules=rules,
                                          made_by=made.header.get("owners")))
    yield "samples", steps.finish("samples", SAMPLES.schema, map(BuildSamples(), pairs.batches()), parents=[pairs])


def _planned(steps: Steps, frames: Manifest, mechanism: str, number: int | None, settings: object = None) -> Manifest:
    """Pictures of a mechanism, or of one round of it, as rows to be filled."""
    rows = (plan(live(batch), mechanism, number, steps.config.rounds) for batch in frames.batches())
    return steps.finish("candidates", PLANNED, rows, parents=[frames],
                        settings=[mechanism, number, steps.config.rounds, settings])


def plan(frames: pa.Table, mechanism: str, number: int | None, rounds: int) -> pa.Table:
    names = ["frame_id", "video_id", "path", "time_s", *(f.name for f in RIGHTS)]
    rows = [row for row in frames.select(names).to_pylist()
            if number is None or int(digest("round", row["frame_id"], length=8), 16) % rounds == number]
    return pa.Table.from_pylist([row | {
        "pair_id": make_id("pair", RECIPE, mechanism, row["frame_id"]), "recipe": RECIPE, "task": "i2i",
        "edit": "diverse", "source_name": I2I, "mechanism": mechanism, "round": number, "conditions": [],
        "issues": [], "num_attempts": 1} for row in rows], PLANNED)


def _bank_rounds(steps: Steps, frames: Manifest, listed: Sequence[Stage]) -> Iterator[tuple[str, Manifest]]:
    """Round by round: prompts of its pictures, then the bank takes in what they offered."""
    config = steps.config
    folder, begin = open_bank(config, frames, listed)
    for number in range(config.rounds):
        planned = _planned(steps, frames, BANK, number, begin)
        stages = (*listed, invent(config, folder, number))
        manifest = steps.run("candidates", planned, stages, parents=[planned], settings=[number, begin])
        if PromptBank(folder).round == number:  # else an earlier run closed it
            PromptBank(folder).close_round()
        yield f"{BANK} {number + 1}/{config.rounds}", manifest
    give_back(config, folder)


def open_bank(config: Config, frames: Manifest, listed: Sequence[Stage]) -> tuple[str, str]:
    """Folder of the run's bank, and a digest of what it began with: the prompts of `config.bank`, if any.

    Other pictures or settings, or another name of `config.bank`, have another bank; what that holds does not count,
    because every run adds to it. One that is there already is the one this run began: its
    first round says what it knew, so a resumed run does the same as one that was never stopped.
    """
    decides = [posixpath.basename(frames.path), [s.fingerprint() for s in (*listed, invent(config, "", 0))],
               config.rounds, config.bank_capacity, config.bank_min_novelty,
               *([posixpath.basename(config.bank.rstrip("/"))] if config.bank else [])]
    folder = storage.join(storage.absolute(config.output), "prompt-bank", digest(decides, length=8))
    first = storage.join(folder, "bank-00000.jsonl")
    if not storage.exists(first):
        known = PromptBank(config.bank).prompts if config.bank else ()
        PromptBank(folder, capacity=config.bank_capacity, min_novelty=config.bank_min_novelty, begin=known)
    return folder, digest(storage.read_bytes(first).decode())


def give_back(config: Config, folder: str) -> None:
    """What the run's bank has found goes to the bank it began with, once."""
    done = storage.join(folder, "given-back")
    if not config.bank or storage.exists(done):
        return
    shared = PromptBank(config.bank, capacity=config.bank_capacity, min_novelty=config.bank_min_novelty)
    shared.offer(PromptBank(folder).prompts)
    shared.close_round()
    storage.write_bytes(done, b"")


def with_prompts(schema: pa.Schema, prompted: Sequence[Manifest]) -> pa.Schema:
    """PLANNED, every column that one of the mechanisms filled, and the instruction."""
    for manifest in prompted:
        for field in manifest.schema:
            schema = schema if field.name in schema.names else schema.append(field)
    return schema.append(INSTRUCTION)


def _all(prompted: Sequence[Manifest]) -> Iterator[pa.Table]:
    """Rows of all mechanisms with one schema; an edit of a picture that comes again is dropped."""
    schema, seen = with_prompts(PLANNED, prompted), set()
    for manifest in prompted:
        for batch in manifest.batches():
            batch = batch.append_column(INSTRUCTION, batch["edit_prompt"])
            yield once(pa.table([batch[f.name] if f.name in batch.column_names else pa.nulls(batch.num_rows, f.type)
                                 for f in schema], schema=schema), seen)


def once(table: pa.Table, seen: set[int]) -> pa.Table:
    """Rows whose picture and edit are among `seen` are dropped; the others are added to it."""
    reasons = table[DROP_REASON.name].to_pylist()
    edits = zip(table["frame_id"].to_pylist(), table["edit_prompt"].to_pylist(), strict=True)
    for i, (frame_id, prompt) in enumerate(edits):
        if reasons[i] is None and prompt:
            key = int(digest(frame_id, prompt), 16)  # 64 bits a row are held, not texts
            reasons[i] = REPEATED if key in seen else None
            seen.add(key)
    return set_column(table, DROP_REASON, reasons)


def _owners(prompted: Sequence[Manifest]) -> dict[str, dict]:
    return {name: owner for m in prompted for name, owner in m.header.get("owners", {}).items()}


def explode(made: pa.Table) -> pa.Table:
    """Each edited picture as an i2i pair, and behind it the video as an i2v pair of the same source."""
    rows = []
    for row in made.to_pylist():
        rows.append(row)
        if row["drop_reason"] is None:
            rows.append(row | {
                "pair_id": make_id("pair", I2V, row["pair_id"]), "task": "i2v", "source_name": I2V, "mask_path": None,
                "target_path": row["video_path"], "target_start_s": 0.0, "target_end_s": row["video_duration_s"],
                "target_duration_s": row["video_duration_s"],
                "instruction": " ".join(p for p in (row["edit_prompt"], row["motion_prompt"]) if p)})
    return pa.Table.from_pylist(rows, made.schema)
