"""A finished LATENTS manifest of random features, written through the real store: no encoder runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from manifests.features import Feature, write_features, write_text
from manifests.ids import digest, make_id
from manifests.manifest import Manifest, ManifestWriter
from manifests.messages import video_item
from manifests.schema import LATENTS

ENCODERS = {"vae": "aaaa", "vision": "bbbb", "text": "cccc"}
MEDIA = {"t2i": ("image_gen",), "v2v": ("video", "video_gen"), "vr2v": ("video", "image", "video_gen"),
         "r2i": ("image", "image_gen"), "interleaved": ("image", "image_gen"),
         "understanding": ("video",)}


def write_latents(folder: Path, tasks: dict[tuple[str, str], int], *, name: str = "a", seed: int = 0,
                  frames: tuple[int, int] = (1, 6), encoders: dict | None = None, stage: str = "III",
                  widths: tuple[int, int] = (8, 8)) -> Manifest:
    """`tasks` maps `(source_name, task)` to a number of samples; videos get `frames` latent frames, by chance.

    `widths` of ViT features and text embeddings.
    """
    rng, rows, root = np.random.default_rng(seed), [], str(folder / "features")
    for (source, task), num in tasks.items():
        for i in range(num):
            rows.append(_row(root, rng, name, source, task, i, frames, widths))
    path = str(folder / "latents" / f"encode-{name}")
    with ManifestWriter(path, LATENTS, LATENTS.schema) as writer:
        writer.append(pa.Table.from_pylist(rows, LATENTS.schema))
        return writer.commit(name="encode", row=LATENTS.row, parents=[], config={"stage": stage}, versions={},
                             encoders=ENCODERS if encoders is None else encoders, feature_folder="../../features")


def bits(rng, *shape: int) -> np.ndarray:
    """Random finite bfloat16 values as their bits."""
    return (rng.standard_normal(shape).astype("<f4").view("<u4") >> 16).astype("<u2")


def _row(root, rng, name, source, task, i, frames, widths) -> dict:
    visuals, tensors, messages = [], [], []
    for n, kind in enumerate(MEDIA[task]):
        video = kind.startswith("video")
        t = int(rng.integers(*frames)) if video else 1
        visuals.append({"kind": "video" if video else "image", "is_target": kind.endswith("_gen"),
                        "num_latent_tokens": t * 2 * 2, "num_vit_tokens": 4 * t, "grid": [t, 4, 4]})
        tensors += [Feature(name="latent", visual=n, data=bits(rng, 16, t, 4, 4)),
                    Feature(name="vit", visual=n, data=bits(rng, 4 * t, widths[0]))]
        messages.append({"type": kind, "has_loss": int(kind.endswith("_gen"))})
    text = f"prompt {i % 3}"
    messages.insert(len(messages) - 1, {"type": "text", "text": text, "has_loss": 0})
    if task == "understanding" or source == "reasoning-text":  # a text to be learned: at the end, or before the target
        messages.insert(len(messages) - (task != "understanding"), {"type": "cot_text", "text": "because", "has_loss": 1})
    texts = [write_text(root, digest(t, length=32), Feature(name=n, visual=None, data=bits(np.random.default_rng(7), k, widths[1])))
             for n, t, k in (("text", text, 5), ("empty_text", "", 2))]
    (entries,) = write_features(root, [tensors])
    return {"sample_id": make_id("sample", name, source, task, i), "task": task, "source_name": source,
            "inputs": json.dumps(messages), "images": [f"/raw/{i}.png" for k in MEDIA[task] if k.startswith("image")],
            "videos": [video_item(f"/raw/{i}.mp4", 0.0, 2.0) for k in MEDIA[task] if k.startswith("video")], "split": "train", "weight": 1.0,
            "visuals": visuals, "num_text_tokens": 5, "num_empty_text_tokens": 2, "num_planner_text_tokens": 6,
            "features": [*entries, *texts], "issues": [], "num_attempts": 1}
