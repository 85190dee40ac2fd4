"""SAMPLES of four data sets with licences of every kind; the first of each is dropped."""

from __future__ import annotations

import json

import pyarrow as pa

from manifests.manifest import ManifestWriter
from manifests.messages import video_item
from manifests.schema import SAMPLES

SETS = {"inhouse-t2v": ("t2v", "MIT", 40, 5.0), "video-pairs": ("v2v", "CC BY 4.0", 60, 4.0),
        "pico-banana-400k": ("i2i", "CC BY-NC-ND 4.0", 20, 0.0), "vace-hq": ("v2v", None, 5, 6.1)}


def write_samples(folder: str) -> str:
    """A manifest in `folder`, which is returned."""
    rows = []
    for name, (task, licence, num, seconds) in SETS.items():
        for n in range(num):
            kinds = {"t2v": ["video_gen"], "v2v": ["video", "video_gen"], "i2i": ["image", "image_gen"]}[task]
            item = video_item("a.mp4", 0.0, seconds)
            rows.append({"sample_id": f"s-{len(rows):016x}", "task": task, "source_name": name, "licence": licence,
                         "inputs": json.dumps([{"type": k} for k in kinds]), "images": ["a.png"] * 2 if task == "i2i" else [],
                         "videos": [item] * len(kinds) if task != "i2i" else [], "split": "train", "weight": 1.0 + n % 2,
                         "issues": [], "num_attempts": 1, "drop_reason": "because" if n == 0 else None})
    with ManifestWriter(folder, SAMPLES, SAMPLES.schema) as writer:
        writer.append(pa.Table.from_pylist(rows, SAMPLES.schema))
        writer.commit(name="made", owners={})
    return folder
