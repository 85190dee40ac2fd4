"""Words and numbers of the report page as a reader sees them, safe to put into HTML.

Everything on the page that came from a file name, a model or a manifest passes through
`esc` (or a function here that calls it): nothing else may write row values into the page.
"""

from __future__ import annotations

import html
import math
import re

# Control characters, and those that turn the direction of the text around them: a file name
# must not be able to rearrange the line it stands in.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_WORD = re.compile(r"\w+|[^\w\s]")


def esc(value: object, limit: int = 2000) -> str:
    """`value` as text for HTML content and quoted attributes, at most `limit` characters."""
    text = "" if value is None else str(value)
    if len(text) > limit:
        text = text[:limit] + " …"
    return html.escape(_UNSEEN.sub("\ufffd", text), quote=True)


def count(number: int, noun: str = "", plural: str = "") -> str:
    """`1280 pairs`, `20 480 pairs`: thin spaces from five digits on."""
    figure = str(number) if abs(number) < 10_000 else f"{number:,}".replace(",", "\u202f")
    return figure if not noun else f"{figure} {noun if number == 1 else plural or noun + 's'}"


def number(value: float | int | None) -> str:
    """Four significant digits, without an exponent where people would not use one."""
    if value is None:
        return "not measured"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) or float(value).is_integer() and abs(value) < 1e15:
        return count(int(value))
    if not math.isfinite(value):
        return str(value)
    return f"{value:.4g}" if 1e-3 <= abs(value) < 1e4 else count(round(value)) if abs(value) >= 1 else f"{value:.2e}"


def seconds(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1f} s"


def clock(time_s: float | None) -> str:
    """A moment of a video as players show it: `1:04.25`."""
    if time_s is None:
        return "?"
    hundredths = round(time_s * 100)
    minutes, rest = divmod(hundredths, 6000)
    hours, minutes = divmod(minutes, 60)
    tail = f"{rest // 100:02d}.{rest % 100:02d}"
    return f"{hours}:{minutes:02d}:{tail}" if hours else f"{minutes}:{tail}"


def share(part: int, whole: int) -> str:
    """A percentage that is 0 or 100 only when it is exactly that."""
    if not whole or part in (0, whole):
        return "100 %" if whole and part else "0 %"
    percent = 100 * part / whole
    return "< 0.1 %" if percent < 0.1 else "> 99.9 %" if percent > 99.9 else f"{percent:.1f} %"


def base_name(path: str | None) -> str:
    return "" if not path else path.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]


def num_tokens(prompt: str) -> int:
    """Words and punctuation marks, as `num_prompt_tokens` counts them."""
    return len(_WORD.findall(prompt))
