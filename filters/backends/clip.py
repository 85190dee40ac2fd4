"""CLIP's picture embedding through open_clip, the model of the paper's image pairs (section 3.1).

`model` is a folder in open_clip's own form, a name of its list such as ViT-L-14 with `weights`
(a tag, or a checkpoint file), or "hf-hub:owner/name".
"""

from __future__ import annotations

import numpy as np
import open_clip
import torch
from PIL import Image

from .open_clip_model import load_open_clip


class OpenClipEmbedder:
    def __init__(self, *, model: str = "ViT-L-14", weights: str = "", device: str = "auto"):
        self._model, self._preprocess, _ = load_open_clip(f"{model}/{weights}" if weights else model, device, half=True)
        first = next(self._model.visual.parameters())
        self._device, self._dtype = first.device, first.dtype
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
