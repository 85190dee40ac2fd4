"""Are there people in a clip? (D1: as many human-centric pairs as others, paper section 3.1.)"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from manifests.columns import column
from manifests.errors import BackendError

from .ask import Annotator, Question
from .parsing import YES_NO, choice, obj
from .pictures import View

PROMPT = """
You see frames of one clip, in order of time. Say whether people matter in it. A person counts when a
face, a body or hands at work can be seen; statues, toys, drawings and people on posters or screens
do not count. people is true when a person is seen in most of the frames and is more than a
speck in the distance; number is how many people the fullest frame shows.
"""


def count_found(row: Mapping[str, object]) -> dict:
    """What the detectors of filters/people.py found, as an answer to the same question."""
    faces, bodies = row["num_faces"], row["num_bodies"]
    if faces is None or bodies is None:
        raise BackendError("num_faces and num_bodies were not measured")
    number = max(faces, bodies)
    return {"is_human": number > 0, "people_number": ("none", "one", "two")[number] if number < 3 else "several"}


class NotePeople(Annotator):
    """CLIPS → `is_human` by a model's eyes, in place of the detectors' answer."""

    question = Question(
        name="people", prompt=PROMPT,
        schema=obj(people=YES_NO, number=choice("none", "one", "two", "several", "crowd")),
        views=(View(label="clip", path="path", start="start_s", end="end_s", num_frames=4),),
        adds=(column("is_human", pa.bool_(), "people matter in the clip"),
              column("people_number", pa.string(), "none, one, two, several or crowd")),
        parse=lambda answer, row: {"is_human": answer["people"], "people_number": answer["number"]},
        measured=count_found, measures=("num_faces", "num_bodies"),
    )
