"""A pair as the ordered messages of a training sample, in the released trainer's form.

`inputs` is a JSON list of messages; the n-th video message uses the n-th entry of `videos`.
`has_loss` is always written: the released code's default differs from its documentation.
"""

from __future__ import annotations

import json
import re

MIN_FRAMES = 17        # the trainer's shortest clip: 16 frames and one, at 16 fps
TRAINER_FPS = 16.0
MAX_FRAMES = 97        # it uses the first 96 + 1 frames and cuts the rest without a word


def edit_messages(instruction: str) -> str:
    """Source video and instruction in, target video out."""
    return json.dumps([
        {"type": "video", "has_loss": 0},
        {"type": "text", "text": instruction, "has_loss": 0},
        {"type": "video_gen", "has_loss": 1},
    ], ensure_ascii=False)


def video_item(path: str, start_s: float, end_s: float) -> dict:
    return {"video_path": path, "duration": round(end_s - start_s, 6), "crop_method": "center",
            "start_s": start_s, "end_s": end_s}


def count_tokens(text: str | None) -> int | None:
    """Words and punctuation marks: a measure that needs no tokenizer."""
    return None if text is None else len(re.findall(r"\w+|[^\w\s]", text))
