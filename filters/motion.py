"""What the camera does and what moves in front of it.

Between two frames a quarter of a second apart a similarity transform (shift, zoom, roll) is
fitted to tracked corners by RANSAC: that is the camera. What still differs after undoing it
is foreground. Signs follow the camera: a pan to the right is positive although the picture
moves left.
"""

from __future__ import annotations

import cv2
import numpy as np
import pyarrow as pa

from manifests.columns import column
from manifests.frames import ClipFrames
from manifests.planes import fit, shrink

PAIRS_PER_CLIP = 6       # evenly spread; more changes the medians little
TRACK_PX = 192           # long side at which corners are tracked
MIN_INLIERS = 8
MOVED_LUMA = 18.0        # a pixel that differs by more than this after undoing the camera has moved


class MeasureMotion:
    backend = "classical"
    adds = (
        column("camera_pan", pa.float32(), "median speed of the camera to the right", "frame widths / s"),
        column("camera_tilt", pa.float32(), "median speed of the camera upwards", "frame heights / s"),
        column("camera_zoom", pa.float32(), "median growth of the picture; above 0 = zoom in", "share / s"),
        column("camera_roll", pa.float32(), "median turn of the camera, clockwise", "degrees / s"),
        column("camera_fit", pa.float32(), "share of tracked corners that agree with the fit"),
        column("moving_area", pa.float32(), "share of the picture that moves against the camera"),
        column("moving_x", pa.float32(), "centre of what moves, 0 = left, 1 = right"),
        column("moving_y", pa.float32(), "centre of what moves, 0 = top, 1 = bottom"),
        column("moving_drift", pa.float32(), "how far that centre goes to the right over the clip", "frame widths"),
    )

    def __call__(self, clip: ClipFrames) -> dict:
        if len(clip.times_s) < 2:
            return {}
        starts = np.unique(clip.spread(PAIRS_PER_CLIP).clip(max=len(clip.times_s) - 2))
        steps = [self._step(clip, i) for i in starts]
        camera = np.array([s[0] for s in steps if s[0] is not None]).reshape(-1, 5)
        moving = np.array([s[1] for s in steps])
        pan, tilt, zoom, roll, agree = np.median(camera, axis=0) if len(camera) else [None] * 5
        seen = moving[moving[:, 0] > 0.002]
        drift = float(seen[-1, 1] - seen[0, 1]) if len(seen) > 1 else None
        where = np.median(seen[:, 1:], axis=0) if len(seen) else (None, None)
        return {
            "camera_pan": pan, "camera_tilt": tilt, "camera_zoom": zoom, "camera_roll": roll, "camera_fit": agree,
            "moving_area": float(np.median(moving[:, 0])), "moving_x": where[0], "moving_y": where[1],
            "moving_drift": drift,
        }

    def _step(self, clip: ClipFrames, i: int) -> tuple[tuple | None, tuple[float, float, float]]:
        first, second = (_track_image(clip.bgr[j]) for j in (i, i + 1))
        seconds = max(clip.times_s[i + 1] - clip.times_s[i], 1e-3)
        matrix, agree = _fit_camera(first, second)
        height, width = first.shape
        if matrix is None:
            return None, _moved(first, second)
        # The transform maps old to new picture coordinates about the corner; speeds are taken at the centre.
        centre = np.array([width / 2, height / 2])
        shift = matrix[:, :2] @ centre + matrix[:, 2] - centre
        scale, turn = np.hypot(matrix[0, 0], matrix[1, 0]), np.arctan2(matrix[1, 0], matrix[0, 0])
        camera = (-shift[0] / width / seconds, shift[1] / height / seconds, (scale - 1) / seconds,
                  -np.degrees(turn) / seconds, agree)
        undone = cv2.warpAffine(first, matrix, (width, height), borderMode=cv2.BORDER_CONSTANT)
        inside = cv2.warpAffine(np.full_like(first, 255), matrix, (width, height)) > 250
        return camera, _moved(undone, second, inside)


def _track_image(bgr: np.ndarray) -> np.ndarray:
    grey = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)
    return shrink(grey, fit(grey.shape[::-1], long_px=TRACK_PX))


def _fit_camera(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray | None, float]:
    corners = cv2.goodFeaturesToTrack(first, 80, 0.01, 6)
    if corners is None or len(corners) < MIN_INLIERS:
        return None, 0.0
    found, status, _ = cv2.calcOpticalFlowPyrLK(first, second, corners, None, winSize=(13, 13), maxLevel=3)
    ok = status.ravel() == 1
    if ok.sum() < MIN_INLIERS:
        return None, 0.0
    cv2.setRNGSeed(0)  # RANSAC draws from OpenCV's global generator
    matrix, inliers = cv2.estimateAffinePartial2D(corners[ok], found[ok], ransacReprojThreshold=1.0, maxIters=200)
    if matrix is None or inliers.sum() < MIN_INLIERS:
        return None, 0.0
    return matrix, float(inliers.sum() / len(corners))


def _moved(first: np.ndarray, second: np.ndarray, inside: np.ndarray | None = None) -> tuple[float, float, float]:
    """Share of moved pixels and the centre of them, both 0 to 1."""
    difference = cv2.GaussianBlur(cv2.absdiff(first, second), (5, 5), 0) > MOVED_LUMA
    if inside is not None:
        difference &= inside
    num = int(difference.sum())
    if not num:
        return 0.0, 0.5, 0.5
    height, width = first.shape
    x = float((difference.sum(axis=0) * np.arange(width)).sum()) / num / width
    y = float((difference.sum(axis=1) * np.arange(height)).sum()) / num / height
    return num / first.size, x, y
