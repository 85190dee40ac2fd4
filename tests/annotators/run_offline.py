"""Runs some annotators with the offline engine; called with the Python that has vLLM.

    python run_offline.py MODEL VIDEO FOLDER        prints one JSON line
"""

from __future__ import annotations

import json
import sys

from annotators import serve_check
from annotators.backends import ChatRequest, open_backend
from annotators.parsing import YES_NO, obj

ENGINE = {"enforce_eager": True, "dtype": "bfloat16", "max_num_seqs": 8, "distributed_executor_backend": "uni"}


def main(model: str, video: str, folder: str) -> None:
    backend = open_backend("vllm", model=model, name="tiny", batch=2, max_model_len=8192, engine=ENGINE,
                           cache=folder + "/cache")
    rows, valid, issues = serve_check.sample_table(folder, video), [], []
    for name in ("people", "instruction", "judge"):
        op = serve_check.open_annotator(name, folder, num_frames=2)
        op.backend = backend  # one engine for all: a second one would need its memory
        op.reads, op.adds = op.contract("vllm")
        row = op(rows).to_pylist()[0]
        issues.append(row["issues"])
        if row[op.question.adds[0].name] is not None and row[f"{op.question.name}_model"] == "tiny":
            valid.append(name)
    schema = obj(a=YES_NO)
    several = [ChatRequest(parts=(f"question {i}",), schema=schema) for i in range(5)]
    several.insert(2, ChatRequest(parts=("word " * 20_000,), schema=schema))
    first, again = backend.ask(several), backend.ask(several)
    assert [a.error is None for a in first] == [True, True, False, True, True, True], first
    assert [a.text for a in first] == [a.text for a in again] and again[0].latency_s is None
    print(json.dumps({"valid": valid, "issues": issues}))


if __name__ == "__main__":
    main(*sys.argv[1:])
