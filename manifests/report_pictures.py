"""Small pictures of clips, frames and picture files, as WebP; clips loop, decoded from the raw videos by span.

Animated WebP in `<img>` always plays, needs no script and has no limit on how many play at
once, unlike `<video>`. Each video is opened once for all its spans; each span is encoded
once, however many rows show it; together they never take more than the bytes given.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
from PIL import Image
from tqdm import tqdm

from . import storage
from .errors import InputError, MediaError
from .media import VideoReader
from .pictures import is_picture_file
from .planes import fit, shrink
from .spans import frames_at, read_image

NUM_FRAMES = 10        # spread over the whole clip; equal for all, so that two clips loop in step
FRAME_MS = 250         # 4 frames a second
MAX_WIDTH_PX, MIN_WIDTH_PX = 320, 96
PIXELS_PER_BYTE = 13.5  # of ten frames at quality 45, middle of five films of 720p
SMALL = 0.6            # side of the pictures of rejected rows against the others
DATA_URI = "data:image/webp;base64,"


@dataclass(frozen=True)
class Span:
    """A piece of a video file in seconds of presentation, one frame of it, or a picture file.

    A frame has no `end_s`, a picture file neither time. `mask` is a picture, or a video of this
    span's frames: what is white in it is tinted.
    """

    path: str
    start_s: float | None = None
    end_s: float | None = None
    mask: str | None = None

    @property
    def is_clip(self) -> bool:
        return self.end_s is not None

    @property
    def order(self) -> tuple:
        return (self.path, *((t is not None, t or 0.0) for t in (self.start_s, self.end_s)), self.mask or "")

    def times(self) -> list[float]:
        """Of a clip the middles of equal parts: never the first or last frame, which a dissolve may touch."""
        if self.end_s is None:
            return [] if self.start_s is None else [self.start_s]
        step = max(self.end_s - self.start_s, 0.0) / NUM_FRAMES
        return [self.start_s + (i + 0.5) * step for i in range(NUM_FRAMES)]


@dataclass
class Album:
    """The pictures that could be made (WebP bytes), and why the others could not."""

    width_px: int = MAX_WIDTH_PX
    pictures: dict[Span, bytes] = field(default_factory=dict)
    missing: dict[Span, str] = field(default_factory=dict)


def make_album(large: Iterable[Span], small: Iterable[Span], budget_bytes: int) -> Album:
    """Pictures of all spans; their data URIs together take at most `budget_bytes`."""
    scales = dict.fromkeys(small, SMALL) | dict.fromkeys(large, 1.0)
    encoder = Encoder(scales.values(), budget_bytes)
    album = Album(encoder.width_px)
    with tqdm(total=len(scales), desc="pictures", unit="clip", disable=None) as bar:
        for path, spans in groupby(sorted(scales, key=lambda span: span.order), key=lambda span: span.path):
            spans = list(spans)
            _add_file(album, encoder, path, spans, scales)
            bar.update(len(spans))
    return album


def _add_file(album: Album, encoder: Encoder, path: str, spans: list[Span], scales: dict[Span, float]) -> None:
    reason = "nothing could be decoded there"
    try:
        for span, images in read_spans(path, spans, encoder.width_px):
            if images:
                try:
                    images = tinted(images, span) if span.mask else images
                except MediaError as error:
                    album.missing[span] = str(error)
                    encoder.skip(scales[span])
                    continue
                picture = encoder.encode(images, scales[span])
                album.pictures |= {span: picture} if picture else {}
                album.missing |= {} if picture else {span: "no room was left on the page"}
    except (MediaError, InputError, OSError) as error:
        reason = str(error)
    for span in spans:
        if span not in album.pictures and span not in album.missing:
            album.missing[span] = reason
            encoder.skip(scales[span])


def read_spans(path: str, spans: Sequence[Span], width_px: int) -> Iterator[tuple[Span, list[np.ndarray]]]:
    """Each span with its RGB frames, when its last one was seen; one pass over the video."""
    if not storage.exists(path):
        raise MediaError(f"the file is not there any more: {path}")
    if pictures := [span for span in spans if span.start_s is None]:
        rgb = read_image(path)
        small = shrink(rgb, picture_size(rgb.shape[1::-1], width_px))
        yield from ((span, [small]) for span in pictures)
    spans = [span for span in spans if span.start_s is not None]
    if not spans:
        return
    wanted = sorted((time, i) for i, span in enumerate(spans) for time in span.times())
    images: list[list[np.ndarray]] = [[] for _ in spans]
    left = [len(span.times()) for span in spans]
    with VideoReader(path) as reader:
        # Pictures this small need neither the exact frame nor smooth block borders: leaving out
        # the frames that no other refers to, and the loop filter, halves the cost of decoding.
        reader.stream.codec_context.skip_frame = "NONREF"
        reader.stream.codec_context.options = {"skip_loop_filter": "all"}
        for (_, i), frame in zip(wanted, frames_at(reader, [time for time, _ in wanted]), strict=True):
            if frame is not None:
                images[i].append(frame.bgr(picture_size(frame.shown_size, width_px))[..., ::-1])
            left[i] -= 1
            if not left[i]:
                yield spans[i], images[i]
                images[i] = []


def tinted(images: list[np.ndarray], span: Span) -> list[np.ndarray]:
    """The span's pictures with what its mask marks in colour and the rest darker. Raises `MediaError`."""
    if is_picture_file(span.mask):
        masks = [read_image(span.mask)] * len(images)
    else:
        with VideoReader(span.mask) as reader:
            found = frames_at(reader, [time_s - (span.start_s or 0.0) for time_s in span.times()] or [0.0])
            masks = [frame.rgb() for frame in found if frame is not None]
    if len(masks) != len(images):
        raise MediaError(f"the mask {span.mask} has {len(masks)} of the {len(images)} frames that are shown")
    return [_tint(image, mask) for image, mask in zip(images, masks, strict=True)]


