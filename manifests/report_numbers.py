"""Which numbers of a manifest the report draws.

Pairs: the three distributions of the paper's Fig. 4. Other stops: their measures, those that
readers ask for first, then the remaining ones in the order of the table.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from .columns import doc_of
from .manifest import Manifest
from .report_charts import Histogram
from .report_rows import PAIR_STOPS, column_numbers, drop_codes, similarity_of, token_numbers

SIMILARITY_BANDS = {"video_similarity": (0.65, 0.95), "frame_similarity": (0.75, 0.95)}  # paper, section 3.1
DURATION_BAND = (2.0, 10.0)     # paper, section 3.1 (2)
MAX_CHARTS = 6
FIRST = ("decoded_s", "duration_s", "num_prompt_tokens", "sharpness")
LAST = ("fps", "width", "height", "num_frames", "num_frames_header", "num_frames_expected", "num_frames_decoded")
NO_MEASURE = ("num_attempts", "clip_index", "frame_index", "shot_index", "num_siblings", "start_s",
              "time_s", "neighbour_s", "end_s", "rotation_deg", "num_bytes")


def histograms(manifest: Manifest, rejects: Manifest | None) -> list[Histogram]:
    """`rejects` holds the rejected rows to outline: the manifest itself, or its parent."""
    if manifest.stop.name in PAIR_STOPS:
        return _figure_4(manifest, rejects)
    charts = []
    for field in _measures(manifest):
        split = _split(manifest, rejects, _column(field.name))
        if _varies(np.concatenate(split)):
            unit = doc_of(field)[1] or manifest.header.get("columns", {}).get(field.name, {}).get("unit", "")
            band = DURATION_BAND if (manifest.stop.name, field.name) == ("clips", "duration_s") else None
            charts.append(Histogram(field.name, unit or field.name, manifest.stop.name, *split, band=band,
                                    has_tails=True, is_count=pa.types.is_integer(field.type)))
        if len(charts) == MAX_CHARTS:
            break
    return charts


def _figure_4(manifest: Manifest, rejects: Manifest | None) -> list[Histogram]:
    charts = []
    if name := similarity_of(manifest.schema.names):
        split, band = _split(manifest, rejects, _column(name)), SIMILARITY_BANDS[name]
        charts.append(Histogram("Similarity", f"cosine of the {name.split('_')[0]} embeddings", "pairs", *split,
                                step=0.025, span=band, band=band))
    accepted = np.concatenate([_split(manifest, None, _column(f"{s}_duration_s"))[0] for s in ("source", "target")])
    if np.isfinite(accepted).any() or not manifest.num_rows:  # pictures have none
        charts.append(Histogram("Clip durations", "seconds, source and target clips", "clips", accepted, np.empty(0),
                                step=0.5, span=DURATION_BAND, band=DURATION_BAND))
    if token_numbers(manifest) is not None:
        accepted = _split(manifest, None, token_numbers)[0]
        charts.append(Histogram("Prompt tokens", "words and punctuation marks", "prompts", accepted, np.empty(0),
                                is_count=True))
    return charts


def _column(name: str) -> Callable[[Manifest], np.ndarray]:
    return lambda manifest: column_numbers(manifest, name)


def _split(manifest: Manifest, rejects: Manifest | None,
           read: Callable[[Manifest], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Values of the accepted rows, and of the rejected ones."""
    values, is_accepted = read(manifest), drop_codes(manifest).codes < 0
    if rejects is None:
        return values[is_accepted], np.empty(0)
    others = values[~is_accepted] if rejects is manifest else read(rejects)[drop_codes(rejects).codes >= 0]
    return values[is_accepted], others


def _measures(manifest: Manifest) -> list[pa.Field]:
    fields = {f.name: f for f in manifest.schema
              if (pa.types.is_floating(f.type) or pa.types.is_integer(f.type)) and f.name not in NO_MEASURE}
    order = [n for n in FIRST if n in fields] + [n for n in fields if n not in FIRST + LAST]
    order += [n for n in LAST if n in fields]
    return [fields[n] for n in order]


def _varies(values: np.ndarray) -> bool:
    """A column with one value only needs no picture."""
    values = values[np.isfinite(values)]
    return bool(len(values)) and values.min() < values.max()
