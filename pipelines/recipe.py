"""What recipes share: settings, and the steps from files to measured clips.

A recipe is one file in `pipelines/pairs/` with

* `RECIPE` (its name), `WHY` (one line), a docstring that reads as the paper's paragraph;
* `Config`, a dataclass of these settings and its own;
* `PRESETS`, settings by name: "laptop" (classical backends, no weights) and "cluster" (the models
  that the paper names);
* `NEEDS`, what each preset asks for;
* `run_steps(config)`, which yields `(stop, manifest)` as the stops finish.

It knows no other recipe. VIDEOS and CLIPS are named after the scan, not after the recipe:
several recipes with one output folder decode each film once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import wraps

import pyarrow as pa
import pyarrow.compute as pc

from datagen.cut import MakeClips
from filters.rules import ApplyRules, Rule
from manifests import storage
from manifests.errors import ConfigError, ManifestError
from manifests.manifest import Manifest, live

from .checks import at_least, model_files
from .ingest import fingerprint, list_videos
from .place import Place
from .run import ENGINES, Guard, TableSource, finish, require_accepted
from .run import run as run_stages
from .scan import GOOD, ScanVideos, measure_fields
from .stage import Stage

MEASURES = ("damage", "exposure", "sharpness", "motion", "colors", "people", "video_similarity")
VIDEO_RULES = (Rule(column="verdict", allowed=GOOD, failure=True, why="a file of which nothing decodes"),)
SCAN = "scan"


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a recipe asks for, in words; `bernini recipes` prints it."""

    makes: str
    """Tasks and data sets that come out."""
    laptop: str = "nothing: no weights, no download"
    """What the preset "laptop" needs."""
    cluster: str
    """Models and GPUs of the preset "cluster"."""
    cost: str
    """CPU or GPU hours a thousand samples; says whether it was measured or estimated, and on what."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Settings of every recipe: where from, where to, how."""

    input: str
    """Folder with videos or pictures, or a .csv/.jsonl/.parquet list with a column `path` (may be s3:// or gs://)."""
    output: str
    """Folder below which the stops are written; the same command resumes there."""
    engine: str = "ray"
    """ray (this machine, or the cluster at RAY_ADDRESS) or local (this process, no Ray)."""
    seed: int = 0
    """Breaks ties and draws what is drawn; the same seed gives the same rows."""
    workers: int | None = None
    """Decoding workers; none = as many as there are cores."""
    max_failed_share: float = 0.5
    """Stop when more than this share of the rows fails."""
    retry_failed: bool = False
    """Try again what failed in an earlier, unfinished run."""
    quiet: bool = False
    """No progress bars."""

    def __post_init__(self):
        if self.engine not in ENGINES:
            raise ConfigError(f"no engine {self.engine!r}; known: {', '.join(ENGINES)}")
        at_least(self, 1, "workers")
        if not 0 < self.max_failed_share <= 1:
            raise ConfigError(f"max_failed_share is {self.max_failed_share:g}; it is a share above 0 and at most 1")

    @property
    def engine_options(self) -> dict:
        return {"engine": self.engine, "quiet": self.quiet, "retry_failed": self.retry_failed,
                "guard": Guard(max_failed_share=self.max_failed_share)}

    @property
    def media_root(self) -> str:
        """Where media that are made lie, an absolute path or URI; all workers must see it."""
        return storage.join(storage.absolute(self.output), "media")


@dataclass(frozen=True, kw_only=True)
class ClipConfig(RunConfig):
    """How films become clips, and which clips are good enough."""

    clip_min_s: float = 2.0
    """Shortest clip, seconds."""
    clip_max_s: float = 10.0
    """Longest clip, seconds; longer shots are split."""
    min_side_px: int = 240
    """Shortest side; the released trainer takes nothing smaller."""
    min_sharpness: float = 8.0
    """Variance of the Laplacian at 480p; below it edges are gone (defocus, heavy compression)."""
    max_black: float = 0.1
    """Largest share of black frames."""
    max_frozen: float = 0.9
    """Largest share of frames that repeat the one before (still pictures, slides)."""
    embedder: str = "classical"
    """classical (no weights) or xclip (the paper's): the video embedding of the scan."""
    embedder_model: str = "microsoft/xclip-base-patch32"
    """Folder or hub id of the X-CLIP model."""
    gpus_per_worker: float = 0.0
    """Share of a GPU that one decoding worker takes for its embedder."""

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.clip_min_s < self.clip_max_s:
            raise ConfigError(f"clip_min_s {self.clip_min_s:g} must be above 0 and below clip_max_s "
                              f"{self.clip_max_s:g}")

    def clip_rules(self) -> tuple[Rule, ...]:
        return (
            Rule(column="duration_s", min=self.clip_min_s, max=self.clip_max_s + 1e-6, why="paper: 2 to 10 s"),
            Rule(column="damaged_ratio", max=0.0, why="what a decoder conceals is no training data"),
            Rule(column="width", min=self.min_side_px, why="the trainer's smallest side"),
            Rule(column="height", min=self.min_side_px, why="the trainer's smallest side"),
            Rule(column="black_ratio", max=self.max_black, why="nothing to see"),
            Rule(column="frozen_ratio", max=self.max_frozen, why="a still picture, not a video"),
            Rule(column="sharpness", min=self.min_sharpness, why="blurred"),
            Rule(column="video_embedding", why="without it nothing can be compared"),
        )


