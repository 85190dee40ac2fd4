"""How much of the picture is covered by burned-in text: subtitles, captions, station marks, time codes.

Three things tell overlaid text from a scene: its letters are thin strokes, brighter or darker
than all that is near (a top-hat as wide as the thickest stroke keeps just that); they stay where
they are for a second or more (what both of two detail frames show); and they stand in a row:
parts of like height and stroke on one line, close to each other. No single one is enough: a
fence has strokes, a standing camera keeps everything in place.

Limits: text that scrolls, lasts less than a second, or joins its letters (handwriting, heavy
glow) is missed; printed signs in a scene filmed by a standing camera count as text.
"""

from __future__ import annotations

import cv2
import numpy as np
import pyarrow as pa

from manifests.columns import column
from manifests.frames import ClipFrames

MAX_PAIRS = 6            # of detail frames a second apart
STROKE = 0.025           # thickest stroke, share of the picture's height
CONTRAST_LUMA = 70       # of a stroke against its surroundings; text is drawn to be read
LETTER = (0.016, 0.11)   # height of a letter, share of the picture's height
FILL = (0.2, 0.92)       # ink inside the box of a letter
MIN_LETTERS = 5          # of one line
LIKE_HEIGHT = 1.7        # tallest against lowest neighbour: "l" beside "a"
LIKE_STROKE = 1.6
GAP = 1.1                # largest gap between neighbours, in heights; a space is about half of one
MAX_SLANT = 0.35         # of the centres of two neighbours, in heights


class MeasureOverlayText:
    backend = "classical"
    adds = (
        column("overlay_text_area", pa.float32(), "mean share of the picture inside lines of text that stay in place"),
        column("overlay_text_time", pa.float32(), "share of the moments looked at that show such text"),
    )

    def __call__(self, clip: ClipFrames) -> dict:
        if not clip.details:
            return {}
        strokes = [_strokes(image) for image in clip.details]
        last = max(1, len(strokes) - 1)
        picks = np.unique(np.linspace(0, last - 1, MAX_PAIRS).astype(int))
        areas = [_text_area([b & a for b, a in zip(strokes[i], strokes[min(i + 1, len(strokes) - 1)], strict=True)])
                 for i in picks]
        return {"overlay_text_area": float(np.mean(areas)), "overlay_text_time": float(np.mean(np.array(areas) > 0))}


def _strokes(luma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Masks (uint8, 0 or 1) of thin things that are brighter, and darker, than what is around them."""
    side = max(3, round(luma.shape[0] * STROKE) | 1)
    kernel = np.ones((side, side), np.uint8)
    bright = cv2.morphologyEx(luma, cv2.MORPH_TOPHAT, kernel)
    dark = cv2.morphologyEx(luma, cv2.MORPH_BLACKHAT, kernel)
    return (bright > CONTRAST_LUMA).astype(np.uint8), (dark > CONTRAST_LUMA).astype(np.uint8)


def _text_area(masks: list[np.ndarray]) -> float:
    """Share of the picture inside lines of text; bright and dark text are looked for apart."""
    covered = np.zeros(masks[0].shape, np.uint8)
    for mask in masks:
        for x, y, w, h in _lines(_letters(mask)):
            covered[y : y + h, x : x + w] = 1
    return float(covered.mean())


def _letters(mask: np.ndarray) -> np.ndarray:
    """`(N, 5)` x, y, width, height and stroke of the parts that have the size and ink of a letter, by x."""
    num, _, boxes, _ = cv2.connectedComponentsWithStats(mask)
    boxes = boxes[1:num].astype(float)
    x, y, w, h, ink = boxes.T
    tall = mask.shape[0]
    good = (h >= LETTER[0] * tall) & (h <= LETTER[1] * tall) & (w <= 2.2 * h) & (w >= 0.1 * h)
    good &= (ink >= FILL[0] * w * h) & ((ink <= FILL[1] * w * h) | (w < 0.45 * h))  # an "l" or "I" fills its box
    found = np.stack([x, y, w, h, ink / (w + h)], axis=1)[good]
    return found[np.argsort(found[:, 0], kind="stable")]


def _lines(letters: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Boxes of the runs of at least MIN_LETTERS neighbours."""
    open_lines: list[list[np.ndarray]] = []
    done: list[list[np.ndarray]] = []
    for letter in letters:
        fits = [line for line in open_lines if _follows(line[-1], letter)]
        if fits:
            min(fits, key=lambda line: letter[0] - line[-1][0]).append(letter)
        else:
            open_lines.append([letter])
        closed = [line for line in open_lines if letter[0] - line[-1][0] - line[-1][2] > GAP * line[-1][3] * 2]
        done += closed
        open_lines = [line for line in open_lines if not any(line is c for c in closed)]
    return [_box(np.array(line)) for line in [*done, *open_lines] if len(line) >= MIN_LETTERS]


def _follows(left: np.ndarray, right: np.ndarray) -> bool:
    low, high = sorted((left[3], right[3]))
    thin, thick = sorted((left[4], right[4]))
    gap = right[0] - left[0] - left[2]
    bottoms = abs(left[1] + left[3] - right[1] - right[3])
    middles = abs(left[1] + left[3] / 2 - right[1] - right[3] / 2)
    return (high <= LIKE_HEIGHT * low and thick <= LIKE_STROKE * thin and -0.2 * high <= gap <= GAP * high
            and min(bottoms, middles) <= MAX_SLANT * low)


def _box(line: np.ndarray) -> tuple[int, int, int, int]:
    x, y = line[:, 0].min(), line[:, 1].min()
    return int(x), int(y), int((line[:, 0] + line[:, 2]).max() - x), int((line[:, 1] + line[:, 3]).max() - y)
