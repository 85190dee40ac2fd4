"""The input of a run: a folder of videos, or a list of them, as VIDEOS rows.

A list is a CSV, JSONL or Parquet file with a column `path` (or `uri`, `url`, `video_path`);
relative paths count from the list's folder. `licence`, `source_url` and `consent` are
carried along to the samples, all further columns as JSON in `extra`.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from manifests import storage
from manifests.errors import InputError
from manifests.ids import digest, make_id, sampled_hash
from manifests.schema import RIGHTS, VIDEOS

LISTS = (".csv", ".jsonl", ".parquet")
PATH_NAMES = ("path", "uri", "url", "video_path", "video")
ALIASES = {"license": "licence", "source": "source_url"}
CARRIED = ("licence", "source_url", "consent")


def list_videos(source: str, *, leave_out: str | None = None, quiet: bool = False) -> pa.Table:
    """VIDEOS rows, sorted by relative path, one for every file that is there or listed.

    `leave_out` is an output folder that may lie inside the input folder.
    """
    if source.lower().endswith(LISTS):
        entries = list(_from_list(source))
    else:
        entries = list(_from_folder(source, leave_out))
    if not entries:
        raise InputError(f"{source} holds no files; name a folder with videos, or a {', '.join(LISTS)} list of them")
    rows, seen = [], Counter()
    for entry in tqdm(entries, desc="list", unit="file", disable=quiet or len(entries) < 1000):
        rows.append(_row(entry, seen))
    schema = pa.schema(VIDEOS.schema)
    return pa.Table.from_pylist(rows, schema).sort_by([("relative_path", "ascending"), ("video_id", "ascending")])


def fingerprint(videos: pa.Table) -> str:
    """Changes when a file comes, goes, changes its content, or its carried columns change."""
    names = ["video_id", *(f.name for f in RIGHTS)]
    return digest(videos.select(names).to_pylist())


def _row(entry: dict, seen: Counter) -> dict:
    path, num_bytes, content = entry["path"], None, "missing"
    try:
        filesystem, inner = storage.resolve(path)
        with filesystem.open_input_file(inner) as stream:
            num_bytes = stream.size()
            content = sampled_hash(stream, num_bytes)
    except (OSError, InputError):
        pass  # the scan tells in its row that there is no such file
    video_id = make_id("video", entry["relative_path"], content)
    seen[video_id] += 1
    if seen[video_id] > 1:  # listed twice: two rows, two ids
        video_id = make_id("video", entry["relative_path"], content, seen[video_id])
    return entry | {"video_id": video_id, "num_bytes": num_bytes, "issues": [], "num_attempts": 1}


def _from_folder(folder: str, leave_out: str | None) -> Iterator[dict]:
    if storage.is_uri(folder):
        for name, _ in storage.list_files(folder, recursive=True):
            yield {"path": storage.join(folder, name), "relative_path": name}
        return
    if not os.path.isdir(folder):
        what = "is a file" if os.path.exists(folder) else "does not exist"
        raise InputError(f"the input {folder} {what}; name a folder with videos, or a {', '.join(LISTS)} list")

    def refuse(error: OSError):
        raise InputError(f"cannot read the folder {error.filename}: {error.strerror}")

    hidden = os.path.realpath(leave_out) if leave_out else None
    for root, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(f for f in folders if os.path.realpath(os.path.join(root, f)) != hidden)
        for name in sorted(files):
            path = os.path.join(root, name)
            yield {"path": os.path.abspath(path), "relative_path": os.path.relpath(path, folder)}


def _from_list(file: str) -> Iterator[dict]:
    if not storage.exists(file):
        raise InputError(f"the input list {file} does not exist")
    for number, row in enumerate(_read_list(file), start=1):
        row = {ALIASES.get(k, k): v for k, v in row.items() if k is not None}
        name = next((n for n in PATH_NAMES if row.get(n)), None)
        if name is None:
            raise InputError(f"row {number} of {file} has none of the columns {', '.join(PATH_NAMES)}; "
                             f"it has {', '.join(row) or 'nothing'}")
        given = str(row.pop(name))
        inside = given if storage.is_uri(given) or os.path.isabs(given) else storage.join(os.path.dirname(file), given)
        extra = {k: v for k, v in row.items() if k not in CARRIED and v not in (None, "")}
        yield {"path": storage.absolute(inside), "relative_path": given,
               **{k: str(row[k]) for k in CARRIED if row.get(k) not in (None, "")},
               "extra": json.dumps(extra, sort_keys=True, ensure_ascii=False, default=str) if extra else None}


def _read_list(file: str) -> Iterator[dict]:
    try:
        if file.lower().endswith(".parquet"):
            filesystem, inner = storage.resolve(file)
            yield from pq.read_table(inner, filesystem=filesystem).to_pylist()
            return
        text = storage.read_bytes(file).decode("utf-8-sig")
        if file.lower().endswith(".csv"):
            yield from csv.DictReader(io.StringIO(text, newline=""))
            return
        for line in io.StringIO(text, newline=None):  # ends at newlines only: a JSON text may hold U+2028
            if line.strip():
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError("a line is not a JSON object")
                yield row
    except (ValueError, pa.ArrowInvalid) as error:
        raise InputError(f"cannot read the list {file}: {error}") from None
