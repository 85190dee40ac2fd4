"""Edits of one picture without weights: measured, exact about what they touch, equal for equal seeds.

`params` by kind (all may be left out):

    recolour          color: a name of recolor.COLORS or three numbers
    remove            –
    insert            box: (x0, y0, x1, y1), else a free place by the seed; blend: "alpha" or "poisson"
    replace           – (the reference takes the place and the height of the mask)
    blur-background   radius_px
    swap-background   – (references[0] is the new background)
    stylise           style: one of stylise.STYLES
    scene             – (the masked object is put into references[0] elsewhere, in another size)
"""

from __future__ import annotations

import numpy as np

from manifests.errors import BackendError

from ..backgrounds import NewBackground, blur_background, cover
from ..compositing import as_cut_out, box_of, cut_out, fit_box, match_light, paste, placed, poisson
from ..patch_fill import fill
from ..recolor import Recolor, wanted_color
from ..regions import blend, edge_px, feather, grow, masks_of
from ..stylise import Stylise
from . import EditRequest

KINDS = ("recolour", "remove", "insert", "replace", "blur-background", "swap-background", "stylise", "scene")


class ClassicalImageEditor:
    """`ImageEditor`: `edit(image (H, W, 3), request)` for every kind of KINDS."""

    def edit(self, image: np.ndarray, request: EditRequest) -> np.ndarray:
        if request.kind not in KINDS:
            raise BackendError(f"the classical editor has no edit {request.kind!r}; known: {', '.join(KINDS)}")
        return getattr(self, f"_{request.kind.replace('-', '_')}")(image, request)

    def _recolour(self, image: np.ndarray, request: EditRequest) -> np.ndarray:
        mask = mask_of(image, request)
        color = wanted_color(request.params.get("color"), seed=request.seed)
        return Recolor.fit(image[None], mask[None], color)(image, mask)

    def _remove(self, image: np.ndarray, request: EditRequest) -> np.ndarray:
        return removed(image, mask_of(image, request), seed=request.seed)

    def _insert(self, image: np.ndarray, request: EditRequest) -> np.ndarray:
        cut = as_cut_out(reference_of(request))
        box = insert_box(image, cut, request)
        layer = placed(cut, box, *image.shape[:2])
        if request.params.get("blend") == "poisson":
            return poisson(image, layer)
        return paste(image, layer, matched=match_light(cut, image, box))

    def _replace(self, image: np.ndarray, request: EditRequest) -> np.ndarray:
        mask, cut = mask_of(image, request), as_cut_out(reference_of(request))
        box = replacement_box(cut, mask)
        layer = placed(cut, box, *image.shape[:2])
        clear = removed(image, mask, seed=request.seed)
        return paste(clear, layer, matched=match_light(cut, clear, box))

    def _blur_background(self, image: np.ndarray, request: EditRequest) -> np.ndarray:
        return blur_background(image, mask_of(image, request), radius_px=request.params.get("radius_px"))

    def _swap_background(self, image: np.ndarray, request: EditRequest) -> np.ndarray:
        mask = mask_of(image, request)
        return NewBackground(reference_of(request), image[None], mask[None])(image, mask, 0)

    def _stylise(self, image: np.ndarray, request: EditRequest) -> np.ndarray:
        return Stylise(request.params.get("style"), image[None], seed=request.seed)(image)

    def _scene(self, image: np.ndarray, request: EditRequest) -> np.ndarray:
        """D7: the object in another scene, never where and as large as it was."""
        mask, rng = mask_of(image, request), np.random.default_rng(request.seed)
        height, width = mask.shape
        cut = cut_out(image, mask)
        if rng.random() < 0.5:
            cut = np.ascontiguousarray(cut[:, ::-1])
        scene = cover(reference_of(request)[..., :3], width, height)
        tall = min(rng.uniform(0.45, 0.7) * height, 0.8 * width * cut.shape[0] / cut.shape[1])
        wide = tall * cut.shape[1] / cut.shape[0]
        centre = rng.uniform(wide / 2 + 2, max(wide / 2 + 3, width - wide / 2 - 2))
        # What the frame cut off below must not float: it stands on the lower edge again.
        stands = not mask[-2:].any()
        box = fit_box(cut, tall, centre, rng.uniform(0.88, 0.97) * height if stands else height + 1)
        return paste(scene, placed(cut, box, height, width), matched=match_light(cut, scene, box),
                     shadow=0.45 if stands else 0.0)


def removed(image: np.ndarray, mask: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """The picture without the object: patches of the rest in a slightly grown mask."""
    hole = grow(mask, 0.012 * min(image.shape[:2]) + 1)
    return blend(image, fill(image, hole, seed=seed), feather(hole, edge_px(image.shape)))


def mask_of(image: np.ndarray, request: EditRequest) -> np.ndarray:
    return masks_of(request.mask, 1, image.shape[:2], request.kind)[0]


def reference_of(request: EditRequest) -> np.ndarray:
    if not request.references:
        raise BackendError(f"the edit {request.kind!r} needs a reference picture")
    return request.references[0]


def insert_box(image: np.ndarray, cut: np.ndarray, request: EditRequest) -> tuple[float, float, float, float]:
    """The box asked for, or a place on the lower half by the seed that keeps clear of the mask."""
    height, width = image.shape[:2]
    if "box" in request.params:
        x0, y0, x1, y1 = (float(v) for v in request.params["box"])
        return fit_box(cut, y1 - y0, (x0 + x1) / 2, y1)
    rng, best, least = np.random.default_rng(request.seed), None, np.inf
    taken = np.zeros((height, width), bool) if request.mask is None else request.mask.reshape(-1, height, width).any(0)
    for _ in range(24):
        tall = min(rng.uniform(0.25, 0.45) * height, 0.6 * width * cut.shape[0] / cut.shape[1])
        wide = tall * cut.shape[1] / cut.shape[0]
        box = fit_box(cut, tall, rng.uniform(wide / 2, max(wide / 2 + 1, width - wide / 2)),
                      rng.uniform(0.72, 0.97) * height)
        x0, y0, x1, y1 = (max(0, int(v)) for v in box)
        covered = taken[y0:y1, x0:x1].mean() if taken[y0:y1, x0:x1].size else 1.0
        if covered < least:
            best, least = box, covered
    return best


def replacement_box(cut: np.ndarray, mask: np.ndarray) -> tuple[float, float, float, float]:
    """Where the masked object stood, at its height; at most 1.6 times as wide."""
    x0, y0, x1, y1 = box_of(mask)
    tall = min(y1 - y0, 1.6 * (x1 - x0) * cut.shape[0] / cut.shape[1])
    return fit_box(cut, tall, (x0 + x1) / 2, y1)
