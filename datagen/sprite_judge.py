"""An analytic judge of edited scenes: it measures pixels against known facts and knows no model.

Tolerances were fixed before any training. N cases, T frames, S side in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .sprite_edits import LUMINANCE, NONE, Cases
from .sprites import RGB, SHAPES, object_masks, render

MIN_SHARE = 0.5       # of the pixels of a region that must show its colour
MIN_ABSENT = 0.9      # of the pixels of a removed object that must show what lies behind
MIN_IOU = 0.7         # of the asked shape with what is drawn; neighbouring templates reach 0.84
GREY_SPREAD = 24      # largest mean spread of the channels of a grey picture, levels
GREY_ERROR = 10       # largest error of a region's grey, levels; the palette's greys lie 22 or more apart
MAX_CENTROID_PX = 1.0


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """bool `[N]` each, except `psnr_outside_db` float `[N]` (nan where nothing lies outside the edit).
    `success` is all that was asked and all that had to stay; `leak` is an attribute of a wrong reference.
    """

    success: np.ndarray
    background: np.ndarray
    colour: np.ndarray
    shape: np.ndarray
    motion: np.ndarray
    leak: np.ndarray
    psnr_outside_db: np.ndarray

    def means(self) -> dict[str, float]:
        """Share of each verdict, and the mean PSNR where it is measured."""
        names = ("success", "background", "colour", "shape", "motion", "leak")
        out = {n: float(getattr(self, n).mean()) for n in names}
        known = self.psnr_outside_db[~np.isnan(self.psnr_outside_db)]
        return out | {"psnr_outside_db": float(known.mean()) if len(known) else float("nan")}


def judge(pictures: np.ndarray, cases: Cases) -> Verdicts:
    """`pictures` uint8 `[N, T, S, S, 3]` against what was asked for."""
    target, grey = cases.target, cases.style == 2
    # An inverted picture is turned back, then the palette of the target is the asked one in every case but grey.
    restored = np.where((cases.style == 1)[:, None, None, None, None], 255 - pictures, pictures)
    nearest = nearest_colour(restored)                                     # [N, T, S, S]
    masks = object_masks(target, cases.frames)                             # [N, K, T, S, S]
    behind = ~masks.any(1)
    shown = target.shown.astype(bool)
    background = np.where(grey, _is_grey(pictures, behind, target.background),
                          _mode(nearest, behind) == target.background)
    colour, shape = np.ones(len(cases), bool), np.ones(len(cases), bool)
    for k in range(shown.shape[1]):
        right = _share(nearest == target.colour[:, k, None, None, None], masks[:, k]) > MIN_SHARE
        right = np.where(grey, _is_grey(pictures, masks[:, k], target.colour[:, k]), right)
        colour &= right | ~shown[:, k]
        shape &= _shape_is_right(restored, nearest, cases, k) | ~shown[:, k] | grey
    if cases.has_source:
        gone = object_masks(cases.visuals[0], cases.frames) & ~masks.any(1, keepdims=True)
        gone &= (cases.visuals[0].shown > target.shown)[..., None, None, None]
        empty = _share(nearest == target.background[:, None, None, None], gone.any(1)) > MIN_ABSENT
        shape &= empty | ~gone.any((1, 2, 3, 4))
    motion = _motion_is_right(nearest, cases)
    leak = _leaks(nearest, masks, behind, cases)
    return Verdicts(success=background & colour & shape & motion, background=background, colour=colour, shape=shape,
                    motion=motion, leak=leak, psnr_outside_db=psnr_outside(pictures, cases))


def nearest_colour(pictures: np.ndarray) -> np.ndarray:
    """Index of the palette colour nearest to each pixel: for the corners of a cube, channel by channel."""
    bits = pictures >= int(RGB.mean())
    return bits[..., 0] * 4 + bits[..., 1] * 2 + bits[..., 2] * 1


def _share(hits: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Share of the pixels of a mask that hit, over all frames; 0 for an empty mask."""
    axes = tuple(range(1, mask.ndim))
    return (hits & mask).sum(axes) / np.maximum(mask.sum(axes), 1)


