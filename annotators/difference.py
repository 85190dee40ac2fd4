"""What one frame of a video differs in from another (D2: image pairs with a difference prompt)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from manifests.columns import column

from .ask import Annotator, Question
from .backends import classical
from .backends.wording import listed
from .look import both_sides, changed_region, look
from .parsing import obj, text
from .pictures import View, see

PROMPT = """
You see two pictures from one film: first the source, then the target. Write the editing
instruction that turns the source into the target: what is added, taken away, moved or changed, where in
the picture, and how it looks afterwards. Speak to an editor ("Move the pan onto the stove and ...").
Leave out what is the same in both, and name only what the pictures show.
"""
SIDES = (View(label="source", path="source_path", moment="source_time_s"),
         View(label="target", path="target_path", moment="target_time_s"))
ORDERS = {
    "view": ("Show the scene from another view.", "Change the whole view of the scene."),
    "shape": ("{where}, let {after} parts take another shape and place.", "{where}, move what is {after}."),
    "colours": ("{where}, replace what is {before} by something {after}.",
                "{where}, let something {after} take the place of what is {before}."),
}
STORY = {
    "view": ("The scene is seen from another view.", "The whole view of the scene changes."),
    "shape": ("{where}, {after} parts take another shape and place.", "{where}, what is {after} moves."),
    "colours": ("{where}, something {after} takes the place of what is {before}.",
                "{where}, what is {before} gives way to something {after}."),
}
WHOLE = 0.6  # a change of more than this share of the picture is a change of view,
ALIKE = 0.7  # or of light and colour alone, where the pictures are still laid out alike


def measure(row: Mapping[str, object]) -> dict:
    source, target = (see(row, view, long_px=320)[0][1] for view in SIDES)
    return {"instruction": tell_change(source, target, row["pair_id"], ORDERS)}


def tell_change(source: np.ndarray, target: np.ndarray, key: str, wordings: Mapping[str, tuple[str, ...]]) -> str:
    """Sentences of what was measured to change between two `(height, width, 3)` uint8 RGB pictures.

    `key` picks among equal wordings; `wordings` are `ORDERS` or `STORY`.
    """
    say = classical.Wording(key)
    told = (_region(changed_region(source, target), say, wordings),
            *classical.background_sentences(both_sides(look(source), look(target)), say))
    return " ".join(filter(None, told))


def _region(region: dict | None, say: classical.Wording, wordings: Mapping[str, tuple[str, ...]]) -> str:
    """What the largest change is and where; nothing is named, because nothing was recognised."""
    if region is None:
        return ""
    if region["share"] > WHOLE:
        return "" if region["alike"] > ALIKE else say("region", *wordings["view"])
    place = classical.CELLS[3 * min(int(3 * region["y"]), 2) + min(int(3 * region["x"]), 2)]
    where = f"In the {place}, over {max(1, round(100 * region['share']))} % of the picture"
    before = [c for c in region["before"] if c not in region["after"]]
    after = [c for c in region["after"] if c not in region["before"]]
    kind = "colours" if after else "shape"
    return say("region", *(w.format(where=where, before=listed(before or region["before"]),
                                    after=listed(after or region["after"])) for w in wordings[kind]))


class DescribeDifference(Annotator):
    """PAIRS of frames → `instruction`, the difference between them."""

    question = Question(
        name="instruction", prompt=PROMPT, schema=obj(instruction=text(800)), views=SIDES,
        adds=(column("instruction", pa.string(), "what to change in the source frame to get the target frame"),),
        measured=measure, measures=("pair_id", *(name for view in SIDES for name in view.reads)),
    )
