"""Does the text tell what is seen: CLIP cosine of a caption and the frames of a clip.

The text is embedded once and compared with every one of NUM_FRAMES frames; their mean is kept.
It needs a row's text beside its frames (`reads_text`), so it runs in `bernini measure` and not in
the first scan. There is no classical backend: without a model the value is null and the row says so.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from manifests.columns import column
from manifests.errors import BackendError
from manifests.frames import ClipFrames

NUM_FRAMES = 4


class MeasureTextSimilarity:
    backend = "open_clip"
    reads_text = True
    adds = (column("text_similarity", pa.float32(), "CLIP cosine of the text and the frames, their mean", "-1 to 1"),)

    def __init__(self, model: str = "", device: str = "auto"):
        self._model = None
        if model:
            from .backends.clip_frames import ClipModel

            self._model = ClipModel(model, device)

    def __call__(self, clip: ClipFrames, text: str | None = None) -> dict:
        if self._model is None:
            raise BackendError("no model was given: name --clip-model, a folder of open_clip")
        if not text:
            raise BackendError("there is no text to compare the frames with: name its column with --text-column")
        frames = self._model.frames([clip.bgr[i] for i in np.unique(clip.spread(NUM_FRAMES))])
        return {"text_similarity": float((frames @ self._model.text(text)).mean())}
