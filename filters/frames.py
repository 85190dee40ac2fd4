"""All first measures of key frames from one decoding pass: sharpness, transform, embedding.

A frame is compared with the key frame before it, whose moment its row names: both come out of
the same pass, and no row depends on the others that it is worked on with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import pyarrow as pa

from manifests.columns import column, map_rows, set_column
from manifests.errors import MediaError
from manifests.frames import DETAIL_SHORT_PX
from manifests.media import VideoReader
from manifests.planes import fit, shrink
from manifests.spans import frames_at, read_image

from .frame_similarity import EMBEDDING, EmbedFrame
from .frame_transform import CompareFrames
from .sharpness import sharpness_of

WORK_SHORT_PX = 384  # the largest input of the usual CLIP models
SHARPNESS = column("sharpness", pa.float32(), "variance of the Laplacian at 480p", "luma squared")
DARK = column("dark_area", pa.float32(), "share of the pixels that are nearly black")
DARK_LUMA = 24  # video black is 16, and compression adds a little


@dataclass(frozen=True)
class Picture:
    """`rgb` is `(height, width, 3)` uint8 at working size: short side 384, never enlarged."""

    rgb: np.ndarray
    sharpness: float
    dark_area: float


class MeasureFrames:
    """FRAMES → the same with `sharpness`, `dark_area`, `neighbour_…` and `frame_embedding`.

    `embedder`, `batch_size` and further options go to `EmbedFrame`. A frame that a decoder had to
    conceal counts as unreadable.
    """

    reads = ("path", "time_s", "neighbour_s")

    def __init__(self, *, embedder: str = "classical", batch_size: int = 32, **options: object):
        self.adds = self.contract()[1]
        self._embed, self._compare = EmbedFrame(embedder, batch_size, **options), CompareFrames()
        cv2.setNumThreads(1)  # Ray gives each worker one core

    @classmethod
    def contract(cls, **_: object) -> tuple[tuple[str, ...], tuple[pa.Field, ...]]:
        return cls.reads, (SHARPNESS, DARK, *CompareFrames.adds, EMBEDDING)

    @classmethod
    def owners(cls, embedder: str = "classical", batch_size: int = 32, **options: object) -> dict[str, dict]:
        model = " ".join([embedder, *map(str, options.values())])
        return {f.name: {"op": f"{cls.__module__}:{cls.__name__}",
                         "backend": model if f is EMBEDDING else "classical"} for f in cls.contract()[1]}

    def __call__(self, table: pa.Table) -> pa.Table:
        times = _times(table.select(list(self.reads)).to_pylist())
        pictures: dict[str, dict] = {}  # of one file at a time: rows lie file by file
        prepared: list[np.ndarray | None] = []

        def measure(row: dict) -> dict:
            prepared.append(None)
            if row["path"] not in pictures:
                pictures.clear()
                pictures[row["path"]] = read_pictures(row["path"], times[row["path"]])
            here = pictures[row["path"]]
            picture, before = here[row["time_s"]], here.get(row["neighbour_s"])
            if isinstance(picture, MediaError):
                raise picture
            compared = self._compare(before.rgb, picture.rgb) if isinstance(before, Picture) and \
                row["neighbour_s"] is not None else {}
            prepared[-1] = self._embed.prepare(picture.rgb)
            return {SHARPNESS.name: picture.sharpness, DARK.name: picture.dark_area, **compared}

        table = map_rows(table, self, measure)
        embedded = iter(self._embed.finish([p for p in prepared if p is not None]))
        return set_column(table, EMBEDDING, [None if p is None else next(embedded) for p in prepared])


def _times(rows: Sequence[dict]) -> dict[str, list[float]]:
    """For each file the moments that are needed of it, ascending; none for a picture."""
    found: dict[str, set[float]] = {}
    for row in rows:
        found.setdefault(row["path"], set()).update(
            t for t in (row["time_s"], row["neighbour_s"]) if t is not None)
    return {path: sorted(times) for path, times in found.items()}


def read_pictures(path: str, times_s: Sequence[float]) -> dict[float | None, Picture | MediaError]:
    """For each moment its picture, or why there is none; without moments the file is a picture (key None)."""
    try:
        if not times_s:
            return {None: _picture(read_image(path))}
        with VideoReader(path) as reader:
            return {time_s: _of_frame(frame, path, time_s)
                    for time_s, frame in zip(times_s, frames_at(reader, times_s), strict=True)}
    except MediaError as error:
        return dict.fromkeys(times_s or [None], error)


def _of_frame(frame, path: str, time_s: float) -> Picture | MediaError:
    if frame is None:
        return MediaError(f"{path} ends before {time_s:.3f} s")
    if not frame.clean:
        return MediaError(f"the frame of {path} at {time_s:.3f} s is damaged")
    work = frame.bgr(fit(frame.shown_size, short_px=WORK_SHORT_PX))[..., ::-1]
    return _measured(work, frame.luma(fit(frame.shown_size, short_px=DETAIL_SHORT_PX)))


def _picture(rgb: np.ndarray) -> Picture:
    size = rgb.shape[1::-1]
    grey = shrink(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), fit(size, short_px=DETAIL_SHORT_PX))
    luma = cv2.convertScaleAbs(grey, alpha=219 / 255, beta=16)  # video's range, so that numbers mean the same
    return _measured(shrink(rgb, fit(size, short_px=WORK_SHORT_PX)), luma)


def _measured(work: np.ndarray, luma: np.ndarray) -> Picture:
    work, luma = (np.ascontiguousarray(image) for image in (work, luma))
    return Picture(work, sharpness_of(luma), float((luma <= DARK_LUMA).mean()))
