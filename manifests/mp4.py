"""The index of an mp4 moved to its front, so that a player can start before it has the whole file.

FFmpeg's own `+faststart` opens the output a second time by its name, which a stream in memory or
in an object store has not.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_NESTED = (b"moov", b"trak", b"mdia", b"minf", b"stbl")  # the way down to the tables of chunk offsets
_OFFSETS = {b"stco": ">I", b"co64": ">Q"}


def index_first(data: bytes | memoryview) -> bytes | memoryview:
    """`data` of a whole mp4 with `moov` before `mdat`; unchanged where it is so already."""
    boxes = list(_boxes(memoryview(data), 0, len(data)))
    kinds = [kind for kind, _, _ in boxes]
    if b"moov" not in kinds or b"mdat" not in kinds or kinds.index(b"moov") < kinds.index(b"mdat"):
        return data
    _, begin, end = boxes[kinds.index(b"moov")]
    first = boxes[kinds.index(b"mdat")][1]
    moov = bytearray(data[begin:end])
    _shift(moov, 0, len(moov), len(moov))
    return b"".join((data[:first], moov, data[first:begin], data[end:]))


def _boxes(data: memoryview | bytearray, begin: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """`(kind, begin, end)` of the boxes that lie side by side."""
    while begin + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, begin)
        if size == 1:
            size = struct.unpack_from(">Q", data, begin + 8)[0]
        size = size or end - begin
        yield bytes(kind), begin, begin + size
        begin += max(size, 8)


def _shift(moov: bytearray, begin: int, end: int, by: int) -> None:
    """Add `by` to all chunk offsets between two places of `moov`."""
    for kind, first, last in list(_boxes(moov, begin, end)):
        if kind in _NESTED:
            _shift(moov, first + 8, last, by)
        elif kind in _OFFSETS:
            form = _OFFSETS[kind]
            num = struct.unpack_from(">I", moov, first + 12)[0]
            for i in range(num):
                place = first + 16 + i * struct.calcsize(form)
                struct.pack_into(form, moov, place, struct.unpack_from(form, moov, place)[0] + by)
