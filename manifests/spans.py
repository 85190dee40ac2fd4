"""The frames of a span of a video at working size, and pictures from files.

A span is `[start_s, end_s)` in seconds of presentation. Ops that make pixels read through
this, so that a clip is decoded once and streamed, never held by whoever only passes it on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction

import numpy as np
from PIL import Image

from . import storage
from .errors import ConfigError, MediaError
from .media import Frame, VideoReader
from .pictures import BROKEN, FORMATS, open_picture
from .planes import fit

EPSILON_S = 1e-4
SEEK_GAP_S = 8.0          # a seek costs about half a key-frame distance (often 10 s) of decoding


def read_span(path: str, start_s: float, end_s: float, *, short_px: int | None = None,
              size: tuple[int, int] | None = None, fps: float | Fraction | None = None,
              max_frames: int | None = None, planes: bool = False) -> Iterator[np.ndarray]:
    """Yields `(height, width, 3)` uint8 RGB frames of the span, as shown (rotated).

    With `planes` they are `(height * 3 / 2, width)` I420 instead, with even sides, as encoders take them.

    `size` = (width, height) or `short_px` (never enlarged, even sides) set the size; without
    both it is the film's own. With `fps` the frame that is on screen at `start_s + n / fps`
    is yielded, whatever the film's rate; without it each frame once. Raises `MediaError` when
    the span holds no frame.
    """
    num = 0
    for frame in _at_rate(_inside(path, start_s, end_s), start_s, end_s, fps):
        wanted = size or (fit(frame.shown_size, short_px=short_px) if short_px else frame.shown_size)
        if planes:
            yield frame.i420((wanted[0] // 2 * 2, wanted[1] // 2 * 2))
        else:
            yield np.ascontiguousarray(frame.rgb() if wanted == frame.shown_size else frame.bgr(wanted)[..., ::-1])
        num += 1
        if num == max_frames:
            return
    if num == 0:
        raise MediaError(f"{path} has no frame between {start_s:.3f} and {end_s:.3f} s")


def read_steady(path: str, start_s: float, end_s: float, fps: float | Fraction) -> Iterator[np.ndarray]:
    """`(height, width, 3)` uint8 RGB frames of the span, to be written at the constant rate `fps`.

    Each frame once where they come at that rate; on variable frame rate the one that is on screen at
    `start_s + n / fps`, so that the span keeps its length. Raises `MediaError` when the span holds no frame.
    """
    times = uneven_times(path, start_s, end_s, fps)
    if times:
        end_s = min(end_s, times[-1] + float(np.diff(times).max()))  # the film may end before the span does
    yield from read_span(path, start_s, end_s, fps=fps if times else None)


def uneven_times(path: str, start_s: float, end_s: float, fps: float | Fraction) -> list[float]:
    """Times of the frames of a span that do not come at the rate `fps`; empty where they do."""
    try:
        if _in_step(span_times(path, start_s, end_s), fps):
            return []
    except MediaError:
        pass  # packets of some formats have no times, or wrong ones: what decodes decides
    times = [frame.time_s for frame in _inside(path, start_s, end_s)]
    return [] if not times or _in_step(times, fps) else times


def _in_step(times: Sequence[float], fps: float | Fraction) -> bool:
    """Are all frames within half a frame of their place at this constant rate? 2 ms are allowed for rounded times."""
    places = times[0] + np.arange(len(times)) / float(fps)
    return bool(np.abs(np.array(times) - places).max() <= 0.5 / float(fps) + 0.002)


def span_times(path: str, start_s: float, end_s: float) -> list[float]:
    """Times of the frames of a span, ascending, from the packets alone: nothing is decoded. Raises `MediaError`."""
    with VideoReader(path) as reader:
        if start_s > 1.0:
            reader.seek(start_s)
        times = []
        for packet in reader.container.demux(reader.stream):
            if packet.pts is None or packet.is_discard:
                continue
            time_s = reader.shown_at(packet.pts)
            if start_s - EPSILON_S <= time_s < end_s - EPSILON_S:
                times.append(time_s)
            elif packet.is_keyframe and time_s >= end_s:  # what follows a key frame is shown after it
                break
    if not times:
        raise MediaError(f"{path} has no frame between {start_s:.3f} and {end_s:.3f} s")
    return sorted(times)


def read_numbered(path: str, start_s: float, end_s: float, numbers: Iterable[int]) -> dict[int, np.ndarray]:
    """`(height, width, 3)` uint8 RGB of the frames with these numbers, counted from 0 inside the span.

    A number past the end gives the last frame. Raises `MediaError` when the span holds no frame.
    """
    wanted, found, last = set(numbers), {}, None
    for number, frame in enumerate(_inside(path, start_s, end_s)):
        last = frame
        if number in wanted:
            found[number] = np.ascontiguousarray(frame.rgb())
        if number >= max(wanted, default=0):
            break
    if last is None:
        raise MediaError(f"{path} has no frame between {start_s:.3f} and {end_s:.3f} s")
    end = np.ascontiguousarray(last.rgb()) if len(found) < len(wanted) else None
    return {number: found.get(number, end) for number in sorted(wanted)}


def read_frames(path: str, times_s: Sequence[float], *, long_px: int = 480, decoder: str = "pyav") -> np.ndarray:
    """`(N, height, width, 3)` uint8 RGB: for each ascending time the frame that is on screen then.

    Seconds of presentation; a time after the end gives the last frame. `decoder` is "pyav" or "torchcodec"
    (exact mode; needs torchcodec and FFmpeg). Raises `MediaError` when no frame can be decoded.
    """
    if decoder == "torchcodec":
        from .media_torchcodec import read_frames_torchcodec

        return read_frames_torchcodec(path, times_s, long_px=long_px)
    if decoder != "pyav":
        raise ConfigError(f"no decoder {decoder!r}; known: pyav, torchcodec")
    images, seen, image = [], None, None
    with VideoReader(path) as reader:
        for frame in frames_at(reader, times_s, repeat_last=True):
            if frame is None:
                raise MediaError(f"no frame could be decoded from {path}")
            if frame is not seen:  # only frames that are asked for are converted, each once
                seen, image = frame, frame.bgr(fit(frame.shown_size, long_px=long_px))[..., ::-1]
            images.append(image)
    return np.stack(images) if images else np.empty((0, 0, 0, 3), np.uint8)


def frames_at(reader: VideoReader, times_s: Sequence[float], *, repeat_last: bool = False) -> Iterator[Frame | None]:
    """For each ascending time the frame on screen then; long gaps are skipped. One pass.

    A second behind the last frame it is `None`, or with `repeat_last` that frame.
    """
    waiting, held, last, now_s = deque(times_s), None, None, 0.0
    while waiting:
        if waiting[0] - now_s > SEEK_GAP_S:
            reader.seek(waiting[0])
        held, jump = None, False
        for frame in reader:
            while waiting and frame.time_s > waiting[0] + 1e-6:
                yield held or frame
                waiting.popleft()
                # Looked at only after a frame was found: a seek may land far before its aim.
                jump = bool(waiting) and waiting[0] - frame.time_s > SEEK_GAP_S
            held = last = frame
            if jump or not waiting:
                break
        if not jump:
            break
        now_s = frame.time_s
    for time in waiting:
        yield last if last is not None and (repeat_last or time - last.time_s < 1.0) else None


def _inside(path: str, start_s: float, end_s: float) -> Iterator:
    with VideoReader(path) as reader:
        if start_s > 1.0:
            reader.seek(start_s)
        for frame in reader:
            if frame.time_s >= end_s - EPSILON_S:
                return
            if frame.time_s >= start_s - EPSILON_S:
                yield frame


def _at_rate(frames: Iterator, start_s: float, end_s: float, fps) -> Iterator:
    if fps is None:
        yield from frames
        return
    step, num, held = 1 / float(fps), 0, None
    for frame in frames:
        while held is not None and start_s + num * step < frame.time_s - EPSILON_S:
            yield held
            num += 1
        held = frame
    while held is not None and start_s + num * step < end_s - EPSILON_S:
        yield held
        num += 1


def read_image(path: str, *, long_px: int | None = None) -> np.ndarray:
    """`(height, width, 3)` uint8 RGB of a picture file, turned as its EXIF tag says. Raises `MediaError`."""
    try:
        filesystem, inner = storage.resolve(path)
        with filesystem.open_input_file(inner) as file:
            return decode_image(file, path, long_px=long_px)
    except OSError as error:
        raise MediaError(f"cannot read the picture {path}: {error}") from None


def decode_image(file, name: str, *, long_px: int | None = None) -> np.ndarray:
    """The same of an open binary stream; `name` is for messages."""
    try:
        image = open_picture(file, name)
    except BROKEN as error:
        raise MediaError(f"cannot read the picture {name}: {error}") from None
    if long_px and max(image.size) > long_px:
        image = image.resize(fit(image.size, long_px=long_px), Image.Resampling.LANCZOS)
    return np.array(image)  # a copy: what Pillow lends can only be read, and torch warns of such arrays


def image_size(path: str) -> tuple[int, int]:
    """(width, height) as stored, from the header of a picture file. Raises `MediaError`."""
    try:
        filesystem, inner = storage.resolve(path)
        with filesystem.open_input_file(inner) as file, Image.open(file, formats=FORMATS) as image:
            return image.size
    except BROKEN as error:
        raise MediaError(f"cannot read the picture {path}: {error}") from None


def read_picture(path: str, time_s: float | None, *, long_px: int = 4096) -> np.ndarray:
    """A row's picture: the frame at `time_s` of a video, or the image file itself (`time_s` null)."""
    if time_s is None:
        return read_image(path, long_px=long_px)
    return read_frames(path, [time_s], long_px=long_px)[0]
