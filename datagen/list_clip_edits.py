"""Edits of a planned kind that are possible in a clip without a model, with the words for them (D5).

The words are plain imperatives ("Remove … from the video."), so that they can be turned round when source
and target are swapped (annotators/swap_prompt.py). What is added is a cut-out of the built-in photographs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import pyarrow as pa

from manifests.columns import column, map_rows
from manifests.errors import BackendError, ConfigError
from manifests.ids import digest
from manifests.spans import image_size, read_image

from .list_edits import COLORS, EDIT, NUM_COLORS, STYLES

# Edit of a pair → kind of datagen.backends.EditRequest.
KINDS = {"removal": "remove", "addition": "insert", "replacement": "replace", "recolour": "recolour",
         "style": "stylise"}
SWAPPED = {"removal": "addition", "addition": "removal", "replacement": "replacement"}  # paper, section 3.3
NEEDS_OBJECT = ("removal", "replacement", "recolour")
CUTS = {"ball": "a red ball", "coin": "a large brass coin", "moon": "a grey stone ball", "planet": "an orange planet",
        "astronaut": "an astronaut in an orange suit"}
WEAK = ("paint",)  # 2.6 and 3.7 dE on real clips, where 4 is the least that counts as an edit
PLACES = {" on the left": 0.2, " in the middle": 0.5, " on the right": 0.8}  # centre of what is added
TALL, BOTTOM = 0.3, 0.94  # of the picture: height of what is added, and where it stands


class ListClipEdits:
    """Tracked clips with a planned `edit` → `possible_edits` of that kind."""

    reads = ("clip_id", "edit", "frame_path", "object_mask_path", "object_name", "object_phrase")
    adds = (column("possible_edits", pa.list_(EDIT), "edits of the planned kind that the classical editor can do"),)

    def __init__(self, seed: int = 0):
        self.seed = seed

    def __call__(self, table: pa.Table) -> pa.Table:
        return map_rows(table, self, self._list)

    def _list(self, row: dict) -> dict:
        if row["edit"] not in KINDS:
            raise ConfigError(f"no edit {row['edit']!r}; known: {', '.join(KINDS)}")
        if not row["frame_path"]:
            raise BackendError("there is no first frame to edit")
        if row["edit"] in NEEDS_OBJECT and not row["object_name"]:
            raise BackendError(f"no object was found that a {row['edit']} could be about")
        return {"possible_edits": list(getattr(self, f"_{row['edit']}")(row))}

    def _removal(self, row: Mapping[str, object]) -> Iterator[dict]:
        yield _listed(f"Remove {row['object_name']} from the video.", "remove", {}, row["object_name"])

    def _recolour(self, row: Mapping[str, object]) -> Iterator[dict]:
        thing = row["object_name"]
        if row["object_phrase"] == "person":
            raise BackendError("a person is not painted in another colour")
        for new in self._drawn(row, [c for c in COLORS if c not in thing.split()])[:NUM_COLORS]:
            yield _listed(f"Make {thing} {new}.", "recolour", {"color": new}, thing)

    def _replacement(self, row: Mapping[str, object]) -> Iterator[dict]:
        for cut in self._drawn(row, CUTS)[:2]:
            yield _listed(f"Replace {row['object_name']} with {CUTS[cut]}.", "replace", {"cut": cut},
                           row["object_name"])

    def _addition(self, row: Mapping[str, object]) -> Iterator[dict]:
        width, height = image_size(row["frame_path"])
        place = min(self._drawn(row, PLACES), key=lambda p: self._taken(row, PLACES[p]))
        for cut in self._drawn(row, CUTS)[:2]:
            x, half = PLACES[place] * width, TALL * height / 2
            box = [x - half, (BOTTOM - TALL) * height, x + half, BOTTOM * height]
            yield _listed(f"Add {CUTS[cut]}{place} to the video.", "insert", {"cut": cut, "box": box}, None)

    def _style(self, row: Mapping[str, object]) -> Iterator[dict]:
        for style in self._drawn(row, [s for s in STYLES if s not in WEAK])[:2]:
            yield _listed(STYLES[style], "stylise", {"style": style}, None)

    def _drawn(self, row: Mapping[str, object], names) -> list[str]:
        return sorted(names, key=lambda name: digest(self.seed, row["clip_id"], row["edit"], name))

    @staticmethod
    def _taken(row: Mapping[str, object], x: float) -> float:
        """Share of the upright strip around `x` that the object takes up: what is added keeps clear of it."""
        if not row["object_mask_path"]:
            return 0.0
        mask = read_image(row["object_mask_path"])[..., 0] > 127
        width = mask.shape[1]
        return round(float(mask[:, int((x - 0.15) * width) : int((x + 0.15) * width)].mean()), 2)


def _listed(prompt: str, kind: str, params: dict, thing: str | None) -> dict:
    return {"prompt": prompt, "kind": kind, "params": json.dumps(params), "object": thing}
