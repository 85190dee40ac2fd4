"""The objects that a video is about, each with an instruction that takes it elsewhere (D7).

Paper section 3.4: 3 to 5 objects; the new scene keeps a model that is trained on the result from
copying reference pixels instead of understanding the object.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from manifests.columns import column

from .ask import Annotator, Question
from .key_frames import KEY_FRAMES
from .parsing import many, obj, text

NUM_OBJECTS = (3, 5)
PROMPT = """
You see key frames of one video, in order of time. Name the 3 to 5 objects that stand out most: people,
animals or things with a form of their own that a viewer would remember; not the ground, the
sky or a wall. Put the most striking first. For each object give
- name: a few words that tell it from everything else in the frames ("the red mug with a chip");
- frame: the number of the key frame that shows it largest and least covered, counted from 1;
- instruction: an order to an image editor that takes this object alone out of that frame and shows it
  whole in a new and quite different scene which suits it: another place, other light, another
  angle. Say what must stay the same (form, colours, markings, clothing) and describe the scene.
Every object gets a different scene.
"""


def within(schema: dict, row: Mapping[str, object]) -> dict:
    """The schema with frame numbers that the row has."""
    item = schema["properties"]["objects"]["items"]["properties"]
    frame = {**item["frame"], "maximum": max(len(row["key_times_s"] or []), 1)}
    return obj(objects=many(obj(**{**item, "frame": frame}), *NUM_OBJECTS))


def placed(answer: dict, row: Mapping[str, object]) -> dict:
    """Frame numbers become times. Equal names are counted, not refused: what they mean is a rule's business."""
    times = row["key_times_s"]
    objects = [{"name": o["name"].strip(), "instruction": o["instruction"].strip(), "time_s": times[o["frame"] - 1]}
               for o in answer["objects"]]
    return {"objects": objects, "num_objects": len({o["name"].lower() for o in objects})}


class NameObjects(Annotator):
    """Videos with `key_times_s` → `objects`: name, key frame and new-scene instruction of each."""

    question = Question(
        name="objects", prompt=PROMPT, views=(KEY_FRAMES,), narrow=within, parse=placed,
        schema=obj(objects=many(obj(name=text(80, 2), frame={"type": "integer", "minimum": 1, "maximum": 8},
                                    instruction=text(300, 10)), *NUM_OBJECTS)),
        adds=(column("objects", pa.list_(pa.struct([("name", pa.string()), ("instruction", pa.string()),
                                                    ("time_s", pa.float64())])),
                     "3 to 5 salient objects, the key frame that shows each best, and how to show it in a new scene"),
              column("num_objects", pa.int32(), "objects with different names; below 3 = the list repeats itself")),
    )
