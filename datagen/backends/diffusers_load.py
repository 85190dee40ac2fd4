"""Diffusers pipelines by id or folder: loaded once, safetensors only, on the device that is there."""

from __future__ import annotations

import torch

from manifests.errors import BackendError, ConfigError

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def load_pipeline(cls, model: str, *, device: str = "", dtype: str = "", offload: bool = False, **parts):
    """`cls.from_pretrained(model)` on `device` ("" = the GPU where there is one) in `dtype` ("" = bfloat16 there).

    `offload` keeps the parts in main memory until they are needed. Raises `BackendError` where
    the folder or id holds no such pipeline.
    """
    if dtype and dtype not in DTYPES:
        raise ConfigError(f"no dtype {dtype!r}; known: {', '.join(DTYPES)}")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    kind = DTYPES[dtype or ("bfloat16" if device.startswith("cuda") else "float32")]
    try:
        pipeline = cls.from_pretrained(model, torch_dtype=kind, use_safetensors=True, **parts)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BackendError(f"cannot load a {cls.__name__} from {model!r}: {reason[:300]}. Give the folder or id of a "
                           "diffusers pipeline with safetensors weights (model=...)") from None
    if offload:
        pipeline.enable_model_cpu_offload(device=device)
    else:
        pipeline.to(device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generator(seed: int) -> torch.Generator:
    """On the CPU, so that a seed means the same noise on every device."""
    return torch.Generator("cpu").manual_seed(seed)
