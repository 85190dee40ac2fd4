"""How the camera moves through a clip, and the still background behind what moves.

For the weight-free segmenter. The camera is fitted as shift, turn and scale between neighbouring
frames; frames laid over each other in one system of coordinates show the background as their median.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

NUM_CORNERS = 250
STILL_PX = 0.35       # a camera that moves less between all frames stands still
MAX_BACKGROUND = 25   # frames that the median is taken of
MAX_CANVAS = 6.0      # areas of a frame; a camera that sees more than that has no one background


def camera_path(greys: Sequence[np.ndarray]) -> np.ndarray | None:
    """`(T, 3, 3)` float64: pixels of frame t → pixels of the middle frame; None where nothing fits.

    `greys` are `(h, w)` uint8.
    """
    steps = [_step(a, b) for a, b in zip(greys[:-1], greys[1:], strict=True)]  # frame t + 1 → frame t
    if any(step is None for step in steps):
        return None
    path = [np.eye(3)]
    for step in steps:
        path.append(path[-1] @ step)
    middle = np.linalg.inv(path[len(path) // 2])
    path = np.stack([middle @ p for p in path])
    height, width = greys[0].shape
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]], float).T
    moved = np.abs((path @ corners)[:, :2] - corners[:2]).max()
    return np.repeat(np.eye(3)[None], len(greys), 0) if moved < STILL_PX * 3 else path


def _step(before: np.ndarray, after: np.ndarray) -> np.ndarray | None:
    """`(3, 3)`: pixels of `after` → pixels of `before`."""
    corners = cv2.goodFeaturesToTrack(before, NUM_CORNERS, 0.01, 6)
    if corners is None or len(corners) < 12:
        return np.eye(3) if float(cv2.absdiff(before, after).mean()) < 1.0 else None
    found, ok, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, None, winSize=(15, 15), maxLevel=3)
    ok = ok.ravel() > 0
    if ok.sum() < 10:
        return None
    shift = found[ok] - corners[ok]
    if np.median(np.abs(shift)) < 0.05:  # most of the picture stands still: fitting would only add noise
        return np.eye(3)
    fit, _ = cv2.estimateAffinePartial2D(found[ok], corners[ok], ransacReprojThreshold=1.0)
    return None if fit is None else np.vstack([fit, [0, 0, 1]])


def departure(frames: Sequence[np.ndarray], path: np.ndarray) -> np.ndarray | None:
    """`(T, h, w)` uint8: how far each pixel departs from the background, 0 to 255; None = there is no one background.

    `frames` are `(h, w, 3)` uint8. A pixel counts only as far as no neighbour of the background
    explains it, so that a fit which is a pixel off leaves no edges.
    """
    height, width = frames[0].shape[:2]
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]], float).T
    places = (path @ corners)[:, :2]
    low, high = np.floor(places.min((0, 2))), np.ceil(places.max((0, 2)))
    size = tuple(int(v) for v in high - low)
    if size[0] * size[1] > MAX_CANVAS * width * height:
        return None
    to_canvas = np.array([[1, 0, -low[0]], [0, 1, -low[1]], [0, 0, 1.0]]) @ path
    background = _median(frames, to_canvas, size)
    thick = np.ones((3, 3), np.uint8)
    most, least = cv2.dilate(background, thick), cv2.erode(background, thick)
    found = []
    for frame, place in zip(frames, to_canvas, strict=True):
        inverse = np.linalg.inv(place)[:2]
        top, bottom = (cv2.warpAffine(b, inverse, (width, height), borderMode=cv2.BORDER_REPLICATE)
                       for b in (most, least))
        found.append(np.maximum(cv2.subtract(frame, top), cv2.subtract(bottom, frame)).max(-1))
    return np.stack(found)


def _median(frames: Sequence[np.ndarray], to_canvas: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Median over frames of what each canvas pixel shows, of those frames that show it."""
    chosen = np.unique(np.linspace(0, len(frames) - 1, MAX_BACKGROUND).astype(int))
    layers = np.empty((len(chosen), size[1], size[0], 3), np.uint8)
    seen = np.empty(layers.shape[:3], bool)
    for i, t in enumerate(chosen):
        layers[i] = cv2.warpAffine(frames[t], to_canvas[t][:2], size)
        seen[i] = cv2.warpAffine(np.full(frames[t].shape[:2], 255, np.uint8), to_canvas[t][:2], size) == 255
    if seen.all():
        return np.median(layers, axis=0).astype(np.uint8)
    # Unseen values sort to the end; the median is the middle of the seen ones.
    values = np.where(seen[..., None], layers.astype(np.int16), 999)
    values.sort(axis=0)
    middle = np.maximum(seen.sum(0) - 1, 0) // 2
    found = np.take_along_axis(values, np.broadcast_to(middle[None, ..., None], (1, *middle.shape, 3)), axis=0)[0]
    return np.where(found == 999, 0, found).astype(np.uint8)
