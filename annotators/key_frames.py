"""Text between the key frames of a video, and questions about a document's subject (D3)."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from manifests.columns import column

from .ask import Annotator, Question
from .difference import STORY, tell_change
from .parsing import many, obj, text
from .pictures import View, see

MAX_KEY_FRAMES = 8  # spec D3

TRANSITIONS_PROMPT = """
You see key frames of one video, in order of time. For each frame but the last, write one sentence
that leads from it to the next: what happens in between, who or what does it, and how the view
changes. The sentences are read between the pictures, so they must follow one another as a story
does, call the same thing by the same name throughout, and say nothing that the frames do not show.
transitions has exactly one entry fewer than there are frames.
"""
QUESTIONS_PROMPT = """
You see the pictures of a document and its text. Find the subject that the document is about and
that at least one picture shows, and write up to three questions about it with their answers. A
question must name or describe the subject, need the pictures to be answered, and have an answer
that can be read off the pictures or the text; do not ask about what only you know.
"""
KEY_FRAMES = View(label="key frame", path="path", times="key_times_s")


def between(schema: dict, row: Mapping[str, object]) -> dict:
    """The schema with as many transitions as the row's key frames have gaps."""
    num = max(len(row["key_times_s"] or []) - 1, 1)
    return obj(transitions=many(schema["properties"]["transitions"]["items"], num, num))


def measure(row: Mapping[str, object]) -> dict:
    """Sentences of measured change between neighbouring key frames."""
    seen = [image for _, image in see(row, KEY_FRAMES, long_px=320)]
    return {"transitions": [tell_change(a, b, f"{row['path']}{i}", STORY)
                            for i, (a, b) in enumerate(zip(seen, seen[1:], strict=False))]}


def without_repeats(answer: dict, row: Mapping[str, object]) -> dict:
    return {"questions": list({q["question"].strip().lower(): q for q in reversed(answer["questions"])}.values())[::-1]}


class DescribeKeyFrames(Annotator):
    """Videos with `key_times_s` (2 to 8 ascending seconds) → `transitions`, one text a gap."""

    question = Question(
        name="transitions", prompt=TRANSITIONS_PROMPT, views=(KEY_FRAMES,), narrow=between,
        schema=obj(transitions=many(text(300), 1, MAX_KEY_FRAMES - 1)),
        adds=(column("transitions", pa.list_(pa.string()), "text that leads from each key frame to the next"),),
        measured=measure, measures=KEY_FRAMES.reads,
    )


class AskAboutSubject(Annotator):
    """Documents with `images` and `text` → `questions` about their subject, with answers."""

    question = Question(
        name="questions", prompt=QUESTIONS_PROMPT, texts=("text",), views=(View(label="picture", path="images"),),
        schema=obj(questions=many(obj(question=text(200), answer=text(300)), 1, 3)), parse=without_repeats,
        adds=(column("questions", pa.list_(pa.struct([("question", pa.string()), ("answer", pa.string())])),
                     "questions about the document's subject that need its pictures"),),
    )
