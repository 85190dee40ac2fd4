"""D2: pairs of key frames from the same film, with a prompt that tells their difference.

Paper section 3.1, image pairs: key frames are sampled from raw videos; low-motion and
scaling-dominated ones are left out by the transform from frame to frame, blurred ones by their sharpness;
frames of one film are paired where the cosine of their CLIP embeddings lies in [0.75, 0.95]; a
model writes what differs. The paper names no cap: here a film gives at most 20 pairs, in turn from
near and far ones.

    files → VIDEOS (decoded once) → FRAMES → CANDIDATES → PAIRS (pictures) → SAMPLES

Picture files of the input become FRAMES, each measured, and pair with nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from datagen.build_samples import BuildSamples
from datagen.image_pairs import PairFrames
from filters.rules import Rule
from manifests.errors import ConfigError
from manifests.manifest import Manifest
from manifests.schema import SAMPLES

from ..decide import Decided, PairPolicy, decide
from ..key_frames import FrameConfig, find_frames, frame_stages
from ..recipe import AskConfig, Needs, Steps, apply_rules, scan_stage, stops, whole_videos
from ..stage import Stage

WHY = "key frames of one film that are alike but not the same, and what to change in one to get the other"
RECIPE = "image-pairs"
PICTURES = ("jpg", "png")


@dataclass(frozen=True, kw_only=True)
class Config(AskConfig, FrameConfig):
    """Settings of the recipe. Defaults are the paper's (section 3.1, image pairs) where it gives a number."""

    annotator_model: str = "Qwen/Qwen3-VL-30B-A3B-Instruct"
    """Model name as the server lists it (the paper's for image pairs)."""
    similarity_min: float = 0.75
    """Lowest cosine of the two frames' embeddings."""
    similarity_max: float = 0.95
    """Highest cosine; above it the frames show the same."""
    max_pairs_per_video: int = 20
    """Most pairs of one film, in turn from ten classes of their distance in time."""
    picture_kind: str = "jpg"
    """jpg (quality 92) or png (exact, about five times larger): how the pictures of pairs are written."""
    picture_long_px: int = 1920
    """Pictures with a longer side are shrunk to it."""

    def __post_init__(self):
        super().__post_init__()
        if self.picture_kind not in PICTURES:
            raise ConfigError(f"no picture_kind {self.picture_kind!r}; known: {', '.join(PICTURES)}")
        if not -1 <= self.similarity_min < self.similarity_max <= 1:
            raise ConfigError(f"similarity_min {self.similarity_min:g} must be below similarity_max "
                              f"{self.similarity_max:g}, both between -1 and 1")

    def pair_rules(self) -> tuple[Rule, ...]:
        return (Rule(column="frame_similarity", min=self.similarity_min, max=self.similarity_max,
                     why="paper: 0.75 to 0.95"),)

    def policy(self) -> PairPolicy:
        """Spread over the film: pairs are taken in turn from ten classes of their distance in time."""
        return PairPolicy(column="gap_share", low=0.0, high=1.0, seed=self.seed, human_equal=False,
                          max_pairs_per_video=self.max_pairs_per_video, max_bin_ratio=None)


PRESETS = {"laptop": {}, "cluster": {"frame_embedder": "open_clip", "frame_embedder_weights": "openai",
                                     "gpus_per_worker": 0.25, "annotator": "openai"}}
NEEDS = Needs(makes="i2i: image-pairs",
              cluster="a CLIP model (a quarter of a GPU a decoding worker), a served Qwen3-VL",
              cost="a scan and a second decoding pass: 0.1 CPU hours a thousand pairs on the sample film (measured)")


def build(config: Config) -> dict[str, tuple[Stage, ...]]:
    """Stages of the stops that need workers; the others are arithmetic of the driver."""
    return {
        "videos": (scan_stage(config),),
        "frames": frame_stages(config),
        "pairs": (
            Stage(op="datagen.store_pictures:StorePairs", batch_size=64, workers=config.workers,
                  kwargs={"media": config.media_root, "kind": config.picture_kind,
                          "long_px": config.picture_long_px}),
            apply_rules(*(Rule(column=f"{side}_path", why="a frame that cannot be read again makes no pair")
                          for side in ("source", "target"))),
            config.ask("annotators.difference:DescribeDifference"),
            apply_rules(Rule(column="instruction", why="a pair without a prompt cannot be trained on")),
        ),
    }


@stops(may_be_empty=("candidates",))
def run_steps(config: Config) -> Iterator[tuple[str, Manifest]]:
    steps, stages = Steps(config, RECIPE), build(config)
    yield "videos", (videos := steps.videos())
    yield "frames", (frames := find_frames(steps, videos))

    pair = PairFrames(recipe=RECIPE, band=(config.similarity_min, config.similarity_max))
    compared = {"frame_similarity": {"op": "datagen.image_pairs:PairFrames",
                                     "backend": frames.header["owners"]["frame_embedding"]["backend"]}}
    yield "candidates", (found := steps.finish("candidates", pair.makes, map(pair, whole_videos(frames)),
                                               parents=[frames], settings=pair.band, made_by=compared))

    rules, policy = config.pair_rules(), config.policy()
    decided = Decided(found, decide(found, rules, policy))
    yield "pairs", (pairs := steps.run("pairs", decided, stages["pairs"], rows_per_block=64, parents=[found],
                                       settings=[rules, policy], rules=rules, policy=policy, made_by=compared))
    yield "samples", steps.finish("samples", SAMPLES.schema, map(BuildSamples(RECIPE), pairs.batches()),
                                  parents=[pairs], settings=RECIPE)
