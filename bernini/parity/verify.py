"""All recorded cases of a folder through our code."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from pkgutil import resolve_name

import torch

from bernini.errors import ParityError
from bernini.parity.records import Record, Result, read_folder

CHECKS = {
    "rope": "bernini.parity.renderer:rope",
    "dit_tiny": "bernini.parity.renderer:dit",
    "sampler_bernini_r": "bernini.parity.loops:sampler_renderer",
    "sampler_full": "bernini.parity.loops:sampler_full",
    "guidance_full": "bernini.parity.renderer:guidance",
    "train_step": "bernini.parity.renderer:train_step",
    "attention_mask": "bernini.parity.heads:mask",
    "planner_heads": "bernini.parity.heads:heads",
    "planner_tiny": "bernini.parity.planner:planner",
    "tables": "bernini.parity.tables:tables",
    "chat_layout": "bernini.parity.tables:chat_layout",
    "noise_training": "bernini.parity.tables:noise_training",
}


def check_for(name: str) -> Callable[[Record], Iterator[Result]] | None:
    """The check of a record: by its name, or by the longest known name that it begins with."""
    known = [k for k in CHECKS if name.startswith(k)]
    return resolve_name(CHECKS[max(known, key=len)]) if known else None


def verify(folder: Path, attention: str = "sdpa", device: str = "cpu") -> Iterator[Result]:
    """Results as they come. A record that no check knows, or that lacks something, is a failure too.

    `attention` is the renderer's kernel: a name of the table, or `module:function` of a new one.
    """
    for record in read_folder(folder):
        record.attention, record.device = attention, device
        check = check_for(record.name)
        if check is None:
            yield Result(record.name, "no-check-of-this-name", math.inf, 0.0)
        else:
            with torch.device(device):
                results = list(checked(record, check))
            yield from results


def checked(record: Record, check: Callable[[Record], Iterator[Result]]) -> Iterator[Result]:
    """One record; what cannot be read or does not fit ends this record as a failure, not the others."""
    try:
        yield from check(record)
    except (KeyError, IndexError, ValueError, RuntimeError, ParityError) as error:
        why = f"{type(error).__name__}:{error}".split("\n")[0].replace(" ", "_")
        yield Result(record.name, why, math.inf, 0.0)
