"""The texts of a web document written again, so that they read well between its pictures (D3).

Paper section 3.1: "Qwen3-32B is used to regenerate the textual content, improving fluency and coherence".
The classical backend only cleans: what belongs to a page and not to its text goes, spaces and signs are put right.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

import pyarrow as pa

from manifests.columns import column

from .ask import Annotator, Question
from .parsing import many, obj, text

PROMPT = """
You get the texts of a web page in order; pictures stand between them, which you do not see. Write
the texts again so that they read well as one document: correct what is broken, join what was torn apart,
say things once, and keep the language of the page. Leave out what belongs to the page and not to its
content: menus, calls to share, subscribe or log in, cookie notices, lists of other pages, advertisements.
Keep all facts, names and numbers, and add none. paragraphs has exactly as many entries as there are
texts, in the same order, since each stays in its place among the pictures; give "" for one of which
nothing is left.
"""
# Whole lines that are part of a page's frame; longer ones are text.
FRAME = re.compile("(" + "|".join((
    r"share( this| on .*)?", "tweet", "pin it", "e-?mail this", "print( this)?( page)?", "log ?in",
    "sign ?(in|up)( .*)?", "subscribe( .*)?", "follow us( .*)?", "read more.*", "continue reading.*", "click here.*",
    "leave a (comment|reply).*", r"\d+ comments?", "related (posts|articles|stories).*", "you (may|might) also like.*",
    "advertisement", "sponsored( content)?", "loading", "(previous|next)( (post|article|page))?", "back to top", "home",
    "menu", "search", "skip to .*", r".*\b(accept|use of|uses?) cookies\b.*", "all rights reserved.*",
    "(copyright|©).*", "tags?:.*", "filed under.*", "posted (by|on|in) .*")) + r")[.!…»>\s]*", re.IGNORECASE)
FRAME_LETTERS = 120
MAX_LETTERS, MAX_TOKENS = 6000, 8192  # of one paragraph, and of a whole document
ADDRESS = re.compile(r"\s*(https?://|www\.)\S+\s*")


def clean_up(texts: Sequence[str]) -> list[str]:
    """Each text without lines of the page's frame, bare addresses and lines that stood there before."""
    seen: set[str] = set()
    return [_clean(text, seen) for text in texts]


def _clean(value: str, seen: set[str]) -> str:
    value = unicodedata.normalize("NFC", value).replace("\u00ad", "").replace("\r", "\n")
    value = "".join(c for c in value if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Co", "Cs"))
    lines = []
    for line in value.split("\n"):
        line = re.sub(r"\s+", " ", line).strip()
        line = re.sub(r" ([,.;:!?])(?=\s|$)", r"\1", line)
        is_frame = len(line) <= FRAME_LETTERS and FRAME.fullmatch(line)
        if not re.search(r"\w", line) or is_frame or ADDRESS.fullmatch(line) or line.lower() in seen:
            continue
        seen.add(line.lower())
        lines.append(line)
    return "\n".join(lines)


def as_columns(paragraphs: Sequence[str]) -> dict:
    paragraphs = [p.strip() for p in paragraphs]
    return {"rewritten": paragraphs, "text": "\n\n".join(filter(None, paragraphs))}


def as_many(schema: dict, row: Mapping[str, object]) -> dict:
    num = len(row["texts"] or [])
    return obj(paragraphs=many(text(_longest(row), 0), num, num))


def _longest(row: Mapping[str, object]) -> int:
    """Characters of a paragraph: what is written again is about as long as it was."""
    return min(MAX_LETTERS, max(map(len, row["texts"] or []), default=0) + 200)


def _bound(row: Mapping[str, object]) -> int:
    """Tokens that hold any answer of the schema (one a byte at most): short documents suit small servers too."""
    return min(MAX_TOKENS, 256 + 4 * _longest(row) * len(row["texts"] or []))


class RewriteTexts(Annotator):
    """Documents with `texts` → `rewritten`, one for each, and `text`, all of it."""

    question = Question(
        name="rewritten", prompt=PROMPT, texts=("texts",), narrow=as_many,
        schema=obj(paragraphs=many(text(MAX_LETTERS, 0), 0, 200)),
        parse=lambda answer, row: as_columns(answer["paragraphs"]),
        adds=(column("rewritten", pa.list_(pa.string()), "the texts written again, in order; empty = left out"),
              column("text", pa.string(), "the same as one text")),
        measured=lambda row: as_columns(clean_up(row["texts"])), measures=("texts",), max_tokens=_bound,
    )
