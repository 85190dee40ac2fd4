"""What recipes share that edit whole clips (D5, D9, D10): the object that is followed, and who makes the video."""

from __future__ import annotations

from dataclasses import dataclass

from datagen.backends import check_backend
from filters.rules import Rule
from manifests.errors import ConfigError
from manifests.messages import MAX_FRAMES, MIN_FRAMES, TRAINER_FPS

from .backend_config import SegmenterConfig
from .checks import LEAST_PX, above_zero, at_least
from .stage import Stage

# What each video editor that denoises calls its steps.
STEPS = {"bernini": lambda num: {"settings": {"num_inference_steps": num}}, "wan-vace": lambda num: {"steps": num}}


@dataclass(frozen=True, kw_only=True)
class ClipEditConfig(SegmenterConfig):
    """How clips are cut, who finds and follows their object, who makes video of them."""

    fps: float = TRAINER_FPS
    """Frame rate of the media; the trainer's is 16."""
    max_frames: int = MAX_FRAMES
    """Most frames of a video, 4 n + 1."""
    short_px: int = 480
    """Short side of the media; nothing is enlarged."""
    video_editor: str = "classical"
    """Who edits video: classical (optical flow), bernini (our renderer), wan-vace, or module:Class."""
    video_editor_model: str = ""
    """Folder or hub id of its model."""
    num_steps: int = 0
    """Denoising steps of that model; 0 = its own default."""
    gpus: float = 0.0
    """GPUs that a worker takes for it."""
    score_min: float = 0.72
    """Least score of the segmenter. Classical: below 0.7 masks held parts of objects or lost them (6 real clips looked
    at); GroundingDINO's own threshold is 0.35."""
    object_min: float = 0.01
    """Least mean share of the picture that the object covers."""
    object_max: float = 0.5
    """Largest such share; what is behind more than half of the picture nobody can tell."""

    def __post_init__(self):
        super().__post_init__()
        above_zero(self, "fps")
        at_least(self, LEAST_PX, "short_px")
        at_least(self, 0, "num_steps")
        if self.max_frames < MIN_FRAMES or self.max_frames % 4 != 1:
            raise ConfigError(f"max_frames is {self.max_frames}; it is 4 n + 1 and at least {MIN_FRAMES}")
        if self.num_steps and self.video_editor not in STEPS:
            raise ConfigError(f"num_steps is {self.num_steps}, and the video editor is {self.video_editor or 'none'}; "
                              f"those that take steps: {', '.join(STEPS)}")
        check_backend("video-editor", self.video_editor, self.editor_options, {"model": "--video-editor-model"})

    def object_rules(self) -> tuple[Rule, ...]:
        return (Rule(column="object_score", min=self.score_min, why="the mask follows no object"),
                Rule(column="object_share", min=self.object_min, max=self.object_max, why="a speck, or everything"))

    def track(self, *, phrased: bool) -> Stage:
        """The clip at working size with its object; `phrased`: the one that `edited_thing` names."""
        return Stage(op="datagen.track_object:TrackObject", batch_size=1, workers=self.workers,
                     num_gpus=self.segmenter_gpus,
                     kwargs={"media": self.media_root, "segmenter": self.segmenter, "options": self.segmenter_options,
                             "phrased": phrased, "fps": self.fps, "max_frames": self.max_frames,
                             "short_px": self.short_px})

    @property
    def editor_options(self) -> dict:
        """Arguments of the video editor: its model, and its steps under the name that it has for them."""
        named = {"model": self.video_editor_model} if self.video_editor_model else {}
        return named | (STEPS[self.video_editor](self.num_steps) if self.num_steps else {})
