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
You see reference pictures, numbered, and then frames of a clip in which the same objects appear; one
frame alone is a picture. Write the prompt that someone would give, together with the references, to get
this clip or picture: who or what is where, what happens, the place, the light and, of a clip, the
camera. In caption, call what a reference shows
"the … of picture N" when it first comes up, and do not describe its looks, which the picture gives;
take the scene from the clip, never from the references. shown has one entry for each reference, in
order: can it be seen in the clip?
"""


def one_each(schema: dict, row: Mapping[str, object]) -> dict:
    num = max(len(row["reference_paths"] or []), 1)
    return obj(**{**schema["properties"], "shown": many({"type": "boolean"}, num, num)})


CAPTION = (
    column("reference_caption", pa.string(), "prompt that, with the references, describes the clip"),
    column("reference_shown", pa.list_(pa.bool_()), "for each reference: the clip shows it"),
)
NOT_SHOWN = column("num_references_missed", pa.int32(), "references that the target does not show, as the model says; "
                                                        "null = nobody was asked")
NUM_SHOWN = column("num_references_shown", pa.int32(), "references that the clip shows, as the model says; "
                                                       "null = nobody was asked")
# Face heights in frame heights, and what one calls such a view.
VIEWS = ((0.12, "is seen in full, in the middle of the place"), (0.3, "is seen from some way off"),
         (9.9, "is seen from near by"))


def count_shown(answer: dict, row: Mapping[str, object]) -> dict:
    return {"reference_caption": answer["caption"].strip(), "reference_shown": answer["shown"],
            "num_references_shown": sum(answer["shown"])}


def count_missed(answer: dict, row: Mapping[str, object]) -> dict:
    return {"reference_caption": answer["caption"].strip(), "reference_shown": answer["shown"],
            "num_references_missed": answer["shown"].count(False)}


def measured_objects(row: Mapping[str, object]) -> dict:
    """Where each object is, the camera where the target is a clip, the light and the colours."""
    say = classical.Wording(row["pair_id"])
    placed = [f"{name} of picture {i + 1}{f' is{place}' if place else ' can be seen'}"
              for i, (name, place) in enumerate(zip(row["object_names"], row["object_places"], strict=True))]
    camera = classical.camera_sentence(row, lambda slot, *options: options[0])
    facts = (f"{first_up(classical.listed(placed))}.", camera, setting(row, say))
    return {"reference_caption": " ".join(fact for fact in facts if fact)}


def first_up(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def measured_caption(row: Mapping[str, object]) -> dict:
    """What was measured on the target clip: how near the person is, the camera, the light and the colours."""
    say, face = classical.Wording(row["pair_id"]), row["target_face_height"]
    view = next(words for top, words in VIEWS if (face or 0.0) < top)
    facts = [f"The person of picture 1 {view}."] if face else ["The person of picture 1 is in the picture."]
    facts.append(classical.camera_sentence(row, lambda slot, *options: options[0]))  # the others speak of a source
    return {"reference_caption": " ".join(fact for fact in (*facts, setting(row, say)) if fact)}


def setting(row: Mapping[str, object], say: classical.Wording) -> str:
    light, colors = row["target_brightness"], row["target_colors"]
    if light is None or not colors:
        return ""
    how = "dark" if light < 70 else "bright" if light > 160 else "evenly lit"
    return say("setting", f"The setting is {how}, mainly {classical.listed(colors)}.",
               f"All around it is {how}, and {classical.listed(colors)} {_prevail(colors)}.")


def _prevail(colors: list[str]) -> str:
    return classical.agree(colors, "prevails")


class CaptionReferences(Annotator):
    """PAIRS of `reference_paths` and a target that is seen at `caption_times_s` → `reference_caption` (D7)."""

    question = Question(
        name="reference_caption", prompt=PROMPT, narrow=one_each, parse=count_missed,
        schema=obj(shown=many({"type": "boolean"}, 1, 5), caption=text(1000)),
        views=(View(label="picture", path="reference_paths"),
               View(label="frame", path="target_path", times="caption_times_s")),
        adds=(*CAPTION, NOT_SHOWN),
        measured=measured_objects,
        measures=("pair_id", "object_names", "object_places", "target_brightness", "target_colors",
                  *(f"target_{name}" for name in classical.CAMERA)),
    )


class CaptionPerson(Annotator):
    """PAIRS of a person's `reference_paths` and a target clip → `reference_caption` (D8)."""

    question = replace(
        CaptionReferences.question, parse=count_shown, adds=(*CAPTION, NUM_SHOWN),
        views=(View(label="picture", path="reference_paths"),
               View(label="clip", path="target_path", start="target_start_s", end="target_end_s", num_frames=4)),
        measured=measured_caption,
        measures=("pair_id", "target_face_height", "target_brightness", "target_colors",
                  *(f"target_{name}" for name in classical.CAMERA)),
    )
