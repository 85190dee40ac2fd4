"""The encoders among the parts of a model, and fingerprints that tell whether features fit to a model."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import torch

from bernini.layouts import ModelFolder
from bernini.planner.model import new_keys
from bernini.weights import Part

LATENT, VIT, TEXT = "latent", "vit", "text"
PART_OF = {LATENT: "vae", VIT: "vision", TEXT: "text"}


def part(model: ModelFolder, name: str) -> Part:
    """A part of the model; "vision" is the planner's vision tower alone, so that its language model is not read."""
    if name != "vision":
        return model.part(name)
    planner = model.part("planner")
    names = {new: key for key, new in new_keys(planner.entries).items()}
    prefix = "mllm.model.visual."
    entries = {new.removeprefix(prefix): planner.entries[key] for new, key in names.items() if new.startswith(prefix)}
    return replace(planner, name="vision", config=planner.config["mllm"], entries=entries, make=_make_vision,
                   rename=None)


def _make_vision(config: dict):
    from transformers import Qwen2_5_VLConfig
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel

    return Qwen2_5_VisionTransformerPretrainedModel._from_config(Qwen2_5_VLConfig(**config).vision_config)


def fingerprints(model: ModelFolder, needs: tuple[str, ...]) -> dict[str, str]:
    """`{"vae": hash, "vision": hash, "text": hash}` of the encoders that these features need."""
    return {PART_OF[need]: fingerprint(part(model, PART_OF[need])) for need in needs}


def fingerprint(stored: Part) -> str:
    """Hash of a part's configuration and of the first row of every tensor: training moves them all.

    Reads little, so that a text encoder of 27 GB costs a second. The same weights in another dtype
    are another encoder: they give other bits.
    """
    from safetensors import safe_open

    digest = hashlib.blake2b(digest_size=8)
    config = {k: v for k, v in stored.config.items() if not k.startswith("_") and k != "transformers_version"}
    if stored.name == "vision":
        config = config["vision_config"]
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    for name in sorted(stored.entries):
        entry = stored.entries[name]
        with safe_open(entry.file, framework="pt") as file:
            view = file.get_slice(entry.key)
            values = view[:1] if entry.shape else file.get_tensor(entry.key)
        values = values.flatten()[:4096].contiguous()
        digest.update(f"{name} {list(entry.shape)} {entry.dtype}".encode())
        digest.update(values.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

