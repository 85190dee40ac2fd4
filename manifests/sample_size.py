"""How long a sample is and how many tokens the renderer sees of it, without opening any media.

Tokens follow spec performance.md, B.0: Wan's VAE makes T' = (T - 1) / 4 + 1 latent frames of T
frames and an eighth of each side, the patch embedding halves the sides again, so that a stream
has T' * (H / 16) * (W / 16) tokens. The trainer reads 16 fps, 16 k + 1 frames, at most 97 (spec
model.md, 6); 480p is taken as 832 x 480, the area it scales pictures and videos to. Sources,
references and targets count alike. A text is padded to 512 T5 tokens.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from .messages import MAX_FRAMES, TRAINER_FPS

TEXT_TOKENS = 512
PICTURE_TOKENS = (480 // 16) * (832 // 16)  # 1,560 of one latent frame


def latent_frames(seconds: np.ndarray) -> np.ndarray:
    """int64: latent frames of videos of these lengths, as the trainer samples them (97 frames give 25)."""
    frames = np.minimum(np.round(seconds * TRAINER_FPS), MAX_FRAMES)
    return (np.maximum(frames - 1, 0) // 16 * 4 + 1).astype(np.int64)


def sample_tokens(images: pa.ChunkedArray, videos: pa.ChunkedArray) -> np.ndarray:
    """`(N,)` int64: tokens of SAMPLES rows, all streams and the text."""
    seconds, row = _durations(videos)
    streams = np.bincount(row, latent_frames(seconds), len(videos)).astype(np.int64)
    return (streams + _lengths(images)) * PICTURE_TOKENS + TEXT_TOKENS


def target_seconds(videos: pa.ChunkedArray, is_video: np.ndarray) -> np.ndarray:
    """`(N,)` float64: length of the last video of the rows whose target is one, 0 of the others."""
    seconds, row = _durations(videos)
    result = np.zeros(len(videos))
    result[row] = seconds  # of several the last one stays
    return np.where(is_video, result, 0.0)


def _durations(videos: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Lengths of all videos, and the row that each belongs to."""
    lengths, flat = _lengths(videos), videos.combine_chunks().flatten()
    seconds = flat.field("duration").to_numpy(zero_copy_only=False) if len(flat) else np.empty(0)
    return np.nan_to_num(seconds.astype(float)), np.repeat(np.arange(len(videos)), lengths)


def _lengths(lists: pa.ChunkedArray) -> np.ndarray:
    return np.nan_to_num(lists.combine_chunks().value_lengths().to_numpy(zero_copy_only=False)).astype(np.int64)
