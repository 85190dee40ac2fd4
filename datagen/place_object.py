"""One object of a key frame in another scene: a reference picture (D7).

Paper section 3.4: the editing instruction takes the object out and puts it into a different scene, because a
reference that shares its background with the target teaches a model to copy and paste. Models read the
instruction. The classical editor pastes the outlined object, at about its own size and often mirrored, into a
frame of another film, out of focus as behind a near object; of a few such frames it takes the one
whose colours are least like the key frame's.
"""

from __future__ import annotations

import cv2
import numpy as np
import pyarrow as pa

from manifests.columns import column, map_rows
from manifests.errors import BackendError
from manifests.ids import draw_seed
from manifests.media_store import MediaStore
from manifests.messages import condition
from manifests.schema import PAIRS
from manifests.spans import read_image, read_picture

from .backends import EditRequest, open_backend
from .find_objects import colours
from .list_edits import PLACES

CLASSICAL = "classical"
CONTEXT = 2.0     # sides of what is cut out around an object, in sides of its box
NARROWEST = 0.8   # width of that, in its height
SCENE_PX = 1024   # longer side of a scene
BLUR = 0.02      # of a scene, in its shorter sides: the object stays the one thing that is in focus


class PlaceObject:
    """Key frames (`target_path`) with an object (`mask_path`) and `edit_prompt` → the reference in `conditions`.

    `backend` is an `ImageEditor` by name, `options` are its arguments. `scene_paths` and `scene_times_s` list
    frames that may be the other scene (null time = a picture file); where there are none, photographs of
    the sample film are taken. A model gets the whole key frame and its own idea of a scene.
    """

    adds = (
        PAIRS.schema.field("conditions"),
        column("reference_path", pa.string(), "the object in another scene"),
        column("reference_px", pa.int32(), "shorter side of that picture", "px"),
    )
    neutral = ("media",)

    def __init__(self, media: str, *, backend: str = CLASSICAL, options: dict | None = None, seed: int = 0):
        self.store, self.seed, self.measured = MediaStore(media), seed, backend == CLASSICAL
        self.reads = self.contract(backend=backend)[0]
        self.editor = open_backend("image-editor", backend, **(options or {}))

    @classmethod
    def contract(cls, backend: str = CLASSICAL, **_: object) -> tuple[tuple[str, ...], tuple[pa.Field, ...]]:
        more = ("scene_paths", "scene_times_s") if backend == CLASSICAL else ()
        return ("pair_id", "target_path", "mask_path", "edit_prompt", *more), cls.adds

    @classmethod
    def owners(cls, backend: str = CLASSICAL, options: dict | None = None, **_: object) -> dict[str, dict]:
        by = {"op": "datagen.place_object:PlaceObject", "backend": backend, **(options or {})}
        return {field.name: by for field in cls.adds}

    def __call__(self, table: pa.Table) -> pa.Table:
        return map_rows(table, self, self._place)

    def _place(self, row: dict) -> dict:
        if not row["edit_prompt"] or not row["mask_path"]:
            raise BackendError("there is no object that was found, or nothing to do with it")
        frame, mask = read_image(row["target_path"]), read_image(row["mask_path"])[..., 0] > 127
        seed = draw_seed(self.seed, row["pair_id"])
        scenes: tuple[np.ndarray, ...] = ()
        if self.measured:
            scenes = (out_of_focus(least_alike(frame[~mask], self._scenes(row))),)
            frame, mask = around(frame, mask)
        # A mask says what may be painted anew, and that is the scene and, where it is turned or lit, the object too.
        made = self.editor.edit(frame, EditRequest(instruction=row["edit_prompt"], kind="scene", references=scenes,
                                                   mask=mask if self.measured else None, seed=seed))
        path = self.store.image(made)
        return {"conditions": [condition("reference", path)], "reference_path": path,
                "reference_px": min(made.shape[:2])}

    def _scenes(self, row: dict) -> list[np.ndarray]:
        if not row["scene_paths"]:
            from .samples_photos import photograph

            return [np.ascontiguousarray(photograph(name)[..., :3]) for name in sorted(PLACES)]
        return [read_picture(path, time_s, long_px=SCENE_PX)
                for path, time_s in zip(row["scene_paths"], row["scene_times_s"], strict=True)]


def around(frame: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The part of frame and mask around the object, so large that the object need not be enlarged much."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    height = min(frame.shape[0], round(CONTEXT * (np.ptp(rows) + 1)))
    width = min(frame.shape[1], max(round(CONTEXT * (np.ptp(columns) + 1)), round(NARROWEST * height)))
    y = min(max(0, (rows[0] + rows[-1] + 1 - height) // 2), frame.shape[0] - height)
    x = min(max(0, (columns[0] + columns[-1] + 1 - width) // 2), frame.shape[1] - width)
    part = np.s_[y:y + height, x:x + width]
    return np.ascontiguousarray(frame[part]), np.ascontiguousarray(mask[part])


def out_of_focus(scene: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(scene, (0, 0), BLUR * min(scene.shape[:2]))


def least_alike(background: np.ndarray, scenes: list[np.ndarray]) -> np.ndarray:
    """The scene whose colours have least in common with the `(n, 3)` pixels of the key frame's background."""
    own = colours(background)
    return min(scenes, key=lambda scene: float(np.minimum(own, colours(scene[::4, ::4].reshape(-1, 3))).sum()))
