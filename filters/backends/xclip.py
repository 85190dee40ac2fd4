"""X-CLIP's global video embedding (Ma et al. 2022), the model of paper section 3.1.

`model` is a folder or hub id of an `XCLIPModel` with its processor, such as
microsoft/xclip-base-patch32: 8 frames of 224 px, 512 dimensions.
"""

from __future__ import annotations

import numpy as np
import torch
import transformers
from transformers import AutoProcessor, XCLIPModel

from manifests.errors import BackendError
from manifests.frames import ClipFrames


class XClipEmbedder:
    def __init__(self, *, model: str = "microsoft/xclip-base-patch32", device: str = "auto"):
        name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        try:
            self._processor = AutoProcessor.from_pretrained(model)
            self._model = XCLIPModel.from_pretrained(model, dtype=torch.float16 if name == "cuda" else torch.float32)
        except (OSError, ValueError) as error:
            raise BackendError(f"cannot load an X-CLIP model from {model!r}: {error}. Give a folder that holds "
                               "config.json, the weights and the processor with --embedder-model") from None
        self._model = self._model.to(name).eval()
        self._num_frames = self._model.config.vision_config.num_frames
        self.dim = self._model.config.projection_dim
        self.version = f"{model} (transformers {transformers.__version__})"

    def prepare(self, clip: ClipFrames) -> np.ndarray:
        """`(num_frames, 3, 224, 224)` float32, normalised by the model's own processor."""
        frames = [np.ascontiguousarray(clip.bgr[i][..., ::-1]) for i in clip.spread(self._num_frames)]
        processor = getattr(self._processor, "video_processor", None) or self._processor.image_processor
        return np.asarray(processor(frames, return_tensors="np")["pixel_values"][0], np.float32)

    @torch.inference_mode()
    def embed(self, prepared: list[np.ndarray]) -> np.ndarray:
        pixels = torch.from_numpy(np.stack(prepared)).to(self._model.device, self._model.dtype)
        features = self._model.get_video_features(pixel_values=pixels)
        features = getattr(features, "pooler_output", features)  # a plain tensor before transformers 5
        return torch.nn.functional.normalize(features.float(), dim=-1).cpu().numpy()
