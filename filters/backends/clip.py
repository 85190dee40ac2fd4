"""CLIP's picture embedding through open_clip, the model of the paper's image pairs (section 3.1).

`model` is a folder in open_clip's own form (`open_clip_config.json` and the weights), a name of
its list such as ViT-L-14 with `weights` (a tag, or a checkpoint file), or "hf-hub:owner/name".
Checkpoints are read as safetensors or with `weights_only`.
"""

from __future__ import annotations

import os
from pickle import UnpicklingError

import numpy as np
import open_clip
import torch
from PIL import Image

from manifests.errors import BackendError


class OpenClipEmbedder:
    def __init__(self, *, model: str = "ViT-L-14", weights: str = "", device: str = "auto"):
        name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        folder = os.path.isdir(model)
        if not (folder or weights or model.startswith("hf-hub:")):
            raise BackendError(f"the open_clip model {model!r} needs weights: name a tag (such as openai) or "
                               "a checkpoint file with --frame-embedder-weights, or give a folder as the model")
        try:
            self._model, self._preprocess = open_clip.create_model_from_pretrained(
                f"local-dir:{model}" if folder else model, pretrained=None if folder else weights or None,
                precision="fp16" if name == "cuda" else "fp32", device=name)
        except (OSError, ValueError, RuntimeError, KeyError, UnpicklingError) as error:
            raise BackendError(f"cannot load an open_clip model from {model!r}: {error}. Give a folder that holds "
                               "open_clip_config.json and the weights with --frame-embedder-model") from None
        self._model.eval()
        self._device, self._dtype = name, torch.float16 if name == "cuda" else torch.float32
        self.dim = self._model.visual.output_dim
        self.version = f"{' '.join(filter(None, (model, weights)))} (open_clip {open_clip.__version__})"

    def prepare(self, rgb: np.ndarray) -> np.ndarray:
        """`(3, S, S)` float32, shrunk, cropped and normalised by the model's own preprocessing."""
        return self._preprocess(Image.fromarray(rgb)).numpy()

    @torch.inference_mode()
    def embed(self, prepared: list[np.ndarray]) -> np.ndarray:
        pixels = torch.from_numpy(np.stack(prepared)).to(self._device, self._dtype)
        features = self._model.encode_image(pixels)
        return torch.nn.functional.normalize(features.float(), dim=-1).cpu().numpy()
