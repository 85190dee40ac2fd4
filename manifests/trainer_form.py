"""Samples in the released trainer's own Parquet form, out (spec: model.md, 6; peers.md, 1).

A row of that form is `inputs` (JSON messages), `images` (paths) and `videos` = {video_path, duration,
crop_method}, media in the order of their messages. Its trainer drops what it cannot read without a word, so its
rules are checked first (`trainer_preflight`). Of a longer clip it reads the first 97 frames.

The form knows no spans: clips are cut out (H.264 yuv420p mp4, exact to the frame, of variable frame rate at a constant
one, named after the content of their video and the span, so that a second export writes nothing twice).
`account.jsonl` has one line for every accepted sample: where it went, how many seconds will be used, or why it was
left out.

Rows stream; memory does not grow with their number.
"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import ExitStack
from fractions import Fraction
from functools import lru_cache

import pyarrow as pa
from tqdm import tqdm

from . import storage
from .errors import InputError, ManifestError, MediaError
from .ids import digest, file_hash
from .manifest import Manifest, live
from .media import probe
from .messages import MAX_FRAMES, MIN_FRAMES, TRAINER_FPS
from .spans import image_size, read_steady
from .trainer_preflight import preflight
from .trainer_shards import Shards
from .video_writer import write_video

SCHEMA = pa.schema([
    ("inputs", pa.string()), ("images", pa.list_(pa.string())),
    ("videos", pa.list_(pa.struct([("video_path", pa.string()), ("duration", pa.float64()),
                                   ("crop_method", pa.string())]))),
])
ROWS_AT_ONCE = 512    # read at once while importing
FILES_KNOWN = 65_536  # hashes of videos that are kept: the clips of one film follow each other


def export_trainer(m: Manifest, output: str, *, quiet: bool = False) -> int:
    """One Parquet file for each task, data set and modality, the cut media, `data.yaml` and `account.jsonl`."""
    if m.stop.name != "samples":
        raise ManifestError(f"{m.path} is a {m.stop.name} table; the trainer's form is made of samples")
    reasons, num_long, cuts = Counter(), 0, _Cuts(output)
    with ExitStack() as stack:
        shards = Shards(output, SCHEMA, stack)
        account = stack.enter_context(storage.atomic_output(storage.join(output, "account.jsonl")))
        with tqdm(total=m.header["accepted"], desc="export", unit="sample", disable=quiet) as bar:
            for batch in m.batches():
                for row in live(batch).to_pylist():
                    line = _export_row(row, shards, cuts)
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


def _export_row(row: dict, shards: Shards, cuts: _Cuts) -> dict:
    """The row's line of the account, after it was handed to its file."""
    try:
        preflight(row)
        images = [_readable(path) for path in row["images"]]
        videos = [cuts.cut(item) for item in row["videos"]]
    except MediaError as error:
        return {"sample_id": row["sample_id"], "left_out": str(error)}
    where = shards.add(row, {"inputs": row["inputs"], "images": images, "videos": videos})
    used = [round(min(v["duration"], MAX_FRAMES / TRAINER_FPS), 4) for v in videos]
    return {"sample_id": row["sample_id"], **where, "used_s": used,
            "cut_short": any(v["duration"] * TRAINER_FPS > MAX_FRAMES for v in videos)}


def _readable(path: str) -> str:
    image_size(path)
    return storage.absolute(path)


class _Cuts:
    """The cut media below `output/media`."""

    def __init__(self, output: str):
        self._folder = storage.join(output, "media")
        self._content = lru_cache(FILES_KNOWN)(_content)

    def cut(self, item: dict) -> dict:
        """The span of a video as a file of its own, named after the content of the video and the span."""
        path, start = item["video_path"], item["start_s"] or 0.0
        end = item["end_s"] if item["end_s"] is not None else start + item["duration"]
        target = storage.join(self._folder, f"{digest(self._content(path), start, end)}.mp4")
        if not storage.exists(target):
            fps = Fraction(probe(path).fps or 25).limit_denominator(1001)
            write_video(target, read_steady(path, start, end, fps), fps=fps)
        seconds = probe(target).duration_s or 0.0
        if seconds * TRAINER_FPS < MIN_FRAMES:  # the span says more than the film holds
            raise MediaError(f"a video has fewer than {MIN_FRAMES} frames at {TRAINER_FPS:g} fps "
                             f"({MIN_FRAMES / TRAINER_FPS:.2f} s)")
        return {"video_path": storage.absolute(target), "duration": round(seconds, 6),
                "crop_method": item["crop_method"]}


def _content(path: str) -> str:
    try:
        return file_hash(path)
    except (OSError, InputError) as error:
        raise MediaError(f"cannot open {path}: {getattr(error, 'strerror', None) or error}") from None
