"""`bernini export`: rows as csv or jsonl, or samples in the released trainer's own form (`trainer_form`)."""

from __future__ import annotations

import csv
import io
import json
import os

from . import storage
from .errors import ConfigError
from .manifest import Manifest, live

FORMS = ("csv", "jsonl", "trainer")


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
        from .trainer_form import export_trainer

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
