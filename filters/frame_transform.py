"""How the picture got from the key frame before to this one: shift, turn, zoom, and how much moves.

Paper section 3.1: "low-motion or scaling-dominated frames are filtered based on inter-frame
transformations". ORB features of both frames are matched and a similarity transform is fitted by
RANSAC; dense optical flow (DIS) tells how much moves in all, also in front of a still camera. Signs and units are
those of filters/motion.py seen from the picture: content that goes right or grows is positive.
"""

from __future__ import annotations

import cv2
import numpy as np
import pyarrow as pa

from manifests.columns import column
from manifests.planes import fit, shrink

FEATURE_PX, FLOW_PX = 480, 192   # long sides at which features and flow are looked for
NUM_FEATURES = 600
MAX_ERROR_PX = 3.0
STILL_FIRST = 0.8     # a still camera is believed when it explains nearly as many matches as the best fit
MIN_INLIERS, MIN_SHARE = 12, 0.15   # fewer matches that agree are chance: 1 of 200 unrelated pairs has as many

F32 = pa.float32()


class CompareFrames:
    """`__call__(before, now)`: two `(height, width, 3)` uint8 RGB pictures → the columns of `adds`."""

    adds = (
        column("neighbour_motion", F32, "mean length of the optical flow from the key frame before", "frame widths"),
        column("neighbour_shift", F32, "how far the fit moves the centre of the picture", "frame widths"),
        column("neighbour_rotation", F32, "turn of the picture, clockwise", "degrees"),
        column("neighbour_scale", F32, "growth of the picture: 1 = none, 2 = twice as large"),
        column("neighbour_inliers", F32, "share of the matched features that agree with the fit; low = another view"),
        column("neighbour_scaling", F32, "share of all motion that growing or shrinking explains", "0 to 1"),
    )

    def __init__(self):
        self._orb = cv2.ORB_create(NUM_FEATURES)
        self._matcher = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True)
        self._flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)

    def __call__(self, before: np.ndarray, now: np.ndarray) -> dict:
        motion = self._mean_flow(before, now)
        matrix, share, size = self._fit(before, now)
        found = {"neighbour_motion": motion, "neighbour_inliers": share}
        if matrix is None:
            return found
        shift, turn, scale = parts_of(matrix, size)
        by_scale, in_all = displacements(matrix, size, scale)
        return found | {"neighbour_shift": shift, "neighbour_rotation": turn, "neighbour_scale": scale,
                        "neighbour_scaling": by_scale / max(in_all, motion, 1e-6)}

    def _mean_flow(self, before: np.ndarray, now: np.ndarray) -> float:
        a, b = (_grey(image, FLOW_PX, now) for image in (before, now))
        flow = self._flow.calc(a, b, None)
        return float(np.hypot(flow[..., 0], flow[..., 1]).mean() / a.shape[1])

    def _fit(self, before: np.ndarray, now: np.ndarray) -> tuple[np.ndarray | None, float, tuple[int, int]]:
        """`(2 x 3 matrix or None, share of the matches that agree, (width, height))`."""
        a, b = (_grey(image, FEATURE_PX, now) for image in (before, now))
        size = (a.shape[1], a.shape[0])
        (points_a, words_a), (points_b, words_b) = (self._orb.detectAndCompute(image, None) for image in (a, b))
        if words_a is None or words_b is None:
            return None, 0.0, size
        matches = self._matcher.match(words_a, words_b)
        if len(matches) < MIN_INLIERS:
            return None, 0.0, size
        source = np.float32([points_a[m.queryIdx].pt for m in matches])
        target = np.float32([points_b[m.trainIdx].pt for m in matches])
        cv2.setRNGSeed(0)  # RANSAC draws from OpenCV's global generator
        matrix, num = _ransac(source, target)
        stayed = np.hypot(*(source - target).T) < MAX_ERROR_PX
        if stayed.sum() >= STILL_FIRST * num:  # what moves before a still camera must not pass for the camera
            matrix, num = _ransac(source[stayed], target[stayed])
        share = num / len(matches)
        return (matrix if num >= MIN_INLIERS and share >= MIN_SHARE else None), share, size


def _ransac(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray | None, int]:
    """The similarity transform that most of these points agree with, and how many do."""
    if len(source) < MIN_INLIERS:
        return None, 0
    matrix, inliers = cv2.estimateAffinePartial2D(source, target, ransacReprojThreshold=MAX_ERROR_PX, maxIters=1000)
    return matrix, 0 if matrix is None else int(inliers.sum())


def parts_of(matrix: np.ndarray, size: tuple[int, int]) -> tuple[float, float, float]:
    """`(shift of the centre in widths, clockwise turn in degrees, scale)` of a similarity transform in pixels."""
    centre = np.array(size) / 2
    moved = matrix[:, :2] @ centre + matrix[:, 2] - centre
    turn = np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))  # y points down: positive is clockwise
    return float(np.hypot(*moved) / size[0]), float(turn), float(np.hypot(matrix[0, 0], matrix[1, 0]))


def displacements(matrix: np.ndarray, size: tuple[int, int], scale: float) -> tuple[float, float]:
    """Mean way of a picture point, in widths: by growth about the centre alone, and by the whole transform."""
    x, y = np.meshgrid((np.arange(16) + 0.5) / 16 * size[0], (np.arange(9) + 0.5) / 9 * size[1])
    points = np.stack([x.ravel(), y.ravel()])
    centre = np.array(size)[:, None] / 2
    way = matrix[:, :2] @ points + matrix[:, 2:] - points
    by_scale = (scale - 1) * (points - centre)
    return tuple(float(np.hypot(*v).mean() / size[0]) for v in (by_scale, way))


def _grey(image: np.ndarray, long_px: int, like: np.ndarray) -> np.ndarray:
    """Both pictures of a film have one size; a change of size within it is undone."""
    size = fit(like.shape[1::-1], long_px=long_px)
    return shrink(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), size)
