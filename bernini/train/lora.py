"""Low-rank adapters in the experts (peft): few trained weights beside frozen ones.

An adapted linear is W + (alpha / rank)·B·A; B begins at zero. Adapters go out in diffusers' form,
and added into W as an ordinary model, which generation takes without peft.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from bernini.train.stages import TrainConfig
from manifests.errors import ConfigError

# Attention and feed-forward of every block.
TARGETS = r"blocks\.\d+\.(attn[12]\.(to_q|to_k|to_v|to_out\.0)|ffn\.net\.(0\.proj|2))"
A, B = ".lora_A.default.weight", ".lora_B.default.weight"


def adapt(expert: nn.Module, config: TrainConfig) -> nn.Module:
    """Puts adapters into an expert, in place; only they are trained. The same seed gives the same adapters."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise ConfigError("--lora-rank needs the package peft: pip install -e '.[train]'") from None
    expert.requires_grad_(False)
    torch.manual_seed(config.seed)
    settings = LoraConfig(r=config.lora_rank, lora_alpha=scale(config) * config.lora_rank, target_modules=TARGETS)
    return inject_adapter_in_model(settings, expert)


def scale(config: TrainConfig) -> float:
    """Factor of B·A."""
    return (config.lora_alpha or config.lora_rank) / config.lora_rank


def merged(
    tensors: Mapping[str, Tensor], base: Callable[[str], Tensor], factor: float
) -> dict[str, Tensor]:
    """Plain weights by name from trained tensors; adapters are added to the base weight that `base` gives."""
    out = {n: t for n, t in tensors.items() if not n.endswith((A, B))}
    for name in (n for n in tensors if n.endswith(A)):
        weight = name.removesuffix(A) + ".weight"
        update = tensors[name.removesuffix(A) + B].float() @ tensors[name].float()
        out[weight] = base(weight).float() + factor * update
    return out


def save_adapters(tensors: Mapping[str, Tensor], folder: Path, factor: float) -> None:
    """`pytorch_lora_weights.safetensors` of one expert, as diffusers' `load_lora_weights` wants it."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for name, tensor in tensors.items():
        if name.endswith((A, B)):
            # The factor goes into B, so that a reader without an alpha gets the same weights.
            value = tensor.float() * (factor if name.endswith(B) else 1.0)
            found[f"transformer.{name.replace('.default.weight', '.weight')}"] = value.contiguous()
    save_file(found, folder / "pytorch_lora_weights.safetensors", metadata={"format": "pt"})
