"""What could be edited in a picture without a model: measured objects, and edits that are really possible (D4, D6).

Without a vision-language model nobody can think up an edit, but a segmenter finds what stands out, its
colour and place can be measured, and the classical editor does a known set of things with it. Each
possible edit comes with the words that describe exactly what the editor will do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import cv2
import numpy as np
import pyarrow as pa

from manifests.color_names import count_colors
from manifests.columns import column, map_rows
from manifests.errors import BackendError
from manifests.ids import digest
from manifests.media_store import MediaStore
from manifests.spans import read_picture

from .backends import Track, open_backend

EDIT = pa.struct([
    column("prompt", pa.string(), "the edit as an instruction"),
    column("kind", pa.string(), "kind of edit, as in datagen.backends.EditRequest"),
    column("params", pa.string(), "its parameters as a JSON object"),
    column("object", pa.string(), "what is edited, in words; null = the whole picture"),
])
COLORS = ("red", "orange", "yellow", "green", "teal", "blue", "purple", "pink")
MIN_SOLID, MAX_SHARE = 0.7, 0.5  # of the convex outline and of the picture: what counts as a whole thing
NUM_COLORS = 2  # new colours that are offered for one object
STYLES = {
    "pencil": "Turn the whole scene into a pencil drawing.",
    "paint": "Make the scene look like an oil painting with broad strokes.",
    "poster": "Reduce the scene to a poster with few flat colours.",
    "watercolor": "Paint the scene anew as a watercolour.",
    "sepia": "Give the scene the brown tones of an old photograph.",
}
PLACES = {"galaxies": "a night sky full of galaxies", "bricks": "a brick wall", "rocket": "a rocket on its launch pad"}
SAID = {"cyan": "teal", "black": "dark"}  # as the colours that are offered, and as people say it of things


class ListEdits:
    """Pictures → `possible_edits`, and the mask of the object that they are about.

    `media` is the root of stored masks. Where nothing stands out only edits of the whole picture are listed.
    """

    reads = ("frame_id", "path", "time_s")
    adds = (
        column("possible_edits", pa.list_(EDIT), "edits that the classical editor can do here"),
        column("object_mask_path", pa.string(), "picture, white = the object that stands out; null = nothing does"),
    )
    neutral = ("media",)

    def __init__(self, media: str, *, segmenter: str = "classical", options: dict | None = None,
                 long_px: int = 1024, seed: int = 0):
        self.store, self.long_px, self.seed = MediaStore(media), long_px, seed
        self.segmenter = open_backend("segmenter", segmenter, **(options or {}))

    def __call__(self, table: pa.Table) -> pa.Table:
        return map_rows(table, self, self._list)

    def _list(self, row: dict) -> dict:
        image = read_picture(row["path"], row["time_s"], long_px=self.long_px)
        edits, mask_path = [], None
        try:
            tracks = self.segmenter.segment(image[None])
        except BackendError:  # a finding about the picture: nothing stands out
            tracks = []
        if tracks and tracks[0].masks[0].any():
            mask_path = self.store.image(tracks[0].masks[0].astype(np.uint8) * 255)
            edits += self._of_object(image, tracks[0], row["frame_id"])
        edits += [_edit(prompt, "stylise", {"style": style}, None) for style, prompt in STYLES.items()]
        return {"possible_edits": edits, "object_mask_path": mask_path}

    def _of_object(self, image: np.ndarray, track: Track, key: str) -> Iterator[dict]:
        mask = track.masks[0]
        color, person = color_name(image, mask), track.phrase == "person"
        thing = f"the {'person' if person else f'{color} object'}{place_name(mask)}"
        if not person:
            others = sorted((c for c in COLORS if c != color), key=lambda c: digest(self.seed, key, c))
            for new in others[:NUM_COLORS]:
                yield _edit(f"Make {thing} {new}.", "recolour", {"color": new}, thing)
        if not compact(mask):  # parts of a thing: without them the rest would make no sense
            return
        yield _edit(f"Remove {thing} and fill in what is behind.", "remove", {}, thing)
        yield _edit(f"Blur everything around {thing}, as a wide open lens would.", "blur-background", {}, thing)
        place = min(PLACES, key=lambda p: digest(self.seed, key, p))
        yield _edit(f"Put {thing} in front of {PLACES[place]}.", "swap-background", {"photo": place}, thing)


def _edit(prompt: str, kind: str, params: dict, thing: str | None) -> dict:
    return {"prompt": prompt, "kind": kind, "params": json.dumps(params), "object": thing}


def compact(mask: np.ndarray) -> bool:
    """Does the object fill most of its outline, as a whole thing does, and less than half of the picture?"""
    points = cv2.findNonZero(mask.astype(np.uint8))
    return bool(mask.mean() < MAX_SHARE and mask.sum() >= MIN_SOLID * cv2.contourArea(cv2.convexHull(points)))


def color_name(image: np.ndarray, mask: np.ndarray) -> str:
    """The colour that most pixels of the object have, by hue, or dark, grey or white."""
    name = next(iter(count_colors(cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[mask])))
    return SAID.get(name, name)


def place_name(mask: np.ndarray) -> str:
    x = float(np.flatnonzero(mask.any(axis=0)).mean()) / mask.shape[1]
    return " on the left" if x < 0.38 else " on the right" if x > 0.62 else " in the middle"
