"""Reading and writing of videos and images (PyAV, Pillow) for generation.

Frames are `uint8 [F, H, W, 3]`, RGB, turned upright. Everything unreadable is a `MediaError` of
one line. Files are opened as the data packages open them: no lists that lead to other files or addresses, no
pictures that ask for more memory than a machine has.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from bernini.errors import MediaError
from manifests.media import LIMITS, open_container
from manifests.pictures import BROKEN, open_picture
from manifests.planes import LIMITED, MADE

VIDEO_SUFFIXES = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".gif", ".mpg", ".ts"}


@dataclass(frozen=True)
class VideoInfo:
    """What a video holds, from its packets: nothing is decoded."""

    path: Path
    num_frames: int
    fps: float
    has_audio: bool


def probe(path: str | Path) -> VideoInfo:
    """Number of frames, rate and whether there is sound."""
    path = existing(path, "video")
    with _opened(path) as container:
        stream = container.streams.video[0]
        fps = float(stream.average_rate or stream.guessed_rate or 0)
        count = sum(packet.size > 0 and not packet.is_discard for packet in container.demux(stream))
        info = VideoInfo(path, count, fps, bool(container.streams.audio))
    if not count or fps <= 0:
        raise MediaError(f"{path} holds no frame that can be decoded; is the file whole?")
    return info


def read_frames(path: str | Path, indices: Sequence[int]) -> np.ndarray:
    """Frames at `indices`, in that order; one past the end gives the last frame that can be decoded."""
    path = existing(path, "video")
    wanted, found, last = set(indices), {}, None
    with _opened(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for number, frame in enumerate(_decode(container, stream)):
            last = frame
            if number in wanted:
                found[number] = _upright(frame)
            if number >= max(wanted):
                break
        if last is None:
            raise MediaError(f"{path} holds no frame that can be decoded; is the file whole?")
        end = _upright(last)
    return np.stack([found.get(i, end) for i in indices])


@contextmanager
def _opened(path: Path) -> Iterator:
    """The container, if it has a video stream; what goes wrong inside is a `MediaError`."""
    with ExitStack() as stack:
        try:
            container = stack.enter_context(open_container(str(path)))
        except MediaError as error:
            raise _unreadable(path, error) from None
        try:
            if not container.streams.video:
                raise MediaError(f"{path} has no video stream; give a video file")
            stream = container.streams.video[0]
            if max(stream.width, stream.height) > LIMITS.max_side_px:
                raise MediaError(f"{path} is {stream.width}x{stream.height}; more than {LIMITS.max_side_px} a side are "
                                 "not decoded")
            yield container
        except (av.FFmpegError, ValueError) as error:
            raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> MediaError:
    return MediaError(f"{path} cannot be read as a video ({_short(error)}); is the file whole?")


def _decode(container, stream) -> Iterator:
    """Frames until the end or until damage: a damaged tail is a shorter video, a damaged head is none."""
    some = False
    try:
        for frame in container.decode(stream):
            some = True
            yield frame
    except av.FFmpegError:
        if not some:
            raise


def _upright(frame) -> np.ndarray:
    turns = round(-(getattr(frame, "rotation", 0) or 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), -turns))


def read_image(path: str | Path) -> Image.Image:
    """An upright RGB image, white where the file is transparent: as the data packages read it."""
    path = existing(path, "image")
    try:
        return open_picture(path, str(path))
    except BROKEN as error:
        raise MediaError(f"{path} is not an image ({_short(error)}); references must be pictures") from None


def existing(path: str | Path, what: str) -> Path:
    """The path, if a file is there."""
    path = Path(path)
    if not path.is_file():
        raise MediaError(f"{what} {path} does not exist")
    return path


def write(path: str | Path, frames: np.ndarray, fps: float, audio_from: str | Path | None = None) -> Path:
    """One frame → image by suffix (PNG when it has none that fits), more → H.264 mp4 at crf 8."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if len(frames) == 1:
        path = path if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp") else path.with_suffix(".png")
        Image.fromarray(frames[0]).save(path)
        return path
    path = path if path.suffix.lower() in VIDEO_SUFFIXES - {".gif"} else path.with_suffix(".mp4")
    try:
        _encode(path, frames, fps, audio_from)
    except av.FFmpegError as error:
        raise MediaError(f"{path} cannot be written ({_short(error)})") from None
    return path


def _encode(path: Path, frames: np.ndarray, fps: float, audio_from: str | Path | None) -> None:
    with ExitStack() as stack:
        source = stack.enter_context(open_container(str(audio_from))) if audio_from else None
        container = stack.enter_context(av.open(str(path), "w"))
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "8"}
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc = MADE.space, MADE.primaries, MADE.transfer
        context.color_range = LIMITED
        sound = source.streams.audio[0] if source and source.streams.audio else None
        target = container.add_stream("aac", rate=sound.rate) if sound else None
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
        if sound is not None:
            _copy_audio(container, target, source, sound, len(frames) / fps)


def _copy_audio(container, target, source, sound, seconds: float) -> None:
    """The source's sound, cut to the length of the picture."""
    for frame in source.decode(sound):
        if frame.time is not None and frame.time >= seconds:
            break
        frame.pts = None
        container.mux(target.encode(frame))
    container.mux(target.encode())


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__
