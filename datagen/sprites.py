"""Procedural scenes with exact facts: for learning tests that need no downloads and no pretrained weights.

A scene is a background (colour and texture) and one or two objects (shape, colour, size, place,
velocity). N scenes are drawn and rendered at once, so that every pixel and every mask is known and
a data set is made in seconds. Edits of scenes are in `sprite_edits`, the judge in `sprite_judge`.

N scenes, K objects of a scene (those that are not `shown` leave no pixel), T frames, S side in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

SIDE_PX = 8  # one pixel is one cell of a shape: a tiny model shall learn edits, not detail
# The corners of the colour cube, 192 levels apart: closed under inversion, and a texture of +-24
# levels never makes a colour the neighbour of another.
LOW, HIGH, TEXTURE_LEVELS = 32, 224, 24
PALETTE = {
    "black": (LOW, LOW, LOW), "blue": (LOW, LOW, HIGH), "green": (LOW, HIGH, LOW), "cyan": (LOW, HIGH, HIGH),
    "red": (HIGH, LOW, LOW), "magenta": (HIGH, LOW, HIGH), "yellow": (HIGH, HIGH, LOW), "white": (HIGH, HIGH, HIGH),
}
COLOURS = tuple(PALETTE)
RGB = np.array(list(PALETTE.values()), np.int16)  # [8, 3]
TEXTURES = ("flat", "checker", "gradient")
# Each shape at its two sizes, row by row; "x" is a cross that stands on its corners.
DRAWINGS = {
    "square": ("### ### ###", "#### #### #### ####"),
    "ring": ("### #.# ###", "#### #..# #..# ####"),
    "cross": (".#. ### .#.", ".##. #### #### .##."),
    "x": ("#.# .#. #.#", "#..# .##. .##. #..#"),
    "tee": ("### .#. .#.", "#### #### .##. .##."),
    "ell": ("#.. #.. ###", "##.. ##.. #### ####"),
}
SHAPES = tuple(DRAWINGS)
SIZES_PX = (3, 4)
VELOCITIES = tuple((x, y) for y in (-1, 0, 1) for x in (-1, 0, 1) if x or y)  # pixels a frame


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """N scenes as integers. `background, texture [N]` index COLOURS and TEXTURES; of the objects `[N, K]`:
    `shape` and `colour` index SHAPES and COLOURS, `size` in pixels, `x, y` left and upper edge in frame 0,
    `vx, vy` pixels a frame, `shown` 0 or 1.
    """

    background: np.ndarray
    texture: np.ndarray
    shape: np.ndarray
    colour: np.ndarray
    size: np.ndarray
    x: np.ndarray
    y: np.ndarray
    vx: np.ndarray
    vy: np.ndarray
    shown: np.ndarray

    def __len__(self) -> int:
        return len(self.background)

    def take(self, index: np.ndarray) -> Scenes:
        """The scenes at `index`."""
        return Scenes(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def to_lists(self) -> list[list[int]]:
        """One flat list of integers a scene, for a manifest: the two of the scene, then eight an object."""
        parts = [getattr(self, f.name).reshape(len(self), -1) for f in fields(self)]
        return np.concatenate(parts, axis=1).tolist()

    @classmethod
    def from_lists(cls, rows: list[list[int]]) -> Scenes:
        """Inverse of `to_lists`."""
        values = np.array(rows, np.int64)
        names, num = [f.name for f in fields(cls)], (values.shape[1] - 2) // (len(fields(cls)) - 2)
        objects = {n: values[:, 2 + i * num : 2 + (i + 1) * num] for i, n in enumerate(names[2:])}
        return cls(background=values[:, 0], texture=values[:, 1], **objects)


def draw_scenes(rng: np.random.Generator, count: int, *, objects: int = 1, moving: bool = False,
                side_px: int = SIDE_PX) -> Scenes:
    """`count` scenes with 1 or 2 objects that differ from the background and from each other in colour,
    two also in shape and size, and do not overlap. `moving` gives every object a velocity that keeps it
    inside for five frames.
    """
    colours = rng.permuted(np.tile(np.arange(len(COLOURS)), (count, 1)), axis=1)[:, : objects + 1]
    shapes = rng.permuted(np.tile(np.arange(len(SHAPES)), (count, 1)), axis=1)[:, :objects]
    sizes = rng.permuted(np.tile(SIZES_PX, (count, 1)), axis=1)[:, :objects]
    lane = side_px // objects
    x = rng.integers(0, lane - sizes + 1) + lane * np.arange(objects)
    y = rng.integers(0, side_px - sizes + 1)
    velocity = np.zeros((count, objects, 2), np.int64)
    if moving:
        velocity = np.array(VELOCITIES)[rng.integers(0, len(VELOCITIES), (count, objects))]
        x, y = (_inside(p, velocity[..., i], sizes, side_px) for i, p in enumerate((x, y)))
    return Scenes(background=colours[:, 0], texture=rng.integers(0, len(TEXTURES), count), shape=shapes,
                  colour=colours[:, 1:], size=sizes, x=x, y=y, vx=velocity[..., 0], vy=velocity[..., 1],
                  shown=np.ones((count, objects), np.int64))


def _inside(start: np.ndarray, velocity: np.ndarray, sizes: np.ndarray, side_px: int, steps: int = 4) -> np.ndarray:
    """`start` moved so that the object is inside after `steps` frames."""
    return np.clip(start, np.maximum(0, -velocity * steps), side_px - sizes - np.maximum(0, velocity * steps))


def template(shape: str, size: int) -> np.ndarray:
    """Pixels of a shape in its box, bool `[size, size]`."""
    rows = DRAWINGS[shape][SIZES_PX.index(size)].split()
    return np.array([[cell == "#" for cell in row] for row in rows])


def _templates() -> np.ndarray:
    """All shapes at all sizes in the upper left corner of a box, bool `[largest + 1, shapes, largest, largest]`."""
    largest = max(SIZES_PX)
    out = np.zeros((largest + 1, len(SHAPES), largest, largest), bool)
    for size in SIZES_PX:
        for i, shape in enumerate(SHAPES):
            out[size, i, :size, :size] = template(shape, size)
    return out


TEMPLATES = _templates()


def object_masks(scenes: Scenes, frames: int = 1, side_px: int = SIDE_PX, shape: np.ndarray | None = None
                 ) -> np.ndarray:
    """Where each shown object is, bool `[N, K, T, S, S]`. `shape` asks for other shapes in the same places."""
    shape = scenes.shape if shape is None else shape
    t, grid = np.arange(frames), np.arange(side_px)
    row = grid - (scenes.y[..., None] + scenes.vy[..., None] * t)[..., None]      # [N, K, T, S]
    column = grid - (scenes.x[..., None] + scenes.vx[..., None] * t)[..., None]
    largest = max(SIZES_PX)
    inside = ((row >= 0) & (row < largest))[..., :, None] & ((column >= 0) & (column < largest))[..., None, :]
    row, column = (np.clip(p, 0, largest - 1) for p in (row, column))
    box = TEMPLATES[scenes.size, shape][:, :, None]                               # [N, K, 1, 4, 4]
    n, k, f = np.ogrid[: len(scenes), : scenes.shape.shape[1], :1]
    seen = box[n[..., None, None], k[..., None, None], f[..., None, None], row[..., :, None], column[..., None, :]]
    return seen & inside & scenes.shown.astype(bool)[..., None, None, None]


def render(scenes: Scenes, frames: int = 1, side_px: int = SIDE_PX) -> np.ndarray:
    """uint8 RGB `[N, T, S, S, 3]`; a later object covers an earlier one."""
    row, column = np.mgrid[:side_px, :side_px]
    ramp = np.linspace(-TEXTURE_LEVELS, TEXTURE_LEVELS, side_px)
    checker = np.where((row // 2 + column // 2) % 2, TEXTURE_LEVELS, -TEXTURE_LEVELS)
    textures = np.stack([np.zeros_like(checker), checker, np.broadcast_to(ramp, checker.shape)]).astype(np.int16)
    picture = RGB[scenes.background][:, None, None] + textures[scenes.texture][..., None]
    picture = np.repeat(picture[:, None], frames, axis=1).astype(np.uint8)
    masks = object_masks(scenes, frames, side_px)
    for k in range(masks.shape[1]):
        colour = RGB[scenes.colour[:, k]].astype(np.uint8)[:, None, None, None]
        picture = np.where(masks[:, k, ..., None], colour, picture)
    return picture
