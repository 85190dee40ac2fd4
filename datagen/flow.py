"""Dense motion between frames: what the editors carry pixels along.

DIS optical flow (Kroeger et al. 2016) at a working size, scaled back to the frames' own. A
flow is float32 `(H, W, 2)`: the pixel `x` of the first picture lies at `x + flow[x]` in the
second. Visibility is the forward-backward check of Sundaram et al. 2010 with their constants.
"""

from __future__ import annotations

import cv2
import numpy as np

from manifests.planes import fit, shrink

WORK_PX = 512        # long side in which flow is searched; twice that costs four times as much
CHECK_SHARE = 0.01   # of the squared motion, and
CHECK_PX2 = 0.5      # squared pixels: what forward and backward flow may disagree by
MIN_TRACKED = 24     # corners that a camera motion is fitted to


class DenseFlow:
    """Flow between pictures `(H, W, 3)` uint8 of one size. Equal input gives equal output."""

    def __init__(self, *, work_px: int = WORK_PX):
        self.work_px = work_px
        self._dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        size = (first.shape[1], first.shape[0])
        small = fit(size, long_px=self.work_px)
        flow = self._dis.calc(_grey(first, small), _grey(second, small), None)
        if small == size:
            return flow
        flow = cv2.resize(flow, size, interpolation=cv2.INTER_LINEAR)
        return flow * np.float32([size[0] / small[0], size[1] / small[1]])


def _grey(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    grey = grey if size == grey.shape[::-1] else shrink(grey, size)
    if min(grey.shape) >= 16:
        return grey
    raise ValueError(f"a picture of {picture.shape[1]}x{picture.shape[0]} is too small to find motion in")


def pixel_grid(height: int, width: int) -> np.ndarray:
    """float32 `(H, W, 2)`: the x and y of every pixel."""
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return np.dstack([x, y])


def warp(picture: np.ndarray, flow: np.ndarray, *, cubic: bool = False) -> np.ndarray:
    """What lies at `x + flow[x]` in `picture`, for every `x`; the border repeats outside of it."""
    places = pixel_grid(*flow.shape[:2]) + flow
    return cv2.remap(picture, places, None, cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR,
                     borderMode=cv2.BORDER_REPLICATE)


def compose(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Flow a → c out of a → b and b → c."""
    return first + warp(second, first)


def inside(flow: np.ndarray) -> np.ndarray:
    """bool `(H, W)`: the flow ends within the picture."""
    places = pixel_grid(*flow.shape[:2]) + flow
    height, width = flow.shape[:2]
    return ((places >= -0.5) & (places <= np.float32([width - 0.5, height - 0.5]))).all(axis=2)


def visible(forward: np.ndarray, backward: np.ndarray) -> np.ndarray:
    """bool `(H, W)`: following `forward` and then `backward` leads home, so the pixel is seen in both."""
    home = warp(backward, forward)
    gap = np.square(forward + home).sum(axis=2)
    motion = np.square(forward).sum(axis=2) + np.square(home).sum(axis=2)
    return (gap <= CHECK_SHARE * motion + CHECK_PX2) & inside(forward)


def camera_motion(first: np.ndarray, second: np.ndarray, ignore: np.ndarray | None = None) -> np.ndarray:
    """3x3 homography that takes the background of `first` to `second`; identity where none is found.

    Corners outside the bool mask `ignore` are tracked, and those that move alike (RANSAC) fitted.
    """
    grey = [cv2.cvtColor(p, cv2.COLOR_RGB2GRAY) for p in (first, second)]
    allowed = None if ignore is None else np.where(ignore, 0, 255).astype(np.uint8)
    corners = cv2.goodFeaturesToTrack(grey[0], 600, 0.01, 7, mask=allowed)
    if corners is None or len(corners) < MIN_TRACKED:
        return np.eye(3)
    moved, status, _ = cv2.calcOpticalFlowPyrLK(grey[0], grey[1], corners, None, winSize=(21, 21), maxLevel=4)
    found = status.ravel() == 1
    if found.sum() < MIN_TRACKED:
        return np.eye(3)
    matrix, used = cv2.findHomography(corners[found], moved[found], cv2.RANSAC, 1.5, maxIters=500)
    if matrix is None or used.sum() < MIN_TRACKED // 2 or not 0.5 < np.linalg.det(matrix[:2, :2]) < 2:
        return np.eye(3)
    return matrix


def homography_flow(matrix: np.ndarray, height: int, width: int) -> np.ndarray:
    """The flow of every pixel under a 3x3 homography."""
    grid = pixel_grid(height, width)
    return cv2.perspectiveTransform(grid, matrix).astype(np.float32) - grid


def flow_error(picture: np.ndarray, other: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """float32 `(H, W)`: mean absolute channel difference, 0 to 255, of `picture` and `other` brought onto it."""
    return cv2.absdiff(picture, warp(other, flow)).mean(axis=2, dtype=np.float32)
