"""Numbers and names of a recipe's settings, looked at where its `Config` is made: before anything is read.

Each says which flag is wrong, what it was given, and what it takes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Sequence

from manifests.errors import ConfigError
from manifests.settings import flag

# Models of one file on this machine: (setting, its value) -> settings that name the files.
MODEL_FILES = {("pose", "dwpose"): ("pose_model", "pose_detector"),
               ("face", "arcface"): ("face_model", "face_detector")}
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


def not_below(config: object, least: float, *names: str) -> None:
    """Finite numbers from `least` on."""
    for name in names:
        value = getattr(config, name)
        if not (math.isfinite(value) and value >= least):
            raise ConfigError(f"{flag(name)} is {value:g}; it is a finite number, {least:g} or more")


def existing_files(config: object, *names: str) -> None:
    """Files of this machine, where one is named."""
    for name in names:
        path = getattr(config, name)
        if path and not os.path.isfile(path):
            wrong = "which is a folder" if os.path.isdir(path) else "which does not exist"
            raise ConfigError(f"{flag(name)} is {path}, {wrong}: name a file")


def model_files(config: object) -> None:
    """Files of the models that a run loads. Not looked at where a `Config` is made: `decide` makes one again from a
    manifest, and needs no models."""
    for (setting, backend), names in MODEL_FILES.items():
        if getattr(config, setting, "") == backend:
            existing_files(config, *names)


def known(config: object, name: str, names: Collection[str]) -> None:
    """A name of those, or several of them."""
    value = getattr(config, name)
    given: Sequence[str] = (value,) if isinstance(value, str) else value
    if unknown := [n for n in given if n not in names]:
        raise ConfigError(f"{flag(name)} is {unknown[0]!r}; known: {', '.join(names)}")
