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

from datagen.build_samples import BuildSamples
from datagen.video_pairs import PairClips
from filters.rules import Rule
from manifests.errors import ConfigError
from manifests.manifest import Manifest
from manifests.schema import SAMPLES

from ..decide import HUMAN_EQUAL, Decided, PairPolicy, decide
from ..recipe import MEASURES, AskConfig, ClipConfig, Needs, Steps, apply_rules, scan_stage, stops, whole_videos
from ..scan import ScanVideos, measure_fields
from ..stage import Stage

WHY = "clips of one raw video that are alike but not the same, and a prompt that leads from one to the other"
RECIPE = "video-pairs"


@dataclass(frozen=True, kw_only=True)
class Config(AskConfig, ClipConfig):
    """Settings of the recipe. Defaults are the paper's (section 3.1) where it gives a number."""

    similarity_min: float = 0.65
    """Lowest cosine of the two clips' embeddings."""
    similarity_max: float = 0.95
    """Highest cosine; above it the clips show the same."""
    max_pairs_per_video: int = 100
    """Most pairs of one raw video."""
    human_balance: bool = True
    """As many pairs with people as without. Off keeps all."""
    similarity_balance: float = 1.25
    """Fullest of 10 similarity bins against the mean of the filled ones; 0 turns it off."""

    def __post_init__(self):
        super().__post_init__()
        if not -1 <= self.similarity_min < self.similarity_max <= 1:
            raise ConfigError(f"similarity_min {self.similarity_min:g} must be below similarity_max "
                              f"{self.similarity_max:g}, both between -1 and 1")

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


PRESETS = {"laptop": {}, "cluster": {"embedder": "xclip", "gpus_per_worker": 0.25, "annotator": "openai"}}
NEEDS = Needs(makes="v2v: video-pairs", cluster="X-CLIP (a quarter of a GPU a decoding worker), a served Qwen3-VL",
              cost="decoding only: see `bernini estimate video-pairs`")


def build(config: Config) -> dict[str, tuple[Stage, ...]]:
    """Stages of the stops that need workers; the others are arithmetic of the driver."""
    return {
        "videos": (scan_stage(config),),
        "pairs": (
            config.ask("annotators.transition:DescribeTransition"),
            config.ask("annotators.transition:RefineTransition"),
            apply_rules(Rule(column="instruction", why="a pair without a prompt cannot be trained on")),
        ),
    }


def _hint(name: str, manifest: Manifest) -> str:
    """What to do where the balance of people leaves nothing: one of the two classes is missing."""
    lost = manifest.header["drops"].get(HUMAN_EQUAL, 0)
    if name != "pairs" or not lost:
        return ""
    return (f"All {lost} pairs that keep the other rules are of one kind, with people or without, so 1 : 1 leaves "
            "none: keep them with --no-human-balance, or give more videos.")


@stops(may_be_empty=("candidates",), hint=_hint)
def run_steps(config: Config) -> Iterator[tuple[str, Manifest]]:
    steps, stages = Steps(config, RECIPE), build(config)
    yield "videos", (videos := steps.videos())
    yield "clips", (clips := steps.clips(videos))

    pair = PairClips(pa.schema(measure_fields(MEASURES)), recipe=RECIPE,
                     band=(config.similarity_min, config.similarity_max))
    measured = ScanVideos.owners(**stages["videos"][0].kwargs)
    compared = {"video_similarity": {"op": "datagen.video_pairs:PairClips",
                                     "backend": measured["video_embedding"]["backend"]}}
    yield "candidates", (found := steps.finish("candidates", pair.makes, map(pair, whole_videos(clips)),
                                               parents=[clips], settings=pair.band, made_by=compared))

    rules, policy = config.pair_rules(), config.policy()
    decided = Decided(found, decide(found, rules, policy))
    yield "pairs", (pairs := steps.run("pairs", decided, stages["pairs"], rows_per_block=64, parents=[found],
                                       settings=[rules, policy], rules=rules, policy=policy, made_by=compared))
    yield "samples", steps.finish("samples", SAMPLES.schema, map(BuildSamples(RECIPE), pairs.batches()),
                                  parents=[pairs], settings=RECIPE)
