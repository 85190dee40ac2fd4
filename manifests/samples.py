"""What a SAMPLES row holds, opened: its messages in order and the media they stand for.

For the encoder, the loader and the released trainer's form, which must agree on the order: the
n-th image message is the n-th of `images`, the n-th video message the n-th of `videos`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from .errors import MediaError
from .messages import IMAGE_MESSAGES, VIDEO_MESSAGES

TEXT_MESSAGES = ("text", "cot_text", "special_token")
MESSAGES = (*TEXT_MESSAGES, *IMAGE_MESSAGES, *VIDEO_MESSAGES)


def read_messages(row: Mapping) -> list[dict]:
    """The messages of a row. `MediaError` (the row cannot be used) where they are no list of known messages."""
    try:
        messages = json.loads(row["inputs"])
    except (TypeError, ValueError) as error:
        raise MediaError(f"inputs is not JSON: {error}") from None
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise MediaError("inputs is not a JSON list of messages")
    for message in messages:
        if message.get("type") not in MESSAGES:
            raise MediaError(f"a message has the type {message.get('type')!r}; known: {', '.join(MESSAGES)}")
        if not isinstance(message.get("text", ""), str | None):
            raise MediaError("the text of a message is no string")
    return messages


@dataclass(frozen=True, kw_only=True)
class SampleMedia:
    """One image or video of a sample. `end_s` may be infinite: until the end of the file."""

    kind: str
    is_target: bool
    path: str
    start_s: float = 0.0
    end_s: float = math.inf

    @classmethod
    def of(cls, row: Mapping, messages: list[dict]) -> list[SampleMedia]:
        """All media in the order of their messages; `MediaError` where numbers of messages and media differ."""
        left = {"image": list(row["images"] or ()), "video": list(row["videos"] or ())}
        found = []
        for message in messages:
            if message["type"] in TEXT_MESSAGES:
                continue
            kind = "video" if message["type"] in VIDEO_MESSAGES else "image"
            if not left[kind]:
                raise MediaError(f"there are more {kind} messages than {kind}s")
            found.append(cls._one(kind, message["type"].endswith("_gen"), left[kind].pop(0)))
        if any(left.values()):
            raise MediaError(f"{sum(map(len, left.values()))} images or videos have no message")
        return found

    @classmethod
    def _one(cls, kind: str, is_target: bool, item) -> SampleMedia:
        if kind == "image":
            return cls(kind=kind, is_target=is_target, path=item)
        start = item.get("start_s") or 0.0
        end = item.get("end_s")
        if end is None:
            end = start + item["duration"] if item.get("duration") else math.inf
        return cls(kind=kind, is_target=is_target, path=item["video_path"], start_s=start, end_s=end)
