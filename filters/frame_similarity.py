"""One embedding a frame; `frame_similarity` of a pair is the cosine of two of them.

Paper section 3.1, image pairs: CLIP, pairs between 0.75 and 0.95. Backends: `open_clip` and `classical`.
"""

from __future__ import annotations

from pkgutil import resolve_name

import numpy as np
import pyarrow as pa

from manifests.columns import column
from manifests.errors import ConfigError

from .backends import FRAME_EMBEDDERS

EMBEDDING = column("frame_embedding", pa.list_(pa.float32()), "embedding of the frame, of unit length")


class EmbedFrame:
    """`prepare` keeps what the model needs of a frame, `finish` embeds those in batches."""

    adds = (EMBEDDING,)

    def __init__(self, backend: str = "classical", batch_size: int = 32, **options: object):
        if backend not in FRAME_EMBEDDERS and ":" not in backend:
            raise ConfigError(f"no frame embedder {backend!r}; known: {', '.join(FRAME_EMBEDDERS)}, or 'module:Class'")
        self._embedder = resolve_name(FRAME_EMBEDDERS.get(backend, backend))(**options)
        self.backend, self.batch_size = self._embedder.version, batch_size

    def prepare(self, rgb: np.ndarray) -> np.ndarray:
        return self._embedder.prepare(rgb)

    def finish(self, prepared: list[np.ndarray]) -> list[np.ndarray]:
        batches = [prepared[i : i + self.batch_size] for i in range(0, len(prepared), self.batch_size)]
        return [row for batch in batches for row in self._embedder.embed(batch)]
