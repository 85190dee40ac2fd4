"""How pleasing a clip looks, by a model that was trained on people's ratings.

The LAION aesthetic predictors (Schuhmann et al. 2022): a linear layer or a small MLP on the CLIP
embedding of a picture, 1 to 10, fitted to human ratings. `model` is the open_clip model that
the head was trained on (ViT-L-14 of OpenAI for the published ones) and `head` the file of its
weights. There is no classical backend: no formula of colours and edges measures taste, so
without a model the score is null and the row says so.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from manifests.columns import column
from manifests.errors import BackendError
from manifests.frames import ClipFrames

NUM_FRAMES = 4


class MeasureAesthetics:
    backend = "open_clip"
    adds = (column("aesthetic_score", pa.float32(), "mean over frames of a LAION-style aesthetic predictor",
                   "1 to 10"),)

    def __init__(self, model: str = "", head: str = "", device: str = "auto"):
        self._model = self._head = None
        if not model and not head:
            return
        if not model or not head:
            raise BackendError("the aesthetic score needs both --clip-model (a folder of open_clip) and "
                               "--aesthetic-head (the predictor's weights)")
        from .backends.clip_frames import AestheticHead, ClipModel

        self._model = ClipModel(model, device)
        probe = self._model.frames([np.zeros((8, 8, 3), np.uint8)])
        self._head = AestheticHead(head, probe.device)
        if self._head.dim != probe.shape[1]:
            raise BackendError(f"the aesthetic head {head} takes {self._head.dim} numbers, {model} gives "
                               f"{probe.shape[1]}: it was trained on another CLIP model")

    def __call__(self, clip: ClipFrames) -> dict:
        if self._model is None:
            raise BackendError("no model was given: name --clip-model and --aesthetic-head")
        frames = [clip.bgr[i] for i in np.unique(clip.spread(NUM_FRAMES))]
        return {"aesthetic_score": float(self._head(self._model.frames(frames)).mean())}