@dataclass(frozen=True, kw_only=True)
class AskConfig(RunConfig):
    """Who writes prompts and judges: measured facts, or a vision-language model behind a server."""

    annotator: str = "classical"
    """classical (sentences of measured facts) or openai (a vision-language model behind a server)."""
    url: tuple[str, ...] = ()
    """OpenAI-compatible servers, e.g. http://127.0.0.1:8000/v1; several share the work."""
    annotator_model: str = "Qwen/Qwen3-VL-235B-A22B-Instruct"
    """Model name as the server lists it."""

    def __post_init__(self):
        super().__post_init__()
        if self.annotator == "openai" and not self.url:
            raise ConfigError("annotator openai needs --url, e.g. --url http://127.0.0.1:8000/v1")

    @property
    def measured(self) -> bool:
        """Is all that is written made of measured facts, so that no model reads or writes a word?"""
        return self.annotator == "classical"

    def ask(self, op: str, **kwargs: object) -> Stage:
        """The stage of an annotator, e.g. `config.ask("annotators.transition:DescribeTransition")`."""
        kwargs = {"backend": self.annotator, **kwargs}
        if not self.measured:
            # Answers are kept, so that a changed threshold or a broken run asks nothing twice.
            cache = "" if storage.is_uri(self.output) else storage.join(storage.absolute(self.output), "answers")
            kwargs |= {"urls": self.url, "model": self.annotator_model, "cache": cache}
        # Workers that ask wait for the server most of the time.
        return Stage(op=op, kwargs=kwargs, num_cpus=0.0 if self.measured else 0.5)


@dataclass(frozen=True, kw_only=True)
class JudgeConfig(AskConfig):
    """Which made edits are good enough for a model that judges them; what is measured has no judge."""

    judge_min: float = 3.0
    """Lowest overall mark of the judge, where a model judges: 3 = borne by whoever asked. With a reference also the
    lowest mark of likeness to it: 3 = alike, with clear differences."""

    def judge_rules(self, *, reference: bool = False) -> tuple[Rule, ...]:
        if self.measured:
            return ()
        alike = (Rule(column="judge_reference", min=self.judge_min, why="the target shows what the reference shows"),)
        return (Rule(column="judge_overall", min=self.judge_min, why="the edit is what was asked for"),
                *(alike if reference else ()))

    def judge(self) -> tuple[Stage, ...]:
        """The judge of source, target and instruction; none without a model."""
        return () if self.measured else (self.ask("annotators.judge:JudgeEdit"),)

    def judge_reference(self) -> tuple[Stage, ...]:
        """The judge who also sees `reference_path`, and what the marks must be; none without a model."""
        return () if self.measured else (self.ask("annotators.judge:JudgeReferenceEdit"),
                                         apply_rules(*self.judge_rules(reference=True)))


def apply_rules(*rules: Rule) -> Stage:
    return Stage(op="filters.rules:ApplyRules", kwargs={"rules": rules}, num_cpus=0.0)


def apply_rules_where(edits: tuple[str, ...], rules: tuple[Rule, ...]) -> Stage:
    """`rules` for rows of these kinds of edits; the others pass."""
    return Stage(op="filters.rules:ApplyRulesWhere", num_cpus=0.0,
                 kwargs={"column": "edit", "values": edits, "rules": rules})


def stops(*, may_be_empty: Collection[str] = (), hint: Callable[[str, Manifest], str] = lambda name, manifest: ""):
    """Decorator of a recipe's `run_steps`, a generator of `(name, manifest)`: `ConfigError` at once where the file of
    a model does not exist, and `RunStopped` after the first stop that accepted no row, with the `hint` for it. Stops in
    `may_be_empty` (by the first word of their name) may be."""

    def decorate(steps: Callable[[RunConfig], Iterator[tuple[str, Manifest]]]):
        @wraps(steps)
        def run_steps(config: RunConfig) -> Iterator[tuple[str, Manifest]]:
            model_files(config)
            for name, manifest in steps(config):
                yield name, manifest
                if name.split(" ")[0] not in may_be_empty:
                    require_accepted(manifest, hint=hint(name, manifest))
        return run_steps
    return decorate


