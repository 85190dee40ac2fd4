"""Sentences made of measured facts: what a source and a target clip differ in.

Every clause rests on one measured column of both clips; a null leaves its clause out, and a
difference below its threshold is called "about the same" or not mentioned. Wording varies with the
pair's id, so that a set of prompts does not read like a form, and is the same in every run.

Units and signs are those of the filters: pan and tilt in frame sizes a second (right and up
positive), zoom in growth a second, roll in degrees a second (clockwise positive), luma 0 to 255.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .wording import Wording, agree, count_in_words, listed, place_of, subject

MIN_FIT = 0.3                        # share of corners that must agree before the camera counts as measured
STILL = {"pan": 0.02, "tilt": 0.02, "zoom": 0.02, "roll": 1.5}   # slower is a static camera: hand tremor and jitter
FAST, SLOW = 8.0, 2.5                # times that threshold
VERBS = {"pan": ("pans to the right", "pans to the left"), "tilt": ("tilts up", "tilts down"),
         "zoom": ("closes in on the scene", "draws back from the scene"),
         "roll": ("turns clockwise", "turns counter-clockwise")}
MOVES = {"pan": ("a pan to the right", "a pan to the left"), "tilt": ("an upward tilt", "a downward tilt"),
         "zoom": ("a move in", "a move out"), "roll": ("a clockwise turn", "a counter-clockwise turn")}
AREAS = ((0.005, "almost nothing moves"), (0.05, "a small part of the picture moves"),
         (0.2, "a good part of the picture moves"), (1.01, "most of the picture is in motion"))
# Smallest differences that are told, and those that are strong.
BRIGHTER, MUCH_BRIGHTER = 10.0, 40.0
SATURATED, MUCH_SATURATED = 12.0, 50.0
CONTRASTED, SHARPER, LARGER, DRIFTS, RELAID = 10.0, 1.6, 1.3, 0.08, 25.0
MORE_AREA = 0.05
CELLS = ("upper left", "upper middle", "upper right", "middle left", "centre", "middle right", "lower left",
         "lower middle", "lower right")
# Measure, smallest difference, what a headline says when it grows and when it falls.
CHANGES = (("moving_area", MORE_AREA, "more of the picture moves", "less of the picture moves"),
           ("brightness", BRIGHTER, "the scene gets brighter", "the scene gets darker"),
           ("saturation", SATURATED, "the colours get stronger", "the colours get paler"),
           ("num_faces", 1, "more faces come into view", "fewer faces are in view"))

CAMERA = ("camera_pan", "camera_tilt", "camera_zoom", "camera_roll", "camera_fit")
FOREGROUND = ("moving_area", "moving_x", "moving_drift", "num_faces", "num_bodies", "face_size")
MOVING = ("moving_area", "moving_x", "moving_drift")
BACKGROUND = ("brightness", "saturation", "contrast", "sharpness", "colors", "layout")
MEASURES = tuple(f"{side}_{name}" for side in ("source", "target") for name in CAMERA + FOREGROUND + BACKGROUND)


class Sides:
    """Measures of a pair row by name: `both(name)` is None unless source and target have it.

    What moves is only known where the camera is: with an unsure fit everything seems to move.
    """

    def __init__(self, row: Mapping[str, object]):
        unsure = {f"{side}_{name}": None for side in ("source", "target") for name in MOVING
                  if Sides.camera(row, side) is None}
        self.row = {**row, **unsure}

    def both(self, name: str) -> tuple | None:
        values = self.row.get(f"source_{name}"), self.row.get(f"target_{name}")
        return None if None in values else values

    @staticmethod
    def camera(row: Mapping[str, object], side: str) -> list[tuple[str, float]] | None:
        """Movements above their threshold, strongest first, as (kind, multiple of the threshold)."""
        values = {kind: row.get(f"{side}_camera_{kind}") for kind in STILL}
        fit = row.get(f"{side}_camera_fit")
        if None in values.values() or (fit is not None and fit < MIN_FIT):
            return None
        strengths = [(kind, value / STILL[kind]) for kind, value in values.items()]
        return sorted((s for s in strengths if abs(s[1]) >= 1), key=lambda s: (-abs(s[1]), s[0]))[:2]


def camera_sentence(row: Mapping[str, object], say: Wording) -> str:
    before, after = Sides.camera(row, "source"), Sides.camera(row, "target")
    if after is None:
        return ""
    now = _moves(after, say)
    if before is None:
        return f"{say('camera', 'The camera', 'In the target, the camera')} {now}."
    if [(k, v > 0) for k, v in before] == [(k, v > 0) for k, v in after]:
        pace = _pace(before, after)
        return say("camera", f"The camera {now}{pace or ', as before'}.",
                   f"As in the source, the camera {now}{pace}.")
    return say("camera", f"The camera now {now}, where it {_past(before)} before.",
               f"Instead of {_noun(before)}, the camera now {now}.",
               f"The camera changes from {_noun(before)}: now it {now}.")


def foreground_sentences(row: Mapping[str, object], say: Wording) -> list[str]:
    sides = Sides(row)
    return [s for s in (_motion(sides, say), _drift(sides, say), _people(sides, say), _face(sides, say)) if s]


def background_sentences(row: Mapping[str, object], say: Wording) -> list[str]:
    sides = Sides(row)
    light, colors, layout = _light(sides, say), _colors(sides, say), _layout(sides, say)
    return [s for s in (light, colors, layout) if s]


def headline(row: Mapping[str, object], say: Wording) -> str:
    """One sentence with the largest changes, or that little changes; empty if nothing was measured."""
    sides, changes, known = Sides(row), [], False
    before, after = Sides.camera(row, "source"), Sides.camera(row, "target")
    if before is not None and after is not None:
        known = True
        if [(k, v > 0) for k, v in before] != [(k, v > 0) for k, v in after]:
            changes.append(f"the camera goes from {_noun(before)} to {_noun(after)}")
    for name, least, more, less in CHANGES:
        if (values := sides.both(name)) is not None:
            known = True
            if abs(values[1] - values[0]) >= least:
                changes.append(more if values[1] > values[0] else less)
    if not known:
        return ""
    if not changes:
        return say("same", "Camera, motion and light stay about the same from source to target.",
                   "Between the two clips, camera, motion and light hardly differ.")
    return say("turn", "From source to target, ", "Between the two clips, ", "On the way to the target, ") + listed(
        changes[:3]) + "."


def _moves(strengths: Sequence[tuple[str, float]], say: Wording) -> str:
    if not strengths:
        return say("still", "holds still", "is static", "stays in place")
    return " and ".join(f"{_adverb(value)}{VERBS[kind][value < 0]}" for kind, value in strengths)


def _past(strengths: Sequence[tuple[str, float]]) -> str:
    past = {"pans": "panned", "tilts": "tilted", "closes": "closed", "draws": "drew", "turns": "turned"}
    if not strengths:
        return "stood still"
    verbs = (VERBS[kind][value < 0].split(" ", 1) for kind, value in strengths)
    return " and ".join(f"{past[verb]} {rest}" for verb, rest in verbs)


def _noun(strengths: Sequence[tuple[str, float]]) -> str:
    return " with ".join(MOVES[kind][value < 0] for kind, value in strengths) or "a static view"


def _adverb(value: float) -> str:
    return "quickly " if abs(value) >= FAST else "slowly " if abs(value) < SLOW else ""


def _pace(before: Sequence[tuple[str, float]], after: Sequence[tuple[str, float]]) -> str:
    if not before:
        return ""
    ratio = abs(after[0][1]) / abs(before[0][1])
    return ", faster than before" if ratio > 1.5 else ", slower than before" if ratio < 1 / 1.5 else ""


def _motion(sides: Sides, say: Wording) -> str:
    areas, now = sides.both("moving_area"), sides.row.get("target_moving_area")
    if now is None:
        return ""
    words = next(text for top, text in AREAS if now < top)
    where = place_of(sides.row.get("target_moving_x")) if AREAS[0][0] <= now < AREAS[2][0] else ""
    was = next(text for top, text in AREAS if areas[0] < top) if areas else words
    if was != words:
        return say("area", f"In the foreground, {words}{where}, while in the source {was}.",
                   f"Where {was} in the source, {words}{where} now.")
    same = _as_much(areas) if areas and now >= AREAS[0][0] else ""
    return say("area", f"In the foreground, {words}{where}{same}.", f"{words.capitalize()}{where}{same}.")


def _as_much(areas: tuple[float, float]) -> str:
    if abs(areas[1] - areas[0]) < MORE_AREA:
        return ", about as much as in the source"
    return ", more than in the source" if areas[1] > areas[0] else ", less than in the source"


def _drift(sides: Sides, say: Wording) -> str:
    now, area = sides.row.get("target_moving_drift"), sides.row.get("target_moving_area")
    if now is None or area is None or abs(now) < DRIFTS or area < AREAS[0][0]:
        return ""
    side = "right" if now > 0 else "left"
    return say("drift", f"What moves shifts to the {side} during the clip.", f"The motion travels to the {side}.")


def _people(sides: Sides, say: Wording) -> str:
    for name, one, several in (("num_faces", "face", "faces"), ("num_bodies", "standing figure", "standing figures")):
        values = sides.both(name)
        if values is None or not any(values):
            continue
        before, after = values
        now, was = (f"{count_in_words(n)} {one if n == 1 else several}" for n in (after, before))
        verb = "is" if after == 1 else "are"
        if before == after:
            return say("people", f"As before, {now} {verb} in view.",
                       f"{now.capitalize()} {verb} in view in both clips.")
        if not before:
            return say("people", f"{now.capitalize()} {'comes' if after == 1 else 'come'} into view.",
                       f"{now.capitalize()} {verb} in view, where the source shows none.")
        if not after:
            return say("people", f"No {one} can be made out any more.", f"The source shows {was}, the target none.")
        return say("people", f"{now.capitalize()} {verb} in view instead of {count_in_words(before)}.",
                   f"The source shows {was}, the target {count_in_words(after)}.")
    return ""


def _face(sides: Sides, say: Wording) -> str:
    values = sides.both("face_size")
    if values is None or not all(values) or 1 / LARGER < values[1] / values[0] < LARGER:
        return ""
    face = "The face" if sides.both("num_faces") == (1, 1) else "The largest face"
    if values[1] > values[0]:
        return say("face", f"{face} fills more of the frame.", f"{face} is seen larger than before.")
    return say("face", f"{face} takes up less of the frame.", f"{face} is seen smaller than before.")


def _light(sides: Sides, say: Wording) -> str:
    parts, same = [], []
    for name, least, strong, more, less, what in (
            ("brightness", BRIGHTER, MUCH_BRIGHTER, "brighter", "darker", "brightness"),
            ("saturation", SATURATED, MUCH_SATURATED, "more colourful", "less colourful", "saturation"),
            ("contrast", CONTRASTED, 3 * CONTRASTED, "richer in contrast", "flatter in contrast", "contrast")):
        if (values := sides.both(name)) is None:
            continue
        change = values[1] - values[0]
        if abs(change) < least:
            same.append(what)
        else:
            parts.append(("much " if abs(change) >= strong else "") + (more if change > 0 else less))
    if (values := sides.both("sharpness")) is not None and min(values) > 0:
        ratio = values[1] / values[0]
        parts += ["crisper in detail"] if ratio > SHARPER else ["softer in detail"] if ratio < 1 / SHARPER else []
    if parts:
        return say("light", f"The scene is {listed(parts)}.",
                   f"Compared with the source, the setting is {listed(parts)}.",
                   f"The setting becomes {listed(parts)}.")
    if not same:
        return ""
    stay = "stays" if len(same) == 1 else "stay"
    return say("light", f"In the background, {listed(same)} {stay} about the same.",
               f"{listed(same).capitalize()} of the scene {stay} about the same.")


def _colors(sides: Sides, say: Wording) -> str:
    values = sides.both("colors")
    if values is None or not all(values):
        return ""
    before, now = values
    came, went = [c for c in now if c not in before], [c for c in before if c not in now]
    if not came and not went:
        return say("colors", f"Its main colours remain {listed(now)}.",
                   f"{subject(now, 'dominates')} the picture as before.")
    if came and went:
        return say("colors", f"{subject(came, 'takes')} the place of {listed(went)}.",
                   f"The main colours change from {listed(before)} to {listed(now)}.")
    if came:
        return say("colors", f"{subject(came, 'joins')} {listed(before)} among the main colours.",
                   f"Beside {listed(before)}, much {listed(came)} can now be seen.")
    return say("colors", f"{subject(went, 'recedes')}, and {listed(now)} {agree(now, 'remains')}.",
               f"Of the main colours, only {listed(now)} {agree(now, 'remains')}.")


def _layout(sides: Sides, say: Wording) -> str:
    values = sides.both("layout")
    if values is None or any(len(v) != len(CELLS) for v in values):
        return ""
    before, now = ([x - sum(v) / len(v) for x in v] for v in values)
    changes = [b - a for a, b in zip(before, now, strict=True)]
    cell = max(range(len(CELLS)), key=lambda i: abs(changes[i]))
    if abs(changes[cell]) < RELAID:
        return say("layout", "Light and dark areas keep their places.",
                   "Light and shade are laid out as in the source.")
    how = "lighter" if changes[cell] > 0 else "darker"
    return say("layout", f"Against the rest of the picture, the {CELLS[cell]} turns {how}.",
               f"The {CELLS[cell]} of the picture becomes {how} relative to the rest.")
