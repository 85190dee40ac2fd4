"""Words of a text in any script, for measures that need no tokenizer.

Chinese, Japanese, Thai, Lao, Khmer and Burmese put no spaces between words: there each letter counts as one. Letters
keep their combining marks (the vowels of Hindi are marks). Korean has spaces, so its words are words.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from itertools import groupby

# Blocks of scripts without spaces: Thai and Lao; Burmese; Khmer; Han and kana with their extensions and half widths.
UNSPACED = ("\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007\u3021-\u303c\u3040-\u30ff\u31f0-\u31ff"
            "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U0001aff0-\U0001b16f\U00020000-\U0003ffff")
JOINERS = "\u200c\u200d"  # invisible signs inside words of Persian and of India


def words(text: str) -> list[str]:
    """The words of `text` in order, as they are written; numbers are words, punctuation is none."""
    return re.findall(r"\w+", text) if text.isascii() else _word().findall(text)


def num_tokens(text: str) -> int:
    """Words and punctuation marks: about what a tokenizer makes of it.

    Multilingual ones make 0.6 to 0.9 tokens of a Chinese character (DeepSeek's documentation says 0.6, Cohere's counts
    of Wikipedia give 1 / 1.1) and 0.8 of a Japanese one (1 / 1.3 there): one each is close, and rather too many.
    """
    known = words(text)
    return len(known) + len(re.findall(r"[^\w\s]", text)) - sum(map(_num_joined, known))


def _num_joined(word: str) -> int:
    """Marks and joiners, which the count of punctuation would take for signs of their own."""
    return 0 if word.isascii() else len(re.findall(r"[^\w\s]", word))


@cache
def _word() -> re.Pattern:
    mark = rf"[{_marks()}{JOINERS}]"
    return re.compile(rf"(?=[{UNSPACED}])\w{mark}*|[^\W{UNSPACED}]+(?:{mark}+[^\W{UNSPACED}]*)*")


def _marks() -> str:
    """All combining marks as ranges of a character class."""
    found = [c for c in range(0x300, 0x1F000) if unicodedata.category(chr(c)).startswith("M")]
    found += range(0xE0100, 0xE01F0)  # variation selectors, far behind all others
    ranges = [[c for _, c in run] for _, run in groupby(enumerate(found), key=lambda pair: pair[1] - pair[0])]
    return "".join(f"{chr(run[0])}-{chr(run[-1])}" for run in ranges)
