"""What every data set is read as: entries, and the tables of records that most of them come in."""

from __future__ import annotations

import csv
import io
import json
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from manifests import storage
from manifests.errors import InputError
from manifests.pictures import PICTURE_ENDINGS, is_picture_file

from .row import Row

VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".gif")
MEDIA_ENDINGS = (*PICTURE_ENDINGS, *VIDEOS)
TABLES = (".csv", ".jsonl", ".json", ".parquet")
SHARDS = (".tar", ".tar.gz", ".tgz")
PIECE = 1 << 20
MAX_RECORD = 64 << 20  # characters of one JSON value; masks of a whole video stay below


@dataclass(frozen=True)
class Condition:
    role: str
    path: str


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One pair as a data set describes it. Paths are absolute or URIs; whether they hold media is checked later.

    `task` empty = from the kinds of the media. `target_span` in seconds where the set uses a part.
    `extra` is kept as JSON; `source_name` empty = the data set's own. `problem` says what is wrong with the files.
    """

    target: str | None
    text: str | None
    source: str | None = None
    conditions: tuple[Condition, ...] = ()
    mask: str | None = None
    task: str = ""
    edit: str = ""
    source_name: str = ""
    target_span: tuple[float, float] | None = None
    licence: str | None = None
    source_url: str | None = None
    reasoning: str | None = None
    extra: dict = field(default_factory=dict)
    problem: str = ""


def kind_of(path: str) -> str:
    """"image" or "video", by the ending; what has none of the known ones is taken for a video."""
    return "image" if is_picture_file(path) else "video"


def task_of(entry: Entry) -> str:
    """The task that fits the media: sources and references against the target."""
    if entry.task:
        return entry.task
    roles = [c.role for c in entry.conditions]
    videos = sum(kind_of(p) == "video" for p in [entry.source, *(c.path for c in entry.conditions)] if p)
    images = sum(kind_of(p) == "image" for p in [entry.source, *(c.path for c in entry.conditions)] if p)
    if kind_of(entry.target or "x.mp4") == "image":
        return "t2i" if not images else "i2i" if images == 1 and entry.source else "r2i"
    if videos > 1:
        return "mv2v"
    if videos:
        return "vi2v" if "first_frame" in roles else "vr2v" if images else "v2v"
    return "t2v" if not images else "i2v" if entry.source or "first_frame" in roles else "r2v"


def natural(name: str) -> list[str | int]:
    """Sorts names as people count: `a_2` before `a_10`."""
    return [int(part) if n % 2 else part for n, part in enumerate(re.split(r"(\d+)", name))]


def is_whole(path: str) -> bool:
    """Does a path say alone where its file lies?"""
    return storage.is_uri(path) or posixpath.isabs(path)


def inside(root: str, path: str) -> str:
    """A path of a data set as an absolute one: URIs and absolute paths stay."""
    path = path.strip()
    return path if is_whole(path) else storage.join(root, posixpath.normpath(path))


def find_tables(root: str, name: str, *, endings: Sequence[str] = TABLES) -> list[str]:
    """The file `root` itself, or the tables right in the folder; `InputError` where there are none."""
    if root.lower().endswith(tuple(endings)):
        if not storage.exists(root):
            raise InputError(f"{root} does not exist")
        return [root]
    found = [storage.join(root, file) for file, _ in storage.list_files(root) if file.lower().endswith(tuple(endings))]
    if not found:
        raise InputError(f"{root} holds no {' or '.join(endings)} file, so it is not laid out as {name}: "
                         "name the folder that holds its list, or the list itself")
    return found


def is_file(root: str) -> bool:
    """Is the input one list or one shard, by its ending? Else it is a folder."""
    return root.lower().endswith((*TABLES, *SHARDS))


def base_of(root: str) -> str:
    """The folder that relative paths count from."""
    return posixpath.dirname(root) if is_file(root) else root


def records(file: str, needed: Sequence[str] = ()) -> Iterator[Row]:
    """Rows of a CSV, JSONL, JSON (array, or object of objects) or Parquet file, one at a time.

    Of an object of objects each value gets its name as `key`. Raises `InputError` that names the
    first missing column of `needed`, or where the file does not parse.
    """
    readers = {".csv": _csv, ".jsonl": _jsonl, ".json": _json, ".parquet": _parquet}
    reader = readers[next(e for e in TABLES if file.lower().endswith(e))]
    number = 0
    try:
        for number, row in enumerate(reader(file), start=1):
            if not isinstance(row, dict):
                raise InputError(f"row {number} of {file} is no object with columns but {str(row)[:60]!r}")
            if missing := [name for name in needed if name not in row]:
                raise InputError(f"row {number} of {file} has no column {missing[0]!r}; it has "
                                 f"{', '.join(map(str, row)) or 'nothing'}")
            yield Row(row, f"row {number} of {file}")
    except (ValueError, pa.ArrowInvalid, csv.Error) as error:
        raise InputError(f"cannot read {file} after row {number}: {error}") from None


def _open(file: str) -> io.TextIOWrapper:
    filesystem, inner = storage.resolve(file)
    return io.TextIOWrapper(filesystem.open_input_stream(inner), encoding="utf-8-sig", newline="")


def _csv(file: str) -> Iterator[dict]:
    with _open(file) as stream:
        yield from csv.DictReader(stream)


def _jsonl(file: str) -> Iterator[dict]:
    with _open(file) as stream:
        for line in stream:
            if line.strip():
                yield json.loads(line)


def _parquet(file: str) -> Iterator[dict]:
    filesystem, inner = storage.resolve(file)
    with pq.ParquetFile(inner, filesystem=filesystem) as table:
        for batch in table.iter_batches(batch_size=4096):
            yield from batch.to_pylist()


def _json(file: str) -> Iterator[dict]:
    """Values of a JSON array, nested arrays unfolded, or of an object; one at a time, never the whole file."""
    with _open(file) as stream:
        tokens = _Json(stream)
        opening = tokens.peek()
        if opening not in ("[", "{"):
            raise ValueError("it is neither a JSON array nor an object")
        tokens.skip()
        closing = "]" if opening == "[" else "}"
        while (sign := tokens.peek()) != closing:
            if sign == "":
                raise ValueError("the file ends in the middle")
            if sign in ",:":
                tokens.skip()
                continue
            value = tokens.value()
            if opening == "{":
                if tokens.peek() != ":":
                    raise ValueError(f"there is no value after {value!r}")
                tokens.skip()
                item = tokens.value()
                yield item | {"key": value} if isinstance(item, dict) else item
            else:
                yield from _unfold(value)
        tokens.skip()
        if tokens.peek():
            raise ValueError(f"something follows the {closing} that ends it: a file with one value a line is a .jsonl")


def _unfold(value) -> Iterator:
    if isinstance(value, list):
        for item in value:
            yield from _unfold(item)
    else:
        yield value


class _Json:
    """Reads one JSON value after another from a stream of text."""

    def __init__(self, stream):
        self._stream, self._text, self._at, self._decode = stream, "", 0, json.JSONDecoder().raw_decode

    def peek(self) -> str:
        """The next sign that is no blank; empty at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at].isspace():
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def skip(self) -> None:
        self._at += 1

    def value(self):
        self.peek()
        size = PIECE
        while True:
            try:
                value, end = self._decode(self._text, self._at)
                if end < len(self._text) or not self._more(size):
                    self._at = end
                    return value
            except ValueError:
                if len(self._text) - self._at > MAX_RECORD:
                    raise ValueError(f"a value is longer than {MAX_RECORD:,} characters") from None
                if not self._more(size):
                    raise
            size *= 2  # a long value is parsed again only a few times

    def _more(self, size: int = PIECE) -> bool:
        piece = self._stream.read(size)
        self._text, self._at = self._text[self._at :] + piece, 0
        return bool(piece)
