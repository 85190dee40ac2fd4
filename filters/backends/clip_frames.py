"""CLIP embeddings of the frames of a clip and of texts, and the aesthetic head on top of them."""

from __future__ import annotations

from collections.abc import Sequence
from pickle import UnpicklingError

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file

from manifests.errors import BackendError

from .open_clip_model import load_open_clip


class ClipModel:
    """`frames` and `text` give embeddings of unit length."""

    def __init__(self, model: str, device: str = "auto"):
        self._model, self._preprocess, self._tokenizer = load_open_clip(model, device)
        self._device = next(self._model.parameters()).device
        self.version = f"open_clip {model}"

    @torch.inference_mode()
    def frames(self, bgr: Sequence[np.ndarray]) -> torch.Tensor:
        """`(N, dim)` float32 for N BGR frames `(y, x, 3)` uint8."""
        pictures = [self._preprocess(Image.fromarray(np.ascontiguousarray(image[..., ::-1]))) for image in bgr]
        return self._model.encode_image(torch.stack(pictures).to(self._device), normalize=True).float()

    @torch.inference_mode()
    def text(self, text: str) -> torch.Tensor:
        """`(dim,)` float32; a text longer than the model's context is cut by its tokenizer."""
        return self._model.encode_text(self._tokenizer([text]).to(self._device), normalize=True)[0].float()


class AestheticHead:
    """Linear layers on CLIP embeddings, as the LAION aesthetic predictors are published.

    The weights are a state dict of `weight` and `bias` (the linear predictor), or of numbered
    layers (`layers.0.weight`, … of the MLP: linear layers with dropout between them and no
    activation, so that they are applied one after the other). `.safetensors`, or a `.pth`
    that is read with `weights_only`.
    """

    def __init__(self, path: str, device: torch.device):
        try:
            state = load_file(path) if path.endswith(".safetensors") else torch.load(
                path, map_location="cpu", weights_only=True)
        except (OSError, SafetensorError, RuntimeError, ValueError, EOFError) as error:
            raise BackendError(f"cannot read the aesthetic head {path}: {error}") from None
        except UnpicklingError:  # a file that wants to run code
            raise BackendError(f"{path} holds more than tensors and is not read: store its weights as "
                               ".safetensors") from None
        names = sorted((n for n in state if n.endswith("weight")), key=_layer)
        if not names or state[names[-1]].shape[0] != 1:
            raise BackendError(f"{path} is no aesthetic head: it needs linear layers that end in one number, it has "
                               f"{', '.join(state) or 'nothing'}")
        self._layers = [(state[n].float().to(device), state[n[: -len('weight')] + "bias"].float().to(device))
                        for n in names]
        self.dim = self._layers[0][0].shape[1]

    @torch.inference_mode()
    def __call__(self, embeddings: torch.Tensor) -> torch.Tensor:
        """`(N,)` scores of `(N, dim)` embeddings of unit length."""
        for weight, bias in self._layers:
            embeddings = embeddings @ weight.T + bias
        return embeddings[:, 0]


def _layer(name: str) -> int:
    return next((int(part) for part in name.split(".") if part.isdigit()), 0)
