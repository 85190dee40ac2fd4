"""A picture and its edit: the image editor's work, stored beside its source at one size (D4, D5, D6, D12).

Paper section 3.2: an image editor turns the source image into the edited image under the edit prompt.
Models read the prompt alone; the classical editor does the one of `possible_edits` that the prompt names.
"""

from __future__ import annotations

import json

import cv2
import numpy as np
import pyarrow as pa

from manifests.columns import column, map_rows
from manifests.errors import BackendError
from manifests.ids import draw_seed
from manifests.media_store import MediaStore
from manifests.schema import PAIRS
from manifests.spans import read_image, read_picture

from .backends import EditRequest, open_backend

CHANGED_LAB = 12.0  # distance in Lab by which a pixel has visibly changed; JPEG at quality 90 stays below 8


class EditPicture:
    """Pictures with `edit_prompt` → source and edited picture as a pair, and where they differ.

    `backend` is an `ImageEditor` by name, `options` are its arguments. `listed` says that the prompt is one of
    `possible_edits` (datagen/list_edits.py, list_clip_edits.py). Both pictures have their longer side at most
    `long_px`. `picture` names the column of a picture file that is edited instead of the moment `time_s` of `path`;
    `leave` lists kinds in the column `edit` that are edited later, by whoever makes the clip.
    """

    adds = (
        PAIRS.schema.field("source_path"),  # the picture before the edit, at the size of the edited one
        PAIRS.schema.field("target_path"),
        column("edited_path", pa.string(), "the edited picture"),
        column("edit_kind", pa.string(), "kind of edit; null = a model was told in words"),
        column("edit_object", pa.string(), "what was edited, in words; null = the whole, or not known"),
        column("edited_share", pa.float32(), "share of the pixels that visibly changed", "0 to 1"),
        column("changed_path", pa.string(), "picture, white = pixels that visibly changed"),
        PAIRS.schema.field("mask_path"),  # what was meant to change where that is known, else what changed
    )
    neutral = ("media",)

    def __init__(self, media: str, *, backend: str = "classical", options: dict | None = None, listed: bool = True,
                 picture: str = "", leave: tuple[str, ...] = (), long_px: int = 1024, seed: int = 0):
        self.reads, self.picture = self.contract(listed=listed, picture=picture, leave=leave)[0], picture
        self.leave = tuple(leave)
        self.store, self.listed, self.long_px, self.seed = MediaStore(media), listed, long_px, seed
        self.editor = open_backend("image-editor", backend, **(options or {}))

    @classmethod
    def contract(cls, listed: bool = True, picture: str = "", leave: tuple[str, ...] = (), **_: object,
                 ) -> tuple[tuple[str, ...], tuple[pa.Field, ...]]:
        more = (*(("possible_edits", "object_mask_path") if listed else ()), *(("edit",) if leave else ()))
        return ("frame_id", *((picture,) if picture else ("path", "time_s")), "edit_prompt", *more), cls.adds

    @classmethod
    def owners(cls, backend: str = "classical", options: dict | None = None, **_: object) -> dict[str, dict]:
        by = {"op": "datagen.edit_picture:EditPicture", "backend": backend, **(options or {})}
        return {field.name: by for field in cls.adds}

    def __call__(self, table: pa.Table) -> pa.Table:
        return map_rows(table, self, self._edit)

    def _edit(self, row: dict) -> dict:
        if self.leave and row["edit"] in self.leave:
            return {}
        if not row["edit_prompt"]:
            raise BackendError("there is no edit_prompt")
        image = (read_image(row[self.picture], long_px=self.long_px) if self.picture else
                 read_picture(row["path"], row["time_s"], long_px=self.long_px))
        listed = self._listed(row) if self.listed else {}
        seed = draw_seed(self.seed, row["frame_id"], row["edit_prompt"])
        request = EditRequest(instruction=row["edit_prompt"], seed=seed, kind=listed.get("kind") or "",
                              mask=_mask(listed, row, image), references=references_of(listed),
                              params=json.loads(listed.get("params") or "{}"))
        edited = self.editor.edit(image, request)
        if edited.shape != image.shape:
            raise BackendError(f"the editor gave a picture of {edited.shape} for one of {image.shape}")
        changed = changed_mask(image, edited)
        changed_path = self.store.image(changed.astype(np.uint8) * 255)
        meant = meant_mask(request, image)
        edited_path = self.store.image(edited)
        return {"source_path": self.store.image(image), "target_path": edited_path, "edited_path": edited_path,
                "edit_kind": listed.get("kind"), "edit_object": listed.get("object"),
                "edited_share": float(changed.mean()), "changed_path": changed_path,
                "mask_path": changed_path if meant is None else self.store.image(meant.astype(np.uint8) * 255)}

    def _listed(self, row: dict) -> dict:
        for edit in row["possible_edits"] or ():
            if edit["prompt"] == row["edit_prompt"]:
                return edit
        raise BackendError(f"{row['edit_prompt']!r} is none of the edits that are possible here without a model")


def _mask(listed: dict, row: dict, image: np.ndarray) -> np.ndarray | None:
    if not listed.get("object") or not row["object_mask_path"]:
        return None
    mask = (read_image(row["object_mask_path"])[..., 0] > 127).astype(np.uint8)
    mask = cv2.resize(mask, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    if listed["kind"] == "remove":  # what the outline encloses goes as well: a dark collar, a gap between arm and body
        mask = cv2.fillConvexPoly(mask, cv2.convexHull(cv2.findNonZero(mask)), 1)
    return mask > 0


def references_of(listed: dict) -> tuple[np.ndarray, ...]:
    params = json.loads(listed.get("params") or "{}")
    if "photo" not in params and "cut" not in params:
        return ()
    from .samples_photos import cutout, photograph

    return ((cutout(params["cut"]),) if "cut" in params else
            (np.ascontiguousarray(photograph(params["photo"])[..., :3]),))


def meant_mask(request: EditRequest, image: np.ndarray) -> np.ndarray | None:
    """`bool (H, W)`: what an edit of a known kind is meant to change; None where only words say it."""
    if request.kind == "stylise":
        return np.ones(image.shape[:2], bool)
    if request.mask is None:
        return None
    return ~request.mask if request.kind in ("blur-background", "swap-background") else request.mask


def changed_mask(source: np.ndarray, edited: np.ndarray) -> np.ndarray:
    """`bool (H, W)`: pixels that visibly changed, without specks."""
    before, after = (cv2.GaussianBlur(cv2.cvtColor(p.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), (3, 3), 0)
                     for p in (source, edited))
    changed = (np.linalg.norm(before - after, axis=2) > CHANGED_LAB).astype(np.uint8)
    size = max(3, round(min(changed.shape) * 0.008) | 1)
    return cv2.morphologyEx(changed, cv2.MORPH_OPEN, np.ones((size, size), np.uint8)) > 0
