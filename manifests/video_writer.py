"""Write video: H.264 yuv420p mp4 that players and browsers play, equal frames giving equal bytes."""

from __future__ import annotations

import io
from collections.abc import Iterable
from fractions import Fraction

import av
import cv2
import numpy as np

from . import storage
from .errors import MediaError
from .mp4 import index_first
from .planes import LIMITED, MADE, Colour


def write_video(path: str, frames: Iterable[np.ndarray], *, fps: float | Fraction, crf: int = 18) -> int:
    """Write `(height, width, 3)` uint8 RGB frames as H.264 yuv420p mp4, index first; returns their number.

    Odd sides lose one pixel (yuv420p needs even ones). The file appears only when whole.
    """
    with storage.atomic_output(path) as file:
        return encode_video(file, frames, fps=fps, crf=crf)


def encode_video(file, frames: Iterable[np.ndarray], *, fps: float | Fraction, crf: int = 18) -> int:
    """`write_video` into a binary stream. Equal frames give equal bytes."""
    with VideoEncoder(file, fps=fps, crf=crf) as encoder:
        for image in frames:
            encoder.push(image)
    return encoder.num_frames


class VideoEncoder:
    """`encode_video` frame by frame, for who writes several videos out of one pass over another.

    Frames are `(height, width, 3)` uint8 RGB, or `(height * 3 / 2, width)` I420 planes as `Frame.i420`
    gives them, which `colour` explains; what is made of RGB is tagged as BT.601, because players guess by the
    size of the picture where a film does not say. The file is whole when the context ends; `MediaError` when nothing
    was pushed.
    """

    def __init__(self, file, *, fps: float | Fraction, crf: int = 18, colour: Colour | None = None):
        self._colour = colour
        self.num_frames = 0
        self._rate, self._crf, self._stream = Fraction(fps).limit_denominator(1001 * 60), crf, None
        self._file, self._memory = file, io.BytesIO()
        self._container = av.open(self._memory, "w", format="mp4")

    def push(self, image: np.ndarray) -> None:
        if image.ndim == 3:
            image = np.ascontiguousarray(image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2])
            image = cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420)  # half the time of the encoder's own conversion
            self._colour = MADE
        if self._stream is None:
            self._begin(image.shape[1], image.shape[0] * 2 // 3)
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(image, format="yuv420p")))
        self.num_frames += 1

    def _begin(self, width: int, height: int) -> None:
        # x264 picks its assembly by processor and load; without this two runs differ in bytes.
        options = {"crf": str(self._crf), "preset": "veryfast", "threads": "1", "x264-params": "cpu-independent=1"}
        self._stream = self._container.add_stream("libx264", rate=self._rate, options=options)
        self._stream.height, self._stream.width, self._stream.pix_fmt = height, width, "yuv420p"
        if self._colour is not None:
            context = self._stream.codec_context
            context.colorspace, context.color_primaries = self._colour.space, self._colour.primaries
            context.color_trc, context.color_range = self._colour.transfer, LIMITED

    def __enter__(self) -> VideoEncoder:
        return self

    def __exit__(self, kind, *error) -> None:
        try:
            if kind is None and self._stream is None:
                raise MediaError("there are no frames to write")
            if kind is None:
                self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()
        if kind is None:
            self._file.write(index_first(self._memory.getbuffer()))
