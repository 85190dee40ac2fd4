"""A CLIP model of open_clip with its own preprocessing and tokenizer, from a folder or by name.

A folder holds `open_clip_config.json` and weights (`open_clip_model.safetensors` or
`open_clip_pytorch_model.bin`), as the hub stores them; its tokenizer is read from the same
folder where the configuration names one. A name is "ARCHITECTURE/PRETRAINED", such as
"ViT-B-32/laion2b_s34b_b79k", and asks the hub.
"""

from __future__ import annotations

import os

import open_clip
import torch

from manifests.errors import BackendError


def load_open_clip(folder_or_name: str, device: str = "auto") -> tuple[torch.nn.Module, object, object]:
    """`(model, preprocess, tokenizer)`: the model in eval mode on `device` ("auto" = a GPU if there is one)."""
    name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    try:
        if os.path.isdir(folder_or_name):
            source = f"local-dir:{folder_or_name}"
            model, preprocess = open_clip.create_model_from_pretrained(source, device=name, weights_only=True)
            tokenizer = open_clip.get_tokenizer(source)
        else:
            architecture, _, pretrained = folder_or_name.partition("/")
            model, preprocess = open_clip.create_model_from_pretrained(architecture, pretrained=pretrained or None,
                                                                       device=name, weights_only=True)
            tokenizer = open_clip.get_tokenizer(architecture)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise BackendError(f"cannot load an open_clip model from {folder_or_name!r}: {error}. Give a folder with "
                           "open_clip_config.json and the weights, or ARCHITECTURE/PRETRAINED") from None
    return model.eval(), preprocess, tokenizer
