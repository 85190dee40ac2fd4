"""Interleaved documents (D3): read web documents, choose key frames of films, write training samples.

The layout of web documents is OmniCorpus's (Li et al. 2024; OpenGVLab/OmniCorpus-CC-210M): a row has `texts` and
`images`, two lists of equal length in which every place has a text or the address of an image and null in
the other list; `metadata` tells about each image (`img_url_sha` among it), `general_metadata` about the
page (`url`, `id`). Parquet, or the same as JSON lines.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from manifests import storage
from manifests.columns import ACCOUNT, FAILED, column
from manifests.errors import InputError
from manifests.ids import digest, file_hash, make_id
from manifests.provenance import plain
from manifests.schema import DOCUMENTS, RIGHTS

ENDINGS = (".jsonl", ".parquet")
ROWS_AT_ONCE = 256
LIST = pa.list_(pa.string())
IMAGE_KEYS = column("image_keys", LIST, "further names of its pictures (img_url_sha of the list), in order")
KEY_TIMES = column("key_times_s", pa.list_(pa.float64()), "moments of its key frames, ascending", "s")
NUM_IMAGES = column("num_images", pa.int32(), "pictures that are used")


class WebDocuments:
    """The documents of one list or of all lists below a folder, as the source of a run.

    A line that breaks the layout is a row with its reason; a list without the columns is an `InputError`.
    """

    schema = pa.schema([*DOCUMENTS.fields, IMAGE_KEYS, *ACCOUNT])

    def __init__(self, source: str, *, leave_out: str = ""):
        """`leave_out` is an output folder that may lie inside the input folder."""
        self.root, self.names = _lists(storage.absolute(source), leave_out)
        self.num_rows = sum(batch.num_rows for batch in self.batches(["document_id"]))

    def fingerprint(self) -> list:
        """Changes with the content of the lists."""
        return [[name, file_hash(storage.join(self.root, name))] for name in self.names]

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        for name in self.names:
            path, rows = storage.join(self.root, name), []
            for number, document in enumerate(_read(path)):
                rows.append(_row(document, name, path, number))
                if len(rows) == ROWS_AT_ONCE:
                    yield self._table(rows, columns)
                    rows = []
            if rows:
                yield self._table(rows, columns)

    def _table(self, rows: list[dict], columns: Sequence[str] | None) -> pa.Table:
        table = pa.Table.from_pylist(rows, self.schema)
        return table if columns is None else table.select(list(columns))


def _lists(source: str, leave_out: str) -> tuple[str, list[str]]:
    """`(folder, names of the lists in it)`."""
    if source.lower().endswith(ENDINGS):
        if not storage.exists(source):
            raise InputError(f"the list {source} does not exist")
        root, _, name = source.rpartition("/")
        return root or "/", [name]
    names = [name for name, _ in storage.files_below(source, leave_out) if name.lower().endswith(ENDINGS)]
    if not names:
        raise InputError(f"{source} holds no {' or '.join(ENDINGS)} list of documents")
    return source, names


def _read(path: str) -> Iterator[dict | str]:
    """Each document, or in words why a line is none."""
    filesystem, inner = storage.resolve(path)
    try:
        with filesystem.open_input_file(inner) as file:
            if path.lower().endswith(".parquet"):
                table = pq.ParquetFile(file)
                _check(table.schema_arrow.names, path)
                for batch in table.iter_batches(ROWS_AT_ONCE):
                    yield from batch.to_pylist()
                return
            checked = False
            for line in io.BufferedReader(file):
                if not line.strip():
                    continue
                document = _parse(line)
                if not checked and isinstance(document, dict):
                    _check(document, path)
                    checked = True
                yield document
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"cannot read the list {path}: {error}") from None


def _parse(line: bytes) -> dict | str:
    try:
        document = json.loads(line)
        if b"\\u" in line:
            json.dumps(document, ensure_ascii=False).encode()  # half a character cannot be stored
    except (ValueError, RecursionError) as error:
        return f"the line is not JSON: {error}"
    return document if isinstance(document, dict) else "the line is not a JSON object"


def _check(names: Sequence[str] | Mapping, path: str) -> None:
    if missing := [name for name in ("texts", "images") if name not in names]:
        raise InputError(f"{path} has no column {' and no column '.join(missing)}; the OmniCorpus layout has texts and "
                         f"images, lists of equal length. It has {', '.join(list(names)[:12]) or 'nothing'}")


def _row(document: dict | str, name: str, path: str, number: int) -> dict:
    row = {"document_id": make_id("document", name, number, digest(plain(document))), "path": path, "issues": [],
           "num_attempts": 1}
    problem = document if isinstance(document, str) else _problem(document)
    if problem:
        return row | {"issues": [f"{name}, document {number + 1}: {problem}"], "drop_reason": f"{FAILED}layout"}
    order, texts, images, keys = [], [], [], []
    about_images = document.get("metadata")
    for i, (text, image) in enumerate(zip(document["texts"], document["images"], strict=True)):
        if image is not None:
            order.append("image")
            images.append(image)
            about = about_images[i] if isinstance(about_images, list) and i < len(about_images) else None
            keys.append(str(about["img_url_sha"]) if isinstance(about, dict) and about.get("img_url_sha") else None)
        if text is not None:
            order.append("text")
            texts.append(text)
    page = document.get("general_metadata")
    page = page if isinstance(page, dict) else {}
    return row | {"order": order, "texts": texts, "images": images, "image_keys": keys,
                  "source_url": page.get("url") or document.get("url"),
                  "licence": document.get("licence") or document.get("license"),
                  "extra": json.dumps(page, sort_keys=True, ensure_ascii=False, default=str) if page else None}


def _problem(document: dict) -> str:
    """What of the layout a document breaks; empty when nothing."""
    lists = [document.get(name) for name in ("texts", "images")]
    if not all(isinstance(values, list) for values in lists):
        return "texts and images must be lists"
    if len(lists[0]) != len(lists[1]):
        return f"{len(lists[0])} texts and {len(lists[1])} images; both lists must be equally long, with nulls"
    if not all(value is None or isinstance(value, str) for values in lists for value in values):
        return "texts and images must hold strings and nulls"
    page = document.get("general_metadata")
    rights = [("url", page.get("url") if isinstance(page, dict) else None),
              *((name, document.get(name)) for name in ("url", "licence", "license"))]
    for name, value in rights:
        if value and not isinstance(value, str):
            return f"{name} must be a string, it is {str(value)[:60]!r}"
    return ""


class ChooseKeyFrames:
    """FRAMES of whole films → DOCUMENTS: one row a film with up to `max_frames` moments, evenly spread.

    A film with one good frame, and a picture file, keep their row; a rule says that it is too few.
    """

    makes = pa.schema([*DOCUMENTS.fields, KEY_TIMES, NUM_IMAGES, *ACCOUNT])

    def __init__(self, *, max_frames: int = 8):
        self.max_frames = max_frames

    def __call__(self, table: pa.Table) -> pa.Table:
        films: dict[str, list[dict]] = {}
        for row in table.select(["video_id", "path", "time_s", *(f.name for f in RIGHTS)]).to_pylist():
            films.setdefault(row["video_id"], []).append(row)
        return pa.Table.from_pylist([self._row(frames) for frames in films.values()], self.makes)

    def _row(self, frames: list[dict]) -> dict:
        times = sorted(f["time_s"] for f in frames if f["time_s"] is not None)
        if len(times) > self.max_frames:
            times = [times[i] for i in np.linspace(0, len(times) - 1, self.max_frames).round().astype(int)]
        first = frames[0]
        return {"document_id": make_id("document", first["video_id"], times), "video_id": first["video_id"],
                "path": first["path"], "order": ["image"] * len(times), "texts": [], "key_times_s": times,
                "num_images": len(times), "issues": [], "num_attempts": 1, **{f.name: first[f.name] for f in RIGHTS}}
