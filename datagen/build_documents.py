"""DOCUMENTS become training samples: `interleaved` ones, and `understanding` ones of their questions.

In a web document texts and pictures are learned, but for pictures that stand before any text: nothing
leads to them. In a film the first key frame and the transitions are given, and each further frame
is learned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from manifests.columns import column
from manifests.ids import make_id
from manifests.manifest import live
from manifests.messages import count_tokens, document_messages
from manifests.schema import RIGHTS, SAMPLES

Parts = list[tuple[str, str]]  # (message type, text or path of a picture)


class BuildDocuments:
    """Accepted DOCUMENTS → SAMPLES. Web documents have `rewritten`, films `transitions`; `questions` may be there."""

    makes = pa.schema([*SAMPLES.fields, column("document_id", pa.string(), "the document it was made from"),
                       *(f for f in SAMPLES.schema if f.name not in {g.name for g in SAMPLES.fields})])

    def __init__(self, source_name: str):
        self.source_name = source_name

    def __call__(self, table: pa.Table) -> pa.Table:
        rows = [sample for row in live(table).to_pylist() for sample in self._samples(row)]
        return pa.Table.from_pylist(rows, self.makes)

    def _samples(self, row: dict) -> Iterator[dict]:
        parts = film_parts(row["images"], row["transitions"]) if "transitions" in row else web_parts(
            row["order"], row["rewritten"], row["images"])
        yield self._sample(row, "interleaved", parts, 0)
        for i, asked in enumerate(row.get("questions") or [], start=1):
            shown = [("image", path) for path in row["images"]]
            yield self._sample(row, "understanding", [*shown, ("text", asked["question"]),
                                                      ("cot_text", asked["answer"])], i)

    def _sample(self, row: dict, task: str, parts: Parts, number: int) -> dict:
        inputs, images = document_messages(parts)
        text = " ".join(value for kind, value in parts if kind in ("text", "cot_text"))
        return {"sample_id": make_id("sample", row["document_id"], task, number), "task": task,
                "source_name": self.source_name, "inputs": inputs, "images": images, "videos": [], "split": "train",
                "weight": 1.0, "num_prompt_tokens": count_tokens(text), "video_id": row["video_id"],
                "document_id": row["document_id"], "issues": [], "num_attempts": 1,
                **{f.name: row[f.name] for f in RIGHTS}}


def film_parts(images: Sequence[str], transitions: Sequence[str]) -> Parts:
    parts = [("image", images[0])]
    for text, image in zip(transitions, images[1:], strict=True):
        parts += [("text", text), ("image_gen", image)] if text else [("image_gen", image)]
    return parts


def web_parts(order: Sequence[str], texts: Sequence[str], images: Sequence[str]) -> Parts:
    """An empty text was left out by the rewriter."""
    parts, texts, images = [], iter(texts), iter(images)
    for kind in order:
        if kind == "image":
            led_to = any(k == "cot_text" for k, _ in parts)
            parts.append(("image_gen" if led_to else "image", next(images)))
        elif text := next(texts):
            parts.append(("cot_text", text))
    return parts
