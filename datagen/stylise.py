"""A clip in another medium: pencil, paint, poster, watercolour, sepia.

Every style is a function of the frame alone with settings fitted once for the clip (palette,
paper), then blended with its predecessor along the flow, so that strokes do not shimmer.
"""

from __future__ import annotations

import cv2
import numpy as np

from manifests.errors import BackendError
from manifests.planes import fit, shrink

from .flow import DenseFlow, visible, warp
from .recolor import lab, rgb

STYLES = ("pencil", "paint", "poster", "watercolor", "sepia")
CARRIED = 0.6        # share of the predecessor where it is visible
PALETTE_SIZE = 10
SEPIA = np.float32([[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]])


class Stylise:
    """`Stylise(style, frames, seed)` fits a style to uint8 `(T, H, W, 3)`; calling it styles one frame."""

    def __init__(self, style: str | None, frames: np.ndarray, *, seed: int = 0):
        rng = np.random.default_rng(seed)
        self.style = style or STYLES[rng.integers(len(STYLES))]
        if self.style not in STYLES:
            raise BackendError(f"no style {style!r}; known: {', '.join(STYLES)}")
        height, width = frames.shape[1:3]
        grain = cv2.GaussianBlur(rng.normal(0, 1, (height, width)).astype(np.float32), (0, 0), 0.8)
        self._paper = 1 + 0.025 * grain / max(float(grain.std()), 1e-6)
        self._palette = _palette(frames) if self.style == "poster" else None

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        out = getattr(self, f"_{self.style}")(frame)
        return np.clip(np.rint(out), 0, 255).astype(np.uint8)

    def _pencil(self, frame: np.ndarray) -> np.ndarray:
        """Colour dodge of the grey picture by its blurred negative, shaded by tone, on paper."""
        grey = cv2.cvtColor(cv2.bilateralFilter(frame, 7, 30, 5), cv2.COLOR_RGB2GRAY).astype(np.float32)
        sigma = min(frame.shape[:2]) / 60
        lines = np.minimum((grey + 24) * 255 / (cv2.GaussianBlur(grey, (0, 0), sigma) + 24), 255)
        tone = np.minimum(0.38 * cv2.GaussianBlur(grey, (0, 0), 1.2) + 172, 255)
        drawn = (lines / 255) ** 1.3 * tone
        return np.repeat((drawn * self._paper)[..., None], 3, axis=2)

    def _paint(self, frame: np.ndarray) -> np.ndarray:
        """Kuwahara: each pixel is the mean of the calmest of the four squares beside it."""
        radius = max(3, min(frame.shape[:2]) // 90)
        painted = _kuwahara(_kuwahara(frame.astype(np.float32), radius), max(2, radius // 2))
        return _more_color(painted, 1.35)

    def _poster(self, frame: np.ndarray) -> np.ndarray:
        """Flat colours of one palette with a drawn outline."""
        smooth = cv2.pyrMeanShiftFiltering(frame, 6, 22, maxLevel=1)
        colours, palette = lab(smooth).reshape(-1, 3), lab(self._palette)[0]
        distance = np.square(palette).sum(axis=1) - 2 * colours @ palette.T
        flat = self._palette[0][distance.argmin(axis=1)].reshape(frame.shape)
        flat = cv2.medianBlur(flat, 7).astype(np.float32)
        grey = cv2.cvtColor(smooth, cv2.COLOR_RGB2GRAY).astype(np.float32)
        edge = cv2.GaussianBlur(grey, (0, 0), 1.6) - cv2.GaussianBlur(grey, (0, 0), 0.8)
        return flat * (1 - 0.7 * np.clip((edge - 5) / 8, 0, 1))[..., None]

    def _watercolor(self, frame: np.ndarray) -> np.ndarray:
        wet = cv2.edgePreservingFilter(frame, flags=cv2.RECURS_FILTER, sigma_s=40, sigma_r=0.4).astype(np.float32)
        grey = cv2.cvtColor(wet.astype(np.uint8), cv2.COLOR_RGB2GRAY).astype(np.float32)
        rim = cv2.magnitude(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
        pale = 255 - (255 - _more_color(wet, 1.25)) * 0.8
        return (pale - np.clip(rim[..., None] * 0.25, 0, 40)) * self._paper[..., None]

    def _sepia(self, frame: np.ndarray) -> np.ndarray:
        toned = frame.astype(np.float32) @ SEPIA.T * 0.93
        height, width = frame.shape[:2]
        y, x = np.mgrid[-1:1:height * 1j, -1:1:width * 1j]
        return toned * (1 - 0.28 * np.clip(x * x + y * y - 0.3, 0, 2))[..., None] * (
            1 + (self._paper[..., None] - 1) * 0.6)


def steady(before: np.ndarray, frame: np.ndarray, styled_before: np.ndarray, styled: np.ndarray,
           flow: DenseFlow) -> np.ndarray:
    """`styled` with its predecessor mixed in along the flow of the frames, where it is visible."""
    back = flow(frame, before)
    seen = visible(back, flow(before, frame)) & (cv2.absdiff(frame, warp(before, back)).max(axis=2) < 30)
    weight = CARRIED * cv2.blur(seen.astype(np.float32), (5, 5))[..., None]
    mixed = styled * (1 - weight) + warp(styled_before, back) * weight
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def _kuwahara(picture: np.ndarray, radius: int) -> np.ndarray:
    size, best, out = radius + 1, None, None
    grey = picture.mean(axis=2)
    for anchor in ((0, 0), (0, radius), (radius, 0), (radius, radius)):
        mean = cv2.blur(picture, (size, size), anchor=anchor)
        spread = cv2.blur(grey * grey, (size, size), anchor=anchor) - cv2.blur(grey, (size, size), anchor=anchor) ** 2
        out = mean if out is None else np.where((spread < best)[..., None], mean, out)
        best = spread if best is None else np.minimum(best, spread)
    return out


def _more_color(picture: np.ndarray, factor: float) -> np.ndarray:
    grey = picture.mean(axis=2, keepdims=True)
    return np.clip(grey + (picture - grey) * factor, 0, 255)


def _palette(frames: np.ndarray) -> np.ndarray:
    """uint8 `(1, 10, 3)` RGB: the clip's own colours by k-means in Lab, a little stronger and lighter."""
    picks = frames[np.linspace(0, len(frames) - 1, min(len(frames), 5)).astype(int)]
    small = np.concatenate([lab(shrink(f, fit((f.shape[1], f.shape[0]), long_px=96))).reshape(-1, 3) for f in picks])
    cv2.setRNGSeed(0)
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 30, 0.5)
    _, _, centres = cv2.kmeans(small, PALETTE_SIZE, None, stop, 2, cv2.KMEANS_PP_CENTERS)
    centres[:, 0] = 8 + 0.95 * centres[:, 0]
    return rgb((centres * [1, 1.4, 1.4]).astype(np.float32)[None])
