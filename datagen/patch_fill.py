"""A hole in a picture filled with patches of the rest of it, coarse to fine.

Wexler et al. 2007 with the search of PatchMatch (Barnes et al. 2009): every patch that touches
the hole looks for its like outside, and each pixel is the weighted mean of what the patches
over it say. Sharp where `cv2.inpaint` smears; equal input gives equal output.
"""

from __future__ import annotations

import cv2
import numpy as np

from .regions import diffuse, grow

RADIUS = 3           # patches of 7 x 7
COARSEST_PX = 40     # short side at which the filling starts
ROUNDS = (6, 4, 3, 2, 2, 2, 2, 2)  # of search and vote, from the coarsest level on
MAX_HOLE_PX = 60_000  # patches sought at one level; finer levels only copy where the coarser one found
_STEPS = np.array([(dy, dx) for dy in range(-RADIUS, RADIUS + 1) for dx in range(-RADIUS, RADIUS + 1)])


def fill(picture: np.ndarray, mask: np.ndarray, *, seed: int = 0, allowed: np.ndarray | None = None) -> np.ndarray:
    """uint8 `(H, W, 3)` with the bool `mask` filled; `allowed` limits where patches may come from."""
    mask = mask.astype(bool)
    source = ~mask if allowed is None else ~mask & allowed
    if not mask.any() or source.mean() < 0.02:
        return picture if not mask.any() else _smeared(picture, mask)
    rows, columns = _window(mask)
    out = picture.copy()
    part = _fill(picture[rows, columns], mask[rows, columns], source[rows, columns], np.random.default_rng(seed))
    out[rows, columns] = np.where(mask[rows, columns, None], part, picture[rows, columns])
    return out


