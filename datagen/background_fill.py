"""What lies behind an object, borrowed from the frames in which it is seen.

The flow of the background is completed behind the masks (camera motion plus what the border
says), every hidden pixel follows it forward and backward to the first frame that shows it, and
is read there once, so that nothing is blurred by being passed on. What no frame shows is
painted in one frame and carried to the others, so that it stands still.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .flow import DenseFlow, camera_motion, homography_flow, visible
from .patch_fill import fill
from .regions import blend, diffuse, edge_px, feather, grow

SMALL_PX = 150       # holes too small for patches to be worth their time
HALO_PX = 8          # beside an object, where flow is not the background's own
PARALLAX_PX = 1.5    # what the background may move otherwise than the camera says
NOISE_PX = 0.5       # of flow beside an object; the fitted camera is more exact than that
TRUST_PX = 2.0       # a known pixel whose flow does not lead home is no source
ROW = 30_000         # places that are sampled at once; OpenCV refuses rows of 32,767 and more


@dataclass
class _Holes:
    """Hidden pixels of one frame: `rows`, `columns`, and where each is read: frame (-1: nowhere), x, y."""

    rows: np.ndarray
    columns: np.ndarray
    frame: np.ndarray
    at: np.ndarray  # float32 (N, 2), x and y
    age: np.ndarray  # frames between the two

    @classmethod
    def of(cls, mask: np.ndarray) -> _Holes:
        rows, columns = np.nonzero(mask)
        return cls(rows, columns, np.full(len(rows), -1), np.zeros((len(rows), 2), np.float32),
                   np.full(len(rows), 1_000_000))


def fill_background(frames: np.ndarray, masks: np.ndarray, *, margin_px: float | None = None, seed: int = 0,
                    flow: DenseFlow | None = None) -> np.ndarray:
    """uint8 `(T, H, W, 3)`: the clip with what lies under the bool `masks` `(T, H, W)` replaced by background.

    `margin_px` grows the masks (default: 1.2 % of the short side, for the soft edge and the
    shadow that no mask covers). Pixels further away keep their bytes.
    """
    margin = 0.012 * min(frames.shape[1:3]) + 1 if margin_px is None else margin_px
    holes = np.stack([grow(m, margin) for m in masks])
    flows = _background_flows(frames, holes, flow or DenseFlow())
    traced = _trace(holes, flows)
    filled = frames.copy()
    for t, places in enumerate(traced):
        _read(filled[t], places, frames)
    _carry_painted(filled, holes, traced, flows, seed)
    out = frames.copy()
    for t in range(len(frames)):
        if holes[t].any():
            seamless = _without_seam(filled[t], frames[t], holes[t])
            out[t] = blend(frames[t], seamless, feather(holes[t], edge_px(holes[t].shape)))
    return out


def _background_flows(frames, holes, flow: DenseFlow) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Flows t → t+1 and t+1 → t of the background, completed behind the masks."""
    there, back = [], []
    for t in range(len(frames) - 1):
        camera = camera_motion(frames[t], frames[t + 1], holes[t])
        pair = flow(frames[t], frames[t + 1]), flow(frames[t + 1], frames[t])
        seen = visible(*pair), visible(*pair[::-1])
        hidden = holes[t] | holes[t + 1]  # what only one of the two shows has no flow of its own
        there.append(_completed(pair[0], hidden, seen[0], camera))
        back.append(_completed(pair[1], hidden, seen[1], np.linalg.inv(camera)))
    return there, back