def _tint(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    inside = shrink(np.ascontiguousarray(mask[..., 0]), image.shape[1::-1])[..., None] > 127
    return np.where(inside, image // 2 + np.uint8([127, 20, 90]), image // 5 * 3).astype(np.uint8)


def picture_size(size: tuple[int, int], width_px: int) -> tuple[int, int]:
    """Wide clips take the whole width, upright ones three quarters of it in height."""
    return fit(size, long_px=width_px if size[0] >= size[1] else round(0.75 * width_px))


class Encoder:
    """Spends a budget evenly over the pictures still to come, learning from those it made.

    The first guess of the size comes from `PIXELS_PER_BYTE`; after that the quality follows
    what the pictures really take. No picture takes more than 1.5 fair shares, and the last
    ones no more than one, so the sum never exceeds the budget.
    """

    def __init__(self, scales: Iterable[float], budget_bytes: int):
        areas = [scale**2 for scale in scales]
        self.left_bytes, self.left_area, self.quality = budget_bytes, sum(areas), 55.0
        raw_bytes = 0.75 * budget_bytes / max(self.left_area, 1e-9)
        width = math.sqrt(max(raw_bytes, 0.0) * PIXELS_PER_BYTE / NUM_FRAMES * 16 / 9)
        self.width_px = round(min(max(width, MIN_WIDTH_PX), MAX_WIDTH_PX) / 2) * 2

    def encode(self, images: Sequence[np.ndarray], scale: float) -> bytes | None:
        """`images`: RGB uint8 of one size; `None` if not even a stamp of them fits."""
        fair = self.left_bytes * scale**2 / self.left_area
        limit = fair * (1.5 if self.left_area > 4 else 1.0)
        tries = ((self.quality, 1.0), (self.quality / 2, 1.0), (20, 0.7), (15, 0.5), (10, 0.3))
        for quality, factor in tries:
            data = to_webp(images, quality, scale * factor)
            if uri_bytes(data) <= limit:
                break
        else:
            data = b""
        self.quality = min(max(self.quality * (fair / uri_bytes(data)) ** 0.3, 12.0), 75.0) if data else 12.0
        self.left_bytes -= uri_bytes(data) if data else 0
        self.skip(scale)
        return data or None

    def skip(self, scale: float) -> None:
        """One picture less to come."""
        self.left_area = max(self.left_area - scale**2, 1e-9)


def to_webp(images: Sequence[np.ndarray], quality: float, scale: float) -> bytes:
    size = images[0].shape[1::-1]
    size = (max(2, round(size[0] * scale)), max(2, round(size[1] * scale)))
    pictures = [Image.fromarray(np.ascontiguousarray(image)) for image in images]
    if size != pictures[0].size:
        pictures = [picture.resize(size, Image.Resampling.BOX) for picture in pictures]
    if len(pictures) > 1:
        pictures = [_with_progress(picture, (i + 1) / len(pictures)) for i, picture in enumerate(pictures)]
    stream = io.BytesIO()
    # kmax=0: only the first frame is whole. Each loop starts there anyway, and still cameras
    # take a quarter of the bytes.
    pictures[0].save(stream, "WEBP", save_all=True, append_images=pictures[1:], duration=FRAME_MS, loop=0,
                     quality=round(quality), method=2, kmin=0, kmax=0)
    return stream.getvalue()


def _with_progress(picture: Image.Image, part: float) -> Image.Image:
    """A thin line along the bottom shows where the loop is, also when nothing moves in the clip."""
    pixels = np.array(picture)
    line = pixels[-2:]
    line[:] = line // 3
    line[:, : round(part * line.shape[1])] = 235
    return Image.fromarray(pixels)


def uri_bytes(data: bytes) -> int:
    """Length of `data` as a data URI."""
    return len(DATA_URI) + 4 * math.ceil(len(data) / 3)
