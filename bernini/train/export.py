"""From a checkpoint to a model folder that `bernini generate` takes, in any released layout."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from bernini.convert import convert
from bernini.layouts import ModelFolder
from bernini.train.checkpoint import Saved
from bernini.train.lora import B, merged, save_adapters, scale
from bernini.train.stages import TrainConfig
from bernini.weights import Part, read_entries, read_tensors, save_sharded

DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def export(saved: Saved, model: ModelFolder, output: Path, layout: str, *, averaged: bool = True) -> None:
    """Writes the trained weights over those of `model`, in their dtype, as `layout` in a new folder.

    Adapters are added to their weights, and also stored by themselves under `lora/`.
    """
    config = TrainConfig(**{k: tuple(v) if k == "data" else v for k, v in saved.index["config"].items()})
    tensors = saved.whole("ema." if averaged else "model.")
    with tempfile.TemporaryDirectory(dir=output.parent if output.parent.is_dir() else None) as scratch:
        parts = dict(model.parts)
        for owner, own in by_owner(tensors).items():
            parts[owner] = trained_part(model.part(owner), own, config, Path(scratch) / owner)
        convert(replace(model, parts=parts), output, layout)
    for owner, own in by_owner(tensors).items():
        if any(n.endswith(B) for n in own):
            save_adapters(own, output / "lora" / owner, scale(config))


def by_owner(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """"high.blocks.0…" → {"high": {"blocks.0…": …}}."""
    out: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        owner, _, rest = name.partition(".")
        out.setdefault(owner, {})[rest] = tensor
    return out


def trained_part(part: Part, tensors: Mapping[str, Tensor], config: TrainConfig, scratch: Path) -> Part:
    """A part whose entries lead to the trained tensors where there are any."""
    stored = {module: name for name, module in part.names().items()}

    def base(name: str) -> Tensor:
        return next(t for _, t in read_tensors({name: part.entries[stored[name]]}))

    plain = merged(tensors, base, scale(config) if config.lora_rank else 1.0)
    kept = {stored[n]: t.to(DTYPES[part.entries[stored[n]].dtype]) for n, t in plain.items() if n in stored}
    save_sharded(kept.items(), scratch, "trained")
    return replace(part, entries={**part.entries, **read_entries(scratch)})
