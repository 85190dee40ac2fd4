"""FRAMES: the key frames of all films and the picture files of an input, measured and decided.

Image pairs and interleaved data begin with it. Like VIDEOS and CLIPS the stop is named after the
scan: recipes with one output folder and equal settings read each frame once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from datagen.keyframes import PlanFrames
from filters.rules import Rule
from manifests.errors import ConfigError
from manifests.manifest import Manifest

from .recipe import ClipConfig, Steps, apply_rules
from .run import run as run_stages
from .stage import Stage

FRAMES_PER_BLOCK = 64  # those of a film that share a block are read in one pass


@dataclass(frozen=True, kw_only=True)
class FrameConfig(ClipConfig):
    """How films become key frames, and which of those are good enough."""

    frame_every_s: float = 2.0
    """Seconds between the key frames of one shot; a shorter shot gives one."""
    max_frames_per_video: int = 60
    """Most key frames of one film, evenly spread."""
    min_frame_motion: float = 0.004
    """Least mean optical flow from the key frame before, in frame widths; below it both show the same."""
    max_frame_scaling: float = 0.5
    """Largest share of that motion that growing or shrinking explains: a zoom shows nothing new."""
    min_frame_sharpness: float = 20.0
    """Variance of the Laplacian at 480p; a frame below it is blurred."""
    max_frame_dark: float = 0.9
    """Largest share of nearly black pixels: fades, and titles on black."""
    frame_embedder: str = "classical"
    """classical (no weights) or open_clip (the paper's CLIP)."""
    frame_embedder_model: str = "ViT-L-14"
    """Folder, or name of open_clip's list."""
    frame_embedder_weights: str = ""
    """Tag (openai) or checkpoint file; not needed where the model is a folder."""

    def __post_init__(self):
        super().__post_init__()
        if self.frame_every_s <= 0 or self.max_frames_per_video < 1:
            raise ConfigError(f"frame_every_s is {self.frame_every_s:g} and max_frames_per_video "
                              f"{self.max_frames_per_video}; both must be above 0")

    def frame_rules(self) -> tuple[Rule, ...]:
        return (
            Rule(column="width", min=self.min_side_px, why="the trainer's smallest side"),
            Rule(column="height", min=self.min_side_px, why="the trainer's smallest side"),
            Rule(column="sharpness", min=self.min_frame_sharpness, why="paper: blur detection"),
            Rule(column="dark_area", max=self.max_frame_dark, why="nothing to see"),
            Rule(column="neighbour_motion", min=self.min_frame_motion, optional=True, why="paper: low motion"),
            Rule(column="neighbour_scaling", max=self.max_frame_scaling, optional=True, why="paper: scaling-dominated"),
            Rule(column="frame_embedding", why="without it nothing can be compared"),
        )


def frame_stages(config: FrameConfig) -> tuple[Stage, ...]:
    options = {"model": config.frame_embedder_model, "weights": config.frame_embedder_weights}
    return (Stage(op="filters.frames:MeasureFrames", batch_size=FRAMES_PER_BLOCK, num_gpus=config.gpus_per_worker,
                  workers=config.workers, kwargs={"embedder": config.frame_embedder,
                                                  **(options if config.frame_embedder != "classical" else {})}),
            apply_rules(*config.frame_rules()))


def find_frames(steps: Steps, videos: Manifest) -> Manifest:
    """The stop FRAMES of a run whose settings are a `FrameConfig`."""
    config, stages = steps.config, frame_stages(steps.config)
    plan = PlanFrames(every_s=config.frame_every_s, max_frames=config.max_frames_per_video)
    target = steps.scans.target("frames", stages, parents=[videos], rules=config.frame_rules(),
                                settings=[config.frame_every_s, config.max_frames_per_video])
    return run_stages(Planned(videos, plan, plan.makes), target, stages, rows_per_block=FRAMES_PER_BLOCK,
                      **config.engine_options)


class Planned:
    """Rows that cheap arithmetic makes of a manifest's rows, as the source of a run."""

    def __init__(self, manifest: Manifest, make: Callable[[pa.Table], pa.Table], schema: pa.Schema, *,
                 batches: Callable[[Manifest], Iterator[pa.Table]] = Manifest.batches):
        self._manifest, self._make, self.schema, self._batches = manifest, make, schema, batches
        self.num_rows = sum(batch.num_rows for batch in self.batches())

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        for batch in self._batches(self._manifest):
            made = self._make(batch)
            yield made if columns is None else made.select(list(columns))
