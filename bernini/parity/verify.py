"""All recorded cases of a folder through our code."""

from collections.abc import Callable, Iterator
from pathlib import Path
from pkgutil import resolve_name

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


def verify(folder: Path, attention: str = "sdpa") -> Iterator[Result]:
    """Results as they come; a record of an unknown name is an error, none is passed over in silence.

    `attention` is the renderer's kernel: a name of the table, or `module:function` of a new one.
    """
    for record in read_folder(folder):
        record.attention = attention
        if record.name not in CHECKS:
            raise ParityError(f"{record.name}.json has no check; known: {', '.join(CHECKS)}")
        yield from checked(record, resolve_name(CHECKS[record.name]))


def checked(record: Record, check: Callable[[Record], Iterator[Result]]) -> Iterator[Result]:
    """One record; a missing entry names the record instead of ending in a traceback."""
    try:
        yield from check(record)
    except KeyError as error:
        raise ParityError(f"{record.name}.json lacks {error}; is it of this format?") from error
