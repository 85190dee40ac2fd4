"""How a source clip turns into a target clip of the same video: coarse, then fine (recipe D1).

Paper section 3.1: a first description of the transition is refined into a dense prompt that
tells the camera's motion, then the foreground, then the background. The order holds by
construction, because the answer has one field for each.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from manifests.columns import column
from manifests.errors import BackendError

from .ask import Annotator, Question
from .backends import classical
from .parsing import obj, text
from .pictures import View

CLIPS = (
    View(label="source clip", path="source_path", start="source_start_s", end="source_end_s"),
    View(label="target clip", path="target_path", start="target_start_s", end="target_end_s"),
)

COARSE_PROMPT = """
You see frames of two clips from one film, in order of time: first the source clip, then the
target clip. In one or two sentences, say how the source would have to change to become the
target: what is different in the camera's view, in the people or things shown, and in the place.
Name only what the frames show. Do not speak of frames or of images.
"""

FINE_PROMPT = """
You see frames of two clips from one film, in order of time: first the source clip, then the
target clip, and a rough note of the transition between them. Check the note against the frames,
correct it where they disagree, and write an instruction that turns the source into the target,
in three parts:
- camera: how the camera moves in the target (direction, speed, or that it is static), the distance
  and angle it views from, and what of this is new;
- foreground: what the main people, animals or things are and do, and what appears, leaves or
  changes in them: number, pose, place, clothing, expression;
- background: the place, light and colours behind them, and what of it changes or stays.
Write plain present-tense sentences that someone could follow who has seen only the source. Give
every part at least one sentence, even where little changes. Name only what the frames show.
"""


def measure_coarse(row: Mapping[str, object]) -> dict:
    return {"transition": _told(classical.headline(row, classical.Wording(row["pair_id"])), row)}


def measure_fine(row: Mapping[str, object]) -> dict:
    say = classical.Wording(row["pair_id"])
    parts = [classical.camera_sentence(row, say), *classical.foreground_sentences(row, say),
             *classical.background_sentences(row, say)]
    return {"instruction": _told(" ".join(part for part in parts if part), row)}


def _told(text: str, row: Mapping[str, object]) -> str:
    if not text:
        raise BackendError(f"nothing was measured of pair {row['pair_id']} that could be told")
    return text


COARSE = Question(
    name="transition", prompt=COARSE_PROMPT, schema=obj(transition=text(400)), views=CLIPS,
    adds=(column("transition", pa.string(), "rough note of how the source turns into the target"),),
    measured=measure_coarse, measures=("pair_id", *classical.MEASURES),
)
FINE = Question(
    name="instruction", prompt=FINE_PROMPT, views=CLIPS, texts=("transition",),
    schema=obj(camera=text(400), foreground=text(800), background=text(600)),
    parse=lambda answer, row: {"instruction": " ".join(part.strip() for part in answer.values())},
    adds=(column("instruction", pa.string(), "what to change: camera motion, then foreground, then background"),),
    measured=measure_fine, measures=("pair_id", "transition", *classical.MEASURES),
)


class DescribeTransition(Annotator):
    """PAIRS of clips → `transition`, the coarse note."""

    question = COARSE


class RefineTransition(Annotator):
    """PAIRS of clips with their `transition` → `instruction`, the dense prompt."""

    question = FINE
