"""Pico-Banana-400K (Apple, arXiv 2510.19808): text-guided edits of Open Images photographs.

Layout after its README and its script map_openimage_url_to_local.py (github.com/apple/pico-banana-400k):
JSONL manifests beside the folders of pictures. Single turns: `open_image_input_url`, `text`,
`output_image` ("images/positive-edit/1.png"), `edit_type`, `summarized_text`, and `local_input_image` once
that script has mapped the addresses. Multi-turn: `files` (a list of `id` and `url`: original_input_image,
edit_turn1, …, final_image) and `metadata_edit_turn_prompts`; each turn becomes a pair of its own. Addresses
are not fetched: a source that was not downloaded is a dropped row. Preference rows, which pair a
good with a bad result, are read for the good one only.
"""

from __future__ import annotations

from collections.abc import Iterator

from manifests import storage
from manifests.errors import InputError

from .entries import Entry, base_of, find_tables, inside, records
from .row import Row

NAME = "pico-banana-400k"
LICENCE = "CC BY-NC-ND 4.0"  # README, section License; source images CC BY 2.0
WHY = "Apple's 400,000 edits of photographs; jsonl manifests and folders of pictures"

SOURCE_FOLDER = "openimage_source_images"


def entries(root: str, store=None) -> Iterator[Entry]:
    base = base_of(root)
    for file in find_tables(root, NAME, endings=(".jsonl",)):
        for row in records(file):
            if "metadata_edit_turn_prompts" in row:
                yield from _turns(row, base, file)
            else:
                yield _single(row, base, file)


def _single(row: Row, base: str, file: str) -> Entry:
    for name in ("text", "output_image"):
        if name not in row:
            raise InputError(f"{file} has no column {name!r}, so it is no manifest of {NAME}; it has {', '.join(row)}")
    address, target = row.text("open_image_input_url"), row.text("output_image")
    source = row.text("local_input_image") or _by_address(address)
    return Entry(source=inside(base, source) if source else None, target=inside(base, target) if target else None,
                 text=row.text("text"), edit=row.text("edit_type") or "", task="i2i", source_url=address,
                 extra={"summarized_text": row.text("summarized_text")})


def _turns(row: Row, base: str, file: str) -> Iterator[Entry]:
    if "files" not in row:
        raise InputError(f"{file} has no column 'files', so it is no multi-turn manifest of {NAME}")
    paths = {item.text("id"): item for item in row.objects("files")}
    first = paths.get("original_input_image") or Row({}, row.where)
    address = first.text("url")
    before = first.text("local_input_image") or _by_address(address)
    prompts = row.texts("metadata_edit_turn_prompts") or [None]  # without prompts the row stays, and is dropped
    for n, prompt in enumerate(prompts, start=1):
        item = paths.get(f"edit_turn{n}") or (paths.get("final_image") if n == len(prompts) else None)
        after = item.text("url") if item else None
        yield Entry(source=inside(base, before) if before else None, target=inside(base, after) if after else None,
                    text=prompt, task="i2i", edit="turn", source_url=address, extra={"turn": n})
        before = after


def _by_address(url: str | None) -> str | None:
    """Where a picture of this address lies when it was downloaded under its own name."""
    return storage.join(SOURCE_FOLDER, url.rsplit("/", 1)[-1]) if url else None
