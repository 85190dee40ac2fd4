"""What one frame of a video differs in from another (D2: image pairs with a difference prompt)."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from manifests.columns import column

from .ask import Annotator, Question
from .backends import classical
from .look import both_sides, look
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


def measure(row: Mapping[str, object]) -> dict:
    source, target = (look(see(row, view, long_px=320)[0][1]) for view in SIDES)
    say = classical.Wording(row["pair_id"])
    return {"instruction": " ".join(classical.background_sentences(both_sides(source, target), say))}


class DescribeDifference(Annotator):
    """PAIRS of frames → `instruction`, the difference between them."""

    question = Question(
        name="instruction", prompt=PROMPT, schema=obj(instruction=text(800)), views=SIDES,
        adds=(column("instruction", pa.string(), "what to change in the source frame to get the target frame"),),
        measured=measure, measures=("pair_id", *(name for view in SIDES for name in view.reads)),
    )
