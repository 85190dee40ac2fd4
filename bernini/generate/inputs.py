"""Files of a case → what each part of the model sees (spec 2.6 and 3.8).

The renderer's view: sources resized to multiples of 16 and cut to 4k + 1 frames. The planner's
view: an even number of frames at `fps // 8`, and a placeholder with the target's shape.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bernini.errors import CaseError
from bernini.generate.cases import Case
from bernini.generate.presets import Settings
from bernini.geometry import (
    OutputSize,
    fit_size,
    latent_frames,
    renderer_frames,
    snap,
    vision_frames,
    whole_frames,
)
from bernini.vae import resize
from bernini.video_io import VideoInfo, probe, read_frames, read_image

DEFAULT_HEIGHT, DEFAULT_WIDTH = 480, 848


@dataclass(frozen=True)
class Inputs:
    """Sources of a case as frames uint8 `[F, H, W, 3]`, and the size of what will be made."""

    videos: tuple[np.ndarray, ...]  # the renderer's frames
    images: tuple[np.ndarray, ...]  # one frame each
    seen_videos: tuple[np.ndarray, ...]  # the planner's frames
    size: OutputSize

    @property
    def num_source_tokens(self) -> int:
        """Tokens of all sources in the renderer."""
        return sum(
            latent_frames(len(f)) * (f.shape[1] // 16) * (f.shape[2] // 16)
            for f in (*self.videos, *self.images)
        )


def read_inputs(case: Case, settings: Settings, *, planner: bool) -> Inputs:
    """Reads and samples the files of a case."""
    videos = [probe(path) for path in case.videos]
    pictures = [np.array(read_image(path))[None] for path in case.references]
    min_size = 240 if planner else 1
    shown = tuple(_fit(_shown(v, settings, planner), settings, min_size) for v in videos)
    images = tuple(_fit(p, settings, min_size) for p in pictures)
    seen = tuple(_seen(v, settings) for v in videos) if planner else ()
    return Inputs(shown, images, seen, output_size(case, settings, shown, images))


def _shown(video: VideoInfo, settings: Settings, planner: bool) -> np.ndarray:
    """The renderer's frames of a source."""
    asked = (video.num_frames, video.fps, settings.fps, settings.num_frames)
    return read_frames(video.path, renderer_frames(*asked, reduce_equal_fps=not planner))


def _seen(video: VideoInfo, settings: Settings) -> np.ndarray:
    """The planner's frames of a source."""
    if settings.fps < 8:
        raise CaseError(f"fps {settings.fps:g} is too low for the planner, which sees fps // 8; give 8")
    indices = vision_frames(video.num_frames, video.fps, settings.fps, settings.num_frames)
    return read_frames(video.path, indices or [0, 0])


def _fit(frames: np.ndarray, settings: Settings, min_size: int) -> np.ndarray:
    height, width = frames.shape[1:3]
    return resize(frames, *fit_size(width, height, max_size=settings.max_image_size, min_size=min_size))


def output_size(
    case: Case, settings: Settings, videos: Sequence[np.ndarray], images: Sequence[np.ndarray]
) -> OutputSize:
    """Height and width when given, else the first video's, else the edited image's, else 480 x 848.

    Frames: what was asked for, at most as many as the first source video has.
    """
    edited = videos or (images if case.task_type in ("i2i", "i2v") else ())
    height, width = edited[0].shape[1:3] if len(edited) else (DEFAULT_HEIGHT, DEFAULT_WIDTH)
    frames = 1 if case.is_image else whole_frames(settings.num_frames)
    frames = min(frames, len(videos[0])) if len(videos) else frames
    return OutputSize(
        width=snap(settings.width or width), height=snap(settings.height or height), num_frames=frames
    )


def placeholder(inputs: Inputs, settings: Settings) -> tuple[np.ndarray, str]:
    """What stands for the target in the chat (the first source video, or black frames), and its kind."""
    size = inputs.size
    if inputs.seen_videos:
        return inputs.seen_videos[0], "video"
    if size.num_frames == 1:
        return np.zeros((1, size.height, size.width, 3), np.uint8), "image"
    count = len(vision_frames(size.num_frames, settings.fps, settings.fps, size.num_frames)) or 2
    return np.zeros((count, size.height, size.width, 3), np.uint8), "video"
