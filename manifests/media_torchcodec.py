"""Sparse sampling with torchcodec, exact mode only: its approximate mode returns wrong frames on
variable frame rate. Needs torchcodec (extra `torchcodec`) and a system FFmpeg.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torchcodec
from torchcodec.decoders import VideoDecoder

from .errors import MediaError
from .media import DECODER, open_container, probe
from .planes import fit

DECODER_TORCHCODEC = f"torchcodec {torchcodec.__version__} exact"


def read_frames_torchcodec(path: str, times_s: Sequence[float], *, long_px: int = 480) -> np.ndarray:
    """`(N, height, width, 3)` uint8 RGB: for each time of presentation the frame on screen then."""
    probe(path)  # the same refusals and messages as with PyAV
    with open_container(path) as container:
        offset_s = (container.start_time or 0) / 1_000_000
    try:
        decoder = VideoDecoder(path, seek_mode="exact", dimension_order="NHWC", num_ffmpeg_threads=1)
        begin, end = decoder.metadata.begin_stream_seconds, decoder.metadata.end_stream_seconds
        seconds = [min(max(t + offset_s + 1e-6, begin), end - 1e-6) for t in times_s]
        frames = decoder.get_frames_played_at(seconds=seconds).data.numpy()
    except (RuntimeError, ValueError, IndexError) as error:
        raise MediaError(f"torchcodec cannot read {path}: {str(error).splitlines()[0]} ({DECODER} may)") from None
    size = fit((frames.shape[2], frames.shape[1]), long_px=long_px)
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])
