"""Samples in the released trainer's own Parquet form, out and in (spec: model.md, 6; peers.md, 1).

A row of that form is `inputs` (JSON messages), `images` (paths) and `videos` = {video_path, duration,
crop_method}, media in the order of their messages. Its trainer drops what it cannot read without a
word, so `preflight` checks its rules first: a task that it knows and whose inputs fit, `has_loss` on
every message, at least 17 frames at 16 fps, every file readable, files of one modality each (its
features are made column by column). Of a longer clip it reads the first 97 frames.

The form knows no spans: clips are cut out (H.264 yuv420p mp4, exact to the frame, named after their
content, so that a second export writes nothing twice). `account.jsonl` has one line for every
accepted sample: where it went, how many seconds will be used, or why it was left out.

Rows stream in both directions; memory does not grow with their number.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from . import storage
from .columns import FAILED
from .errors import ConfigError, InputError, ManifestError, MediaError
from .ids import digest, make_id
from .manifest import Manifest, ManifestWriter, live
from .media import VideoReader, probe
from .media_store import MediaStore
from .messages import MAX_FRAMES, MIN_FRAMES, TRAINER_FPS, count_tokens
from .provenance import versions
from .samples import TEXT_MESSAGES, SampleMedia, read_messages
from .schema import SAMPLES
from .spans import EPSILON_S, MAX_PIXELS, image_size
from .tasks import TASKS
from .video_writer import write_video

SCHEMA = pa.schema([
    ("inputs", pa.string()), ("images", pa.list_(pa.string())),
    ("videos", pa.list_(pa.struct([("video_path", pa.string()), ("duration", pa.float64()),
                                   ("crop_method", pa.string())]))),
])
CROPS = ("left", "right", "center")
ROWS_AT_ONCE = 512        # held of one file while exporting, and read at once while importing
MAX_INLINE_BYTES = 64_000_000  # of a picture inside a row
SETTINGS = {"level": "sample", "stopping_strategy": "never_exhausted", "upstream_sharded": False}


def export_trainer(m: Manifest, output: str, *, quiet: bool = False) -> int:
    """One Parquet file for each task, data set and modality, the cut media, `data.yaml` and `account.jsonl`."""
    if m.stop.name != "samples":
        raise ManifestError(f"{m.path} is a {m.stop.name} table; the trainer's form is made of samples")
    reasons, num_long = Counter(), 0
    with ExitStack() as stack:
        shards = _Shards(output, stack)
        account = stack.enter_context(storage.atomic_output(storage.join(output, "account.jsonl")))
        with tqdm(total=m.header["accepted"], desc="export", unit="sample", disable=quiet) as bar:
            for batch in m.batches():
                for row in live(batch).to_pylist():
                    line = _export_row(row, shards, output)
                    if reason := line.get("left_out"):
                        reasons[reason] += 1
                    num_long += line.get("cut_short", False)
                    account.write((json.dumps(line, ensure_ascii=False) + "\n").encode())
                    bar.update()
        shards.flush()
    shards.write_config()
    for reason, num in reasons.most_common(20):
        print(f"left out {num:,}: {reason}")
    print(f"wrote {shards.num_rows:,} samples to {output}; {sum(reasons.values()):,} left out "
          f"(each is named in {storage.join(output, 'account.jsonl')})")
    if num_long:
        print(f"note: {num_long:,} samples hold a clip longer than {MAX_FRAMES / TRAINER_FPS:.2f} s; with its default "
              f"settings the trainer reads only the first {MAX_FRAMES} frames at {TRAINER_FPS:g} fps")
    return 0 if shards.num_rows and not reasons else 1


def _export_row(row: dict, shards: _Shards, output: str) -> dict:
    """The row's line of the account, after it was handed to its file."""
    try:
        preflight(row)
        images = [_readable(path) for path in row["images"]]
        videos = [_cut(item, output) for item in row["videos"]]
    except MediaError as error:
        return {"sample_id": row["sample_id"], "left_out": str(error)}
    where = shards.add(row, {"inputs": row["inputs"], "images": images, "videos": videos})
    used = [round(min(v["duration"], MAX_FRAMES / TRAINER_FPS), 4) for v in videos]
    return {"sample_id": row["sample_id"], **where, "used_s": used,
            "cut_short": any(v["duration"] * TRAINER_FPS > MAX_FRAMES for v in videos)}


