"""Black borders: bars above and below (letterbox), left and right (pillarbox).

A border is a run of rows or columns at the edge that stays dark and flat in every frame that
shows anything. A dark scene has no such border: something in it moves or shines sooner or later.
"""

from __future__ import annotations

import cv2
import numpy as np
import pyarrow as pa

from manifests.columns import column
from manifests.errors import MediaError
from manifests.frames import ClipFrames

NUM_FRAMES = 6
DARK_LUMA = 28.0    # video black is 16; compression adds a few steps
FLAT_LUMA = 5.0     # standard deviation along a line of a bar
SEEN_LUMA = 24.0    # mean luma above which a frame shows something


class MeasureLetterbox:
    backend = "classical"
    adds = tuple(column(f"border_{side}", pa.float32(), f"share of the picture that a black bar takes at the {side}")
                 for side in ("top", "bottom", "left", "right"))

    def __call__(self, clip: ClipFrames) -> dict:
        grey = [cv2.cvtColor(clip.bgr[i], cv2.COLOR_BGR2GRAY) for i in np.unique(clip.spread(NUM_FRAMES))]
        seen = [image for image in grey if image.mean() > SEEN_LUMA]
        if not seen:
            raise MediaError(f"no frame has a mean luma above {SEEN_LUMA:g} (black is 16): too dark to tell borders")
        rows = np.all([_is_bar(image) for image in seen], axis=0)
        columns = np.all([_is_bar(image.T) for image in seen], axis=0)
        top, bottom = _run(rows), _run(rows[::-1])
        left, right = _run(columns), _run(columns[::-1])
        return {"border_top": top, "border_bottom": bottom, "border_left": left, "border_right": right}


def _is_bar(grey: np.ndarray) -> np.ndarray:
    """Lines (first axis) that are dark and flat."""
    mean, spread = cv2.reduce(grey, 1, cv2.REDUCE_AVG, dtype=cv2.CV_32F).ravel(), grey.std(axis=1)
    return (mean < DARK_LUMA) & (spread < FLAT_LUMA)


def _run(bars: np.ndarray) -> float:
    """Share of the lines that lie before the first one that is no bar."""
    return float(np.argmin(bars)) / len(bars) if not bars.all() else 0.0