def _smeared(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return cv2.inpaint(picture, mask.astype(np.uint8), 5, cv2.INPAINT_TELEA)


def _window(mask: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of the hole with as much around it again on each side: the search looks no further."""
    spans = []
    for axis in (1, 0):
        there = np.flatnonzero(mask.any(axis=axis))
        margin = max(64, int(there[-1] - there[0] + 1))
        spans.append(slice(max(0, there[0] - margin), min(mask.shape[1 - axis], there[-1] + 1 + margin)))
    return spans[0], spans[1]


def _fill(picture: np.ndarray, hole: np.ndarray, source: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    num = max(1, int(np.log2(max(1, min(hole.shape) / COARSEST_PX))) + 1)
    levels = [(picture.astype(np.float32), hole, source)]
    for _ in range(num - 1):
        big, big_hole, big_source = levels[-1]
        size = (big.shape[1] // 2, big.shape[0] // 2)
        smaller = cv2.resize(np.where(big_hole[..., None], 0, big), size, interpolation=cv2.INTER_AREA)
        kept = cv2.resize((~big_hole).astype(np.float32), size, interpolation=cv2.INTER_AREA)
        clear = cv2.resize(big_source.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.99
        levels.append((smaller / np.maximum(kept, 1e-3)[..., None], kept < 0.5, clear))
    image = places = None
    for rounds, (known, hole_here, source_here) in zip(ROUNDS, reversed(levels), strict=False):
        if image is None:
            image = diffuse(known, ~hole_here)
        else:
            finer = cv2.resize(image, known.shape[1::-1], interpolation=cv2.INTER_LINEAR)
            image = np.where(hole_here[..., None], finer, known)
        image, places = _level(image, hole_here, source_here, places, rounds, rng)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _level(image, hole, source, places, rounds: int, rng) -> tuple[np.ndarray, np.ndarray]:
    """One level: search and vote. `places` float32 `(H, W, 2)` are rows, columns found one level above."""
    height, width = hole.shape
    centres = ~grow(~source, RADIUS)  # whole patches lie in the source
    centres[:RADIUS] = centres[-RADIUS:] = False
    centres[:, :RADIUS] = centres[:, -RADIUS:] = False
    choices = np.argwhere(centres)
    if len(choices) < 50:
        return image, np.dstack(np.mgrid[:height, :width]).astype(np.float32)
    near = cv2.dilate(hole.astype(np.uint8), np.ones((2 * RADIUS + 1,) * 2, np.uint8)).astype(bool)
    targets = np.argwhere(near)
    if not len(targets):  # a thin hole is gone at the coarsest level
        return image, np.dstack(np.mgrid[:height, :width]).astype(np.float32)
    found = _start(targets, places, hole.shape, centres, choices, rng)
    search = len(targets) <= MAX_HOLE_PX
    for _ in range(rounds if search else 1):
        distance = _distances(image, targets, found)
        if search:
            found, distance = _search(image, targets, found, distance, centres, choices, rng)
        image = _vote(image, hole, targets, found, distance)
    field = np.dstack(np.mgrid[:height, :width]).astype(np.float32)
    field[targets[:, 0], targets[:, 1]] = found
    return image, field


def _start(targets, places, shape, centres, choices, rng) -> np.ndarray:
    found = choices[rng.integers(0, len(choices), len(targets))]
    if places is None:
        return found
    above = np.minimum(targets // 2, np.array(places.shape[:2]) - 1)
    guess = (places[above[:, 0], above[:, 1]] * 2 + targets % 2).astype(int)
    guess = np.clip(guess, RADIUS, np.array(shape) - 1 - RADIUS)
    fits = centres[guess[:, 0], guess[:, 1]]
    return np.where(fits[:, None], guess, found)


def _patches(image: np.ndarray, at: np.ndarray) -> np.ndarray:
    spots = at[:, None, :] + _STEPS[None]
    y = np.clip(spots[..., 0], 0, image.shape[0] - 1)
    x = np.clip(spots[..., 1], 0, image.shape[1] - 1)
    return image[y, x]


def _distances(image: np.ndarray, targets: np.ndarray, found: np.ndarray, chunk: int = 8192) -> np.ndarray:
    parts = [np.square(_patches(image, targets[i:i + chunk]) - _patches(image, found[i:i + chunk])).mean(axis=(1, 2))
             for i in range(0, len(targets), chunk)]
    return np.concatenate(parts)


def _search(image, targets, found, distance, centres, choices, rng) -> tuple[np.ndarray, np.ndarray]:
    """Offer every patch the finds of its neighbours, then places around its own find and anywhere."""
    shape = np.array(centres.shape)
    index = np.full(centres.shape, -1)
    index[targets[:, 0], targets[:, 1]] = np.arange(len(targets))
    for jump in (4, 1):
        for step in ((0, jump), (0, -jump), (jump, 0), (-jump, 0)):
            beside = np.clip(targets + step, 0, shape - 1)
            who = index[beside[:, 0], beside[:, 1]]
            offer = np.where((who >= 0)[:, None], found[who] - step, found)
            found, distance = _better(image, targets, found, distance, offer, centres)
    reach = int(shape.max()) // 2
    while reach >= 2:
        offer = found + rng.integers(-reach, reach + 1, found.shape)
        found, distance = _better(image, targets, found, distance, offer, centres)
        reach //= 4
    offer = choices[rng.integers(0, len(choices), len(targets))]
    return _better(image, targets, found, distance, offer, centres)


def _better(image, targets, found, distance, offer, centres) -> tuple[np.ndarray, np.ndarray]:
    offer = np.clip(offer, 0, np.array(centres.shape) - 1)
    worth = np.flatnonzero(centres[offer[:, 0], offer[:, 1]] & (offer != found).any(axis=1))
    if not len(worth):
        return found, distance
    new = _distances(image, targets[worth], offer[worth])
    won = worth[new < distance[worth]]
    found, distance = found.copy(), distance.copy()
    distance[won], found[won] = new[new < distance[worth]], offer[won]
    return found, distance


def _vote(image, hole, targets, found, distance) -> np.ndarray:
    """Each pixel of the hole is the mean of what the patches over it say, the better ones counting more."""
    height, width = hole.shape
    weight = np.exp(-distance / (2 * max(float(np.percentile(distance, 60)), 1.0))) + 1e-4
    total, norm = np.zeros((height * width, 3)), np.zeros(height * width)
    for step in _STEPS:
        at, of = targets + step, found + step
        ok = ((at >= 0) & (at < (height, width))).all(axis=1)
        flat = at[ok, 0] * width + at[ok, 1]
        colour = image[of[ok, 0], of[ok, 1]]
        norm += np.bincount(flat, weight[ok], height * width)
        for c in range(3):
            total[:, c] += np.bincount(flat, weight[ok] * colour[:, c], height * width)
    filled = (total / np.maximum(norm, 1e-9)[:, None]).reshape(height, width, 3)
    known = (norm > 0).reshape(height, width) & hole
    return np.where(known[..., None], filled, image).astype(np.float32)
