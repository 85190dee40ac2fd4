"""Numbers and names of a recipe's settings, looked at where its `Config` is made: before anything is read.

Each says which flag is wrong, what it was given, and what it takes.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from manifests.errors import ConfigError
from manifests.settings import flag

LEAST_PX = 16  # of a side: below it neither motion nor edits can be found


def at_least(config: object, least: int, *names: str) -> None:
    """Whole numbers from `least` on; a setting that may be none is not looked at where it is."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value < least:
            raise ConfigError(f"{flag(name)} is {value}; it is a whole number, {least} or more")


def above_zero(config: object, *names: str) -> None:
    """Finite numbers above 0."""
    for name in names:
        value = getattr(config, name)
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{flag(name)} is {value:g}; it is a finite number above 0")


def known(config: object, name: str, names: Collection[str]) -> None:
    """A name of those, or several of them."""
    value = getattr(config, name)
    given: Sequence[str] = (value,) if isinstance(value, str) else value
    if unknown := [n for n in given if n not in names]:
        raise ConfigError(f"{flag(name)} is {unknown[0]!r}; known: {', '.join(names)}")
