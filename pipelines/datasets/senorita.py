"""Señorita-2M (arXiv 2502.06734): video edits by specialised models.

Layout: the dataset card could not be read. The keys are those that scripts which evaluate the set
use (found by searching public code): JSON lists, some of them nested, whose rows hold
`source_video_path`, `target_video_path` ("./style_transfer/…"), `instruction` and `enhanced_instruction`; the
media of a category lie in a folder of its name, or of that name with "_upload". The enhanced
instruction is used where there is one. Categories of controllable generation (depth, edges, pose)
count as Table 1's Senorita-Controllable, all others as "senorita-editing", which no table
names and which therefore shares the group V2V by its number of samples.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from manifests import storage

from .entries import Entry, base_of, find_tables, inside, is_whole, records

NAME = "senorita-controllable"
LICENCE = "non-commercial"  # as a public catalogue of data sets states it; the card could not be read
WHY = "two million video edits; json lists and a folder of videos for each kind of edit"

EDITING = "senorita-editing"


def entries(root: str, store=None) -> Iterator[Entry]:
    base = base_of(root)
    folders = set(storage.list_folders(base))
    for file in find_tables(root, "senorita-2m", endings=(".json", ".jsonl")):
        for row in records(file, ("source_video_path", "target_video_path", "instruction")):
            target, instruction = row.text("target_video_path"), row.text("instruction")
            category = _category(base, (target or "").strip())
            yield Entry(source=_place(base, row.text("source_video_path"), folders),
                        target=_place(base, target, folders), task="v2v",
                        text=row.text("enhanced_instruction") or instruction, edit=category,
                        source_name=NAME if "control" in category else EDITING,
                        extra={"instruction": instruction})


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")] or [""]


def _category(base: str, path: str) -> str:
    """The first folder of a path; of one that is not below the list's folder that in which the file lies."""
    if not is_whole(path):
        return _parts(path)[0]
    below = path.removeprefix(f"{base}/")
    return _parts(below)[0] if below != path else _parts(posixpath.dirname(path))[-1]


def _place(base: str, path: str | None, folders: set[str]) -> str | None:
    if not path or is_whole(path.strip()):
        return inside(base, path) if path else None
    first, *rest = _parts(path)
    if first not in folders and f"{first}_upload" in folders:
        first = f"{first}_upload"
    return inside(base, "/".join([first, *rest]))
