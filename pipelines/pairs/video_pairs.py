"""D1: pairs of clips from the same raw video, with a dense transition prompt.

Paper section 3.1: clips of one raw video are compared by a global video embedding; a pair is
kept when its similarity lies in [0.65, 0.95] and both clips last 2 to 10 s; a raw video gives
at most 100 pairs, human-centric and other pairs are as many, similarity is spread evenly
(Fig. 4a). The prompt is written coarse first and then fine: camera motion, foreground,
background.

    files → VIDEOS (decoded once) → CLIPS → CANDIDATES → PAIRS → SAMPLES
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from datagen.build_samples import BuildSamples
from datagen.cut import MakeClips
from datagen.video_pairs import PairClips
from filters.rules import ApplyRules, Rule
from manifests import storage
from manifests.errors import ConfigError
from manifests.manifest import Manifest, live
from manifests.schema import SAMPLES

from ..decide import HUMAN_EQUAL, Decided, PairPolicy, decide
from ..ingest import fingerprint, list_videos
from ..place import Place
from ..run import ENGINES, Guard, TableSource, finish, require_accepted
from ..run import run as run_stages
from ..scan import GOOD, ScanVideos, measure_fields
from ..stage import Stage

WHY = "clips of one raw video that are alike but not the same, and a prompt that leads from one to the other"
RECIPE = "video-pairs"
MEASURES = ("damage", "exposure", "sharpness", "motion", "colors", "people", "video_similarity")

VIDEO_RULES = (Rule(column="verdict", allowed=GOOD, failure=True, why="a file of which nothing decodes"),)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the recipe. Defaults are the paper's (section 3.1) where it gives a number."""

    input: str
    """Folder with videos, or a .csv/.jsonl/.parquet list with a column `path` (may be s3:// or gs://)."""
    output: str
    """Folder below which the stops are written; the same command resumes there."""
    engine: str = "ray"
    """ray (this machine, or the cluster at RAY_ADDRESS) or local (this process, no Ray)."""

    similarity_min: float = 0.65
    """Lowest cosine of the two clips' embeddings."""
    similarity_max: float = 0.95
    """Highest cosine; above it the clips show the same."""
    clip_min_s: float = 2.0
    """Shortest clip, seconds."""
    clip_max_s: float = 10.0
    """Longest clip, seconds; longer shots are split."""
    max_pairs_per_video: int = 100
    """Most pairs of one raw video."""
    human_balance: bool = True
    """As many pairs with people as without. Off keeps all."""
    similarity_balance: float = 1.25
    """Fullest of 10 similarity bins against the mean of the filled ones; 0 turns it off."""

    min_side_px: int = 240
    """Shortest side; the released trainer takes nothing smaller."""
    min_sharpness: float = 8.0
    """Variance of the Laplacian at 480p; below it edges are gone (defocus, heavy compression)."""
    max_black: float = 0.1
    """Largest share of black frames."""
    max_frozen: float = 0.9
    """Largest share of frames that repeat the one before (still pictures, slides)."""

    embedder: str = "classical"
    """classical (no weights) or xclip (the paper's)."""
    embedder_model: str = "microsoft/xclip-base-patch32"
    """Folder or hub id of the X-CLIP model."""
    annotator: str = "classical"
    """classical (sentences of measured facts) or openai (a vision-language model behind a server)."""
    url: tuple[str, ...] = ()
    """OpenAI-compatible servers, e.g. http://127.0.0.1:8000/v1; several share the work."""
    annotator_model: str = "Qwen/Qwen3-VL-235B-A22B-Instruct"
    """Model name as the server lists it."""

    seed: int = 0
    """Breaks ties between equally good pairs."""
    workers: int | None = None
    """Decoding workers; none = as many as there are cores."""
    gpus_per_worker: float = 0.0
    """Share of a GPU that one decoding worker takes for its embedder."""
    max_failed_share: float = 0.5
    """Stop when more than this share of the files fails."""
    retry_failed: bool = False
    """Try again what failed in an earlier, unfinished run."""
    quiet: bool = False
    """No progress bars."""

    def __post_init__(self):
        if self.engine not in ENGINES:
            raise ConfigError(f"no engine {self.engine!r}; known: {', '.join(ENGINES)}")
        if not -1 <= self.similarity_min < self.similarity_max <= 1:
            raise ConfigError(f"similarity_min {self.similarity_min:g} must be below similarity_max "
                              f"{self.similarity_max:g}, both between -1 and 1")
        if not 0 < self.clip_min_s < self.clip_max_s:
            raise ConfigError(f"clip_min_s {self.clip_min_s:g} must be above 0 and below clip_max_s "
                              f"{self.clip_max_s:g}")
        if self.annotator == "openai" and not self.url:
            raise ConfigError("annotator openai needs --url, e.g. --url http://127.0.0.1:8000/v1")
        if not 0 < self.max_failed_share <= 1:
            raise ConfigError(f"max_failed_share is {self.max_failed_share:g}; it is a share above 0 and at most 1")

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

    def pair_rules(self) -> tuple[Rule, ...]:
        return (
            Rule(column="video_similarity", min=self.similarity_min, max=self.similarity_max,
                 why="paper: 0.65 to 0.95"),
            Rule(column="source_duration_s", min=self.clip_min_s, max=self.clip_max_s + 1e-6, why="paper: 2 to 10 s"),
            Rule(column="target_duration_s", min=self.clip_min_s, max=self.clip_max_s + 1e-6, why="paper: 2 to 10 s"),
        )

    def policy(self) -> PairPolicy:
        return PairPolicy(low=self.similarity_min, high=self.similarity_max, seed=self.seed,
                          max_pairs_per_video=self.max_pairs_per_video, human_equal=self.human_balance,
                          max_bin_ratio=self.similarity_balance or None)


