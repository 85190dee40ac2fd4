"""An edited first frame becomes an edited clip, stored beside its source with the mask of the edit (D5, D9).

Paper section 3.3: a propagation model takes the source video, the edited first frame and the prompt and makes
the target video; what is removed may go through an inpainter instead, as in the paper's initial data.
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
from manifests.spans import read_image, read_span

from .backends import EditRequest, open_backend
from .cut_reference import largest_part
from .edit_clip import SIDES
from .edit_picture import changed_mask, references_of
from .flow import DenseFlow, warp
from .list_clip_edits import KINDS, NEEDS_OBJECT
from .regions import grow
from .track_object import MASK_CRF, mask_frames, read_masks

EDGE = 1 / 80  # of the shorter side: what an edit touches around its object
WIDER = 0.5    # of the object's longer side: by so much what replaces it may reach beyond it


class PropagateEdit:
    """Tracked clips with `edit`, `instruction` and `edited_path` → source, target and mask of a pair.

    `backend` is a `VideoEditor` by name; `inpainter` names the `Inpainter` that does removals, "" = the editor
    does them too. `direct` lists edits that the editor gets without the edited first frame, because it does
    better from the request itself; with them and the inpainter the first frame of the target is the edited
    first frame. `listed` says that kind and parameters stand in `possible_edits`; `edit` and `told` name the
    columns with the kind of edit and the instruction. The mask is the tracked
    object (removal, recolour), what visibly changed where the edit was meant (addition, replacement: with the object;
    what changed elsewhere is damage), or everything.
    """

    adds = (*SIDES, PAIRS.schema.field("mask_path"),
            column("edited_path", pa.string(), "first frame of the target, a picture"),
            column("changed_path", pa.string(), "picture, white = pixels of it that visibly changed"),
            column("new_mask_path", pa.string(), "picture, white = what the edit made in that frame; null = its "
                                                 "outline is not known"),
            column("edit_kept", pa.float32(), "least area of the added thing in a frame, against the first", "0 to 1"),
            column("pair_num_frames", pa.int32(), "frames of source and of target"))
    neutral = ("media",)

    def __init__(self, media: str, *, backend: str = "classical", options: dict | None = None,
                 inpainter: str = "", inpainter_options: dict | None = None, direct: tuple[str, ...] = (),
                 listed: bool = True, edit: str = "edit", told: str = "instruction", fps: float = 16.0, seed: int = 0):
        self.reads, self.listed = self.contract(listed=listed, edit=edit, told=told)[0], listed
        self.edit, self.told = edit, told
        self.store, self.fps, self.seed, self.direct = MediaStore(media), fps, seed, tuple(direct)
        self.editor = open_backend("video-editor", backend, **(options or {}))
        self.inpainter = open_backend("inpainter", inpainter, **(inpainter_options or {})) if inpainter else None

    @classmethod
    def contract(cls, listed: bool = True, edit: str = "edit", told: str = "instruction", **_: object,
                 ) -> tuple[tuple[str, ...], tuple[pa.Field, ...]]:
        return ("frame_id", edit, told, "work_path", "work_end_s", "track_path", "edited_path",
                *(("possible_edits", "edit_prompt") if listed else ())), cls.adds

    @classmethod
    def owners(cls, backend: str = "classical", options: dict | None = None, inpainter: str = "",
               inpainter_options: dict | None = None, **_: object) -> dict[str, dict]:
        by = {"op": "datagen.propagate_edit:PropagateEdit", "backend": backend, **(options or {}),
              "inpainter": {"backend": inpainter, **(inpainter_options or {})} if inpainter else None}
        return {field.name: by for field in cls.adds}

    def __call__(self, table: pa.Table) -> pa.Table:
        return map_rows(table, self, self._propagate)

    def _propagate(self, row: dict) -> dict:
        if not row["work_path"] or not row[self.told]:
            raise BackendError("there is no clip, or nothing says how it should be edited")
        frames = np.stack(list(read_span(row["work_path"], 0.0, row["work_end_s"])))
        masks = read_masks(row["track_path"], frames.shape[2:0:-1]) if row["track_path"] else None
        made, first = self._edit(row, frames, masks)
        if made.shape != frames.shape:
            raise BackendError(f"the editor gave {made.shape} for a clip of {frames.shape}")
        target = self.store.video(made, fps=self.fps)
        seconds = {f"{side}_{name}": value for side in ("source", "target")
                   for name, value in (("start_s", 0.0), ("end_s", target.end_s), ("duration_s", target.end_s))}
        given = first is not None
        first = first if given else made[0]
        changed = changed_mask(frames[0], first)
        # Without a first frame that shows it, what is meant is one thing: the largest that came in.
        meant = changed if given or not changed.any() else largest_part(changed)
        touched = touched_masks(row[self.edit], frames, made, masks, meant)
        new = {"addition": lambda: filled(changed), "recolour": lambda: None if masks is None else masks[0]}
        new_mask = new.get(row[self.edit], lambda: None)()
        kept = touched.mean(axis=(1, 2)) if row[self.edit] == "addition" else None
        return {**seconds, "source_path": row["work_path"], "target_path": target.path,
                "mask_path": self._mask(touched), "pair_num_frames": len(frames),
                "edited_path": self.store.image(first), "changed_path": self._picture(changed),
                "new_mask_path": None if new_mask is None else self._picture(new_mask),
                "edit_kept": None if kept is None or not kept[0] else float(min(1.0, kept.min() / kept[0]))}

    def _edit(self, row: dict, frames: np.ndarray, masks: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
        """The edited clip, and the edited first frame at its size where one was given."""
        if row[self.edit] == "removal" and self.inpainter is not None:
            if masks is None:
                raise BackendError("no object was tracked that could be removed")
            return self.inpainter.inpaint(frames, masks), None
        request = self._request(row, masks)
        if row[self.edit] in self.direct:
            return self.editor.edit(frames, request), None
        if not row["edited_path"]:
            raise BackendError("there is no edited first frame to be propagated")
        first = cv2.resize(read_image(row["edited_path"]), frames.shape[2:0:-1], interpolation=cv2.INTER_AREA)
        return self.editor.edit(frames, request, first), first

    def _request(self, row: dict, masks: np.ndarray | None) -> EditRequest:
        seed = draw_seed(self.seed, row["frame_id"], row[self.told])
        edits = [e for e in row["possible_edits"] or () if e["prompt"] == row["edit_prompt"]] if self.listed else []
        listed = edits[0] if edits else {}
        return EditRequest(instruction=row[self.told], kind=KINDS[row[self.edit]], references=references_of(listed),
                           mask=masks if row[self.edit] in NEEDS_OBJECT else None, seed=seed,
                           params=json.loads(listed.get("params") or "{}"))

    def _mask(self, touched: np.ndarray) -> str:
        if touched.all():
            return self._picture(touched[0])
        return self.store.video(mask_frames(touched), fps=self.fps, crf=MASK_CRF).path

    def _picture(self, mask: np.ndarray) -> str:
        return self.store.image(mask.astype(np.uint8) * 255)


def touched_masks(edit: str, frames: np.ndarray, made: np.ndarray, masks: np.ndarray | None,
                  meant: np.ndarray) -> np.ndarray:
    """bool `(T, H, W)`: where the edit lies. `masks` are the tracked object's, `meant` `(H, W)` what the first frame
    is meant to change.

    An addition is what changed there and, along the motion of the edited clip, in every later frame; a replacement is
    the object and what changed around it, because the new thing may be wider or taller. What else changed is outside.
    """
    if edit == "style":
        return np.ones(frames.shape[:3], bool)
    radius = EDGE * min(frames.shape[1:3])
    if edit in ("removal", "recolour") and masks is not None:
        return np.stack([grow(m, radius) for m in masks])
    changed = [grow(changed_mask(a, b), radius) for a, b in zip(frames, made, strict=True)]
    if edit != "replacement" or masks is None:
        return _carried(changed, made, meant, radius)
    around = np.stack([grow(m, radius + WIDER * _side(m)) for m in masks])
    return masks | (np.stack(changed) & around)


def _carried(changed: list[np.ndarray], made: np.ndarray, meant: np.ndarray, radius: float) -> np.ndarray:
    """Of the masks `changed` the parts that begin at `meant` and go on from frame to frame, bool `(T, H, W)`."""
    flow, touched = DenseFlow(), [changed[0] & grow(meant, radius)]
    for t in range(1, len(made)):
        moved = touched[-1]
        if moved.any():
            moved = warp(moved.astype(np.float32), flow(made[t], made[t - 1])) > 0.5
        touched.append(changed[t] & grow(moved, radius))
    return np.stack(touched)


def _side(mask: np.ndarray) -> int:
    """Longer side of the box around a mask, in pixels."""
    return max(int(np.ptp(at)) + 1 for at in np.nonzero(mask)) if mask.any() else 0


def filled(mask: np.ndarray) -> np.ndarray:
    """The largest part of a mask, its gaps closed: the outline of one thing."""
    if not mask.any():
        return mask
    size = max(3, round(min(mask.shape) / 40) | 1)
    closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((size, size), np.uint8))
    outlines, _ = cv2.findContours(largest_part(closed > 0).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.zeros(mask.shape, np.uint8), outlines, -1, 1, -1) > 0
