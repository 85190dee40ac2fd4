"""What a server sent back: is it a chat completion, what does it say, how long does it want us to wait?

Nothing is taken on trust: every field may be missing, of another type, or absurd.
"""

from __future__ import annotations

import json
import time
from email.utils import parsedate_to_datetime


def read_reply(data: bytes, method: str, url: str) -> tuple[dict, str]:
    """The answer of a server, and what is wrong with its form."""
    value = load_object(data)
    if value is None:
        return {}, f"{url}: the answer is not JSON ({len(data)} bytes)"
    if method == "GET":
        return value, ""
    choices = value.get("choices")
    if not isinstance(choices, list) or not choices:
        return {}, f"{url}: the answer has no choices"
    if not isinstance(choices[0], dict) or not isinstance(choices[0].get("message"), dict):
        return {}, f"{url}: the answer has no message"
    if not isinstance(choices[0]["message"].get("content"), (str, type(None))):
        return {}, f"{url}: the answer's content is not text"
    return value, ""


def count_of(data: dict, name: str) -> int:
    usage = data.get("usage")
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and 0 <= value < 2**31 else 0


def load_object(data: bytes) -> dict | None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def retry_after(headers) -> float | None:
    """Seconds that a server asks to wait, at most two minutes; None where it does not say."""
    value = (headers.get("Retry-After") or "").strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return min(max(seconds, 0.0), 120.0) if seconds == seconds else None