def _completed(flow, hole, seen, camera) -> np.ndarray:
    """Flow whose part in the hole is the camera's plus what remains of it around the hole, smoothed inwards."""
    height, width = hole.shape
    whole = homography_flow(camera, height, width)
    rest = flow - whole
    # The flow beside the object is drawn along by it, and other moving things are not the background.
    known = seen & ~grow(hole, HALO_PX)
    known &= np.abs(rest).max(axis=2) < PARALLAX_PX + 0.3 * np.abs(whole).max(axis=2)
    size = (max(1, width // 4), max(1, height // 4))
    share = cv2.resize(known.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    small = cv2.resize(rest * known[..., None], size, interpolation=cv2.INTER_AREA)
    small = diffuse(small / np.maximum(share, 1e-3)[..., None], share > 0.5) if (share > 0.5).any() else small * 0
    small = np.sign(small) * np.maximum(np.abs(small) - NOISE_PX, 0)
    smooth = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    matte = feather(hole, 4)[..., None]
    return (flow * (1 - matte) + (whole + smooth) * matte).astype(np.float32)


def _trace(holes: np.ndarray, flows) -> list[_Holes]:
    """For every hidden pixel the nearest frame that shows it, before or after."""
    before, after = _pass(holes, flows[1], flows[0], -1), _pass(holes, flows[0], flows[1], 1)
    for a, b in zip(before, after, strict=True):
        nearer = b.age < a.age
        a.frame, a.age = np.where(nearer, b.frame, a.frame), np.where(nearer, b.age, a.age)
        a.at = np.where(nearer[:, None], b.at, a.at)
    return before


def _pass(holes: np.ndarray, flows, returns, step: int) -> list[_Holes]:
    """One direction: `flows[i]` leads from the frame in question to the one `step` away."""
    found = [_Holes.of(h) for h in holes]
    order = range(1, len(holes)) if step < 0 else range(len(holes) - 2, -1, -1)
    for t in order:
        here, beyond = found[t], found[t + step]
        if not len(here.rows):
            continue
        link = min(t, t + step)
        _link(here, beyond, holes[t + step], flows[link], returns[link], t + step)
    return found


def _link(here: _Holes, beyond: _Holes, hidden: np.ndarray, flow, back, frame: int) -> None:
    height, width = hidden.shape
    x = here.columns + flow[here.rows, here.columns, 0]
    y = here.rows + flow[here.rows, here.columns, 1]
    near_x, near_y = np.rint(x).astype(int), np.rint(y).astype(int)
    ok = (near_x >= 0) & (near_x < width) & (near_y >= 0) & (near_y < height)
    near_x, near_y = np.clip(near_x, 0, width - 1), np.clip(near_y, 0, height - 1)
    home = back[near_y, near_x] + flow[here.rows, here.columns]
    ok &= np.square(home).sum(axis=1) < TRUST_PX**2
    index = np.full(hidden.shape, -1)
    index[beyond.rows, beyond.columns] = np.arange(len(beyond.rows))
    covered = hidden[near_y, near_x]
    direct = ok & ~covered
    here.frame[direct], here.age[direct] = frame, 1
    here.at[direct] = np.stack([x, y], axis=1)[direct]
    who = index[near_y, near_x]
    passed = ok & covered & (who >= 0)
    passed[passed] = beyond.frame[who[passed]] >= 0
    rest = np.stack([x - near_x, y - near_y], axis=1)[passed]
    here.frame[passed] = beyond.frame[who[passed]]
    here.at[passed] = beyond.at[who[passed]] + rest
    here.age[passed] = beyond.age[who[passed]] + 1


def _read(picture: np.ndarray, places: _Holes, frames: Sequence[np.ndarray]) -> None:
    for frame in np.unique(places.frame[places.frame >= 0]):
        these = places.frame == frame
        picture[places.rows[these], places.columns[these]] = _sampled(frames[frame], places.at[these])


def _sampled(frame: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Colours `(n, 3)` of `frame` at float32 places `(n, 2)`, x and y."""
    parts = [cv2.remap(frame, at[i : i + ROW][None], None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0]
             for i in range(0, len(at), ROW)]
    return np.concatenate(parts)


def _carry_painted(filled, holes, traced: list[_Holes], flows, seed: int) -> None:
    """Paint what no frame shows in one frame, carry it outwards, and paint on the way only what comes new."""
    open_ = np.stack([_open(h.shape, p) for h, p in zip(holes, traced, strict=True)])
    if not open_.any():
        return
    counts = open_.sum(axis=(1, 2))
    # Of frames with nearly as much, the one in the middle: what is carried travels half as far.
    many = np.flatnonzero(counts >= 0.97 * counts.max())
    key = int(many[len(many) // 2])
    found = [_Holes.of(o) for o in open_]
    _paint(filled[key], found[key], key, seed)
    for step, order in ((-1, range(key + 1, len(open_))), (1, range(key - 1, -1, -1))):
        there, back = (flows[1], flows[0]) if step < 0 else (flows[0], flows[1])
        for t in order:
            link = min(t, t + step)
            _link(found[t], found[t + step], open_[t + step], there[link], back[link], t + step)
            _read(filled[t], found[t], filled)
            _paint(filled[t], found[t], t, seed)


def _paint(picture: np.ndarray, places: _Holes, frame: int, seed: int) -> None:
    new = places.frame < 0
    mask = _open(picture.shape[:2], places)
    if new.sum() < SMALL_PX:
        picture[mask] = cv2.inpaint(picture, mask.astype(np.uint8), 4, cv2.INPAINT_TELEA)[mask]
    else:
        picture[mask] = fill(picture, mask, seed=seed)[mask]
    places.frame[new] = frame
    places.at[new] = np.stack([places.columns, places.rows], axis=1)[new]


def _open(shape, places: _Holes) -> np.ndarray:
    mask = np.zeros(shape, bool)
    nowhere = places.frame < 0
    mask[places.rows[nowhere], places.columns[nowhere]] = True
    return mask


def _without_seam(filled: np.ndarray, frame: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Light changes between frames: the step at the border of the hole is spread smoothly into it."""
    ring = grow(hole, 4) & ~hole
    inner = hole & ~grow(hole, -3)
    if not ring.any() or not inner.any():
        return filled
    weight = lambda m: cv2.GaussianBlur(m.astype(np.float32), (0, 0), 4)  # noqa: E731
    mean = lambda p, m: (cv2.GaussianBlur(p.astype(np.float32) * m[..., None], (0, 0), 4)  # noqa: E731
                         / np.maximum(weight(m), 1e-3)[..., None])
    step = np.clip(mean(frame, ring) - mean(filled, inner), -24, 24)
    known = inner & (weight(ring) > 0.02)
    if not known.any():
        return filled
    offset = cv2.GaussianBlur(diffuse(step * known[..., None], known | ~grow(hole, 5)), (0, 0), 3)
    return np.clip(filled + offset * hole[..., None], 0, 255).astype(np.uint8)
