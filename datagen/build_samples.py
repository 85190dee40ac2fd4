"""Accepted pairs become training samples (task v2v: source video + instruction → target video)."""

from __future__ import annotations

import pyarrow as pa

from manifests.columns import require
from manifests.ids import make_id
from manifests.manifest import live
from manifests.messages import count_tokens, edit_messages, video_item
from manifests.schema import RIGHTS, SAMPLES


class BuildSamples:
    """PAIRS → SAMPLES. The sample carries spans; `export --form trainer` cuts the clips out."""

    reads = ("pair_id", "video_id", "source_path", "source_start_s", "source_end_s", "target_path",
             "target_start_s", "target_end_s", "instruction", *(f.name for f in RIGHTS))
    makes = SAMPLES.schema

    def __init__(self, source_name: str):
        self.source_name = source_name

    def __call__(self, table: pa.Table) -> pa.Table:
        require(table, self.reads, "BuildSamples")
        rows = [self._sample(row) for row in live(table).select(list(self.reads)).to_pylist()]
        return pa.Table.from_pylist(rows, self.makes)

    def _sample(self, pair: dict) -> dict:
        sides = [video_item(pair[f"{s}_path"], pair[f"{s}_start_s"], pair[f"{s}_end_s"]) for s in ("source", "target")]
        return {
            "sample_id": make_id("sample", pair["pair_id"]), "task": "v2v", "source_name": self.source_name,
            "inputs": edit_messages(pair["instruction"]), "images": [], "videos": sides, "split": "train",
            "weight": 1.0, "num_prompt_tokens": count_tokens(pair["instruction"]), "pair_id": pair["pair_id"],
            "video_id": pair["video_id"], "issues": [], "num_attempts": 1, **{f.name: pair[f.name] for f in RIGHTS},
        }
