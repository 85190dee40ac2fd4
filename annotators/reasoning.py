"""An editing instruction thought through before the edit is done: in words, and on one frame.

Paper section 3.6: self-text reasoning (D11) rewrites the instruction into a detailed and
structured one; self-vision-text reasoning (D12) first edits a frame and then carries it through.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from manifests.columns import column
from manifests.errors import BackendError

from .ask import Annotator, Question
from .backends import classical
from .backends.wording import place_of
from .look import both_sides, changed_region, look, look_at
from .parsing import obj, text
from .pictures import View, see
from .transition import CLIPS

TEXT_PROMPT = """
You see frames of two clips, in order of time: first the source clip, then the target clip, which is the
source after an edit, and the instruction of that edit. Write how an editor should think it through
before the work, using the target only to be right about the result:
- goal: what the instruction wants, with everything it leaves open settled;
- subject: which things in the source it is about, by looks and place, so that none is confused;
- change: what each of them becomes: form, colour, material, size, place, motion, from when to when;
- keep: what must stay as it is, and what must follow the change (shadows, reflections, light);
- order: the whole as one precise instruction that could be carried out without the rest.
"""
FRAME_PROMPT = """
You see the first frame of a clip, then the same frame after an edit, and the instruction of the edit for
the whole clip. The edited frame is the sketch from which the clip will be made. Write
- seen: what the edit did in this frame, where, and how it looks now;
- missing: what the instruction asks for that this one frame cannot show or does not show yet;
- propagate: how the rest of the clip follows from this frame: what keeps its new looks, how it moves
  with the scene and the camera, what happens when it is covered or leaves the picture.
"""
WHOLE = 0.5  # of the pixels changed: then no part of the frame is what the edit is about
FRAMES = (View(label="first frame", path="frame_path"), View(label="edited frame", path="edited_path"))
TITLES = {"goal": "Goal", "subject": "Subject", "change": "Change", "keep": "Keep", "order": "Instruction",
          "seen": "Edited frame", "missing": "Still missing", "propagate": "Through the clip"}


def titled(answer: Mapping[str, str]) -> str:
    """One line a part, so that a reader and a trainer can take it apart again."""
    return "\n".join(f"{TITLES[name]}: {' '.join(value.split())}" for name, value in answer.items())


def measured_difference(row: Mapping[str, object]) -> dict:
    """What changes where, at the moment that shows most of it, and how light and colours of the whole change."""
    if not row["instruction"]:
        raise BackendError("there is no instruction to think through")
    sides = [[image for _, image in see(row, view, long_px=320, num_frames=4)] for view in CLIPS]
    source, target = map(look_at, sides)
    facts = classical.background_sentences(both_sides(source, target), classical.Wording(row["pair_id"]))
    regions = [found for pair in zip(*sides, strict=False) if (found := changed_region(*pair))]
    part = max(regions, key=lambda found: found["share"], default=None)
    if part and part["share"] <= WHOLE:  # else the scene is another one, and no part of it is what the edit is about
        facts.insert(0, _part_told(part))
    return {"reasoning": titled({"goal": row["instruction"], "change": " ".join(facts)})}


def measured_frame(row: Mapping[str, object]) -> dict:
    """Where and how the edited frame differs, and that the clip follows it; what else it lacks is not known."""
    if not row["instruction"]:
        raise BackendError("there is no instruction to think through")
    frame, edited = (image for view in FRAMES for _, image in see(row, view, long_px=320, num_frames=1))
    if (row["edited_share"] or 0.0) > WHOLE:
        before, after = (classical.listed(look(image)["colors"]) for image in (frame, edited))
        seen = "The whole frame changed: " + _turned(before, after, "with other tones and textures")
    else:
        found = changed_region(frame, edited)
        if found is None:
            raise BackendError("the edited frame shows no change that could be told")
        seen = _part_told(found)
    return {"frame_reasoning": titled({
        "seen": seen, "propagate": f"{row['instruction']} Every later frame shows it as this one does, moved along "
                                   "with the scene."})}


def _part_told(found: Mapping[str, object]) -> str:
    before, after = (classical.listed(found[side]) for side in ("before", "after"))
    return (f"The largest part that changed covers {found['share']:.0%} of the frame{place_of(found['x'])}: "
            + _turned(before, after, "in another form"))


def _turned(before: str, after: str, otherwise: str) -> str:
    return f"{before} before, {after} now." if before != after else f"{after}, as before, {otherwise}."


class WriteReasoning(Annotator):
    """PAIRS of clips with their `instruction` → `reasoning` (D11)."""

    question = Question(
        name="reasoning", prompt=TEXT_PROMPT, texts=("instruction",), views=CLIPS,
        schema=obj(goal=text(300), subject=text(300), change=text(500), keep=text(300), order=text(600)),
        parse=lambda answer, row: {"reasoning": titled(answer)},
        adds=(column("reasoning", pa.string(), "the instruction thought through, one titled line a part"),),
        measured=measured_difference, measures=("pair_id", "instruction", *(n for v in CLIPS for n in v.reads)),
    )


class ReasonEditedFrame(Annotator):
    """Clips with their first frame edited → `frame_reasoning`, which leads on to the whole clip (D12)."""

    question = Question(
        name="frame_reasoning", prompt=FRAME_PROMPT, texts=("instruction",), views=FRAMES,
        schema=obj(seen=text(400), missing=text(300), propagate=text(500)),
        parse=lambda answer, row: {"frame_reasoning": titled(answer)},
        adds=(column("frame_reasoning", pa.string(), "what the edited frame shows and how the clip follows from it"),),
        measured=measured_frame, measures=("instruction", "edited_share", *(n for v in FRAMES for n in v.reads)),
    )
