"""Open and read video: probe, iterate, sample by presentation time, integrity.

PyAV is the reader because it alone of the usual ones tells damaged frames apart
(`is_corrupt`); torchcodec in exact mode can be named for sparse sampling where it is
installed. Frames are always chosen by presentation time, never by index / fps: on variable
frame rate the latter returns wrong frames.

Times are seconds from the start of the presentation, as players and `ffmpeg -ss` count.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import av
import cv2
import numpy as np

from . import storage
from .errors import MediaError
from .planes import (
    PLANAR_8BIT,
    UNSPECIFIED,
    Colour,
    plane_of,
    shrink,
    shrink_bgr,
    shrink_i420,
    turn_i420,
)

# PyAV's own log callback takes the interpreter lock from decoder threads and can deadlock in
# worker processes; FFmpeg's default one does not. Its messages are silenced: what went wrong
# is told by exceptions and corrupt flags.
av.logging.restore_default_callback()
av.logging.set_libav_level(av.logging.PANIC)

DECODER = f"pyav {av.__version__}"
# Formats that are text, or lists that make FFmpeg open further files and addresses.
_REFUSED_FORMATS = {"tty", "hls", "concat", "dash", "sdp", "rtsp", "imf"}

@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a file may ask for, so that a hostile one cannot take the machine."""

    max_side_px: int = 8192
    max_duration_s: float = 6 * 3600.0
    max_decode_s: float = 2 * 3600.0  # wall clock for one file


LIMITS = Limits()
UNINDEXED = ("mpegts", "mpeg")        # formats that hold no list of their key frames
LOOK_BACK_S = (0.0, 2.0, 10.0, 60.0)  # before a moment, until a key frame is found; else from the start


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What the container says, before anything is decoded. `None` = it does not say."""

    container: str
    video_codec: str
    pixel_format: str
    width: int               # as stored; rotation is known only from the first frame
    height: int
    fps: float | None        # average rate
    duration_s: float | None
    duration_is_exact: bool  # of the video stream itself, not of the container with its audio
    num_frames_header: int | None
    has_audio: bool

    @property
    def num_frames_expected(self) -> int | None:
        if self.duration_s is None or not self.fps:
            return None
        return round(self.duration_s * self.fps)


@dataclass(slots=True)
class Frame:
    """One decoded frame. `clean` is False when it, or one it may depend on, was damaged."""

    index: int
    time_s: float
    image: av.VideoFrame
    clean: bool

    def bgr(self, size: tuple[int, int], *, smooth: bool = True) -> np.ndarray:
        """`(height, width, 3)` uint8 BGR as shown (rotated), at `size` = (width, height)."""
        turns = round(self.image.rotation / 90) % 4
        small = shrink_bgr(self.image, size[::-1] if turns % 2 else size, smooth)
        return np.rot90(small, turns) if turns else small

    def i420(self, size: tuple[int, int]) -> np.ndarray:
        """`(height * 3 / 2, width)` uint8 planes Y, U, V as shown, at `size` = (width, height), both even.

        What an encoder takes: 8-bit 4:2:0 films reach it without a conversion of colours, so it must be told
        their `colour_of`; full range is made limited, and other formats become BT.601.
        """
        turns = round(self.image.rotation / 90) % 4
        stored = size[::-1] if turns % 2 else size
        if self.image.format.name not in PLANAR_8BIT:
            return cv2.cvtColor(np.ascontiguousarray(self.bgr(size)), cv2.COLOR_BGR2YUV_I420)
        planes = shrink_i420(self.image, stored, True)
        return turn_i420(planes, stored, turns) if turns else planes

    def rgb(self) -> np.ndarray:
        """`(height, width, 3)` uint8 RGB as shown, at full size."""
        turns = round(self.image.rotation / 90) % 4
        full = self.image.to_ndarray(format="rgb24")
        return np.rot90(full, turns) if turns else full

    def luma(self, size: tuple[int, int]) -> np.ndarray:
        """`(height, width)` uint8 brightness as shown, at `size` = (width, height)."""
        turns = round(self.image.rotation / 90) % 4
        stored = size[::-1] if turns % 2 else size
        if self.image.format.name in PLANAR_8BIT:
            grey = shrink(plane_of(self.image, 0), stored)
        else:
            grey = cv2.cvtColor(shrink_bgr(self.image, stored, True), cv2.COLOR_BGR2GRAY)
        return np.rot90(grey, turns) if turns else grey

    @property
    def shown_size(self) -> tuple[int, int]:
        """(width, height) after rotation."""
        size = (self.image.width, self.image.height)
        return size[::-1] if round(self.image.rotation / 90) % 2 else size


@contextmanager
def open_container(path: str) -> Iterator[av.container.InputContainer]:
    """The container behind a local path or URI; `MediaError` with the reason otherwise."""
    stream = None
    try:
        if storage.is_uri(path):
            filesystem, inner = storage.resolve(path)
            stream = filesystem.open_input_file(inner)
        container = av.open(stream or path, metadata_errors="replace", options={"protocol_whitelist": "file"})
    except (av.FFmpegError, OSError, ValueError) as error:
        if stream is not None:
            stream.close()
        hint = " (no moov box: the recording or the download was broken off)" if _lacks_index(path) else ""
        raise MediaError(f"cannot open {path}: {_reason(error)}{hint}") from None
    try:
        if _REFUSED_FORMATS & set(container.format.name.split(",")):
            raise MediaError(f"{path} is no video file but {container.format.long_name}")
        yield container
    finally:
        container.close()
        if stream is not None:
            stream.close()


def probe_container(container: av.container.InputContainer, path: str) -> Probe:
    if not container.streams.video:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
        raise MediaError(f"no video stream in {path}: it holds {kinds}")
    stream = container.streams.video[0]
    exact = stream.duration is not None and stream.time_base is not None
    seconds = float(stream.duration * stream.time_base) if exact else (
        container.duration / av.time_base if container.duration else None)
    rate = stream.average_rate or stream.guessed_rate
    return Probe(
        container=_format_of(container), video_codec=stream.codec_context.name,
        pixel_format=stream.codec_context.pix_fmt or "unknown",
        width=stream.width, height=stream.height, fps=float(rate) if rate else None,
        duration_s=seconds, duration_is_exact=exact, num_frames_header=stream.frames or None,
        has_audio=bool(container.streams.audio),
    )


def _format_of(container: av.container.InputContainer) -> str:
    """FFmpeg's name of the format; it counts AVIF pictures as mov, which their brand tells apart from films."""
    brand, others = (container.metadata.get(name, "") for name in ("major_brand", "compatible_brands"))
    is_avif = brand == "avif" or (brand == "mif1" and "avif" in others)
    return "avif" if is_avif else container.format.name


