"""One global embedding a clip; `video_similarity` of a pair is the cosine of two of them.

Paper section 3.1: X-CLIP, pairs between 0.65 and 0.95. Backends: `xclip` and `classical`.
"""

from __future__ import annotations

from pkgutil import resolve_name

import numpy as np
import pyarrow as pa

from manifests.columns import column
from manifests.errors import ConfigError
from manifests.frames import ClipFrames

from .backends import EMBEDDERS

EMBEDDING = column("video_embedding", pa.list_(pa.float32()), "global video embedding of unit length")


class EmbedVideo:
    """`prepare` keeps what the model needs of a clip, `finish` embeds a batch of those."""

    adds = (EMBEDDING,)
    backend = "classical"

    def __init__(self, backend: str = "classical", batch_size: int = 16, **options: object):
        if backend not in EMBEDDERS and ":" not in backend:
            raise ConfigError(f"no embedder {backend!r}; known: {', '.join(EMBEDDERS)}, or 'module:Class'")
        self._embedder = resolve_name(EMBEDDERS.get(backend, backend))(**options)
        self.backend, self.batch_size = self._embedder.version, batch_size

    def prepare(self, clip: ClipFrames) -> np.ndarray:
        return self._embedder.prepare(clip)

    def finish(self, prepared: list[np.ndarray]) -> list[dict]:
        batches = [prepared[i : i + self.batch_size] for i in range(0, len(prepared), self.batch_size)]
        return [{EMBEDDING.name: row} for batch in batches for row in self._embedder.embed(batch)]