def preflight(row: Mapping) -> None:
    """Raise `MediaError` for what the released trainer could not read, or would read wrongly."""
    task = TASKS.get(row["task"])
    if task is None:  # its name selects prompt, weighting and shift; a wrong one raises no error there
        raise MediaError(f"no task {row['task']!r}; known: {', '.join(TASKS)}")
    if not task.released:
        raise MediaError(f"the released trainer does not know the task {task.name}; it knows "
                         f"{', '.join(t.name for t in TASKS.values() if t.released)}")
    messages = read_messages(row)
    media = SampleMedia.of(row, messages)
    if any(m.get("has_loss") not in (0, 1) for m in messages):
        raise MediaError("a message has no has_loss of 0 or 1: the trainer's code and documentation differ on its "
                         "default")
    if not any((m.get("text") or "").strip() for m in messages if m["type"] in TEXT_MESSAGES):
        raise MediaError("there is no text")
    _check_target(task, messages, media)
    for m in media:
        if m.kind == "video" and (m.end_s - m.start_s) * TRAINER_FPS < MIN_FRAMES:
            raise MediaError(f"a video has fewer than {MIN_FRAMES} frames at {TRAINER_FPS:g} fps "
                             f"({MIN_FRAMES / TRAINER_FPS:.2f} s)")
    for item in row["videos"]:
        if item["crop_method"] not in CROPS:
            raise MediaError(f"crop_method {item['crop_method']!r} is none of {', '.join(CROPS)}")


def _check_target(task, messages: list[dict], media: list[SampleMedia]) -> None:
    targets = [m.is_target for m in media]
    if not targets or targets != sorted(targets) or not messages[-1]["type"].endswith("_gen"):
        raise MediaError("the target is not the one last message")
    if [m.kind for m in media[:-1] if m.is_target] not in ([], ["image"]):
        raise MediaError("before the target only one picture can be made, an edited first frame")
    if not messages[-1]["has_loss"]:
        raise MediaError("the target has has_loss 0: nothing would be learned")
    if media[-1].kind != task.output:
        raise MediaError(f"the target is of the kind {media[-1].kind}, the task {task.name} makes a target of the kind "
                         f"{task.output}")
    kinds = tuple(m.kind for m in media if not m.is_target)
    if not task.takes(kinds):
        raise MediaError(f"the inputs {', '.join(kinds) or '(none)'} do not fit the task {task.name}, which takes "
                         f"{', '.join(task.inputs) or 'none'}")


def _readable(path: str) -> str:
    image_size(path)
    return storage.absolute(path)


def _cut(item: dict, output: str) -> dict:
    """The span of a video as a file of its own below `output/media`."""
    path, start = item["video_path"], item["start_s"] or 0.0
    end = item["end_s"] if item["end_s"] is not None else start + item["duration"]
    target = storage.join(output, "media", f"{digest(path, start, end)}.mp4")
    if not storage.exists(target):
        with VideoReader(path) as reader:
            if start > 1.0:
                reader.seek(start)
            write_video(target, _span(reader, start, end), fps=Fraction(reader.probe.fps or 25).limit_denominator(1001))
    seconds = probe(target).duration_s or 0.0
    if seconds * TRAINER_FPS < MIN_FRAMES:  # the span says more than the film holds
        raise MediaError(f"a video has fewer than {MIN_FRAMES} frames at {TRAINER_FPS:g} fps "
                         f"({MIN_FRAMES / TRAINER_FPS:.2f} s)")
    return {"video_path": storage.absolute(target), "duration": round(seconds, 6),
            "crop_method": item["crop_method"]}


def _span(reader: VideoReader, start: float, end: float) -> Iterator[np.ndarray]:
    for frame in reader:
        if frame.time_s >= end - EPSILON_S:
            return
        if frame.time_s >= start - EPSILON_S:
            yield frame.rgb()


