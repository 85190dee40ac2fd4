"""What an edit brought in, cut out of the edited first frame: the reference of a -Ref variant (D5, D6).

Table 1: "the edited object of the first frame is extracted as reference". It stands on white, so that nothing of
the target's background comes with it.
"""

from __future__ import annotations

import cv2
import numpy as np
import pyarrow as pa

from manifests.columns import column, map_rows
from manifests.errors import BackendError
from manifests.media_store import MediaStore
from manifests.spans import read_image

from .backends import Track, open_backend

MARGIN = 0.08      # of the object's box, on each side
MIN_OVERLAP = 0.3  # of the segmenter's object with what changed; below it something else was found


class CutReference:
    """Edited pictures with `changed_path` → `reference_path`, the object alone on white.

    The segmenter `segmenter` looks for what the column `thing` calls it in the edited picture, and the find that
    overlaps most with what changed is taken; where none does, what changed is cut out itself (its largest connected
    part). A row without such words has nothing to cut. When the background was edited, the object is what did not
    change. `mask` names a column with a picture of the object's
    exact outline: only rows that have one are cut then.
    """

    adds = (
        column("reference_path", pa.string(), "the edited object of the first frame, on white"),
        column("reference_share", pa.float32(), "share of the frame that it covers", "0 to 1"),
        column("reference_found_by", pa.string(), "segmenter, difference where it found something else, or mask"),
    )
    neutral = ("media",)

    def __init__(self, media: str, *, segmenter: str = "classical", options: dict | None = None, mask: str = "",
                 thing: str = "edited_thing"):
        self.reads, self.mask, self.thing = self.contract(mask=mask, thing=thing)[0], mask, thing
        self.store = MediaStore(media)
        self.segmenter = None if mask else open_backend("segmenter", segmenter, **(options or {}))

    @classmethod
    def contract(cls, mask: str = "", thing: str = "edited_thing", **_: object,
                 ) -> tuple[tuple[str, ...], tuple[pa.Field, ...]]:
        return ("edited_path", *((mask,) if mask else ("changed_path", thing, "edit_kind"))), cls.adds

    def __call__(self, table: pa.Table) -> pa.Table:
        return map_rows(table, self, self._cut)

    def _cut(self, row: dict) -> dict:
        if self.mask:
            return self._outlined(row)
        if not row[self.thing]:
            return {}
        if not row["edited_path"] or not row["changed_path"]:
            raise BackendError("there is no edited first frame")
        edited, changed = read_image(row["edited_path"]), read_image(row["changed_path"])[..., 0] > 127
        if (row["edit_kind"] or "").endswith("background"):
            changed = ~changed
        if not changed.any():
            raise BackendError("the edit changed nothing that could be seen")
        mask, found_by = largest_part(changed), "difference"
        tracks = self._segment(edited, row[self.thing])
        if best := max(tracks, key=lambda t: overlap(t.masks[0], changed), default=None):
            if overlap(best.masks[0], changed) >= MIN_OVERLAP:
                mask, found_by = best.masks[0], "segmenter"
        return {"reference_path": self.store.image(on_white(edited, mask)), "reference_share": float(mask.mean()),
                "reference_found_by": found_by}

    def _outlined(self, row: dict) -> dict:
        if not row[self.mask] or not row["edited_path"]:
            return {}
        edited, mask = read_image(row["edited_path"]), read_image(row[self.mask])[..., 0] > 127
        if not mask.any():
            return {}
        return {"reference_path": self.store.image(on_white(edited, mask)), "reference_share": float(mask.mean()),
                "reference_found_by": "mask"}

    def _segment(self, edited: np.ndarray, thing: str) -> list[Track]:
        try:
            return self.segmenter.segment(edited[None], (thing,))
        except BackendError:  # it found nothing: the difference remains
            return []


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum()) / max(int((a | b).sum()), 1)


def largest_part(mask: np.ndarray) -> np.ndarray:
    num, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    return labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())


def on_white(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The masked part in a white rectangle with a margin, its edge soft over two pixels."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    pad = round(MARGIN * max(np.ptp(rows), np.ptp(columns))) + 1
    y0, y1 = max(rows[0] - pad, 0), min(rows[-1] + pad + 1, mask.shape[0])
    x0, x1 = max(columns[0] - pad, 0), min(columns[-1] + pad + 1, mask.shape[1])
    soft = cv2.GaussianBlur(mask[y0:y1, x0:x1].astype(np.float32), (0, 0), 1.0)[..., None]
    return np.round(image[y0:y1, x0:x1] * soft + 255 * (1 - soft)).astype(np.uint8)
