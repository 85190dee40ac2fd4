"""A model in another layout: tensors are streamed from file to file, never all in memory."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from bernini.errors import CheckpointError
from bernini.layouts import ModelFolder
from bernini.weights import Entries, read_tensors, save_sharded

DTYPES = {"keep": None, "bf16": torch.bfloat16, "fp32": torch.float32}
EXPERTS = (("high", "transformer"), ("low", "transformer_2"))


def convert(
    model: ModelFolder, output: Path, layout: str, *, dtype: str = "keep", planner: ModelFolder | None = None
) -> None:
    """Writes `model` to a new folder as "diffusers", "experts" or "full".

    To "full" a renderer needs the planner of a full model; from "full" the planner is left behind.
    """
    if output.exists() and any(output.iterdir()):
        raise CheckpointError(f"{output} is not empty; give a new folder")
    giver = model if model.has_planner else planner
    if layout == "full" and (giver is None or not giver.has_planner):
        raise CheckpointError("a full model needs a planner; give --planner with a folder of the full layout")
    if layout in ("full", "experts") and "low" not in model.parts:
        raise CheckpointError(f"{model.path} has one expert; only --to diffusers can hold it")
    kind = DTYPES[dtype]
    try:
        output.mkdir(parents=True, exist_ok=True)
        if layout == "diffusers":
            _to_diffusers(model, output, kind)
        elif layout == "experts":
            _to_experts(model, output, kind)
        else:
            _to_full(model, giver, output, kind)
    except OSError as error:
        raise CheckpointError(f"{output} could not be written ({error}); free some space and delete it first") from None


def _named(entries: Entries, prefix: str, dtype: torch.dtype | None) -> Iterator[tuple[str, Tensor]]:
    return ((prefix + name, tensor) for name, tensor in read_tensors(entries, dtype))


def _to_diffusers(model: ModelFolder, output: Path, dtype: torch.dtype | None) -> None:
    for name, folder in EXPERTS:
        if name in model.parts:
            part = model.part(name)
            _json(output / folder / "config.json", {"_class_name": "WanTransformer3DModel", **part.config})
            save_sharded(_named(part.entries, "", dtype), output / folder, "diffusion_pytorch_model")
    for name, folder, stem in (("text", "text_encoder", "model"), ("vae", "vae", "diffusion_pytorch_model")):
        part = model.part(name)
        _json(output / folder / "config.json", part.config)
        save_sharded(_named(part.entries, "", None), output / folder, stem)
    shutil.copytree(model.tokenizer, output / "tokenizer")
    _json(
        output / "config.json",
        {
            "model_type": "bernini_renderer",
            "switch_dit_boundary": model.boundary,
            "use_src_id_rotary_emb": True,
            "skip_transformer_2": "low" not in model.parts,
            "max_sequence_length": 512,
        },
    )


def _to_experts(model: ModelFolder, output: Path, dtype: torch.dtype | None) -> None:
    for name, folder in EXPERTS:
        entries = model.part(name).entries
        save_sharded(
            _named(entries, f"ema.diff_dec.{folder}.", dtype), output / f"bernini_renderer_{name}", "model"
        )
    _json(output / "config.json", {"model_type": "bernini_renderer", "switch_dit_boundary": model.boundary})


def _to_full(model: ModelFolder, giver: ModelFolder, output: Path, dtype: torch.dtype | None) -> None:
    def tensors() -> Iterator[tuple[str, Tensor]]:
        yield from _named(giver.part("planner").entries, "", dtype)
        yield from _named(model.part("high").entries, "diff_dec.transformer.", dtype)
        yield from _named(model.part("low").entries, "diff_dec_low.transformer_2.", dtype)

    save_sharded(tensors(), output / "bernini", "model")
    for name, folder in EXPERTS:
        _json(output / f"{folder}_config.json", model.part(name).config)
    _json(output / "config.json", {**giver.config, "switch_dit_boundary": model.boundary})
    for name, folder, stem in (
        ("text", "t5_text_encoder", "model"),
        ("vae", "vae", "diffusion_pytorch_model"),
    ):
        _json(output / folder / "config.json", model.part(name).config)
        save_sharded(_named(model.part(name).entries, "", None), output / folder, stem)
    shutil.copytree(giver.processor, output / "mllm", ignore=shutil.ignore_patterns("*.safetensors"))
    shutil.copytree(model.tokenizer, output / "t5_tokenizer")


def _json(path: Path, values: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=2))
