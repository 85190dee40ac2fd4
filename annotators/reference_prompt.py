"""Caption of a video that is to be made from reference pictures (D7, D8)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pyarrow as pa

from manifests.columns import column

from .ask import Annotator, Question
from .backends import classical
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


NUM_SHOWN = column("num_references_shown", pa.int32(), "references that the clip shows, as the model says; "
                                                       "null = nobody was asked")
# Face heights in frame heights, and what one calls such a view.
VIEWS = ((0.12, "is seen in full, in the middle of the place"), (0.3, "is seen from some way off"),
         (9.9, "is seen from near by"))


def count_shown(answer: dict, row: Mapping[str, object]) -> dict:
    return {"reference_caption": answer["caption"].strip(), "reference_shown": answer["shown"],
            "num_references_shown": sum(answer["shown"])}


def measured_caption(row: Mapping[str, object]) -> dict:
    """What was measured on the target clip: how near the person is, the camera, the light and the colours."""
    say, face = classical.Wording(row["pair_id"]), row["target_face_height"]
    view = next(words for top, words in VIEWS if (face or 0.0) < top)
    facts = [f"The person of picture 1 {view}."] if face else ["The person of picture 1 is in the picture."]
    facts.append(classical.camera_sentence(row, lambda slot, *options: options[0]))  # the others speak of a source
    light, colors = row["target_brightness"], row["target_colors"]
    if light is not None and colors:
        how = "dark" if light < 70 else "bright" if light > 160 else "evenly lit"
        facts.append(say("setting", f"The setting is {how}, mainly {classical.listed(colors)}.",
                         f"All around it is {how}, and {classical.listed(colors)} {_prevail(colors)}."))
    return {"reference_caption": " ".join(fact for fact in facts if fact)}


def _prevail(colors: list[str]) -> str:
    return classical.agree(colors, "prevails")


class CaptionPerson(Annotator):
    """PAIRS of a person's `reference_paths` and a target clip → `reference_caption` (D8)."""

    question = replace(
        CaptionReferences.question, parse=count_shown, adds=(*CaptionReferences.question.adds, NUM_SHOWN),
        views=(View(label="picture", path="reference_paths"),
               View(label="clip", path="target_path", start="target_start_s", end="target_end_s", num_frames=4)),
        measured=measured_caption,
        measures=("pair_id", "target_face_height", "target_brightness", "target_colors",
                  *(f"target_{name}" for name in classical.CAMERA)),
    )
