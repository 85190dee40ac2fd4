"""Cut-outs put into pictures: taken out, matched in light and colour, placed with a shadow.

Cut-outs are uint8 RGBA `(h, w, 4)` with straight alpha. A box is `(x0, y0, x1, y1)` in pixels.
"""

from __future__ import annotations

import cv2
import numpy as np

from manifests.errors import BackendError

from .recolor import lab, rgb
from .regions import edge_px, soft_matte

MATCHED = 0.45       # share of the way to the light of the place; all the way turns everything grey
SHADOW = 0.45        # darkness of the contact shadow


def cut_out(picture: np.ndarray, mask: np.ndarray, *, margin_px: int = 2) -> np.ndarray:
    """The masked object as RGBA, cropped to its box, its rim cleaned of the old background."""
    if not mask.any():
        raise BackendError("there is nothing under the mask to cut out")
    matte = soft_matte(picture, mask, edge_px(picture.shape))
    inner = matte > 0.95
    colours = _outwards(picture, inner) if inner.any() else picture
    x0, y0, x1, y1 = box_of(matte > 0.02, margin_px)
    return np.dstack([colours, np.rint(matte * 255).astype(np.uint8)])[y0:y1, x0:x1]


def as_cut_out(reference: np.ndarray) -> np.ndarray:
    """A reference as RGBA: as it is, or with what GrabCut finds in the middle of it."""
    if reference.ndim != 3 or reference.shape[2] not in (3, 4) or min(reference.shape[:2]) < 16:
        raise BackendError(f"a reference must be RGB or RGBA of at least 16 x 16 pixels, not {reference.shape}")
    if reference.shape[2] == 4:
        visible = reference[..., 3] > 12
        if not visible.any():
            raise BackendError("the reference is wholly transparent")
        x0, y0, x1, y1 = box_of(visible)
        return reference[y0:y1, x0:x1]
    height, width = reference.shape[:2]
    labels = np.zeros((height, width), np.uint8)
    cv2.setRNGSeed(0)
    margin_x, margin_y = max(1, width // 20), max(1, height // 20)
    cv2.grabCut(np.ascontiguousarray(reference[..., ::-1]), labels,
                (margin_x, margin_y, width - 2 * margin_x, height - 2 * margin_y),
                np.zeros((1, 65)), np.zeros((1, 65)), 4, cv2.GC_INIT_WITH_RECT)
    mask = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    return cut_out(reference, mask if mask.mean() > 0.02 else np.ones_like(mask))


def box_of(mask: np.ndarray, margin_px: int = 0) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (max(0, int(columns[0]) - margin_px), max(0, int(rows[0]) - margin_px),
            min(mask.shape[1], int(columns[-1]) + 1 + margin_px), min(mask.shape[0], int(rows[-1]) + 1 + margin_px))


def fit_box(cut: np.ndarray, height_px: float, centre_x: float, bottom_y: float) -> tuple[float, float, float, float]:
    """The box of a cut-out of that height that stands at a point, with its own aspect."""
    width = height_px * cut.shape[1] / cut.shape[0]
    return centre_x - width / 2, bottom_y - height_px, centre_x + width / 2, bottom_y


def placed(cut: np.ndarray, box: tuple[float, float, float, float], height: int, width: int) -> np.ndarray:
    """float32 RGBA `(H, W, 4)`, 0 to 255: the cut-out scaled into `box` (subpixel) of an empty picture."""
    x0, y0, x1, y1 = box
    target = (max(2, round(x1 - x0)), max(2, round(y1 - y0)))
    if target[0] < cut.shape[1]:
        cut = cv2.resize(_premultiplied(cut), target, interpolation=cv2.INTER_AREA)
    else:
        cut = _premultiplied(cut)
    sx, sy = (x1 - x0) / cut.shape[1], (y1 - y0) / cut.shape[0]
    matrix = np.float32([[sx, 0, x0 + (sx - 1) / 2], [0, sy, y0 + (sy - 1) / 2]])
    out = cv2.warpAffine(cut, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    alpha = out[..., 3:] / 255
    return np.dstack([out[..., :3] / np.maximum(alpha, 1e-3), out[..., 3:]])


def paste(picture: np.ndarray, layer: np.ndarray, *, matched: np.ndarray | None = None,
          shadow: float = SHADOW) -> np.ndarray:
    """uint8: the placed RGBA `layer` over `picture`, on a soft shadow where it stands.

    `matched` is a Lab offset from `match_light`, fitted once for a clip.
    """
    alpha = np.clip(layer[..., 3] / 255, 0, 1)
    colours = np.clip(layer[..., :3], 0, 255)
    if matched is not None:
        colours = rgb(_shifted(lab(colours.astype(np.uint8)), matched)).astype(np.float32)
    below = picture.astype(np.float32)
    if shadow > 0 and (alpha > 0.5).any():
        below = below * (1 - shadow * _contact(alpha))[..., None]
    mixed = below + (colours - below) * alpha[..., None]
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def match_light(cut: np.ndarray, picture: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """float32 `(3,)` Lab offset that brings a cut-out towards the light of the place around `box`."""
    height, width = picture.shape[:2]
    grown = np.array([box[0] - (box[2] - box[0]) / 2, box[1] - (box[3] - box[1]) / 2,
                      box[2] + (box[2] - box[0]) / 2, box[3] + (box[3] - box[1]) / 4])
    x0, y0, x1, y1 = np.clip(np.rint(grown), 0, [width - 1, height - 1, width, height]).astype(int)
    around = lab(picture[y0:max(y1, y0 + 1), x0:max(x1, x0 + 1)]).reshape(-1, 3).mean(axis=0)
    inside = lab(cut[..., :3])[cut[..., 3] > 128]
    own = inside.mean(axis=0) if len(inside) else around
    # Colour follows the light of the place only a little: the object keeps its own.
    return np.clip((around - own) * [MATCHED, MATCHED * 0.4, MATCHED * 0.4], [-22, -8, -8], [22, 8, 8]).astype(
        np.float32)


def poisson(picture: np.ndarray, layer: np.ndarray) -> np.ndarray:
    """The placed layer blended in the gradient domain (Pérez et al. 2003): for matter that touches its surroundings."""
    mask = (layer[..., 3] > 100).astype(np.uint8) * 255
    mask[:2], mask[-2:], mask[:, :2], mask[:, -2:] = 0, 0, 0, 0
    if not mask.any():
        return picture.copy()
    x0, y0, x1, y1 = box_of(mask > 0)
    # seamlessClone centres the box of the mask at the point that it is given.
    centre = (x0 + (x1 - x0) // 2, y0 + (y1 - y0) // 2)
    colours = np.where(layer[..., 3:] > 3, layer[..., :3], picture).clip(0, 255).astype(np.uint8)
    return cv2.seamlessClone(colours, picture, mask, centre, cv2.NORMAL_CLONE)


def _shifted(picture_lab: np.ndarray, offset: np.ndarray) -> np.ndarray:
    out = picture_lab + offset
    out[..., 0] = np.clip(out[..., 0], 0, 100)
    return out


def _contact(alpha: np.ndarray) -> np.ndarray:
    """Shadow matte: an ellipse on the ground under the lower end of the object."""
    x0, _, x1, y1 = box_of(alpha > 0.5)
    height = max(2.0, 0.09 * (x1 - x0))
    rows = alpha > 0.5
    foot = np.flatnonzero(rows[max(0, y1 - max(2, round(2 * height))):y1].any(axis=0))
    left, right = (foot[0], foot[-1] + 1) if len(foot) else (x0, x1)
    shade = np.zeros(alpha.shape, np.float32)
    centre, axes = (int((left + right) / 2), int(y1 - height / 4)), (int((right - left) * 0.56) + 1, int(height) + 1)
    cv2.ellipse(shade, centre, axes, 0, 0, 360, 1.0, -1)
    shade = cv2.GaussianBlur(shade, (0, 0), max(1.0, height / 2))
    shade[shade < 0.02] = 0
    return shade


def _premultiplied(cut: np.ndarray) -> np.ndarray:
    cut = cut.astype(np.float32)
    return np.dstack([cut[..., :3] * cut[..., 3:] / 255, cut[..., 3:]])


def _outwards(picture: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Every pixel outside takes the colour of the nearest one inside."""
    _, labels = cv2.distanceTransformWithLabels((~inner).astype(np.uint8), cv2.DIST_L2, 5,
                                                labelType=cv2.DIST_LABEL_PIXEL)
    where = np.zeros(labels.max() + 1, np.int64)
    where[labels[inner]] = np.flatnonzero(inner)
    return picture.reshape(-1, 3)[where[labels]].reshape(picture.shape)
