"""Source, target and mask of a pair, frame by frame at one small size.

For the measures of a made pair. Nothing is held but the frames at hand; a mask is a picture
(the same for all frames) or a video of the target's frames, white where the edit lies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat, zip_longest

import numpy as np

from manifests.errors import MediaError
from manifests.pictures import is_picture_file
from manifests.planes import fit, shrink
from manifests.spans import read_image, read_span

LONG_S = 1e6         # later than the end of any mask
MAX_FRAMES = 2000    # of one side of a pair
READS = ("source_path", "source_start_s", "source_end_s", "target_path", "target_start_s", "target_end_s", "mask_path")


@dataclass(frozen=True)
class PairFrame:
    """uint8 `(h, w, 3)` RGB pictures, null past the end of a side; bool `(h, w)` mask, null where the row has none."""

    source: np.ndarray | None
    target: np.ndarray | None
    mask: np.ndarray | None


def pair_frames(row: dict, *, short_px: int = 240, needs_mask: bool = True) -> Iterator[PairFrame]:
    """Frames in step, to the end of the longer side. Raises `MediaError` where a side is missing."""
    for name in ("source_path", "target_path"):
        if row[name] is None:
            raise MediaError(f"the pair has no {name}: there is nothing to compare")
    if needs_mask and row["mask_path"] is None:
        raise MediaError("the pair has no mask_path: what was meant to change is not known")
    sources = _side(row, "source", short_px, None)
    first = next(sources)
    size = (first.shape[1], first.shape[0])
    targets = _side(row, "target", short_px, size)
    masks = mask_frames(row["mask_path"], size) if row["mask_path"] else repeat(None)
    for source, target in zip_longest(_with(first, sources), targets):
        mask = next(masks, None)
        if needs_mask and mask is None and target is not None:
            raise MediaError(f"the mask {row['mask_path']} has fewer frames than the target")
        yield PairFrame(source, target, mask)


def both(frames: Iterator[PairFrame]) -> Iterator[PairFrame]:
    """Only the frames that both sides have."""
    return (f for f in frames if f.source is not None and f.target is not None)


def _side(row: dict, side: str, short_px: int, size: tuple[int, int] | None) -> Iterator[np.ndarray]:
    path, start_s, end_s = (row[f"{side}_{name}"] for name in ("path", "start_s", "end_s"))
    if start_s is None:
        picture = read_image(path)
        _check_shape(picture.shape[1::-1], size, path)
        yield shrink(picture, size or fit(picture.shape[1::-1], short_px=short_px))
        return
    for n, frame in enumerate(read_span(path, start_s, end_s, short_px=short_px, max_frames=MAX_FRAMES)):
        if n == 0:
            _check_shape(frame.shape[1::-1], size, path)
        yield frame if size is None or frame.shape[1::-1] == size else shrink(frame, size)


def _check_shape(shown: tuple[int, int], size: tuple[int, int] | None, path: str) -> None:
    if size and abs(shown[0] / shown[1] / (size[0] / size[1]) - 1) > 0.03:
        raise MediaError(f"{path} is {shown[0]}x{shown[1]}; the source has another shape ({size[0]}x{size[1]})")


def mask_frames(path: str, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """bool `(h, w)` masks at `size` = (width, height): a picture for ever, or the frames of a video."""
    if is_picture_file(path):
        yield from repeat(shrink(read_image(path), size).mean(axis=2) > 127)
    for frame in read_span(path, 0.0, LONG_S, size=size, max_frames=MAX_FRAMES):
        yield frame.mean(axis=2) > 127


def _with(first: np.ndarray, rest: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from rest
