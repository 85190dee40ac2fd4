"""Marks for an edit, 1 to 5, as in the paper's evaluation (section 6.2 and appendix A).

Instruction following, consistency with the source, likeness to the reference (where there is one),
quality, overall. An edit that was not executed gets 1 for instruction and overall and no other
mark: a copy of the source would otherwise shine in consistency.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import pyarrow as pa

from manifests.columns import column

from .ask import Annotator, Question
from .look import is_unchanged
from .parsing import YES_NO, obj, text, whole
from .pictures import View, see
from .transition import CLIPS

MARK = whole(1, 5)
PROMPT = """
You judge edited videos. You see frames of the source clip, then frames of the result, at the same
moments, and the instruction that the result should follow. Be strict: 5 is rare.
- reason: in at most 60 words, what was asked, what was done, what is wrong.
- executed: false when the result shows no change that has to do with the instruction (a copy, a slight
  shift of colour nobody asked for, noise), else true.
- instruction: 1 nothing or the wrong thing was done; 2 an attempt that misses the point; 3 the
  core is there, with clear errors in number, place, colour or over time; 4 done throughout, details
  off; 5 done in every detail and every frame.
- consistency: everything that the instruction does not touch, compared with the source. 1 hardly the
  same scene; 2 the subject is the same, much else is not; 3 the whole holds, several things
  drift; 4 one or two details drift; 5 untouched. What must follow from the edit does not count against it.
- quality: 1 unwatchable; 2 faults that leap to the eye (flicker, seams, broken forms); 3 visible
  faults that can be borne; 4 faults only when looked for; 5 passes for real footage.
- overall: would the person who asked be content? 1 not at all … 5 entirely.
"""
REFERENCE_PROMPT = PROMPT.replace("- quality:", """\
- reference: the picture at the end shows what should appear in the result. 1 something else; 2 the kind
  is right, the looks are not; 3 alike, with clear differences; 4 small differences; 5 the same one.
- quality:""")
PICTURE_PROMPT = """
You judge edited pictures. You see the source picture, then the result, and the instruction that the
result should follow. Be strict: 5 is rare.
- reason: in at most 60 words, what was asked, what was done, what is wrong.
- executed: false when the result shows no change that has to do with the instruction (a copy, a slight
  shift of colour nobody asked for, noise), else true.
- instruction: 1 nothing or the wrong thing was done; 2 an attempt that misses the point; 3 the
  core is there, with clear errors in number, place or colour; 4 done, details off; 5 done in every detail.
- consistency: everything that the instruction does not touch, compared with the source. 1 hardly the
  same scene; 2 the subject is the same, much else is not; 3 the whole holds, several things
  differ; 4 one or two details differ; 5 untouched. What must follow from the edit does not count against it.
- quality: 1 nothing can be recognised; 2 faults that leap to the eye (seams, broken forms); 3 visible
  faults that can be borne; 4 faults only when looked for; 5 passes for a real photograph.
- overall: would the person who asked be content? 1 not at all … 5 entirely.
"""
PICTURES = (View(label="source picture", path="source_path"), View(label="result", path="target_path"))
MARKS = {"instruction": "follows the instruction", "consistency": "keeps what was not to be changed",
         "reference": "looks like the reference", "quality": "looks real and steady",
         "overall": "would content the user"}


def columns(*marks: str) -> tuple[pa.Field, ...]:
    return (column("judge_executed", pa.bool_(), "the result shows a change that has to do with the instruction"),
            *(column(f"judge_{m}", pa.int8(), f"mark: {MARKS[m]}; null = not executed or not known", "1 to 5")
              for m in marks),
            column("judge_reason", pa.string(), "why, in a few words"))


def apply_rule(answer: Mapping[str, object], row: Mapping[str, object]) -> dict:
    """The not-executed rule: whatever the model gave, only 1 for instruction and overall remain."""
    if not answer["executed"]:
        answer = {"executed": False, "instruction": 1, "overall": 1, "reason": answer["reason"]}
    return {f"judge_{name}": value for name, value in answer.items()}


def measure_execution(row: Mapping[str, object], sides: tuple[View, View]) -> dict:
    """Without a model one thing can be told: whether anything changed at all."""
    source, target = ([i for _, i in see(row, view, long_px=320, num_frames=6)] for view in sides)
    if is_unchanged(source, target):
        return apply_rule({"executed": False, "reason": "measured: the result shows the pictures of the source"}, row)
    return {"judge_executed": None, "issue": "the pictures differ; whether as asked, only a model can judge: "
                                             "give backend='openai'"}


def question(prompt: str, views: tuple[View, ...], *marks: str, sides: tuple[View, View] = CLIPS) -> Question:
    return Question(
        name="judge", prompt=prompt, texts=("instruction",), views=(*sides, *views), parse=apply_rule,
        schema=obj(reason=text(500), executed=YES_NO, **dict.fromkeys(marks, MARK)), adds=columns(*marks),
        measured=partial(measure_execution, sides=sides), measures=tuple(n for v in sides for n in v.reads),
    )


class JudgeEdit(Annotator):
    """Source, result and `instruction` → `judge_…` marks."""

    question = question(PROMPT, (), "instruction", "consistency", "quality", "overall")


class JudgePictureEdit(Annotator):
    """The same for an edited picture."""

    question = question(PICTURE_PROMPT, (), "instruction", "consistency", "quality", "overall", sides=PICTURES)


class JudgeReferenceEdit(Annotator):
    """The same for edits after a picture (`reference_path`), with a mark for likeness to it."""

    question = question(REFERENCE_PROMPT, (View(label="reference", path="reference_path"),),
                        "instruction", "consistency", "reference", "quality", "overall")