def colour_of(path: str) -> Colour | None:
    """What the planes of `Frame.i420` mean; None = the film does not say, or they were made (BT.601)."""
    with open_container(path) as container:
        video = container.streams.video
        context = video[0].codec_context if video else None
        if context is None or context.pix_fmt not in PLANAR_8BIT or context.colorspace == UNSPECIFIED:
            return None
        return Colour(space=int(context.colorspace), primaries=int(context.color_primaries),
                      transfer=int(context.color_trc))


def probe(path: str) -> Probe:
    with open_container(path) as container:
        return probe_container(container, path)


class VideoReader:
    """Decodes one video once, in presentation order, and keeps account of its damage.

    >>> with VideoReader(path) as reader:                      # doctest: +SKIP
    ...     for frame in reader:
    ...         ...
    >>> reader.num_decoded, reader.num_corrupt, reader.num_errors   # doctest: +SKIP

    A damaged packet does not end the reading. After damage every frame is unclean until the
    next key frame, because decoders conceal what depends on it without a word.
    """

    def __init__(self, path: str, *, threads: int = 1, limits: Limits = LIMITS):
        self.path, self.threads, self.limits = path, threads, limits
        self.num_decoded = self.num_corrupt = self.num_errors = 0
        self.first_error = ""

    def __enter__(self) -> VideoReader:
        self._context = open_container(self.path)
        self.container = self._context.__enter__()
        try:
            self.probe = probe_container(self.container, self.path)
            self._check_limits()
        except BaseException as error:
            self._context.__exit__(type(error), error, None)
            raise
        self.stream = self.container.streams.video[0]
        self.stream.codec_context.thread_count = self.threads
        self.stream.thread_type = "AUTO" if self.threads != 1 else "NONE"
        self._offset_s = (self.container.start_time or 0) / av.time_base
        self._first: int | None = None
        return self

    def __exit__(self, *error) -> None:
        self._context.__exit__(*error)

    def seek(self, time_s: float) -> None:
        """Go to the last key frame at or before `time_s`, or further back where that is not known."""
        if self.container.format.name not in UNINDEXED:
            return self._seek(time_s)
        for back_s in LOOK_BACK_S:  # there FFmpeg goes to any packet of that time
            if back_s < time_s:
                self._seek(time_s - back_s)
                if self._next_key_s() <= time_s:
                    return self._seek(time_s - back_s)
        self.container.seek(0)

    def _seek(self, time_s: float) -> None:
        self._first = None
        target = round((time_s + self._offset_s) / self.stream.time_base)
        try:
            self.container.seek(target, stream=self.stream, backward=True)
        except av.FFmpegError:  # formats without an index are read from the start
            self.container.seek(0)

    def _next_key_s(self) -> float:
        """Moment of the key frame that is decoded next, infinite where there is none. Marks of packets are not
        believed: MPEG's parser sets wrong ones."""
        found = (f for f in self._images() if f is not None and f.key_frame and f.time is not None)
        return next((f.time - self._offset_s for f in found), math.inf)

    def shown_at(self, pts: int) -> float:
        """Moment of a packet's time stamp, seconds from the start of the presentation."""
        return float(pts * self.stream.time_base) - self._offset_s

    def __iter__(self) -> Iterator[Frame]:
        deadline = time.monotonic() + self.limits.max_decode_s
        clean, last, step = True, -1.0, 1.0 / (self.probe.fps or 25.0)
        for image in self._images():
            if image is None:  # a packet that could not be decoded
                clean = False
                continue
            if image.is_corrupt:
                self.num_corrupt += 1
            clean = not image.is_corrupt and (clean or bool(image.key_frame))
            now = last + step if image.time is None else self._time_of(image)
            yield Frame(self.num_decoded, now, image, clean)
            last = now
            self.num_decoded += 1
            if self.num_decoded % 64 == 0 and time.monotonic() > deadline:
                raise MediaError(f"{self.path} took more than {self.limits.max_decode_s:g} s to decode "
                                 f"({self.num_decoded} frames so far)")

    def _time_of(self, image: av.VideoFrame) -> float:
        """Seconds from the start. AVI numbers frames as they are stored, and those that refer to later ones out of
        order: there frames are counted on from the first one that is decoded, which is a key frame."""
        if self.container.format.name != "avi" or image.dts is None:
            return image.time - self._offset_s
        if self._first is None:
            self._first = image.pts - image.dts
        return float((image.dts + self._first) * image.time_base) - self._offset_s

    def _images(self) -> Iterator[av.VideoFrame | None]:
        packets = self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets)
                images = packet.decode()
            except (StopIteration, EOFError):
                return
            except av.FFmpegError as error:
                self.num_errors += 1
                self.first_error = self.first_error or _reason(error)
                if self.num_errors > 10_000:
                    raise MediaError(f"{self.path} has more than 10,000 damaged packets") from None
                yield None
                continue
            yield from images

    def _check_limits(self) -> None:
        p, limits = self.probe, self.limits
        if max(p.width, p.height) > limits.max_side_px:
            raise MediaError(f"{self.path} is {p.width}x{p.height}; more than {limits.max_side_px} px are not read")
        if (p.duration_s or 0) > limits.max_duration_s:
            raise MediaError(f"{self.path} lasts {p.duration_s:.0f} s; more than {limits.max_duration_s:g} s "
                             "are not read: split it first")


def _lacks_index(path: str) -> bool:
    """Is this a local mp4 or mov whose top-level boxes hold no index?"""
    kinds: list[bytes] = []
    try:
        with open(path, "rb") as file:
            while len(kinds) < 100 and len(header := file.read(8)) == 8:
                size = int.from_bytes(header[:4], "big")
                kinds.append(header[4:])
                if size < 8:
                    break
                file.seek(size - 8, 1)
    except OSError:
        return False
    return b"ftyp" in kinds and b"moov" not in kinds


def _reason(error: Exception) -> str:
    """FFmpeg's words without the errno and path that PyAV repeats around them."""
    log = getattr(error, "log", None)
    detail = f" ({log[2]})" if log and len(log) > 2 and log[2] else ""
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__) + detail
