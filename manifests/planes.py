"""The planes of decoded frames: sizes, shrinking, and what their numbers mean.

8-bit 4:2:0 planes are shrunk before colours are converted: 2 to 4 times cheaper than the other way round.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

UNSPECIFIED, LIMITED, FULL = 2, 1, 2  # codes of a colour space, and of ranges in FFmpeg
OTHER_SPACES = (1, 4, 7, 9, 10)       # BT.709, FCC, SMPTE 240M, BT.2020: not BT.601, which decoders take for granted
# Cameras that record all 256 levels: the planes' meaning in the range that the rest of the house expects.
_LUMA_LIMITED = np.rint(16 + np.arange(256) * 219 / 255).astype(np.uint8)
_CHROMA_LIMITED = np.rint(128 + (np.arange(256) - 128.0) * 224 / 255).astype(np.uint8)
_OWN = threading.local()
PLANAR_8BIT = {"yuv420p", "yuvj420p"}  # planes can be shrunk without a conversion of the whole frame


@dataclass(frozen=True, kw_only=True)
class Colour:
    """What the numbers of planes mean, as codes of ITU-T H.273; `space` 1 is BT.709, 5 and 6 are BT.601."""

    space: int
    primaries: int
    transfer: int


MADE = Colour(space=6, primaries=1, transfer=1)  # of planes made of RGB: BT.601's matrix, sRGB's primaries


def fit(size: tuple[int, int], *, long_px: int | None = None, short_px: int | None = None) -> tuple[int, int]:
    """`size` shrunk (never enlarged) to a long or short side, both sides even and at least 2."""
    width, height = size
    scale = long_px / max(size) if long_px else short_px / min(size)
    scale = min(scale, 1.0)
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)


def shrink(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`image` at `size` = (width, height) without aliasing: halved while it can be, then linear.

    Halving is the one area reduction that OpenCV vectorises: 10 times faster than INTER_AREA
    to an odd size, and the last step is below a factor of two.
    """
    while image.shape[1] >= 2 * size[0] and image.shape[0] >= 2 * size[1]:
        even = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
        image = cv2.resize(even, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)


def rgb_of(planes: np.ndarray, colour: Colour | None) -> np.ndarray:
    """`(height, width, 3)` uint8 RGB of I420 planes, as a player shows them."""
    if colour is None or colour.space not in OTHER_SPACES:
        return cv2.cvtColor(planes, cv2.COLOR_YUV2RGB_I420)
    return _converted(planes, colour.space, "rgb24")


def _converted(planes: np.ndarray, space: int, format: str) -> np.ndarray:
    frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
    frame.colorspace = space
    if not hasattr(_OWN, "reformatter"):
        _OWN.reformatter = VideoReformatter()  # keeps its tables: half the time of `to_ndarray`
    return _OWN.reformatter.reformat(frame, format=format, threads=1).to_ndarray()


def plane_of(image: av.VideoFrame, i: int) -> np.ndarray:
    plane = image.planes[i]
    return np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]


def shrink_bgr(image: av.VideoFrame, size: tuple[int, int], smooth: bool) -> np.ndarray:
    """BGR at `size`. Planes are shrunk first where they can be."""
    if image.format.name not in PLANAR_8BIT:
        return image.reformat(*size, format="bgr24", interpolation="AREA" if smooth else "BILINEAR").to_ndarray()
    planes = shrink_i420(image, size, smooth)
    if (space := int(image.colorspace)) not in OTHER_SPACES:
        return cv2.cvtColor(planes, cv2.COLOR_YUV2BGR_I420)
    return _converted(planes, space, "bgr24")


def shrink_i420(image: av.VideoFrame, size: tuple[int, int], smooth: bool) -> np.ndarray:
    """`(height * 3 / 2, width)` planes of an 8-bit 4:2:0 frame at `size`, as stored (not turned)."""
    width, height = size
    resize = shrink if smooth else cv2.resize
    i420 = np.empty((height * 3 // 2, width), np.uint8)
    i420[:height] = resize(plane_of(image, 0), size)
    half = (width // 2, height // 2)
    chroma = i420[height:].reshape(2, half[1], half[0])
    for i in (0, 1):
        chroma[i] = resize(plane_of(image, i + 1), half)
    if image.format.name == "yuvj420p" or int(image.color_range) == FULL:
        cv2.LUT(i420[:height], _LUMA_LIMITED, dst=i420[:height])
        cv2.LUT(i420[height:], _CHROMA_LIMITED, dst=i420[height:])
    return i420


def turn_i420(i420: np.ndarray, size: tuple[int, int], turns: int) -> np.ndarray:
    """Planes of `size` = (width, height) turned by quarter `turns` against the clock."""
    width, height = size
    luma, chroma = np.rot90(i420[:height], turns), i420[height:].reshape(2, height // 2, width // 2)
    turned = np.rot90(chroma, turns, axes=(1, 2))
    return np.concatenate([luma.ravel(), turned.ravel()]).reshape(-1, luma.shape[1])
