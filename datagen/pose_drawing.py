"""Skeletons as coloured lines on black, the picture that pose-conditioned models read."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from .backends import Poses

MIN_SCORE = 0.3  # of a keypoint: below it the estimators' points wander


def draw_poses(poses: Poses, skeleton: Sequence[tuple[int, int]], size: tuple[int, int]) -> tuple[np.ndarray, bool]:
    """`(picture (height, width, 3) uint8 RGB, whether a person is in it)`; `size` is (height, width).

    A limb has the same colour in all frames and on all people; points without a limb (face) are dots.
    """
    canvas, found = np.zeros((*size, 3), np.uint8), False
    width = max(1, min(size) // 120)
    joined = {k for limb in skeleton for k in limb}
    for points, scores in zip(poses.keypoints, poses.scores, strict=True):
        sure = scores >= MIN_SCORE
        places = [tuple(int(v) for v in np.rint(p)) for p in points]
        limbs = [i for i, (a, b) in enumerate(skeleton) if sure[a] and sure[b]]
        found |= len(limbs) >= 3
        for i in limbs:
            a, b = skeleton[i]
            cv2.line(canvas, places[a], places[b], colour(i, len(skeleton)), 2 * width, cv2.LINE_AA)
        for k in np.flatnonzero(sure):
            cv2.circle(canvas, places[k], width + int(k in joined), (255, 255, 255), -1, cv2.LINE_AA)
    return canvas, bool(found)


def colour(index: int, num: int) -> tuple[int, int, int]:
    """Hues spread evenly over the limbs."""
    hsv = np.uint8([[[round(179 * index / max(num, 1)), 255, 255]]])
    return tuple(int(v) for v in cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0])