def _mode(nearest: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Most frequent colour inside the mask."""
    return np.stack([((nearest == c) & mask).sum((1, 2, 3)) for c in range(len(RGB))]).argmax(0)


def _is_grey(pictures: np.ndarray, mask: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Is the region grey, at the level that the colour has?"""
    weight = mask[..., None] / np.maximum(mask.sum((1, 2, 3)), 1)[:, None, None, None, None]
    mean = (pictures * weight).sum((1, 2, 3))                               # [N, 3]
    spread = ((pictures.max(-1).astype(int) - pictures.min(-1)) * weight[..., 0]).sum((1, 2, 3))
    return (np.abs(mean @ LUMINANCE - RGB[colour] @ LUMINANCE) <= GREY_ERROR) & (spread <= GREY_SPREAD)


def _shape_is_right(pictures: np.ndarray, nearest: np.ndarray, cases: Cases, k: int) -> np.ndarray:
    """Does the asked template overlap best, and well, with the pixels that show the object's colour there?"""
    target = cases.target
    filled = object_masks(target, cases.frames, shape=np.zeros_like(target.shape))[:, k]  # the whole box: a square
    drawn = (nearest == target.colour[:, k, None, None, None]) & filled
    overlaps = []
    for i in range(len(SHAPES)):
        wanted = object_masks(target, cases.frames, shape=np.full_like(target.shape, i))[:, k]
        overlaps.append((drawn & wanted).sum((1, 2, 3)) / np.maximum((drawn | wanted).sum((1, 2, 3)), 1))
    overlaps = np.stack(overlaps)
    own = overlaps[target.shape[:, k], np.arange(len(cases))]
    return (own >= overlaps.max(0) - 1e-9) & (own >= MIN_IOU)


def _motion_is_right(nearest: np.ndarray, cases: Cases) -> np.ndarray:
    """Is the first object's centroid within a pixel of where it should be, in every frame?"""
    if cases.frames == 1:
        return np.ones(len(cases), bool)
    target = cases.target
    drawn = nearest == target.colour[:, 0, None, None, None]
    errors = np.hypot(*(a - b for a, b in zip(_centroid(drawn), _centroid(object_masks(target, cases.frames)[:, 0]),
                                              strict=True)))
    return (errors <= MAX_CENTROID_PX).all(1)


def _centroid(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and column `[N, T]`; far outside where there is no pixel."""
    row, column = np.mgrid[: mask.shape[2], : mask.shape[3]]
    count = mask.sum((2, 3))
    return tuple(np.where(count > 0, (mask * c).sum((2, 3)) / np.maximum(count, 1), 1e3) for c in (row, column))


def _leaks(nearest: np.ndarray, masks: np.ndarray, behind: np.ndarray, cases: Cases) -> np.ndarray:
    """Does the background, or the object, show the colour of a wrong reference?"""
    back = (cases.wrong_background != NONE) & (_mode(nearest, behind) == cases.wrong_background)
    other = _share(nearest == cases.wrong_colour[:, None, None, None], masks[:, 0]) > MIN_SHARE
    return back | ((cases.wrong_colour != NONE) & other)


def psnr_outside(pictures: np.ndarray, cases: Cases) -> np.ndarray:
    """PSNR in dB against the source outside the edit mask; without a source against the target, everywhere."""
    if cases.has_source:
        reference, mask = render(cases.visuals[0], cases.frames), ~cases.edit_mask()
    else:
        reference = cases.target_pictures()
        mask = np.ones(reference.shape[:-1], bool)
    error = ((pictures.astype(np.float64) - reference) ** 2).mean(-1)
    num = mask.sum((1, 2, 3))
    mean = (error * mask).sum((1, 2, 3)) / np.maximum(num, 1)
    return np.where(num > 0, 10 * np.log10(255.0**2 / np.maximum(mean, 0.05)), np.nan)
