"""The instruction for the way back, after source and target of a pair were swapped (D5)."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pyarrow as pa

from manifests.columns import column
from manifests.errors import BackendError

from .ask import Annotator, Question
from .parsing import obj, text
from .transition import CLIPS

PROMPT = """
You see frames of two clips, in order of time: first the source clip, then the target clip. The
forward_instruction was written for the opposite direction: it turns what is now the target into what
is now the source. Write the instruction that turns the source into the target. What it added must now be
removed, what it removed must be added, what it replaced must come back. Describe what comes in so
that an editor who sees only the source could make it: looks, place, size, what it does. Do not mention the
forward_instruction or that anything is undone.
"""
# Only plain imperatives are turned round; everything else needs a model that has seen the clips.
WAYS_BACK = (
    (re.compile(r"(?:remove|delete|erase) (?P<a>.+?)(?: from (?P<b>the (?:video|clip|scene|picture)))?"
                r"(?: and fill in what is behind)?", re.I),
     "Add {a} to {b}"),
    (re.compile(r"(?:add|insert) (?P<a>.+?) (?:to|into|in) (?P<b>the (?:video|clip|scene|picture))", re.I),
     "Remove {a} from {b}"),
    (re.compile(r"(?:replace|swap) (?P<a>.+?) (?:with|by|for) (?P<b>.+)", re.I), "Replace {b} with {a}"),
    (re.compile(r"(?:turn|change) (?P<a>.+?) into (?P<b>.+)", re.I), "Turn {b} into {a}"),
)


def turn_round(row: Mapping[str, object]) -> dict:
    forward = (row["forward_instruction"] or "").strip().rstrip(".")
    for pattern, back in WAYS_BACK:
        if found := pattern.fullmatch(forward):
            names = {name: value or "the video" for name, value in found.groupdict().items()}
            return {"instruction": back.format_map(names) + "."}
    raise BackendError("without a model only plain 'remove', 'add', 'replace … with …' and 'turn … into …' can be "
                       "turned round: give backend='openai'")


class RewriteSwapped(Annotator):
    """Swapped PAIRS with the `forward_instruction` they were made by → `instruction` for the way back."""

    question = Question(
        name="instruction", prompt=PROMPT, schema=obj(instruction=text(600)), texts=("forward_instruction",),
        views=CLIPS, adds=(column("instruction", pa.string(), "what to change, after source and target were swapped"),),
        measured=turn_round, measures=("forward_instruction",),
    )
