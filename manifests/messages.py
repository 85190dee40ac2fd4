"""A pair as the ordered messages of a training sample, in the released trainer's form.

`inputs` is a JSON list of messages; the n-th video message uses the n-th entry of `videos`, the
n-th image message the n-th of `images`. `has_loss` is always written: the released code's
default differs from its documentation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from .words import num_tokens

MIN_FRAMES = 17        # the trainer's shortest clip: 16 frames and one, at 16 fps
TRAINER_FPS = 16.0
MAX_FRAMES = 97        # it uses the first 96 + 1 frames and cuts the rest without a word

IMAGE_MESSAGES = ("image", "image_gen", "frame_gen")
VIDEO_MESSAGES = ("video", "video_gen")


def pair_messages(pair: Mapping[str, object], text: str, *, reasoning: str | None = None,
                  intermediate: str | None = None) -> tuple[str, list[str], list[dict]]:
    """`(inputs, images, videos)` of a pair: source, conditions, text, then the target.

    `pair` is a row with the columns of PAIRS; a side or condition without `start_s` is an
    image. `reasoning` is written before the target as text to be learned (`cot_text`), `intermediate`,
    the path of a picture, as one that is to be made before the target (the edited first frame of section 3.6).
    """
    media = [_side(pair, "source")] if pair["source_path"] else []
    media += [dict(c) for c in pair["conditions"] or ()]
    messages = [{"type": item["kind"], "has_loss": 0} for item in media]
    messages.append({"type": "text", "text": text, "has_loss": 0})
    if reasoning:
        messages.append({"type": "cot_text", "text": reasoning, "has_loss": 1})
    if intermediate:
        messages.append({"type": "image_gen", "has_loss": 1})
        media.append(condition("edited_frame", intermediate))
    target = _side(pair, "target")
    messages.append({"type": f"{target['kind']}_gen", "has_loss": 1})
    media.append(target)
    return (json.dumps(messages, ensure_ascii=False),
            [item["path"] for item in media if item["kind"] == "image"],
            [video_item(item["path"], item["start_s"], item["end_s"]) for item in media if item["kind"] == "video"])


def input_kinds(pair: Mapping[str, object]) -> tuple[str, ...]:
    """Kinds of the media that condition a pair, in order: for `Task.takes`."""
    source = (_side(pair, "source")["kind"],) if pair["source_path"] else ()
    return (*source, *(c["kind"] for c in pair["conditions"] or ()))


def condition(role: str, path: str, start_s: float | None = None, end_s: float | None = None) -> dict:
    """One entry of the column `conditions`; without times it is an image."""
    return {"role": role, "kind": "image" if start_s is None else "video", "path": path,
            "start_s": start_s, "end_s": end_s}


def document_messages(parts: Sequence[tuple[str, str]]) -> tuple[str, list[str]]:
    """`(inputs, images)` of an interleaved document. `parts` are `(message type, text or image path)`.

    Texts and pictures that are to be learned have the types `cot_text` (text with loss) and `image_gen`.
    """
    messages, images = [], []
    for kind, value in parts:
        learned = int(kind in ("cot_text", "image_gen"))
        if kind in IMAGE_MESSAGES:
            images.append(value)
            messages.append({"type": kind, "has_loss": learned})
        else:
            messages.append({"type": kind, "text": value, "has_loss": learned})
    return json.dumps(messages, ensure_ascii=False), images


def video_item(path: str, start_s: float, end_s: float) -> dict:
    return {"video_path": path, "duration": round(end_s - start_s, 6), "crop_method": "center",
            "start_s": start_s, "end_s": end_s}


def count_tokens(text: str | None) -> int | None:
    """Words and punctuation marks, in scripts without spaces letters: a measure that needs no tokenizer."""
    return None if text is None else num_tokens(text)


def _side(pair: Mapping[str, object], side: str) -> dict:
    return condition(side, pair[f"{side}_path"], pair[f"{side}_start_s"], pair[f"{side}_end_s"])
