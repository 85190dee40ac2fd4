"""Everything that can go wrong for a user of `bernini`, as one tree.

Each message is one line: what is wrong, the value, and what to do. The command line prints
`error: <message>` and returns 2; anything that is not a `BerniniError` is a bug.
"""

from manifests.errors import BerniniError as BerniniError  # one base for the whole house
from manifests.errors import MediaError as MediaError  # a video or image cannot be read or written


class CheckpointError(BerniniError):
    """A model folder is missing, of an unknown layout, or its tensors do not fit."""


class CaseError(BerniniError):
    """A case file, a flag or a combination of inputs cannot be used."""


class MemoryRefused(BerniniError):
    """The estimate says that the run does not fit; the message names the flag that would."""


class EnhancerError(BerniniError):
    """The prompt enhancer is not configured or gave no usable answer."""


class ParityError(BerniniError):
    """A folder of recorded numbers cannot be read."""


class Cancelled(BerniniError):
    """The person who started the run stopped it."""
