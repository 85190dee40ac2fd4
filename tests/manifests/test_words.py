"""Words and tokens of texts in many scripts."""

from __future__ import annotations

import re

import pytest

from manifests.messages import count_tokens
from manifests.words import words

ENGLISH = ("Don't move the 3 cats' naïve café-chairs (at 12:30)!", "snake_case", "", "  \n", "Straße — “übergroß” …",
           "Ты слышал, что он сказал?", "Πού πας τέτοια ώρα;", "나는 너를 믿어")


@pytest.mark.parametrize("text", ENGLISH)
def test_scripts_with_spaces_count_as_they_always_did(text):
    assert words(text) == re.findall(r"\w+", text)
    assert count_tokens(text) == len(re.findall(r"\w+|[^\w\s]", text))


@pytest.mark.parametrize("text, expected", [
    ("港口在2024年开放。", ["港", "口", "在", "2024", "年", "开", "放"]),
    ("どこへ行くの？", ["ど", "こ", "へ", "行", "く", "の"]),
    ("コーヒー・カップ", ["コ", "ー", "ヒ", "ー", "カ", "ッ", "プ"]),
    ("ที่บ้าน", ["ที่", "บ้", "า", "น"]),
    ("हिन्दी में लिखा", ["हिन्दी", "में", "लिखा"]),
    ("e\u0301te\u0301", ["e\u0301te\u0301"]),
    ("می\u200cخواهم بروم", ["می\u200cخواهم", "بروم"]),
    ("I \u2764\ufe0f it", ["I", "it"]),
    ("把logo放在左边", ["把", "logo", "放", "在", "左", "边"]),
])
def test_scripts_without_spaces_count_letters_and_marks_stay_with_theirs(text, expected):
    assert words(text) == expected


def test_tokens_of_chinese_are_one_a_character():
    text = "港口位于一条狭窄道路的尽头，每天早晨船只都会带着鱼来到市场。"
    assert count_tokens(text) == len(text)
    assert count_tokens("हिन्दी में।") == 3 and count_tokens(None) is None
