"""OpenS2V-5M and its Top200K part (arXiv 2505.20292): subjects cut from a frame, and their video.

Layout after data_process/demo_dataloader.py of OpenS2V-Nexus and the dataset card of
BestWishYsh/OpenS2V-5M: JSON objects from a key to `metadata` (`path`, `crop` = [x0, x1, y0, y1] without
watermark, `face_cut` = first and last frame, `face_cap_qwen` = caption, `fps`) and `annotation`
(`mask_map` = class names, `ann_frame_data` = `ann_frame_idx` and `annotations` with a `bbox` each, inside
the crop). Videos lie in `videos/`, or in a folder of the JSON file's name, or beside it. The subjects
are cut out by their boxes (the masks are compressed run lengths and stay unread), and a target
whose crop is not the whole frame is written again without its watermark.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests import storage
from manifests.columns import map_rows, set_column
from manifests.errors import InputError, MediaError
from manifests.media import probe
from manifests.media_store import MediaStore
from manifests.messages import condition
from manifests.schema import PAIRS
from manifests.spans import read_frames, read_steady

from .entries import Entry, base_of, find_tables, inside, records
from .row import Row

NAME = "opens2v-top200k"
LICENCE = "CC-BY-4.0"  # dataset card
WHY = "subjects and their videos; json objects and parts of videos"
STAGES = ("pipelines.datasets.opens2v:CutSubjects",)

MIN_SUBJECT_PX = 64
MAX_SUBJECTS = 5


def entries(root: str, store=None) -> Iterator[Entry]:
    base = base_of(root)
    for file in find_tables(root, NAME, endings=(".json",)):
        part = file.rsplit("/", 1)[-1][: -len(".json")]
        places = [storage.join(base, name) for name in ("videos", part)]
        top = next((p for p in places if storage.exists(p)), base)
        for row in records(file, ("key", "metadata", "annotation")):
            yield _entry(row, top, file)


def _entry(row: Row, top: str, file: str) -> Entry:
    about, marks = row.object("metadata"), row.object("annotation")
    for name in ("path", "crop", "face_cut", "face_cap_qwen", "fps"):
        if name not in about:
            raise InputError(f"{file}: metadata of {row['key']!r} has no {name!r}, so it is not {NAME}; it has "
                             f"{', '.join(about)}")
    frame, names = marks.object("ann_frame_data"), marks.object("mask_map")
    if "ann_frame_idx" not in frame or "annotations" not in frame:
        raise InputError(f"{file}: annotation of {row['key']!r} has no ann_frame_data with ann_frame_idx and "
                         f"annotations, so it is not {NAME}")
    if (fps := about.number("fps")) <= 0:
        raise about.wrong("fps", "above 0")
    first, last = about.numbers("face_cut", 2)
    boxes = [{"name": names.object(str(n)).text("class_name"), "box": mark.numbers("bbox", 4)}
             for n, mark in enumerate(frame.objects("annotations"), start=1) if "bbox" in mark]
    path = about.text("path")
    return Entry(target=inside(top, path) if path else None, text=about.text("face_cap_qwen"), task="r2v",
                 edit="subjects", target_span=(first / fps, last / fps),
                 extra={"key": row["key"], "crop": about.numbers("crop", 4), "boxes": boxes,
                        "frame_s": int(frame.number("ann_frame_idx")) / fps})


class CutSubjects:
    """Candidates of this set → references as pictures, and the target without its watermark."""

    reads = ("target_path", "target_start_s", "target_end_s", "extra")
    adds = tuple(PAIRS.schema.field(n) for n in ("target_path", "target_start_s", "target_end_s", "conditions"))
    neutral = ("root",)

    def __init__(self, root: str):
        self._store = MediaStore(root)

    def __call__(self, table: pa.Table) -> pa.Table:
        made = map_rows(table, self, self._row)
        for field in self.adds[:3]:  # a row that failed keeps its film: what it lacks is a subject, not a target
            made = set_column(made, field, pc.coalesce(made[field.name], table[field.name]))
        return made

    def _row(self, row: dict) -> dict:
        about, path = json.loads(row["extra"]), row["target_path"]
        x0, x1, y0, y1 = (int(v) for v in about["crop"])
        if not path or not storage.exists(path):  # CheckMedia tells so
            return {f.name: row.get(f.name) for f in self.adds} | {"conditions": []}
        whole = read_frames(path, [about["frame_s"] + 1e-4], long_px=8192)[0]
        picture = whole[y0:y1, x0:x1]
        references = [condition("reference", self._store.image(cut)) for box in about.get("boxes", ())[:MAX_SUBJECTS]
                      if (cut := _cut(picture, box["box"])) is not None]
        if not references:
            raise MediaError(f"no subject of {path} is {MIN_SUBJECT_PX} px wide and high; "
                             f"{len(about.get('boxes', ()))} are annotated")
        if picture.shape == whole.shape:
            return {**{n: row[n] for n in self.reads[:3]}, "conditions": references}
        fps = probe(path).fps or 25
        frames = (frame[y0:y1, x0:x1]
                  for frame in read_steady(path, row["target_start_s"], row["target_end_s"], fps))
        video = self._store.video(frames, fps=fps)
        return {"target_path": video.path, "target_start_s": 0.0, "target_end_s": video.end_s,
                "conditions": references}


def _cut(picture: np.ndarray, box: list[float]) -> np.ndarray | None:
    x0, y0, x1, y1 = (max(0, int(v)) for v in box)
    cut = picture[y0 : y1 + 1, x0 : x1 + 1]
    return cut if min(cut.shape[:2], default=0) >= MIN_SUBJECT_PX else None
