"""UniREdit-Data-100K (arXiv 2511.01295): edits that need reasoning, with the chain of thought.

Layout after gen_train_json_and_parquet.py of github.com/Maplebb/UniREditBench: a JSON or JSONL list with
`instruction`, `reasoning`, `rules` (may be empty), `original_image_path` and `edited_image_path`, both relative
to the folder of the data. That script's own output is read as well (`before_image_path`,
`after_image_path`; Parquet or JSON). The reasoning comes along as a column, for D11.
"""

from __future__ import annotations

from collections.abc import Iterator

from manifests.errors import InputError

from .entries import Entry, base_of, find_tables, inside, records

NAME = "uniredit-100k"
LICENCE = "Apache-2.0"  # as lists of data sets state it; the card itself could not be read
WHY = "100,000 reasoning edits with chains of thought; a json list and folders of pictures"

PAIRS = (("original_image_path", "edited_image_path"), ("before_image_path", "after_image_path"))


def entries(root: str, store=None) -> Iterator[Entry]:
    base = base_of(root)
    for file in find_tables(root, NAME, endings=(".json", ".jsonl", ".parquet")):
        for row in records(file, ("instruction", "reasoning")):
            before, after = next(((b, a) for b, a in PAIRS if b in row and a in row), (None, None))
            if before is None:
                raise InputError(f"{file} has no columns {' and '.join(PAIRS[0])}, so it is not {NAME}; it has "
                                 f"{', '.join(row)}")
            rules, text, reasoning = ((row.text(n) or "").strip() for n in ("rules", "instruction", "reasoning"))
            source, target = row.text(before), row.text(after)
            yield Entry(source=inside(base, source) if source else None,
                        target=inside(base, target) if target else None, task="i2i", edit="reasoning",
                        text=f"{rules} {text}".strip() or None, reasoning=reasoning or None,
                        extra={k: row[k] for k in ("rules", "name", "idx", "category") if row.get(k)})
