"""What can be measured on single pictures, for classical answers that rest on pictures alone.

The clip filters measure the same things over whole clips (filters/exposure.py, colors.py,
sharpness.py); names, units and signs agree, so that the same sentences can be made of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from manifests.color_names import main_colors

SIZE = (320, 180)  # (width, height) at which pictures are compared
UNCHANGED_LUMA = 5.0   # two encodings of the same film (crf 16 against 34, nine clips) differ by at most 4.3
CHANGED_PIXEL = 24.0   # luma steps by which a pixel has visibly changed
CHANGED_SHARE = 0.01   # share of such pixels below which nobody would speak of an edit; re-encoding gave 0
CLOSING = np.ones((7, 7), np.uint8)  # gaps inside one thing that changed


def look(rgb: np.ndarray) -> dict:
    """Measures of one `(height, width, 3)` uint8 RGB picture, all 0 to 255 but `sharpness` and `colors`."""
    small = cv2.resize(rgb, SIZE, interpolation=cv2.INTER_AREA)
    grey, hsv = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), cv2.cvtColor(small, cv2.COLOR_RGB2HSV)
    return {
        "brightness": float(grey.mean()), "contrast": float(grey.std()), "saturation": float(hsv[..., 1].mean()),
        "sharpness": float(cv2.Laplacian(grey, cv2.CV_16S).var()), "colors": main_colors(hsv.reshape(-1, 3)),
        "layout": cv2.resize(grey, (3, 3), interpolation=cv2.INTER_AREA).astype(float).ravel().tolist(),
    }


def look_at(images: Sequence[np.ndarray]) -> dict:
    """The same of several pictures: means, and the colours of the one in the middle."""
    seen = [look(image) for image in images]
    means = {name: np.mean([s[name] for s in seen], axis=0) for name in seen[0] if name != "colors"}
    return {**{n: v.tolist() if np.ndim(v) else float(v) for n, v in means.items()},
            "colors": seen[len(seen) // 2]["colors"]}


def both_sides(source: Mapping[str, object], target: Mapping[str, object]) -> dict:
    """Measures of a source and a target under the names that a pair's row has for them."""
    return {f"{side}_{name}": value for side, measures in (("source", source), ("target", target))
            for name, value in measures.items()}


def changed(source: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """Mean luma difference (0 to 255) and share of visibly changed pixels of two pictures."""
    small = (cv2.resize(image, SIZE, interpolation=cv2.INTER_AREA) for image in (source, target))
    pair = (cv2.cvtColor(image, cv2.COLOR_RGB2LAB) for image in small)
    difference = cv2.GaussianBlur(cv2.absdiff(*pair), (5, 5), 0).max(axis=2)
    return float(difference.mean()), float((difference > CHANGED_PIXEL).mean())


def changed_region(source: np.ndarray, target: np.ndarray) -> dict | None:
    """The largest connected region that has visibly changed between two pictures; None where there is none.

    `x`, `y` (0 to 1) its centre, `share` of the picture, `before` and `after` the names of its main colours,
    `alike` (-1 to 1) the correlation of both pictures' brightness: high where only light or colour changed.
    """
    small = [cv2.resize(image, SIZE, interpolation=cv2.INTER_AREA) for image in (source, target)]
    lab = (cv2.cvtColor(image, cv2.COLOR_RGB2LAB) for image in small)
    mask = (cv2.GaussianBlur(cv2.absdiff(*lab), (5, 5), 0).max(axis=2) > CHANGED_PIXEL).astype(np.uint8)
    _, labels, stats, centres = cv2.connectedComponentsWithStats(cv2.morphologyEx(mask, cv2.MORPH_CLOSE, CLOSING))
    if len(stats) < 2:
        return None
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    inside = labels == largest
    share = float(inside.mean())
    if share < CHANGED_SHARE:
        return None
    before, after = (main_colors(cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[inside]) for image in small)
    return {"x": float(centres[largest][0] / SIZE[0]), "y": float(centres[largest][1] / SIZE[1]), "share": share,
            "before": before, "after": after, "alike": _correlation(*small)}


def _correlation(source: np.ndarray, target: np.ndarray) -> float:
    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) for image in (source, target)]
    a, b = (g - g.mean() for g in grey)
    return float((a * b).mean() / max(float(a.std() * b.std()), 1e-6))


def is_unchanged(sources: Sequence[np.ndarray], targets: Sequence[np.ndarray]) -> bool:
    """True when no pair of pictures shows a change that a viewer would call an edit."""
    differences = [changed(s, t) for s, t in zip(sources, targets, strict=True)]
    return all(mean < UNCHANGED_LUMA and share < CHANGED_SHARE for mean, share in differences)
