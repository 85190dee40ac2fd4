"""Does the input of a reference-and-video triplet lack what the reference shows, and the target show it? (D9)

Paper section 3.4: the input video lacks the referenced object. Looked at is the region where the object was (the
pair's mask): its colours in the target and in the input, against those of the reference. Then what lies around
that region in the input: a place there that is as much like the reference as the object itself is the rest of
an object that was removed in part.

Colours say nothing of form, but here both sides are the same place of the same film. Not seen: a rest that the
reference does not show (a dress, where it shows a head), and one less like it than what was removed. Taken for a
rest: a neighbour of the same colours.

Tried on 15 removals of real clips that were looked at, 5 whole and 10 in part, and on 16 halves of 4 of the whole.
`reference_lost_share`: whole ones 0.85 and more but for one (0.34, its reference shows more of a sign), 9 of 10
parts 0.44 and less; a half of an object loses as large a share as the whole. `reference_remains`: whole ones
0.37, 0.50, 0.85, 0.91 and 1.20 (the higher, the more of its scene the reference's middle shows), 7 of 10 parts
0.98 and more, 13 of 16 halves above 0.8. One part passed both: hair left over a dress that was all its
reference shows.
"""

from __future__ import annotations

import cv2
import numpy as np
import pyarrow as pa

from manifests.columns import column, map_rows
from manifests.errors import MediaError
from manifests.spans import read_picture

from .pair_frames import READS, PairFrame, both, pair_frames

LONG_PX = 256
MIDDLE = 0.6         # of the reference's sides: what surrounds the object is not counted
RIM = 0.1            # of its sides: what is seen there is the scene, and is not counted in the middle either
WHITE = 244          # of 255 in all channels: the empty ground of a cut-out
BINS = (8, 12, 12)   # of CIELab
EVERY = 8            # frames between looks
MIN_PIXELS = 40
LEFT = 0.05          # share of the middle that must be left without the rim's colours; else the whole middle counts
WINDOW = 0.5         # side of the places around the mask, in roots of its area; so far from it they lie
NUM_WINDOWS = 80     # places that are looked at in a frame
SEEN = 0.4           # of a place must lie outside the mask


class MeasureReferencePresence:
    """Row by row over PAIRS with one reference image, `other_references` of the same film, and a mask.

    Likenesses are common parts of histograms, 0 to 1, each the mean over the frames looked at.
    """

    reads = (*READS, "conditions", "other_references")
    adds = (
        column("reference_in_target", pa.float32(), "likeness of the reference and the masked part of the target"),
        column("reference_lead", pa.float32(), "the same, less that of the most alike of the other references; below "
                                               "0 the object of another one was taken out"),
        column("reference_in_source", pa.float32(), "likeness of the reference and the masked part of the source"),
        column("reference_lost", pa.float32(), "what the source lacks of it: target less source"),
        column("reference_lost_share", pa.float32(), "the same as a share of reference_in_target: 1 all, 0 nothing"),
        column("reference_remains", pa.float32(), "likeness of the reference and the most alike place around the mask "
                                                  "in the source, against reference_in_target: 1 as alike"),
    )

    def __call__(self, table: pa.Table) -> pa.Table:
        return map_rows(table, self, self._measure)

    def _measure(self, row: dict) -> dict:
        paths = [c["path"] for c in row["conditions"] or () if c["role"] == "reference" and c["kind"] == "image"]
        if len(paths) != 1:
            raise MediaError(f"the pair has {len(paths)} reference images; one belongs to the object that was removed")
        wanted, *others = (reference_colours(read_picture(path, None, long_px=LONG_PX))
                           for path in (*paths, *(row["other_references"] or ())))
        looks = [self._look(frame, wanted, others) for n, frame in enumerate(both(pair_frames(row)))
                 if n % EVERY == 0 and frame.mask.sum() >= MIN_PIXELS]
        if not looks:
            raise MediaError("the mask is empty wherever it was looked at")
        target, source, other, around = np.mean(looks, axis=0).tolist()
        return {"reference_in_target": target, "reference_in_source": source, "reference_lead": target - other,
                "reference_lost": target - source, "reference_lost_share": (target - source) / max(target, 1e-6),
                "reference_remains": around / max(target, 1e-6)}

    @staticmethod
    def _look(frame: PairFrame, wanted: np.ndarray, others: list[np.ndarray]) -> tuple[float, float, float, float]:
        """Likenesses in one frame: of the target, of the source, of the target to another reference, of what is
        around it in the source."""
        target, source = (histogram(side[frame.mask]) for side in (frame.target, frame.source))
        around = [histogram(pixels) for pixels in places_around(frame.source, frame.mask)]
        if not around:
            raise MediaError("the mask leaves nothing around it that could be looked at")
        return (alike(target, wanted), alike(source, wanted), max((alike(target, o) for o in others), default=0.0),
                max(alike(place, wanted) for place in around))


def places_around(picture: np.ndarray, mask: np.ndarray) -> list[np.ndarray]:
    """Pixels `(n, 3)` of square places close to the mask `(h, w)`, without what it covers."""
    side = max(3, int(WINDOW * mask.sum() ** 0.5) | 1)
    away = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    centres = np.argwhere(~mask & (away <= side))
    found = []
    for y, x in centres[:: max(1, len(centres) // NUM_WINDOWS)]:
        part = np.s_[max(0, y - side // 2) : y + side // 2 + 1, max(0, x - side // 2) : x + side // 2 + 1]
        pixels = picture[part][~mask[part]]
        if len(pixels) >= SEEN * side**2:
            found.append(pixels)
    return found


def reference_colours(picture: np.ndarray) -> np.ndarray:
    """Histogram of the middle of the reference: what it has more of than the rim, without a white ground."""
    height, width = picture.shape[:2]
    shown, middle, rim = (picture < WHITE).any(axis=2), np.zeros((height, width), bool), np.ones((height, width), bool)
    for area, share, value in ((middle, (1 - MIDDLE) / 2, True), (rim, RIM, False)):
        y, x = int(height * share), int(width * share)
        area[y : height - y, x : width - x] = value
    inner = histogram(picture[middle & shown if (middle & shown).sum() >= MIN_PIXELS else middle])
    if (rim & shown).sum() < MIN_PIXELS:
        return inner
    own = np.maximum(0, inner - histogram(picture[rim & shown]))
    return own / own.sum() if own.sum() > LEFT else inner


def alike(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.minimum(first, second).sum())


def histogram(pixels: np.ndarray) -> np.ndarray:
    """Shares of `(n, 3)` uint8 RGB pixels in coarse bins of CIELab."""
    lab = cv2.cvtColor(pixels.reshape(-1, 1, 3).astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[:, 0]
    counts, _ = np.histogramdd(lab, bins=BINS, range=((0, 100), (-96, 96), (-96, 96)))
    return counts / max(counts.sum(), 1)