def open_pairs(path: str, needs: str, columns: Collection[str] = ()) -> Manifest:
    """PAIRS of another recipe as an input; `needs` says who needs what of it."""
    try:
        given = Manifest.open(path)
    except ManifestError as error:
        raise ManifestError(f"{error}; {needs}") from None
    lacks = [name for name in columns if name not in given.schema.names]
    if given.stop.name != "pairs" or lacks:
        without = f" without a column {lacks[0]}" if given.stop.name == "pairs" else ""
        raise ConfigError(f"{path} holds {given.stop.name}{without}; {needs}")
    return given


def scan_stage(config: ClipConfig) -> Stage:
    """One decoding pass with all first measures."""
    options = {"model": config.embedder_model} if config.embedder == "xclip" else {}
    return Stage(op="pipelines.scan:ScanVideos", batch_size=1, num_gpus=config.gpus_per_worker, workers=config.workers,
                 kwargs={"measures": MEASURES, "embedder": config.embedder, "embedder_options": options,
                         "min_clip_s": config.clip_min_s, "max_clip_s": config.clip_max_s})


class Steps:
    """The stops of one run: where each lies, and the two that all recipes over films begin with."""

    def __init__(self, config: RunConfig, recipe: str):
        self.config = config
        self.place = Place(config.output, recipe, config)
        self.scans = Place(config.output, SCAN, config, estimated_as=recipe)

    def videos(self, check: Callable[[pa.Table], None] = lambda listed: None) -> Manifest:
        """VIDEOS: every file of the input, decoded once. `check` may refuse the listed rows before that."""
        config, stages = self.config, (scan_stage(self.config), apply_rules(*VIDEO_RULES))
        listed = list_videos(config.input, leave_out=config.output, quiet=config.quiet)
        check(listed)
        target = self.scans.target("videos", stages, sources=[fingerprint(listed)], rules=VIDEO_RULES)
        return run_stages(TableSource(listed), target, stages, rows_per_block=1, **config.engine_options)

    def clips(self, videos: Manifest) -> Manifest:
        """CLIPS: one row a shot (or piece of one) with its measures, decided by `clip_rules`."""
        make, rules = MakeClips(pa.schema(measure_fields(MEASURES))), self.config.clip_rules()
        target = self.scans.target("clips", (), parents=[videos], settings=rules, rules=rules,
                                   made_by=ScanVideos.owners(**scan_stage(self.config).kwargs))
        apply = ApplyRules(rules)
        return finish(target, make.makes, (apply(make(live(b))) for b in videos.batches()))

    def run(self, stop: str, source, stages: Sequence[Stage], *, rows_per_block: int = 4, **header) -> Manifest:
        """A stop whose stages need workers; `header` goes to `Place.target`."""
        return run_stages(source, self.place.target(stop, stages, **header), stages, rows_per_block=rows_per_block,
                          **self.config.engine_options)

    def judge_references(self, rows: Iterator[pa.Table], stages: Sequence[Stage],
                         parents: Sequence[Manifest]) -> Manifest:
        """CANDIDATES: the -Ref variants `rows` of pairs in `parents`, each judged beside its reference."""
        schema, made_by = parents[-1].schema, parents[-1].header.get("owners")
        alone = self.finish("candidates", schema, rows, parents=parents, settings="references", made_by=made_by)
        return self.run("candidates", alone, stages, rows_per_block=1, parents=[alone], made_by=made_by,
                        rules=self.config.judge_rules(reference=True))

    def finish(self, stop: str, schema: pa.Schema, tables: Iterator[pa.Table], **header) -> Manifest:
        """A stop that is arithmetic of the driver."""
        return finish(self.place.target(stop, (), **header), schema, tables)


def whole_videos(manifest: Manifest) -> Iterator[pa.Table]:
    """Accepted rows in batches that never part the rows of one video (they lie video by video)."""
    held: pa.Table | None = None
    for batch in manifest.batches():
        batch = pa.concat_tables([held, live(batch)]) if held is not None else live(batch)
        if not batch.num_rows:
            continue
        last = batch["video_id"][-1].as_py()
        same = pc.equal(batch["video_id"], last)
        held = batch.filter(same)
        yield batch.filter(pc.invert(same))
    if held is not None:
        yield held
