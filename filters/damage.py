"""How much of a clip is damaged. The reader marks frames; this only counts them."""

from __future__ import annotations

import pyarrow as pa

from manifests.columns import column
from manifests.frames import ClipFrames


class MeasureDamage:
    backend = "classical"
    adds = (column("damaged_ratio", pa.float32(), "share of frames that are damaged or may depend on damage"),)

    def __call__(self, clip: ClipFrames) -> dict:
        return {"damaged_ratio": float(1.0 - clip.frame_clean.mean())}
