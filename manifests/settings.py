"""Settings from a command line, through tyro, with nothing lost on the way."""

from __future__ import annotations

import dataclasses
import inspect
from collections import Counter
from collections.abc import Callable, Collection, Sequence

from .errors import ConfigError


def parse(kind: Callable, argv: Sequence[str], **more: object):
    """`tyro.cli` of a settings class or function; an option with several values that is given twice is refused."""
    import tyro  # slow, and not all that reads these lines parses

    refuse_repeated(argv, lists_of(kind))
    return tyro.cli(kind, args=list(argv), **more)


def refuse_repeated(argv: Sequence[str], names: Collection[str]) -> None:
    """`ConfigError` where one of the options is given twice: parsers keep the last list and say nothing.

    Of an option with one value the last one counts, as everywhere: scripts override their defaults so.
    """
    counts = given(argv)
    if twice := [name for name in names if counts[name] > 1]:
        raise ConfigError(f"{flag(twice[0])} is given twice: give it once, and name all its values after it")


def given(argv: Sequence[str]) -> Counter[str]:
    """How often each setting stands on a command line, by its name in Python."""
    words = argv[: list(argv).index("--")] if "--" in argv else argv
    return Counter(word[2:].partition("=")[0].replace("-", "_") for word in words if word.startswith("--"))


def flag(name: str) -> str:
    """What a user calls the setting `name`."""
    return "--" + name.replace("_", "-")


def lists_of(kind: Callable) -> list[str]:
    """Names of the settings that take several values."""
    found = ({f.name: f.type for f in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else
             {p.name: p.annotation for p in inspect.signature(kind).parameters.values()})
    return [name for name, annotation in found.items() if "tuple[" in str(annotation)]