def build(config: Config) -> dict[str, tuple[Stage, ...]]:
    """Stages of the stops that need workers; the others are arithmetic of the driver."""
    options = {"model": config.embedder_model} if config.embedder == "xclip" else {}
    scan = Stage(op="pipelines.scan:ScanVideos", batch_size=1, num_gpus=config.gpus_per_worker, workers=config.workers,
                 kwargs={"measures": MEASURES, "embedder": config.embedder, "embedder_options": options,
                         "min_clip_s": config.clip_min_s, "max_clip_s": config.clip_max_s})
    ask = {"backend": config.annotator}
    if config.annotator != "classical":
        # Answers are kept, so that a changed threshold or a broken run asks nothing twice.
        cache = "" if storage.is_uri(config.output) else storage.join(config.output, "answers")
        ask |= {"urls": config.url, "model": config.annotator_model, "cache": cache}
    cpus = 0.0 if config.annotator == "classical" else 0.5  # workers wait for the server most of the time
    return {
        "videos": (scan, _decide(VIDEO_RULES)),
        "pairs": (
            Stage(op="annotators.transition:DescribeTransition", kwargs=ask, batch_size=16, num_cpus=cpus),
            Stage(op="annotators.transition:RefineTransition", kwargs=ask, batch_size=16, num_cpus=cpus),
            _decide((Rule(column="instruction", why="a pair without a prompt cannot be trained on"),)),
        ),
    }


def _decide(rules: tuple[Rule, ...]) -> Stage:
    return Stage(op="filters.rules:ApplyRules", kwargs={"rules": rules}, num_cpus=0.0)


def run(config: Config) -> dict[str, Manifest]:
    """All stops of the recipe, by name; what is finished is not done again."""
    return dict(run_steps(config))


def run_steps(config: Config) -> Iterator[tuple[str, Manifest]]:
    """The stops one by one; `RunStopped` after the first that accepted no row."""
    for name, manifest in _steps(config):
        yield name, manifest
        if name != "candidates":
            require_accepted(manifest, hint=_hint(manifest))


def _hint(manifest: Manifest) -> str:
    """What to do where the balance of people leaves nothing: one of the two classes is missing."""
    lost = manifest.header["drops"].get(HUMAN_EQUAL, 0)
    if manifest.stop.name != "pairs" or not lost:
        return ""
    return (f"All {lost} pairs that keep the other rules are of one kind, with people or without, so 1 : 1 leaves "
            "none: keep them with --no-human-balance, or give more videos.")


def _steps(config: Config) -> Iterator[tuple[str, Manifest]]:
    place, stages = Place(config.output, RECIPE, config), build(config)
    engine = {"engine": config.engine, "quiet": config.quiet, "retry_failed": config.retry_failed,
              "guard": Guard(max_failed_share=config.max_failed_share)}

    listed = list_videos(config.input, leave_out=config.output, quiet=config.quiet)
    target = place.target("videos", stages["videos"], sources=[fingerprint(listed)], rules=VIDEO_RULES)
    yield "videos", (videos := run_stages(TableSource(listed), target, stages["videos"], rows_per_block=1, **engine))

    measures = pa.schema(measure_fields(MEASURES))
    make, rules = MakeClips(measures), ApplyRules(config.clip_rules())
    measured = ScanVideos.owners(**stages["videos"][0].kwargs)
    target = place.target("clips", (), parents=[videos], settings=config.clip_rules(), rules=config.clip_rules(),
                          made_by=measured)
    yield "clips", (clips := finish(target, make.makes, (rules(make(live(b))) for b in videos.batches())))

    pair = PairClips(measures, recipe=RECIPE, band=(config.similarity_min, config.similarity_max))
    compared = {"op": "datagen.video_pairs:PairClips", "backend": measured["video_embedding"]["backend"]}
    target = place.target("candidates", (), parents=[clips], settings=pair.band,
                          made_by={"video_similarity": compared})
    yield "candidates", (found := finish(target, pair.makes, map(pair, whole_videos(clips))))

    policy = config.policy()
    target = place.target("pairs", stages["pairs"], parents=[found], settings=[config.pair_rules(), policy],
                          rules=config.pair_rules(), policy=policy, made_by={"video_similarity": compared})
    decided = Decided(found, decide(found, config.pair_rules(), policy))
    yield "pairs", (pairs := run_stages(decided, target, stages["pairs"], rows_per_block=16, **engine))

    samples = BuildSamples(RECIPE)
    target = place.target("samples", (), parents=[pairs], settings=RECIPE)
    yield "samples", finish(target, SAMPLES.schema, map(samples, pairs.batches()))


def whole_videos(clips: Manifest) -> Iterator[pa.Table]:
    """Accepted clips in batches that never part the clips of one video (rows lie video by video)."""
    held: pa.Table | None = None
    for batch in clips.batches():
        batch = pa.concat_tables([held, live(batch)]) if held is not None else live(batch)
        if not batch.num_rows:
            continue
        last = batch["video_id"][-1].as_py()
        same = pc.equal(batch["video_id"], last)
        held = batch.filter(same)
        yield batch.filter(pc.invert(same))
    if held is not None:
        yield held
