"""Caption of a video that is to be made from reference pictures (D7)."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from manifests.columns import column

from .ask import Annotator, Question
from .parsing import many, obj, text
from .pictures import View

PROMPT = """
You see reference pictures, numbered, and then frames of a clip in which the same objects appear. Write
the prompt that someone would give, together with the references, to get this clip: who or what is where,
what happens, the place, the light and the camera. In caption, call what a reference shows
"the … of picture N" when it first comes up, and do not describe its looks, which the picture gives;
take the scene from the clip, never from the references. shown has one entry for each reference, in
order: can it be seen in the clip?
"""


def one_each(schema: dict, row: Mapping[str, object]) -> dict:
    num = max(len(row["reference_paths"] or []), 1)
    return obj(**{**schema["properties"], "shown": many({"type": "boolean"}, num, num)})


class CaptionReferences(Annotator):
    """Clips with `reference_paths` → `reference_caption`, and which references the clip really shows."""

    question = Question(
        name="reference_caption", prompt=PROMPT, narrow=one_each,
        schema=obj(shown=many({"type": "boolean"}, 1, 5), caption=text(1000)),
        views=(View(label="picture", path="reference_paths"),
               View(label="clip", path="path", start="start_s", end="end_s", num_frames=4)),
        parse=lambda answer, row: {"reference_caption": answer["caption"].strip(), "reference_shown": answer["shown"]},
        adds=(column("reference_caption", pa.string(), "prompt that, with the references, describes the clip"),
              column("reference_shown", pa.list_(pa.bool_()), "for each reference: the clip shows it")),
    )
