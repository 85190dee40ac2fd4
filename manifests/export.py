"""`bernini export`: rows as csv or jsonl, or samples in the released trainer's own form.

The trainer's form (spec: model.md, section 6; its rules: peers.md, section 1) is Parquet with
`inputs`, `images` and `videos` = {video_path, duration, crop_method}. It knows no spans, so the
clips are cut out here: H.264 yuv420p mp4, exact to the frame, named after their content, so
that a second export writes nothing twice.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections import defaultdict
from fractions import Fraction

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from . import storage
from .errors import ConfigError, ManifestError, MediaError
from .ids import digest
from .manifest import Manifest, live
from .media import VideoReader, write_video
from .messages import MAX_FRAMES, MIN_FRAMES, TRAINER_FPS
from .tasks import TASKS

FORMS = ("csv", "jsonl", "trainer")
TRAINER_SCHEMA = pa.schema([
    ("inputs", pa.string()), ("images", pa.list_(pa.string())),
    ("videos", pa.list_(pa.struct([("video_path", pa.string()), ("duration", pa.float64()),
                                   ("crop_method", pa.string())]))),
])


def export(manifest: str, /, output: str, form: str = "", all_rows: bool = False) -> int:
    """Write the accepted rows of a manifest for other programs.

    Args:
        manifest: folder of a manifest; the form `trainer` needs a samples manifest.
        output: file to write (.csv, .jsonl), or a folder for the form `trainer`.
        form: csv, jsonl or trainer; taken from the ending of `output` when left out.
        all_rows: dropped rows too (csv and jsonl).
    """
    form = form or os.path.splitext(output)[1].lstrip(".")
    if form not in FORMS:
        raise ConfigError(f"no form {form!r}; known: {', '.join(FORMS)}. Give --form, or an output that ends in "
                          ".csv or .jsonl")
    m = Manifest.open(manifest)
    if form == "trainer":
        return export_trainer(m, output)
    with storage.atomic_output(output) as stream:
        num = _write_rows(m, stream, form, all_rows)
    print(f"wrote {num:,} rows to {output}")
    return 0


def _write_rows(m: Manifest, stream, form: str, all_rows: bool) -> int:
    text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
    writer, num = csv.writer(text), 0
    if form == "csv":
        writer.writerow(m.schema.names)
    for batch in m.batches():
        for row in (batch if all_rows else live(batch)).to_pylist():
            if form == "jsonl":
                text.write(json.dumps(row, ensure_ascii=False) + "\n")
            else:
                writer.writerow([json.dumps(v, ensure_ascii=False) if isinstance(v, (list, dict)) else v
                                 for v in row.values()])
            num += 1
    text.flush()
    text.detach()
    return num


def export_trainer(m: Manifest, output: str, *, quiet: bool = False) -> int:
    """One Parquet file for each task, data set and modality, the cut media, and `data.yaml`."""
    if m.stop.name != "samples":
        raise ManifestError(f"{m.path} is a {m.stop.name} table; the trainer's form is made of samples")
    shards: dict[tuple, list[dict]] = defaultdict(list)
    weights: dict[str, float] = defaultdict(float)
    lost, num_long = [], 0
    for row in tqdm(live(m.table()).to_pylist(), desc="export", unit="sample", disable=quiet):
        problem = preflight(row)
        try:
            if problem:
                raise MediaError(problem)
            videos = [_cut(item, output) for item in row["videos"]]
        except MediaError as error:
            lost.append(f"{row['sample_id']}: {error}")
            continue
        num_long += any(v["duration"] * TRAINER_FPS > MAX_FRAMES for v in videos)
        name = f"{row['task']}${row['source_name']}"
        weights[name] += row["weight"]
        # Features are extracted column by column: rows of one file must have the same media.
        shards[name, bool(row["images"]), bool(videos)].append(
            {"inputs": row["inputs"], "images": row["images"], "videos": videos})
    _write_shards(shards, weights, output)
    for line in lost[:20]:
        print(f"left out {line}")
    print(f"wrote {sum(map(len, shards.values())):,} samples to {output}; {len(lost):,} left out")
    if num_long:
        print(f"note: {num_long:,} samples hold a clip longer than {MAX_FRAMES / TRAINER_FPS:.2f} s; with its default "
              f"settings the trainer reads only the first {MAX_FRAMES} frames at {TRAINER_FPS:g} fps")
    return 0 if shards and not lost else 1


def preflight(row: dict) -> str:
    """What the released trainer could not read, or would read wrongly; empty when all is well."""
    if row["task"] not in TASKS:  # its name selects prompt, weighting and shift; a wrong one raises no error there
        return f"no task {row['task']!r}; known: {', '.join(TASKS)}"
    messages = json.loads(row["inputs"])
    kinds = [m["type"] for m in messages]
    media = {"images": sum(k in ("image", "image_gen", "frame_gen") for k in kinds),
             "videos": sum(k in ("video", "video_gen") for k in kinds)}
    for name, num in media.items():
        if len(row[name]) != num:
            return f"{num} messages of {name}, but {len(row[name])} {name}"
    if any("has_loss" not in m for m in messages):
        return "a message without has_loss: the trainer's code and documentation differ on its default"
    if not any(k.endswith("_gen") for k in kinds):
        return "no message is a target"
    for item in row["videos"]:
        if item["duration"] * TRAINER_FPS < MIN_FRAMES:
            return f"a video of {item['duration']:.2f} s has fewer than {MIN_FRAMES} frames at {TRAINER_FPS:g} fps"
    return ""


def _cut(item: dict, output: str) -> dict:
    """The span of a video as a file of its own below `output/media`."""
    path, start, end = item["video_path"], item["start_s"], item["end_s"]
    target = storage.join(output, "media", f"{digest(path, start, end)}.mp4")
    if not storage.exists(target):
        with VideoReader(path) as reader:
            if start > 1.0:
                reader.seek(start)
            fps = Fraction(reader.probe.fps or 25).limit_denominator(1001)
            write_video(target, _span(reader, start, end), fps=fps)
    shown = target if storage.is_uri(target) else os.path.abspath(target)
    return {"video_path": shown, "duration": item["duration"], "crop_method": item["crop_method"]}


def _span(reader: VideoReader, start: float, end: float):
    for frame in reader:
        if frame.time_s >= end - 1e-4:
            return
        if frame.time_s >= start - 1e-4:
            yield frame.rgb()


def _write_shards(shards: dict[tuple, list[dict]], weights: dict[str, float], output: str) -> None:
    sources, names = [], []
    for i, ((name, *_), rows) in enumerate(sorted(shards.items(), key=lambda item: item[0])):
        file = storage.join(output, f"{name.replace('$', '-')}-{i:05d}.parquet")
        with storage.atomic_output(file) as stream:
            pq.write_table(pa.Table.from_pylist(rows, TRAINER_SCHEMA), stream)
        sources.append(file if storage.is_uri(file) else os.path.abspath(file))
        names.append(name)
    total = sum(weights.values()) or 1.0
    config = {"sources": sources, "names": names, "level": "sample", "stopping_strategy": "never_exhausted",
              "upstream_sharded": False,
              "schedule": [{"schedule_type": "const", "weights": [weights[n] / total for n in names]}]}
    storage.write_bytes(storage.join(output, "data.yaml"), json.dumps(config, indent=1).encode())  # JSON is YAML
