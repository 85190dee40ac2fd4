"""Frames → patches for the planner's vision tower (spec 3.3 and 3.8).

Through transformers' Qwen2-VL processors, limited to 3136…50176 pixels a frame (4 to 64 tokens a
temporal patch). Patches are float32 `[patches, 3·2·p·p]` with their grid (t, h, w).
"""

import numpy as np
import torch
from torch import Tensor

MIN_PIXELS, MAX_PIXELS = 3136, 50176


class Eye:
    """Image and video processor of a model folder."""

    def __init__(self, image_processor, video_processor):
        self.image_processor, self.video_processor = image_processor, video_processor

    @classmethod
    def of(cls, vision_config) -> "Eye":
        """Processors for a vision tower; only its patch sizes matter."""
        from transformers import Qwen2VLImageProcessor, Qwen2VLVideoProcessor

        sizes = dict(
            patch_size=vision_config.patch_size,
            temporal_patch_size=vision_config.temporal_patch_size,
            merge_size=vision_config.spatial_merge_size,
        )
        limits = {"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS}
        return cls(
            Qwen2VLImageProcessor(size=dict(limits), **sizes),
            Qwen2VLVideoProcessor(size=dict(limits), **sizes),
        )

    def image(self, frame: np.ndarray) -> tuple[Tensor, tuple[int, int, int]]:
        """One picture uint8 `[H, W, 3]`."""
        out = self.image_processor(images=[_channels_first(frame[None])[0]], return_tensors="pt")
        return out["pixel_values"], tuple(out["image_grid_thw"][0].tolist())

    def video(self, frames: np.ndarray) -> tuple[Tensor, tuple[int, int, int]]:
        """An even number of frames uint8 `[F, H, W, 3]`."""
        out = self.video_processor(
            videos=[_channels_first(frames)],
            do_sample_frames=False,
            cap_pixels_per_frame=False,
            return_tensors="pt",
        )
        return out["pixel_values_videos"], tuple(out["video_grid_thw"][0].tolist())


def _channels_first(frames: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
