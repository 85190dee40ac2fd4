"""Small parts of sentences: lists, numbers, agreement, and a choice among equal wordings."""

from __future__ import annotations

from collections.abc import Sequence

from manifests.ids import digest

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class Wording:
    """Picks among equal wordings by the pair's id: varied over pairs, fixed for each."""

    def __init__(self, pair_id: str):
        self.pair_id = pair_id

    def __call__(self, slot: str, *options: str) -> str:
        return options[int(digest(self.pair_id, slot, length=8), 16) % len(options)]


def place_of(x: float | None) -> str:
    if x is None:
        return ""
    return " on the left" if x < 0.38 else " on the right" if x > 0.62 else " around the middle"


def count_in_words(number: int) -> str:
    return NUMBERS[number] if number < len(NUMBERS) else str(number)


def agree(subjects: Sequence[str], verb: str) -> str:
    """`verb` in the third person singular, or plural for several subjects."""
    return verb if len(subjects) == 1 else verb.removesuffix("s")


def subject(words: Sequence[str], verb: str) -> str:
    return f"{listed(words).capitalize()} {agree(words, verb)}"


def listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]
