"""How to take the referenced object out of a clip, or put another in its place (D9).

The edited result becomes the *input* of a reference-and-video triplet: the clip as it was, with
the object, is what a model learns to restore from the reference.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from manifests.columns import column
from manifests.errors import BackendError

from .ask import Annotator, Question
from .parsing import choice, obj, text
from .pictures import View

PROMPT = """
You see a reference picture of an object and then frames of a clip, in order of time, in which that object
appears; object_name says what it is called. Write an instruction to a video editor after which the
object is gone from the clip. Choose kind:
- removal, where the object can vanish and what lies behind it can be guessed: say what must be
  removed, with its shadow and reflection, and what is seen in its place;
- replacement, where something must hold that place (it is worn, held, sat on, or fills the view): name
  something of another kind that fits there, and say how it looks and that it moves alike.
Describe the object by its looks and place in the clip, so that no other one can be meant. Nothing
else may change.
"""


def plain_removal(row: Mapping[str, object]) -> dict:
    """Words around a name that is known; nothing about the clip is claimed."""
    if not row["object_name"]:
        raise BackendError("object_name is not known, and finding the object needs a model: give backend='openai'")
    return {"removal_instruction": f"Remove {row['object_name']} from the video and fill in what is behind.",
            "removal_kind": "removal"}


class WriteRemoval(Annotator):
    """Clips with a `reference_path` and `object_name` → `removal_instruction`, `removal_kind`."""

    question = Question(
        name="removal", prompt=PROMPT, schema=obj(kind=choice("removal", "replacement"), instruction=text(500, 10)),
        texts=("object_name",), measured=plain_removal, measures=("object_name",),
        views=(View(label="reference", path="reference_path"),
               View(label="clip", path="path", start="start_s", end="end_s", num_frames=4)),
        parse=lambda answer, row: {"removal_instruction": answer["instruction"].strip(),
                                   "removal_kind": answer["kind"]},
        adds=(column("removal_instruction", pa.string(), "instruction after which the object is gone from the clip"),
              column("removal_kind", pa.string(), "removal or replacement")),
    )
