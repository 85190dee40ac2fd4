"""Which pictures of a row a model gets to see: chosen by time, small, as JPEG files.

They are made here, on the CPU worker, and sent as images: then no change in a server's own
video decoder can change which frames the model saw, and the server has no video to decode.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from manifests.errors import MediaError
from manifests.spans import read_frames, read_picture


@dataclass(frozen=True, kw_only=True)
class View:
    """One video, clip, frame or list of pictures of a row, by the names of its columns.

    `path` alone is a picture (or a list of pictures); with `start` and `end` it is a clip, of
    which `num_frames` are taken; with `times` (one time or a list) those frames. With `moment` it is one
    frame, or a picture file where the moment is null, as in FRAMES and pairs of frames.
    """

    label: str
    path: str
    start: str = ""
    end: str = ""
    times: str = ""
    moment: str = ""
    num_frames: int = 6

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(name for name in (self.path, self.start, self.end, self.times, self.moment) if name)


def spread_times(start_s: float, end_s: float, num: int) -> list[float]:
    """Middles of `num` equal parts of the span, in seconds: never the first or last frame of a shot."""
    return [start_s + (end_s - start_s) * (i + 0.5) / num for i in range(num)]


def see(row: Mapping[str, object], view: View, *, long_px: int, num_frames: int = 0) -> list[tuple[str, np.ndarray]]:
    """`(label, (height, width, 3) uint8 RGB)` of each picture. Raises `MediaError`."""
    if missing := [name for name in view.reads if row[name] is None and name != view.moment]:
        raise MediaError(f"{', '.join(missing)} of the {view.label} is not known")
    if view.moment:
        return [(view.label, read_picture(row[view.path], row[view.moment], long_px=long_px))]
    if isinstance(row[view.path], list):
        images = [read_frames(path, [0.0], long_px=long_px)[0] for path in row[view.path]]
        return [(f"{view.label} {i + 1}", image) for i, image in enumerate(images)]
    if not (view.start or view.times):
        return [(view.label, read_frames(row[view.path], [0.0], long_px=long_px)[0])]
    num_frames = num_frames or view.num_frames
    times = row[view.times] if view.times else spread_times(row[view.start], row[view.end], num_frames)
    if not isinstance(times, list):
        return [(view.label, read_frames(row[view.path], [times], long_px=long_px)[0])]
    origin = row[view.start] if view.start else 0.0
    images = read_frames(row[view.path], times, long_px=long_px)
    return [(f"{view.label}, frame {i + 1} of {len(times)}, {t - origin:.1f} s", image)
            for i, (t, image) in enumerate(zip(times, images, strict=True))]


def encode_jpeg(rgb: np.ndarray, quality: int) -> bytes:
    done, data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return data.tobytes()