class _Shards:
    """The Parquet files, each of one task, data set and modality; they appear when all is written."""

    def __init__(self, output: str, stack: ExitStack):
        self._output, self._stack = output, stack
        self._writers: dict[tuple, pq.ParquetWriter] = {}
        self._waiting: dict[tuple, list[dict]] = {}
        self._files: dict[tuple, str] = {}
        self._weights: Counter = Counter()
        self._rows: Counter = Counter()

    @property
    def num_rows(self) -> int:
        return sum(self._rows.values())

    def add(self, row: Mapping, released: dict) -> dict:
        """Hand a row to its file; `{"file", "row"}` say where it will be."""
        modality = "+".join(k for k in ("images", "videos") if released[k])
        key = (row["task"], row["source_name"], modality)
        if key not in self._writers:
            self._open(key)
        place = {"file": posixpath.basename(self._files[key]), "row": self._rows[key]}
        self._rows[key] += 1
        self._weights[key] += row["weight"]
        self._waiting[key].append(released)
        if len(self._waiting[key]) >= ROWS_AT_ONCE:
            self._write(key)
        return place

    def _open(self, key: tuple) -> None:
        name = "-".join("".join(c if c.isalnum() or c in "._-" else "_" for c in word) for word in key)
        self._files[key] = storage.join(self._output, f"{name}-{digest(key, length=4)}.parquet")
        stream = self._stack.enter_context(storage.atomic_output(self._files[key]))
        self._writers[key] = self._stack.enter_context(pq.ParquetWriter(stream, SCHEMA))
        self._waiting[key] = []

    def _write(self, key: tuple) -> None:
        self._writers[key].write_table(pa.Table.from_pylist(self._waiting[key], SCHEMA))
        self._waiting[key] = []

    def flush(self) -> None:
        for key in self._waiting:
            if self._waiting[key]:
                self._write(key)

    def write_config(self) -> None:
        """`data.yaml` of the trainer: one source a file, weighted by the samples' weights."""
        total, keys = sum(self._weights.values()) or 1.0, sorted(self._files)
        files = [storage.absolute(self._files[k]) for k in keys]
        config = {"sources": files, "names": [f"{task}${source}" for task, source, _ in keys], **SETTINGS,
                  "schedule": [{"schedule_type": "const", "weights": [self._weights[k] / total for k in keys]}]}
        storage.write_bytes(storage.join(self._output, "data.yaml"), json.dumps(config, indent=1).encode())  # is YAML


# In


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
    name = digest([[posixpath.basename(f), t, s, size] for f, t, s, size in files], length=8)
    store = MediaStore(storage.join(output, "media"))
    with ManifestWriter(storage.join(output, "samples", f"trainer-{name}"), SAMPLES, SAMPLES.schema) as writer:
        for file, file_task, file_source, _ in files:
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


def _named_files(folder: str, task: str, source_name: str) -> list[tuple[str, str, str, int]]:
    """`(file, task, data set, bytes)` of the Parquet files."""
    found = [(storage.join(folder, n), size) for n, size in storage.list_files(folder) if n.endswith(".parquet")]
    if not found:
        raise InputError(f"{folder} holds no .parquet file")
    names = _names(storage.join(folder, "data.yaml"))
    out = []
    for file, size in found:
        name = names.get(posixpath.basename(file), f"{task}${source_name or 'imported'}" if task else "")
        file_task, _, file_source = name.partition("$")
        if file_task not in TASKS:
            raise InputError(f"{file}: " + (f"no task {file_task!r}" if name else "data.yaml does not name its task")
                             + f"; known: {', '.join(TASKS)}. Give --task")
        out.append((file, file_task, file_source or "imported", size))
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
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True))) as image:
            if image.width * image.height > MAX_PIXELS:
                raise MediaError(f"a picture inside the row has {image.width}x{image.height} pixels")
            return np.asarray(image.convert("RGB"))
    except (binascii.Error, UnidentifiedImageError, OSError, ValueError) as error:
        raise MediaError(f"a picture inside the row cannot be read: {error}") from None


def _check_path(path: str | None) -> None:
    if not path:
        raise MediaError("a medium has no path")
    if path.startswith(("http://", "https://")):
        raise MediaError(f"{path} is an address on the web: fetch it first and put its path here")
    if not storage.exists(path):
        raise MediaError(f"there is no file {path}")
