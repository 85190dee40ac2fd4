"""A CLIP model of open_clip with its own preprocessing and tokenizer, from a folder or by name.

A folder holds `open_clip_config.json` and weights (`open_clip_model.safetensors` or
`open_clip_pytorch_model.bin`), as the hub stores them; its tokenizer is read from the same
folder where the configuration names one. A name is an architecture of open_clip's list with a tag
or a checkpoint file ("ViT-B-32/laion2b_s34b_b79k"), or "hf-hub:owner/name". Checkpoints are read as
safetensors or with `weights_only`.
"""

from __future__ import annotations

import os
from pickle import UnpicklingError

import open_clip
import torch

from manifests.errors import BackendError


def load_open_clip(model: str, device: str = "auto", *,
                   half: bool = False) -> tuple[torch.nn.Module, object, object]:
    """`(model, preprocess, tokenizer)`: the model in eval mode on `device` ("auto" = a GPU if there is one).

    `half` = float16 where that device is a GPU.
    """
    name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    folder, hub = os.path.isdir(model), model.startswith("hf-hub:")
    architecture, _, weights = (model, "", "") if folder or hub else model.partition("/")
    source = f"local-dir:{model}" if folder else architecture
    if not (folder or hub or weights):
        raise BackendError(f"the open_clip model {model!r} needs weights: name a tag (such as openai) or a checkpoint "
                           f"file as {model}/WEIGHTS (or with --frame-embedder-weights), or give a folder")
    try:
        network, preprocess = open_clip.create_model_from_pretrained(
            source, pretrained=weights or None, precision="fp16" if half and name != "cpu" else "fp32", device=name,
            weights_only=True)
        tokenizer = open_clip.get_tokenizer(source)
    except (OSError, ValueError, RuntimeError, KeyError, UnpicklingError) as error:
        raise BackendError(f"cannot load an open_clip model from {model!r}: {error}. Give a folder with "
                           "open_clip_config.json and the weights, or ARCHITECTURE/WEIGHTS") from None
    return network.eval(), preprocess, tokenizer
