"""The released trainer's Parquet form as samples (spec: model.md, 6; peers.md, 1): the way back of `trainer_form`."""

from __future__ import annotations

import base64
import binascii
import io
import json
import posixpath
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from . import storage
from .columns import FAILED
from .errors import ConfigError, InputError, MediaError
from .ids import digest, file_hash, make_id
from .manifest import ManifestWriter
from .media import probe
from .media_store import MediaStore
from .messages import count_tokens
from .provenance import versions
from .samples import SampleMedia, read_messages
from .schema import SAMPLES
from .spans import decode_image
from .tasks import TASKS
from .trainer_form import ROWS_AT_ONCE, SCHEMA

MAX_INLINE_BYTES = 64_000_000  # of a picture inside a row


def import_trainer(folder: str, /, output: str, task: str = "", source_name: str = "") -> int:
    """Read a folder in the released trainer's Parquet form as samples.

    Rows that cannot be used stay, dropped, with the reason.

    Args:
        folder: folder with .parquet files, and `data.yaml` that names each file's task and data set.
        output: folder below which the samples are written.
        task: task of all rows where there is no data.yaml, e.g. v2v.
        source_name: name of the data set in a mixture, where there is no data.yaml.
    """
    files = _named_files(folder, task, source_name)
    name = digest([[posixpath.basename(f), t, s, file_hash(f)] for f, t, s in files], length=8)
    store = MediaStore(storage.join(output, "media"))
    with ManifestWriter(storage.join(output, "samples", f"trainer-{name}"), SAMPLES, SAMPLES.schema) as writer:
        for file, file_task, file_source in files:
            for start, rows in _rows_of(file):
                writer.append(pa.Table.from_pylist(
                    [_import_row(row, (posixpath.basename(file), start + i), file_task, file_source, store)
                     for i, row in enumerate(rows)], SAMPLES.schema))
        m = writer.commit(name="trainer", row=SAMPLES.row, parents=[], versions=versions(),
                          config={"folder": folder, "task": task, "source_name": source_name})
    print(f"samples   {m.path}: {m.num_rows:,} rows, {m.header['accepted']:,} accepted")
    for reason, num in m.header["drops"].items():
        print(f"{num:,} dropped: {reason}")
    return 0 if m.header["accepted"] else 1


def _named_files(folder: str, task: str, source_name: str) -> list[tuple[str, str, str]]:
    """`(file, task, data set)` of the Parquet files."""
    found = [storage.join(folder, n) for n, _ in storage.list_files(folder) if n.endswith(".parquet")]
    if not found:
        raise InputError(f"{folder} holds no .parquet file")
    names = _names(storage.join(folder, "data.yaml"))
    out = []
    for file in found:
        name = names.get(posixpath.basename(file), f"{task}${source_name or 'imported'}" if task else "")
        file_task, _, file_source = name.partition("$")
        if file_task not in TASKS:
            raise InputError(f"{file}: " + (f"no task {file_task!r}" if name else "data.yaml does not name its task")
                             + f"; known: {', '.join(TASKS)}. Give --task")
        out.append((file, file_task, file_source or "imported"))
    return out


def _names(path: str) -> dict[str, str]:
    """File name → `<task>$<dataset>` of a data.yaml; empty without one."""
    if not storage.exists(path):
        return {}
    text = storage.read_bytes(path).decode()
    try:
        config = json.loads(text)
    except ValueError:
        config = _yaml(text, path)
    if not isinstance(config, dict) or len(config.get("sources") or ()) != len(config.get("names") or ()):
        raise InputError(f"{path}: sources and names must be two lists of equal length")
    return {posixpath.basename(s): n for s, n in zip(config["sources"], config["names"], strict=True)}


def _yaml(text: str, path: str) -> object:
    try:
        import yaml
    except ModuleNotFoundError:
        raise ConfigError(f"{path} is YAML beyond JSON: pip install pyyaml, or give --task and --source-name") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{path} is no YAML: {error}") from None


def _rows_of(file: str) -> Iterator[tuple[int, list[dict]]]:
    filesystem, inner = storage.resolve(file)
    try:
        with pq.ParquetFile(inner, filesystem=filesystem) as stored:
            columns = [c for c in SCHEMA.names if c in stored.schema_arrow.names]
            if "inputs" not in columns:
                raise InputError(f"{file} has no column inputs; it has {', '.join(stored.schema_arrow.names)}")
            start = 0
            for batch in stored.iter_batches(ROWS_AT_ONCE, columns=columns):
                yield start, batch.to_pylist()
                start += batch.num_rows
    except pa.ArrowInvalid as error:
        raise InputError(f"{file} is no Parquet file: {error}") from None


def _import_row(row: dict, place: tuple[str, int], task: str, source_name: str, store: MediaStore) -> dict:
    out = {"sample_id": make_id("sample", *place, row["inputs"]), "task": task, "source_name": source_name,
           "inputs": row["inputs"], "images": [], "videos": [], "split": "train", "weight": 1.0, "issues": [],
           "num_attempts": 1}
    try:
        messages = read_messages(row)
        for message in messages:  # the trainer's code gives a loss to video_gen alone where nothing is written
            message.setdefault("has_loss", int(message["type"] == "video_gen"))
        out["images"] = [_import_image(i, store) for i in row.get("images") or ()]
        out["videos"] = [_import_video(v) for v in row.get("videos") or ()]
        out["inputs"] = json.dumps(messages, ensure_ascii=False)
        SampleMedia.of(out, messages)
    except MediaError as error:
        return out | {"issues": [str(error)], "drop_reason": f"{FAILED}a row that the trainer could not read"}
    text = " ".join(m.get("text") or "" for m in messages)
    return out | {"num_prompt_tokens": count_tokens(text)}


def _import_video(item: dict) -> dict:
    path = item.get("video_path")
    _check_path(path)
    seconds = item.get("duration") or probe(path).duration_s
    if not seconds:
        raise MediaError(f"{path} does not say how long it is")
    return {"video_path": path, "duration": seconds, "crop_method": item.get("crop_method") or "center",
            "start_s": 0.0, "end_s": seconds}


def _import_image(item: str | None, store: MediaStore) -> str:
    if item and (item.startswith("data:") or len(item) > 1024):  # a picture inside the row
        return store.image(_inline(item.partition(",")[2] if item.startswith("data:") else item))
    _check_path(item)
    return item


def _inline(text: str) -> np.ndarray:
    if len(text) > MAX_INLINE_BYTES:
        raise MediaError(f"a picture inside the row has {len(text):,} characters; more than {MAX_INLINE_BYTES:,} are "
                         "not read")
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise MediaError(f"a picture inside the row is no base64: {error}") from None
    return decode_image(io.BytesIO(data), "inside the row")


def _check_path(path: str | None) -> None:
    if not path:
        raise MediaError("a medium has no path")
    if path.startswith(("http://", "https://")):
        raise MediaError(f"{path} is an address on the web: fetch it first and put its path here")
    if not storage.exists(path):
        raise MediaError(f"there is no file {path}")
