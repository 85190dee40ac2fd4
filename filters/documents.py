"""What a web document holds: how much text, how repetitive, which pictures, and whether they can be used.

The paper applies "the basic filtering in [15]" (BAGEL) to OmniCorpus. Its rules for interleaved web pages, as far
as they need no model: no interface pictures (icon, widget in the address), sides of 150 to
20,000 px, aspect 1 : 2 to 2 : 1, no blurred pictures, 3 to 8 pictures a document. Repetition is measured as in Gopher
(Rae et al. 2021), by repeated runs of words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import cv2
import numpy as np
import pyarrow as pa

from manifests.archives import Shelf
from manifests.columns import add_issues, column, map_rows
from manifests.errors import MediaError
from manifests.frames import DETAIL_SHORT_PX
from manifests.ids import digest
from manifests.planes import fit, shrink
from manifests.words import words

from .sharpness import sharpness_of

S, I32 = pa.string(), pa.int32()
RUN = 5               # words in a run
INTERFACE = re.compile(r"(?<![a-z])(fav)?(icon|widget|logo|avatar|sprite|banner|button)s?(?![a-z])", re.IGNORECASE)
NEAR_BITS = 4         # of 64 by which two hashes of one picture differ after scaling and JPEG
PICTURE = pa.struct([("width", I32), ("height", I32), ("sharpness", pa.float32()), ("hash", S), ("problem", S)])


class MeasureDocuments:
    """DOCUMENTS → the same with measures of text and pictures. `image_root` holds the pictures (manifests/archives.py).

    A picture that cannot be read is a `problem` of that picture and a line in `issues`, not a failure of the row.
    """

    reads = ("texts", "images", "image_keys")
    adds = (
        column("num_words", I32, "words of all texts; in scripts without spaces letters"),
        column("repetition", pa.float32(), f"share of the runs of {RUN} words that stood there before", "0 to 1"),
        column("text_hash", S, "of all words in lower case: equal for copies"),
        column("pictures", pa.list_(PICTURE), "size, variance of the Laplacian at 480p, difference hash (64 bits), or "
                                              "why it cannot be read; in the order of images"),
    )
    neutral = ("image_root",)

    def __init__(self, image_root: str):
        self._shelf = Shelf(image_root)

    def __call__(self, table: pa.Table) -> pa.Table:
        issues: list[list[str]] = []

        def measure(row: dict) -> dict:
            pictures = [self._look(name, key) for name, key in zip(row["images"], row["image_keys"], strict=True)]
            issues.append([f"MeasureDocuments: {p['problem']}" for p in pictures if p["problem"]][:8])
            found = words(" ".join(row["texts"]).lower())
            return {"num_words": len(found), "repetition": repetition(found), "text_hash": digest(found),
                    "pictures": pictures}

        return add_issues(map_rows(table, self, measure), issues)

    def _look(self, name: str, key: str | None) -> dict:
        try:
            rgb = self._shelf.read(self._shelf.find(name, key))
        except MediaError as error:
            return {"problem": str(error)}
        grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        height, width = grey.shape
        detail = shrink(grey, fit((width, height), short_px=DETAIL_SHORT_PX))
        return {"width": width, "height": height, "sharpness": sharpness_of(detail), "hash": difference_hash(grey),
                "problem": None}


class KeepPictures:
    """Measured DOCUMENTS → `picture_reasons`, null for those that are kept; `num_images`, `pictures_hash`."""

    reads = ("images", "pictures")
    adds = (
        column("picture_reasons", pa.list_(S), "why a picture is left out; null = it is used; in the order of images"),
        column("num_images", I32, "pictures that are used"),
        column("pictures_hash", S, "of the hashes of all pictures that are used: equal for copies; null = none"),
    )

    def __init__(self, *, min_px: int = 150, max_px: int = 20_000, max_aspect: float = 2.0,
                 min_sharpness: float = 20.0):
        self.min_px, self.max_px, self.max_aspect, self.min_sharpness = min_px, max_px, max_aspect, min_sharpness

    def __call__(self, table: pa.Table) -> pa.Table:
        return map_rows(table, self, self._choose)

    def _choose(self, row: dict) -> dict:
        reasons, kept = [], []
        for name, picture in zip(row["images"], row["pictures"], strict=True):
            reason = self._reason(name, picture, kept)
            reasons.append(reason)
            kept += [picture["hash"]] if reason is None else []
        return {"picture_reasons": reasons, "num_images": len(kept),
                "pictures_hash": digest(sorted(kept)) if kept else None}

    def _reason(self, name: str, picture: dict, before: Sequence[str]) -> str | None:
        if picture["problem"]:
            return "cannot be read"
        sides = sorted((picture["width"], picture["height"]))
        if INTERFACE.search(name):
            return "part of an interface"
        if sides[0] < self.min_px or sides[1] > self.max_px:
            return f"side not within {self.min_px} to {self.max_px} px"
        if sides[1] > self.max_aspect * sides[0]:
            return f"longer than {self.max_aspect:g} : 1"
        if picture["sharpness"] < self.min_sharpness:
            return f"sharpness<{self.min_sharpness:g}"
        if any(bits_apart(picture["hash"], other) <= NEAR_BITS for other in before):
            return "repeats another picture"
        return None


def repetition(found: Sequence[str]) -> float:
    """Share of the runs of five words that are not new; 0 for a text with fewer words."""
    runs = [tuple(found[i : i + RUN]) for i in range(len(found) - RUN + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def difference_hash(grey: np.ndarray) -> str:
    """16 hex digits: for 8 x 8 places whether it gets brighter to the right. Scaling and JPEG change few bits."""
    small = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA)
    return np.packbits(small[:, 1:] > small[:, :-1]).tobytes().hex()


def bits_apart(a: str, b: str) -> int:
    return (int(a, 16) ^ int(b, 16)).bit_count()
