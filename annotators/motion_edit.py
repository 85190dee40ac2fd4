"""An edit after which people move otherwise, and the two prompts of the dual-branch sampler (D6).

Paper section 3.3: what a person holds, wears or stands by shapes how the person moves; the edit of the first
frame is told to the image editor, T_v2v to the video-to-video branch and T_i2v to the image-to-video branch.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from manifests.columns import column

from .ask import Annotator, Question
from .backends import classical
from .edit_prompt import EDIT_PROMPT, possible
from .parsing import choice, obj, text
from .pictures import View

PROMPT = """
You see frames of a clip in which people do something, in order of time. Think of an edit that changes how
they must move: a thing that they hold, use, wear or meet is replaced, removed or added, or another person
joins them. The scene, the people and the camera stay. Choose kind:
- replacement, removal or addition of a thing or person;
- recolour, where a thing stays and only its colour or material changes;
- other, where it is none of these.
Write
- object: what the edit brings in, as it then looks, or what it removes, in a few words;
- frame_edit: an order to an image editor who sees the first frame only: what to change, where, and how it
  looks at that moment, hands and posture included;
- instruction: the same edit as an order for the whole clip, the consequence for the motion included;
- motion: what happens in the edited clip, told as if it had been filmed so: who moves how with the
  new thing (or without it), from beginning to end, then the camera. No word of an edit.
"""
KINDS = ("replacement", "removal", "addition", "recolour", "other")
# Measured edits that touch what people do or where they are, by the kind of datagen.backends.EditRequest.
MEASURED = {"recolour": "recolour", "remove": "removal", "swap-background": "background"}
PARTS = {"motion_edit_kind": "kind", "edit_prompt": "frame_edit", "instruction": "instruction",
         "motion_prompt": "motion", "edited_thing": "object"}


def measured_edit(row: Mapping[str, object]) -> dict:
    """An edit of a thing that can be done without a model. How people would move after it is not known, nor claimed."""
    about = [edit for edit in row["possible_edits"] or () if edit["object"] and edit["kind"] in MEASURED]
    prompt = possible({**row, "possible_edits": about})[0]
    camera = classical.camera_sentence({f"target_{name}": row[name] for name in classical.CAMERA},
                                       lambda slot, *options: options[0])
    edit = next(edit for edit in about if edit["prompt"] == prompt)
    return {"edit_prompt": prompt, "instruction": prompt, "edited_thing": edit["object"],
            "motion_edit_kind": MEASURED[edit["kind"]],
            "motion_prompt": f"The scene goes on as before. {camera}".strip()}


class InventMotionEdit(Annotator):
    """Clips of people → `edit_prompt` (first frame), `instruction` (T_v2v), `motion_prompt` (T_i2v), and the kind."""

    question = Question(
        name="motion_edit", prompt=PROMPT,
        schema=obj(kind=choice(*KINDS), object=text(80), frame_edit=text(400, 5), instruction=text(500, 5),
                   motion=text(600, 5)),
        views=(View(label="clip", path="path", start="start_s", end="end_s", num_frames=6),),
        parse=lambda answer, row: {name: answer[part].strip() for name, part in PARTS.items()},
        adds=(EDIT_PROMPT,
              column("instruction", pa.string(), "what to change in the clip: prompt of the video-to-video branch"),
              column("motion_prompt", pa.string(), "what happens after the edit: prompt of the image-to-video branch"),
              column("edited_thing", pa.string(), "what the edit brings in or removes, in words"),
              column("motion_edit_kind", pa.string(),
                     "what the edit does: replacement, removal, addition, recolour, background or other")),
        measured=measured_edit, measures=("frame_id", "possible_edits", *classical.CAMERA),
    )
