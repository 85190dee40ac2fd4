"""An edit of a planned kind, thought up for one clip (D5).

Paper section 3.3: a strong image editor and a propagation model make addition, removal, replacement and style
data. Which of them a clip gets is planned, so that all kinds occur; what it is about is up to the clip.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from manifests.columns import column
from manifests.errors import BackendError
from manifests.ids import digest

from .ask import Annotator, Question
from .edit_prompt import EDIT_PROMPT
from .parsing import InvalidAnswer, obj, text
from .pictures import View

PROMPT = """
You see frames of a clip, in order of time; edit says what kind of edit it is to get. Think of one edit of
that kind that suits the clip and could be done in all its frames:
- removal: a person, animal or thing that can be taken away, with its shadow; what lies behind can be guessed;
- addition: something that could have been there and is not: what, where, how large, how it looks;
- replacement: one thing by another that takes its place and moves alike, not of the same shape;
- recolour: one thing in another colour or material;
- style: the whole clip in another manner of drawing, painting or filming.
Write
- object: what is edited, by looks and place, so that no other thing can be meant; for an addition
  what comes in; for a style its name;
- result: what the edited clip shows there instead, in such words too: what took its place, the thing in its
  new colour, what came in; empty for a removal and for a style;
- frame_edit: an order to an image editor who sees the first frame only;
- instruction: the same edit as an order for the whole clip.
"""
PARTS = {"edit_prompt": "frame_edit", "instruction": "instruction", "edited_thing": "object"}
NO_RESULT = ("removal", "style")  # kinds that bring nothing in that could be pointed at


def as_columns(answer: Mapping[str, str], row: Mapping[str, object]) -> dict:
    result = None if row["edit"] in NO_RESULT else answer["result"].strip()
    if result == "":
        raise InvalidAnswer(f"'result' is empty; after a {row['edit']} there is something to be seen: name it")
    return {name: answer[part].strip() for name, part in PARTS.items()} | {"edited_result": result}


def measured_edit(row: Mapping[str, object]) -> dict:
    """One of the listed edits, drawn by the clip."""
    edits = row["possible_edits"] or ()
    if not edits:
        raise BackendError(f"without a model an edit must be one of possible_edits, and there is no {row['edit']}")
    chosen = min(edits, key=lambda e: digest("planned", row["clip_id"], row["edit"], e["prompt"]))
    return {"edit_prompt": chosen["prompt"], "instruction": chosen["prompt"], "edited_thing": chosen["object"]}


class WritePlannedEdit(Annotator):
    """Clips with a planned `edit` → `edit_prompt` (first frame), `instruction` (clip), and what it is about."""

    question = Question(
        name="planned_edit", prompt=PROMPT, texts=("edit",),
        schema=obj(object=text(80), result=text(80, 0), frame_edit=text(400, 5), instruction=text(500, 5)),
        views=(View(label="clip", path="path", start="start_s", end="end_s", num_frames=6),),
        parse=as_columns,
        adds=(EDIT_PROMPT, column("instruction", pa.string(), "what to change in the clip"),
              column("edited_thing", pa.string(), "what the edit is about, in words; null = the whole clip"),
              column("edited_result", pa.string(), "what the edited clip shows there instead, in words; null = nothing "
                                                   "that could be pointed at, or not known without a model")),
        measured=measured_edit, measures=("clip_id", "edit", "possible_edits"),
    )
