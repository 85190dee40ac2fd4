"""A CSV, JSONL, JSON or Parquet list of pairs.

Columns: `target` and `prompt` must be there; `source`, `reference` (one path, or a list), `first_frame`,
`mask`, `task`, `edit`, `source_name`, `licence`, `source_url` may. Usual other names are understood.
All further columns are kept in `extra`. Relative paths count from the list's folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from manifests.errors import InputError

from .entries import Condition, Entry, base_of, find_tables, inside, records
from .row import Row

NAME, LICENCE = "table", None
WHY = "a csv, jsonl, json or parquet list of pairs"

NAMES = {
    "target": ("target", "target_path", "target_video_path", "target_video", "tgt", "output", "edited", "after",
               "edited_image", "edited_video", "output_image", "video", "video_path"),
    "source": ("source", "source_path", "source_video_path", "source_video", "src", "input", "original", "before",
               "input_image", "original_image", "source_image"),
    "prompt": ("prompt", "instruction", "caption", "text", "edit_prompt"),
    "reference": ("reference", "references", "reference_path", "ref", "ref_images"),
    "first_frame": ("first_frame", "edited_first_frame"), "mask": ("mask", "mask_path"), "task": ("task",),
    "edit": ("edit", "edit_type"), "source_name": ("source_name", "dataset"), "licence": ("licence", "license"),
    "source_url": ("source_url", "url"), "reasoning": ("reasoning",),
}


def entries(root: str, store=None) -> Iterator[Entry]:
    base = base_of(root)
    for file in find_tables(root, "a list of pairs"):
        for row in records(file):
            yield _entry(row, base, file)


def _entry(row: Row, base: str, file: str) -> Entry:
    found, used = {}, set()
    for role, names in NAMES.items():
        name = next((n for n in names if n in row), None)
        if name is None and role in ("target", "prompt"):
            raise InputError(f"{file} has no column for the {role}: name one {' or '.join(names[:3])}; it has "
                             f"{', '.join(map(str, row)) or 'nothing'}")
        if name is not None:
            used.add(name)
            found[role] = _list(row, name) if role == "reference" else row.text(name) or None
    paths = {role: inside(base, found[role]) if found.get(role) else None
             for role in ("target", "source", "first_frame", "mask")}
    conditions = [Condition("first_frame", paths["first_frame"])] if paths["first_frame"] else []
    conditions += [Condition("reference", inside(base, p)) for p in found.get("reference", ())]
    extra = {str(k): v for k, v in row.items() if k not in used and v not in (None, "")}
    return Entry(source=paths["source"], target=paths["target"], mask=paths["mask"], text=found.get("prompt"),
                 conditions=tuple(conditions), task=found.get("task") or "", edit=found.get("edit") or "",
                 source_name=found.get("source_name") or "", licence=found.get("licence"),
                 source_url=found.get("source_url"), reasoning=found.get("reasoning"), extra=extra)


def _list(row: Row, name: str) -> list[str]:
    """A list of paths, one path, or (in CSV) a JSON list."""
    value = row[name]
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            raise row.wrong(name, "a JSON list of paths") from None
    given = Row({name: [value] if isinstance(value, str) else value}, row.where).texts(name)
    return [path for path in given if path]
