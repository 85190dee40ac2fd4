"""Accepted pairs become training samples: source, conditions, text and target as ordered messages."""

from __future__ import annotations

import pyarrow as pa

from manifests.columns import require
from manifests.errors import ManifestError
from manifests.ids import make_id
from manifests.manifest import live
from manifests.messages import count_tokens, input_kinds, pair_messages
from manifests.schema import RIGHTS, SAMPLES
from manifests.tasks import TASKS


class BuildSamples:
    """PAIRS → SAMPLES. The sample carries spans; `export --form trainer` cuts the clips out.

    `text` names the column with the instruction or caption, `reasoning` one with text that is
    to be learned before the target (D11), `intermediate` one with a picture that is to be made before it (D12).
    `source_name` is the data set's name in a mixture; empty = the
    pairs have a column of that name.
    """

    makes = SAMPLES.schema

    def __init__(self, source_name: str = "", *, text: str = "instruction", reasoning: str = "",
                 intermediate: str = ""):
        self.source_name, self.text, self.reasoning, self.intermediate = source_name, text, reasoning, intermediate
        self.reads = ("pair_id", "video_id", "task", "source_path", "source_start_s", "source_end_s", "target_path",
                      "target_start_s", "target_end_s", "conditions", text,
                      *(name for name in (reasoning, intermediate) if name), *([] if source_name else ["source_name"]),
                      *(f.name for f in RIGHTS))

    def __call__(self, table: pa.Table) -> pa.Table:
        require(table, self.reads, "BuildSamples")
        rows = [self._sample(row) for row in live(table).select(list(self.reads)).to_pylist()]
        return pa.Table.from_pylist(rows, self.makes)

    def _sample(self, pair: dict) -> dict:
        task = TASKS[pair["task"]]
        if not task.takes(input_kinds(pair)):
            raise ManifestError(f"pair {pair['pair_id']} has the inputs {input_kinds(pair)}, but its task {task.name} "
                                f"takes {task.inputs}")
        reasoning = pair[self.reasoning] if self.reasoning else None
        intermediate = pair[self.intermediate] if self.intermediate else None
        inputs, images, videos = pair_messages(pair, pair[self.text], reasoning=reasoning, intermediate=intermediate)
        return {
            "sample_id": make_id("sample", pair["pair_id"],
                                 *(name for name in (self.reasoning, self.intermediate) if name)),
            "task": pair["task"], "source_name": self.source_name or pair["source_name"], "inputs": inputs,
            "images": images, "videos": videos, "split": "train", "weight": 1.0,
            "num_prompt_tokens": count_tokens(pair[self.text]),
            "pair_id": pair["pair_id"], "video_id": pair["video_id"], "issues": [], "num_attempts": 1,
            **{f.name: pair[f.name] for f in RIGHTS},
        }
