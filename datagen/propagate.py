"""An edited first frame carried through its clip (paper section 3.3, the propagation model's place).

Every frame is tied to frame 0 by chained optical flow that is corrected against frame 0 itself,
so that the chain does not drift. Where the forward-backward check says that a pixel is seen in
frame 0 its edit is read there; where it was seen one frame ago the edit of that frame is taken
along; where neither holds, pixels of like colour nearby decide. Elsewhere the clip keeps its
bytes.

An edit that keeps the structure of the picture (recolour, grade) is carried as a difference, so
that texture and light of each frame stay; any other is carried as pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from manifests.errors import BackendError

from .flow import DenseFlow, compose, flow_error, visible, warp
from .regions import blend, changed, edge_px, feather, soft_matte

KEEPS_STRUCTURE = 0.75   # correlation of fine luminance before and after, above which a difference is carried
SAME_PX = 36.0           # of 255: a pixel that differs more from what flow says is another surface
FAINT = 0.06         # a matte below this is noise of the flow, above 1 less this it is whole
NUM_VOTES = 1200         # pixels of the neighbourhood that are asked about an unseen one
VOTE_PX, VOTE_LAB = 0.06, 9.0  # how near (of the diagonal) and how alike (Lab) a voter must be


@dataclass
class _Layer:
    """The edit on one frame: `content` float32 `(H, W, 3)`, RGB or difference of RGB, and its matte."""

    content: np.ndarray
    matte: np.ndarray


def propagate(frames: np.ndarray, first_frame: np.ndarray, *, masks: np.ndarray | None = None,
              flow: DenseFlow | None = None, seed: int = 0) -> np.ndarray:
    """uint8 `(T, H, W, 3)`: the clip edited like `first_frame`, which becomes its frame 0.

    `masks` bool `(T, H, W)`, where the edited object is tracked, sharpens the edge of an edit
    that lies inside of it. Raises `BackendError` when the sizes differ.
    """
    if first_frame.shape != frames.shape[1:]:
        raise BackendError(f"the edited first frame is {first_frame.shape[1]}x{first_frame.shape[0]} and the clip "
                           f"{frames.shape[2]}x{frames.shape[1]}; they must be equal")
    region = changed(frames[0], first_frame)
    out = frames.copy()
    out[0] = first_frame
    if not region.any():
        return out
    carrier = _Carrier(frames[0], first_frame, region, flow or DenseFlow(), seed)
    masks = masks if masks is not None and _covers(masks[0], region) else None
    for t in range(1, len(frames)):
        layer = carrier.step(frames[t - 1], frames[t], None if masks is None else masks[t])
        out[t] = carrier.apply(frames[t], layer)
    return out


def keeps_structure(before: np.ndarray, after: np.ndarray, region: np.ndarray) -> bool:
    """Is the fine luminance of the region still what it was, so that only colour and light changed?"""
    fine = []
    for picture in (before, after):
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
        fine.append((grey - cv2.GaussianBlur(grey, (0, 0), 3))[region])
    if min(f.std() for f in fine) < 0.5:
        return False
    return bool(np.corrcoef(*fine)[0, 1] > KEEPS_STRUCTURE)


def _covers(mask: np.ndarray, region: np.ndarray) -> bool:
    """Do a mask and the changed region mean the same object?"""
    common = (mask & region).sum()
    return bool(mask.any() and common > 0.85 * region.sum() and common > 0.4 * mask.sum())


class _Carrier:
    def __init__(self, frame: np.ndarray, edited: np.ndarray, region: np.ndarray, flow: DenseFlow, seed: int):
        self.flow, self.rng = flow, np.random.default_rng(seed)
        self.is_difference = keeps_structure(frame, edited, region)
        content = edited.astype(np.float32) - frame if self.is_difference else edited.astype(np.float32)
        self.first, self.origin = frame, _Layer(content, feather(region, edge_px(frame.shape)))
        self.layer = self.origin
        zero = np.zeros((*frame.shape[:2], 2), np.float32)
        self.to_first, self.from_first = zero, zero.copy()

    def step(self, before: np.ndarray, frame: np.ndarray, mask: np.ndarray | None) -> _Layer:
        """The edit on `frame`, whose predecessor is `before`. Frames come in order."""
        back, there = self.flow(frame, before), self.flow(before, frame)
        self.to_first = self._anchored(compose(back, self.to_first), frame, self.first)
        self.from_first = self._anchored(compose(self.from_first, there), self.first, frame)
        seen = visible(self.to_first, self.from_first) & self._alike(frame, self.first, self.to_first)
        recent = visible(back, there) & self._alike(frame, before, back)
        weight = cv2.blur(seen.astype(np.float32), (5, 5)) * seen
        old, new = self._moved(self.layer, back), self._moved(self.origin, self.to_first)
        content = new.content * weight[..., None] + old.content * (1 - weight[..., None])
        matte = new.matte * weight + old.matte * (1 - weight)
        self.layer = self._decided(frame, _Layer(content, matte), seen | recent, mask)
        return self.layer

    def apply(self, frame: np.ndarray, layer: _Layer) -> np.ndarray:
        above = layer.content + frame if self.is_difference else layer.content * self._gain(frame, layer.matte)
        matte = np.clip((layer.matte - FAINT) / (1 - 2 * FAINT), 0, 1)
        return blend(frame, np.clip(above, 0, 255), matte)

    def _anchored(self, chained: np.ndarray, picture: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Of the corrected chain and the direct flow, at every pixel the one that explains the picture better."""
        corrected = compose(self.flow(picture, warp(other, chained)), chained)
        direct = self.flow(picture, other)
        errors = [cv2.blur(flow_error(picture, other, f), (9, 9)) for f in (chained, corrected, direct)]
        # The chain is smooth in time: another flow must be clearly better to be worth the change.
        errors[0] = errors[0] - 1.0
        best = np.argmin(errors, axis=0)[..., None]
        return np.where(best == 0, chained, np.where(best == 1, corrected, direct))

    @staticmethod
    def _alike(frame: np.ndarray, other: np.ndarray, flow: np.ndarray) -> np.ndarray:
        """Does flow lead to the same surface? A change of light, smooth in space, is allowed for."""
        gap = frame.astype(np.float32) - warp(other, flow)
        smooth = np.clip(cv2.blur(gap, (31, 31)), -20, 20)
        return np.abs(gap - smooth).max(axis=2) < SAME_PX

    @staticmethod
    def _moved(layer: _Layer, flow: np.ndarray) -> _Layer:
        return _Layer(warp(layer.content, flow, cubic=True), np.clip(warp(layer.matte, flow), 0, 1))

    def _decided(self, frame: np.ndarray, layer: _Layer, known: np.ndarray, mask: np.ndarray | None) -> _Layer:
        """The layer with its unseen pixels voted on, and its edge taken from the mask where there is one."""
        if mask is not None:
            layer.matte = np.where(known, layer.matte, np.float32(0))
            known = np.where(mask, known & (layer.matte > 0.7), True)
        unseen = ~known & (cv2.dilate(layer.matte, np.ones((15, 15), np.uint8)) > 0.02) if mask is None else ~known
        if unseen.any():
            self._vote(frame, layer, unseen, known if mask is None else known & mask & (layer.matte > 0.7))
        if mask is not None:
            edge = edge_px(frame.shape)
            layer.matte = soft_matte(frame, mask, 2 * edge) if self.is_difference else feather(mask, edge)
        return layer

    def _vote(self, frame: np.ndarray, layer: _Layer, unseen: np.ndarray, voters: np.ndarray) -> None:
        """Unseen pixels take the edit of seen ones that are near and of like colour, each by its weight."""
        reach = round(2 * VOTE_PX * np.hypot(*frame.shape[:2]))
        near = cv2.dilate(unseen.astype(np.uint8), np.ones((2 * reach + 1,) * 2, np.uint8)).astype(bool)
        at = np.flatnonzero(voters & near)
        if not len(at):
            return
        at = at[np.sort(self.rng.choice(len(at), min(NUM_VOTES, len(at)), replace=False))]
        features = _features(frame)
        values = np.column_stack([layer.content.reshape(-1, 3), layer.matte.ravel()])[at]
        keys, norm = features[at], np.square(features[at]).sum(axis=1)
        to = np.flatnonzero(unseen)
        content, matte = layer.content.reshape(-1, 3), layer.matte.reshape(-1)
        for part in np.array_split(to, max(1, len(to) // 8192)):
            distance = norm - 2 * features[part] @ keys.T  # of squares, but for a constant of each pixel
            weight = np.exp(-0.5 * (distance - distance.min(axis=1, keepdims=True)))
            said = weight @ values / weight.sum(axis=1, keepdims=True)
            content[part], matte[part] = said[:, :3], said[:, 3]

    def _gain(self, frame: np.ndarray, matte: np.ndarray) -> np.ndarray:
        """float32 `(3,)`: how much brighter the rest of the frame is than it was in frame 0."""
        was = warp(self.first, self.to_first)
        rest = (matte < 0.01) & (was.min(axis=2) > 8) & (was.max(axis=2) < 248)
        if rest.sum() < 500:
            return np.ones(3, np.float32)
        ratio = frame[rest].astype(np.float32).mean(axis=0) / was[rest].astype(np.float32).mean(axis=0)
        return np.clip(ratio, 0.7, 1.4)


def _features(frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    lab = cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).reshape(-1, 3) / VOTE_LAB
    scale = VOTE_PX * np.hypot(height, width)
    y, x = np.mgrid[:height, :width].astype(np.float32) / np.float32(scale)
    return np.column_stack([x.ravel(), y.ravel(), lab]).astype(np.float32)
