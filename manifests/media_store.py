"""Media that recipes write: one folder, named by content, nothing twice.

Videos are H.264 yuv420p mp4, pictures PNG (exact: masks, first frames that must equal a frame)
or JPEG. A name is the hash of the file's bytes, so that equal media of several recipes are
one file, a repeated run writes nothing new, and a reader can check what it holds.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from PIL import Image

from . import storage
from .planes import Colour
from .video_writer import VideoEncoder


@dataclass(frozen=True)
class StoredVideo:
    """`end_s` = `num_frames / fps`: the span of the file for the columns of a pair."""

    path: str
    num_frames: int
    end_s: float


class VideoWriter(VideoEncoder):
    """See `MediaStore.writer`."""

    def __init__(self, store: MediaStore, *, fps: float | Fraction, crf: int, colour: Colour | None):
        self._store, self._file, self._fps = store, io.BytesIO(), float(fps)
        super().__init__(self._file, fps=fps, crf=crf, colour=colour)

    def __exit__(self, kind, *error) -> None:
        super().__exit__(kind, *error)
        if kind is None:
            path = self._store.keep(self._file.getvalue(), "mp4")
            self.stored = StoredVideo(path, self.num_frames, round(self.num_frames / self._fps, 6))


class MediaStore:
    """Files below `root` (a folder or URI that all workers see); what it gives are absolute paths or URIs."""

    def __init__(self, root: str):
        self.root = storage.absolute(root)

    def video(self, frames: Iterable[np.ndarray], *, fps: float | Fraction, crf: int = 18,
              colour: Colour | None = None) -> StoredVideo:
        """`frames` as for `VideoEncoder`. Raises `MediaError` when there is none."""
        with self.writer(fps=fps, crf=crf, colour=colour) as writer:
            for image in frames:
                writer.push(image)
        return writer.stored

    def writer(self, *, fps: float | Fraction, crf: int = 18, colour: Colour | None = None) -> VideoWriter:
        """A video that is pushed frame by frame; `stored` when its context has ended."""
        return VideoWriter(self, fps=fps, crf=crf, colour=colour)

    def image(self, rgb: np.ndarray, *, kind: str = "png", quality: int = 92) -> str:
        """Path of an `(height, width[, 3])` uint8 picture stored as "png" or "jpg"."""
        file = io.BytesIO()
        options = {"png": {"format": "PNG", "compress_level": 1}, "jpg": {"format": "JPEG", "quality": quality}}[kind]
        Image.fromarray(rgb).save(file, **options)
        return self.keep(file.getvalue(), kind)

    def keep(self, data: bytes, ending: str) -> str:
        """Path of a file with these bytes and this ending (without a dot)."""
        name = hashlib.blake2b(data, digest_size=16).hexdigest()
        path = storage.join(self.root, name[:2], f"{name}.{ending}")
        if not storage.exists(path):
            storage.write_bytes(path, data)
        return path
