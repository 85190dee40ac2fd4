"""Names of colours, one table for measures, prompts and edits."""

from __future__ import annotations

import numpy as np

# Hue borders in OpenCV's half degrees; red wraps around.
HUES = ((8, "red"), (22, "orange"), (34, "yellow"), (85, "green"), (100, "cyan"), (130, "blue"), (150, "purple"),
        (170, "pink"), (181, "red"))
_NAMES = (*(name for _, name in HUES), "black", "white", "grey")
_BLACK, _WHITE, _GREY = (_NAMES.index(name) for name in ("black", "white", "grey"))
_HUE_TABLE = np.array([next(k for k, (top, _) in enumerate(HUES) if h < top) for h in range(181)], np.uint8)


def count_colors(hsv: np.ndarray) -> dict[str, int]:
    """Pixels of each name, most first; `hsv` uint8 `(N, 3)` as OpenCV makes it (hue 0 to 180).

    Black below a value of 45, and below a saturation of 40 white above a value of 200, else grey.
    """
    hue, saturation, value = hsv[:, 0], hsv[:, 1], hsv[:, 2]
    index = _HUE_TABLE[hue].astype(int)
    index[saturation < 40] = _GREY
    index[(saturation < 40) & (value > 200)] = _WHITE
    index[value < 45] = _BLACK
    counts: dict[str, int] = {}
    for name, count in zip(_NAMES, np.bincount(index, minlength=len(_NAMES)).tolist(), strict=True):
        counts[name] = counts.get(name, 0) + count
    return {name: counts[name] for name in sorted(counts, key=lambda name: (-counts[name], name)) if counts[name]}


def main_colors(hsv: np.ndarray) -> list[str]:
    """Names that cover at least an eighth of the pixels `(N, 3)`, most first, at most three; else the first."""
    counts = count_colors(hsv)
    most = list(counts)[:3]
    return [name for name in most if counts[name] >= len(hsv) / 8] or most[:1]
