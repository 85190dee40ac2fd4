"""The objects that stand out in a clip, each with its outline in the key frame that shows it (D7).

Paper section 3.4: a vision-language model names the 3 to 5 most salient objects; a segmenter finds what the words
mean. Without a model the segmenter itself says what stands out: the object that is followed through the middle
of the clip, then, in its best frame, what stands out when the objects before are painted over. Colour and
place are measured and become its name.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import pyarrow as pa

from manifests.columns import column, map_rows
from manifests.errors import BackendError
from manifests.media_store import MediaStore
from manifests.spans import read_picture, read_span

from .backends import Track, open_backend
from .cut_reference import largest_part
from .list_edits import color_name, place_name

FPS, SECONDS = 8.0, 2.5   # what the segmenter sees of a clip: enough to tell what moves
SHORT_PX = 360            # of these frames
RING = 0.25               # width of what surrounds an object, in the root of its area
RIM = 0.015               # of the short side: outlines end a little before the frame does
REPEATED = 0.1            # share of an object that was found before: then nothing new stands out
JPEG = 95

FOUND = pa.struct([
    column("name", pa.string(), "the object in words, without its place"),
    column("place", pa.string(), "where it is in the key frame, e.g. ' on the left'; null = the name says it"),
    column("instruction", pa.string(), "how it is to be shown in another scene"),
    column("time_s", pa.float64(), "moment of the key frame", "s"),
    column("frame_path", pa.string(), "that key frame as a picture"),
    column("mask_path", pa.string(), "picture of its size, white = the object; null = it was not found"),
    column("score", pa.float32(), "how sure the segmenter is; 0 = it was not found", "0 to 1"),
    column("share", pa.float32(), "share of the key frame that it covers", "0 to 1"),
    column("cut", pa.float32(), "share of its box's outline that lies on the left, right or upper frame border"),
    column("solid", pa.float32(), "share of its convex hull that it fills: shreds and fringes fill little", "0 to 1"),
    column("contrast", pa.float32(), "share of its colours that what surrounds it has not", "0 to 1"),
])


class FindObjects:
    """Clips → `found_objects`, most salient first.

    With `phrased` the column `objects` (annotators/objects.py) says what is looked for and when; without,
    at most `num` objects are found by what stands out. Key frames are stored below `media` with their longer side
    at most `long_px`.
    """

    adds = (
        column("found_objects", pa.list_(FOUND), "objects of the clip and where they are"),
        column("num_found", pa.int32(), "objects that the segmenter found"),
    )
    neutral = ("media",)

    def __init__(self, media: str, *, segmenter: str = "classical", options: dict | None = None,
                 phrased: bool = False, num: int = 5, long_px: int = 1024):
        self.reads, self.phrased = self.contract(phrased=phrased)[0], phrased
        self.store, self.num, self.long_px = MediaStore(media), num, long_px
        self.segmenter = open_backend("segmenter", segmenter, **(options or {}))

    @classmethod
    def contract(cls, phrased: bool = False, **_: object) -> tuple[tuple[str, ...], tuple[pa.Field, ...]]:
        return ("path", "start_s", "end_s", *(("objects",) if phrased else ())), cls.adds

    @classmethod
    def owners(cls, segmenter: str = "classical", options: dict | None = None, **_: object) -> dict[str, dict]:
        by = {"op": "datagen.find_objects:FindObjects", "backend": segmenter, **(options or {})}
        return {field.name: by for field in cls.adds}

    def __call__(self, table: pa.Table) -> pa.Table:
        return map_rows(table, self, self._find)

    def _find(self, row: dict) -> dict:
        found = list(self._named(row) if self.phrased else self._salient(row))
        return {"found_objects": found, "num_found": sum(o["mask_path"] is not None for o in found)}

    def _named(self, row: dict) -> Iterator[dict]:
        """The objects of a model by their names, each in the frame that the model chose."""
        if not row["objects"]:
            raise BackendError("no objects were named")
        for wanted in row["objects"][:self.num]:
            frame, path = self._key_frame(row, wanted["time_s"])
            track = self._first(frame[None], (wanted["name"],))
            yield self._object(wanted["name"], None, wanted["instruction"], wanted["time_s"], path, frame,
                               None if track is None else track.masks[0], track.score if track else 0.0)

    def _salient(self, row: dict) -> Iterator[dict]:
        length = min(SECONDS, row["end_s"] - row["start_s"])
        begin = (row["start_s"] + row["end_s"] - length) / 2
        frames = np.stack(list(read_span(row["path"], begin, begin + length, short_px=SHORT_PX, fps=FPS)))
        track = self._first(frames)
        if track is None:
            return
        best = max(range(len(frames)), key=lambda t: track.masks[t].sum() * (1 - min(1.0, 2 * cut_off(track.masks[t]))))
        time_s, mask = begin + best / FPS, track.masks[best]
        key, path = self._key_frame(row, time_s)
        taken = np.zeros_like(mask)
        for _ in range(self.num):
            yield self._measured(key, path, time_s, mask, track)
            taken |= mask
            track = self._first(painted_over(frames[best], taken)[None])
            if track is None or (track.masks[0] & taken).sum() > REPEATED * track.masks[0].sum():
                return
            mask = track.masks[0]

    def _key_frame(self, row: dict, time_s: float) -> tuple[np.ndarray, str]:
        frame = read_picture(row["path"], time_s, long_px=self.long_px)
        return frame, self.store.image(frame, kind="jpg", quality=JPEG)

    def _first(self, frames: np.ndarray, phrases: tuple[str, ...] = ()) -> Track | None:
        try:
            track = next(iter(self.segmenter.segment(frames, phrases)), None)
        except BackendError:  # a finding about the clip: nothing stands out
            return None
        return track if track is not None and track.masks.any() else None

    def _measured(self, key: np.ndarray, path: str, time_s: float, mask: np.ndarray, track: Track) -> dict:
        big = resized(largest_part(mask), key.shape)  # one thing, not three bottles
        name = f"the {'person' if track.phrase == 'person' else f'{color_name(key, big)} object'}"
        told = f"Take {name}{place_name(big)} out of the picture and show it whole before quite another scene."
        return self._object(name, place_name(big), told, time_s, path, key, big, track.score)

    def _object(self, name: str, place: str | None, told: str, time_s: float, path: str, key: np.ndarray,
                mask: np.ndarray | None, score: float) -> dict:
        found = mask is not None and bool(mask.any())
        form = {"share": float(mask.mean()), "cut": cut_off(mask), "solid": solidity(mask),
                "contrast": contrast(key, mask)} if found else dict.fromkeys(("share", "cut", "solid", "contrast"), 0.0)
        return {"name": name, "place": place, "instruction": told, "time_s": time_s, "frame_path": path,
                "mask_path": self.store.image(mask.astype(np.uint8) * 255) if found else None,
                "score": float(score) if found else 0.0, **form}


def cut_off(mask: np.ndarray) -> float:
    """How much of an object's box is closed by the frame's border; the lower border does not count: things stand."""
    if not mask.any():
        return 0.0
    box = np.ptp(np.flatnonzero(mask.any(axis=1))) + np.ptp(np.flatnonzero(mask.any(axis=0))) + 2
    rim = max(1, round(RIM * min(mask.shape)))
    sides = (mask[:, :rim].any(axis=1), mask[:, -rim:].any(axis=1), mask[:rim].any(axis=0))
    return float(sum(side.sum() for side in sides)) / float(2 * box)


def solidity(mask: np.ndarray) -> float:
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = cv2.contourArea(cv2.convexHull(np.concatenate(outlines)))
    return min(1.0, float(mask.sum()) / hull) if hull else 1.0


def contrast(frame: np.ndarray, mask: np.ndarray) -> float:
    """Where an object has just left its place, the outline holds what is behind it, and this is low."""
    width = max(3, round(RING * float(np.sqrt(mask.sum()))))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * width + 1,) * 2)
    ring = (cv2.dilate(mask.astype(np.uint8), disc) > 0) & ~mask
    if not ring.any():
        return 0.0
    return 1.0 - float(np.minimum(colours(frame[mask]), colours(frame[ring])).sum())


def colours(pixels: np.ndarray) -> np.ndarray:
    """Shares of `(n, 3)` uint8 RGB pixels in coarse bins of CIELab."""
    lab = cv2.cvtColor(pixels.reshape(-1, 1, 3).astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[:, 0]
    counts, _ = np.histogramdd(lab, bins=(8, 12, 12), range=((0, 100), (-96, 96), (-96, 96)))
    return counts / max(counts.sum(), 1)


def painted_over(frame: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The frame with its masked part in the colours around it: smooth, so that nothing stands out there."""
    grown = cv2.dilate(mask.astype(np.uint8), np.ones((9, 9), np.uint8))
    return cv2.inpaint(frame, grown, 5, cv2.INPAINT_TELEA)


def resized(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """bool `(H, W)` at the size of a picture of that shape, with smooth outlines."""
    return cv2.resize(mask.astype(np.uint8) * 255, shape[1::-1], interpolation=cv2.INTER_CUBIC) > 127
