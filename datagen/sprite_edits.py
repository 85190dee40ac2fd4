"""Edits of procedural scenes with their exact result: what a learning test trains and asks for.

Each subset draws instruction, source, references and target:

* `edits`: recolour, change a shape, remove, change the background, invert, grey; one picture in.
* `id`: "background of image 1 and object of image 2"; the sources are exchangeable, the text names ids.
* `content`: "the colour of the object in the image with the red background"; tokens of one reference
  must recognise each other.
* `reasoning`: the object that is meant, or the colour, follows from a comparison inside the picture.
* `motion`: five frames; freeze an object, turn its motion round, recolour it.

Some (shape, colour, edit) combinations are held out: never drawn unless asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np

from manifests.errors import ConfigError

from .sprites import COLOURS, SHAPES, SIDE_PX, Scenes, draw_scenes, object_masks, render

LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # Rec. 601: the palette's greys lie 22 levels or more apart
STYLES = ("none", "invert", "grey")
NONE = -1
MOTION_FRAMES = 5
HELD_OUT_PERIOD = 5  # every fifth combination is never trained


@dataclass(frozen=True, kw_only=True)
class Cases:
    """N edits. `visuals` are the pictures (clips) shown, each `Scenes` of N; `has_source` says that the first
    is to be edited and the others are references. `style [N]` indexes STYLES, done to the rendered target.
    `wrong_background`, `wrong_colour [N]` are what a wrong reference would give (-1: nothing).
    """

    instruction: np.ndarray
    edit: np.ndarray
    visuals: tuple[Scenes, ...]
    target: Scenes
    style: np.ndarray
    wrong_background: np.ndarray
    wrong_colour: np.ndarray
    has_source: bool
    frames: int = 1

    def __len__(self) -> int:
        return len(self.target)

    def take(self, index: np.ndarray) -> Cases:
        """The cases at `index`."""
        rows = {f.name: getattr(self, f.name)[index] for f in fields(self)
                if isinstance(getattr(self, f.name), np.ndarray)}
        return replace(self, visuals=tuple(v.take(index) for v in self.visuals), target=self.target.take(index), **rows)

    def target_pictures(self) -> np.ndarray:
        """uint8 `[N, T, S, S, 3]`."""
        return apply_style(render(self.target, self.frames), self.style)

    def edit_mask(self) -> np.ndarray:
        """Where the target may differ from the source, bool `[N, T, S, S]`; everywhere without a source."""
        if not self.has_source:
            return np.ones((len(self), self.frames, SIDE_PX, SIDE_PX), bool)
        source = self.visuals[0]
        pictures = (render(source, self.frames), self.target_pictures())
        differs = (pictures[0] != pictures[1]).any(-1)
        changed = [(getattr(source, n) != getattr(self.target, n)) for n in
                   ("shape", "colour", "size", "x", "y", "vx", "vy", "shown")]
        touched = np.any(changed, axis=0)[..., None, None, None]
        objects = (object_masks(source, self.frames) | object_masks(self.target, self.frames)) & touched
        return differs | objects.any(1)


def apply_style(pictures: np.ndarray, style: np.ndarray) -> np.ndarray:
    """Inverted, or grey at its luminance, where `style` says so."""
    kind = np.asarray(style).reshape(-1, 1, 1, 1, 1)
    grey = np.round(pictures.astype(np.float32) @ LUMINANCE)[..., None].astype(np.uint8)
    return np.where(kind == 1, 255 - pictures, np.where(kind == 2, grey, pictures)).astype(np.uint8)


def is_held_out(shape: np.ndarray, colour: np.ndarray, edit: np.ndarray) -> np.ndarray:
    """Is this combination of integers kept for the test?"""
    return (2 * shape + 3 * colour + edit) % HELD_OUT_PERIOD == 0


def draw_cases(subset: str, count: int, seed: int, *, held_out: bool = False, references: int = 2) -> Cases:
    """`count` cases of a subset; with `held_out` only combinations that are never trained, else only others.

    `references` is the number of reference pictures where a subset has any (`id`: of sources).
    """
    if subset not in SUBSETS:
        raise ConfigError(f"no sprite subset {subset!r}; known: {', '.join(SUBSETS)}")
    rng = np.random.default_rng([seed, list(SUBSETS).index(subset), held_out])
    cases, key = SUBSETS[subset](rng, count * (12 if held_out else 2) + 64, references)
    return cases.take(np.flatnonzero(is_held_out(*key) == held_out)[:count])


Drawn = tuple[Cases, tuple[np.ndarray, np.ndarray, np.ndarray]]  # with (shape, colour, edit) of the combination


def _text(*parts: object) -> np.ndarray:
    """Words and arrays of words joined by spaces, row by row."""
    count = max(len(p) for p in parts if isinstance(p, np.ndarray))
    columns = [p if isinstance(p, np.ndarray) else [p] * count for p in parts]
    return np.array([" ".join(row) for row in zip(*columns, strict=True)])


def _other(rng: np.random.Generator, taken: np.ndarray, total: int) -> np.ndarray:
    """A number below `total` that is not in the row of `taken [N, …]`."""
    scores = rng.random((len(taken), total))
    np.put_along_axis(scores, taken.reshape(len(taken), -1), -1.0, axis=1)
    return scores.argmax(1)


def _with(scenes: Scenes, name: str, where: np.ndarray, values: np.ndarray, index: np.ndarray | None = None) -> Scenes:
    """One attribute replaced where `where`, of object `index [N]`, or of the scene."""
    old = getattr(scenes, name).copy()
    rows = np.flatnonzero(where)
    if index is None:
        old[rows] = values[rows]
    else:
        old[rows, index[rows]] = values[rows]
    return replace(scenes, **{name: old})


def _cases(instruction: np.ndarray, edit: np.ndarray, visuals: tuple[Scenes, ...], target: Scenes, **more) -> Cases:
    nothing = np.full(len(target), NONE)
    defaults = {"style": np.zeros(len(target), np.int64), "wrong_background": nothing, "wrong_colour": nothing,
                "has_source": True}
    return Cases(instruction=instruction, edit=edit, visuals=visuals, target=target, **defaults | more)


def _edits(rng: np.random.Generator, count: int, _: int) -> Drawn:
    names = np.array(["recolour", "reshape", "remove", "background", "invert", "grey"])
    source = draw_scenes(rng, count, objects=2)
    source = replace(source, shown=np.stack([np.ones(count, np.int64), rng.integers(0, 2, count)], 1))
    kind, first = rng.integers(0, len(names), count), np.zeros(count, np.int64)
    palette = np.concatenate([source.colour, source.background[:, None]], 1)
    colour, shape = _other(rng, palette, len(COLOURS)), _other(rng, source.shape, len(SHAPES))
    old_shape = source.shape[:, 0]
    target = _with(source, "colour", kind == 0, colour, first)
    target = _with(target, "shape", kind == 1, shape, first)
    target = _with(target, "shown", kind == 2, np.zeros_like(first), first)
    target = _with(target, "background", kind == 3, colour)
    who, new, form = np.array(SHAPES)[old_shape], np.array(COLOURS)[colour], np.array(SHAPES)[shape]
    texts = (_text("make the", who, new), _text("turn the", who, "into a", form), _text("remove the", who),
             _text("make the background", new), np.full(count, "invert all colours"),
             np.full(count, "make the picture grey"))
    style = np.select([kind == 4, kind == 5], [1, 2], 0)
    shown = np.where(np.isin(kind, (0, 3)), colour, source.colour[:, 0])
    instruction = np.select([kind == i for i in range(len(texts))], texts, "")
    return (_cases(instruction, names[kind], (source,), target, style=style),
            (np.where(kind == 1, shape, old_shape), shown, kind))


def _id(rng: np.random.Generator, count: int, references: int) -> Drawn:
    visuals = tuple(draw_scenes(rng, count) for _ in range(references))
    order = rng.permuted(np.tile(np.arange(references), (count, 1)), axis=1)
    a, b = order[:, 0], order[:, 1]
    at = _picker(visuals)
    # The two objects and backgrounds differ, so that a copy of the wrong picture is never right.
    target = replace(at(b), background=at(a).background, texture=at(a).texture)
    wrong = at(b).background
    usable = (target.colour[:, 0] != target.background) & (wrong != target.background) & (
        at(a).colour[:, 0] != target.colour[:, 0])
    number = np.arange(1, references + 1).astype(str)
    text = _text("background of image", number[a], "object of image", number[b])
    cases = _cases(text, np.full(count, "id"), visuals, target, wrong_background=wrong,
                   wrong_colour=at(a).colour[:, 0], has_source=False)
    rows = np.flatnonzero(usable)
    key = (target.shape[:, 0], target.colour[:, 0], target.background)
    return cases.take(rows), tuple(k[rows] for k in key)


def _content(rng: np.random.Generator, count: int, references: int) -> Drawn:
    source = draw_scenes(rng, count)
    shown = [draw_scenes(rng, count) for _ in range(references)]
    backgrounds = rng.permuted(np.tile(np.arange(8), (count, 1)), axis=1)[:, :references]
    # Colours of the objects differ among the references, from the source's object and its background.
    scores = rng.random((count, 8))
    np.put_along_axis(scores, np.stack([source.colour[:, 0], source.background], 1), 2.0, axis=1)
    colours = scores.argsort(1)[:, :references]
    clash = (backgrounds == colours).any(1)
    shown = [replace(s, background=backgrounds[:, i], colour=colours[:, i : i + 1]) for i, s in enumerate(shown)]
    chosen = rng.integers(0, references, count)
    at = _picker(tuple(shown))
    target = replace(source, colour=at(chosen).colour)
    text = _text("object takes the colour of the image with", np.array(COLOURS)[at(chosen).background], "background")
    cases = _cases(text, np.full(count, "content"), (source, *shown), target,
                   wrong_colour=at((chosen + 1) % references).colour[:, 0])
    rows = np.flatnonzero(~clash)
    key = (target.shape[:, 0], target.colour[:, 0], at(chosen).background)
    return cases.take(rows), tuple(k[rows] for k in key)


def _picker(visuals: tuple[Scenes, ...]) -> Callable[[np.ndarray], Scenes]:
    """A function that takes the `which[n]`-th of the visuals for each row n."""
    def at(which: np.ndarray) -> Scenes:
        rows = np.arange(len(which))
        return Scenes(**{f.name: np.stack([getattr(v, f.name) for v in visuals])[which, rows]
                         for f in fields(Scenes)})
    return at


def _reasoning(rng: np.random.Generator, count: int, _: int) -> Drawn:
    names = np.array(["recolour-largest", "recolour-smallest", "remove-largest", "remove-smallest"])
    source, kind = draw_scenes(rng, count, objects=2), rng.integers(0, 4, count)
    rows, largest = np.arange(count), source.size.argmax(1)
    meant = np.where(kind % 2 == 0, largest, 1 - largest)
    colour = source.colour[rows, 1 - meant]
    target = _with(source, "colour", kind < 2, colour, meant)
    target = _with(target, "shown", kind >= 2, np.zeros_like(kind), meant)
    size = np.array(["largest", "smallest"])
    texts = (_text("give the", size[kind % 2], "object the colour of the", size[1 - kind % 2]),
             _text("remove the", size[kind % 2], "object"))
    return (_cases(np.where(kind < 2, *texts), names[kind], (source,), target),
            (source.shape[rows, meant], np.where(kind < 2, colour, source.colour[rows, meant]), kind))


def _motion(rng: np.random.Generator, count: int, _: int) -> Drawn:
    names = np.array(["freeze", "reverse", "recolour"])
    source, kind = draw_scenes(rng, count, moving=True), rng.integers(0, 3, count)
    first = np.zeros(count, np.int64)
    target, steps = source, MOTION_FRAMES - 1
    for place, speed in (("x", "vx"), ("y", "vy")):  # played backwards: begins where it ended
        end = getattr(source, place) + steps * getattr(source, speed)
        target = _with(target, place, kind == 1, end[:, 0], first)
        target = _with(target, speed, kind == 1, -getattr(source, speed)[:, 0], first)
        target = _with(target, speed, kind == 0, np.zeros_like(first), first)
    colour = _other(rng, np.stack([source.colour[:, 0], source.background], 1), len(COLOURS))
    target = _with(target, "colour", kind == 2, colour, first)
    who = np.array(SHAPES)[source.shape[:, 0]]
    texts = (_text("freeze the", who), np.full(count, "play it backwards"),
             _text("make the", who, np.array(COLOURS)[colour]))
    instruction = np.select([kind == i for i in range(len(texts))], texts, "")
    return (_cases(instruction, names[kind], (source,), target, frames=MOTION_FRAMES),
            (source.shape[:, 0], target.colour[:, 0], kind))


SUBSETS: dict[str, Callable[[np.random.Generator, int, int], Drawn]] = {
    "edits": _edits, "id": _id, "content": _content, "reasoning": _reasoning, "motion": _motion,
}
