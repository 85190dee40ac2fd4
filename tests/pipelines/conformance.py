"""The ten-file conformance set: good files of four kinds, and six kinds of broken ones."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tests.conftest import moving_frames

# file -> (verdict, a word of the issue)
EXPECTED = {
    "good_h264.mp4": ("good", ""),
    "good_hevc.mp4": ("good", ""),
    "good_av1.mp4": ("good", ""),
    "good_variable_rate.mp4": ("good", ""),
    "empty.mp4": ("empty", "0 bytes"),
    "garbage.mp4": ("unreadable", "Invalid data"),
    "no_index.mp4": ("unreadable", "moov"),
    "truncated.mp4": ("truncated", "the header says 4.00 s"),
    "corrupt_middle.mp4": ("damaged", "damaged frames"),
    "audio_only.m4a": ("no_video", "holds audio"),
}


def write_set(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    _encode(folder / "good_h264.mp4", "libx264")
    _encode(folder / "good_hevc.mp4", "libx265", {"x265-params": "log-level=none:pools=1"})
    _encode(folder / "good_av1.mp4", "libsvtav1", {"preset": "12"})
    _encode(folder / "good_variable_rate.mp4", "libx264", times_ms=[40 * i if i < 50 else 80 * i - 2000 for i in range(100)])
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "garbage.mp4").write_bytes(np.random.default_rng(0).bytes(20_000))
    _no_index(folder / "good_h264.mp4", folder / "no_index.mp4")
    _encode(folder / "whole.tmp", "libx264", front=True)
    whole = (folder / "whole.tmp").read_bytes()
    (folder / "whole.tmp").unlink()
    (folder / "truncated.mp4").write_bytes(whole[: int(len(whole) * 0.6)])
    _corrupt(whole, folder / "corrupt_middle.mp4")
    _audio(folder / "audio_only.m4a")
    return folder


def _encode(path: Path, codec: str, options: dict | None = None, *, times_ms: list[int] | None = None,
            front: bool = False) -> None:
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"} if front else {}) as container:
        stream = container.add_stream(codec, rate=25, options={"g": "25"} | (options or {}))
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        if times_ms:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i, image in enumerate(moving_frames(100, step=4)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if times_ms:
                frame.pts, frame.time_base = times_ms[i], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _no_index(good: Path, path: Path) -> None:
    """The media data is there, the index (moov) is not: an interrupted recording."""
    data = good.read_bytes()
    path.write_bytes(data[: data.rindex(b"moov") - 4])


def _corrupt(data: bytes, path: Path) -> None:
    """4 % of the media data in the middle overwritten."""
    broken, middle, length = bytearray(data), len(data) // 2, len(data) // 25
    broken[middle : middle + length] = np.random.default_rng(0).bytes(length)
    path.write_bytes(bytes(broken))


def _audio(path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16_000)
        for i in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16_000, i * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
