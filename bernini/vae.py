"""Pixels ↔ normalised latents (spec 2.5): Wan's 16-channel video autoencoder, in float32.

Pixels are `uint8 [F, H, W, 3]`; latents float32 `[1, C, T, Y, X]`, T = (F - 1) / 4 + 1, an eighth of
the size. The mode of the posterior is taken, and the stored mean and std put each channel to
unit scale.
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def resize(frames: np.ndarray, width: int, height: int) -> np.ndarray:
    """Bicubic with antialias on 8-bit pictures, as released; equal size is not touched."""
    if frames.shape[1:3] == (height, width):
        return frames
    pictures = [Image.fromarray(f).resize((width, height), Image.Resampling.BICUBIC) for f in frames]
    return np.stack([np.array(p) for p in pictures])


def to_pixels(frames: np.ndarray) -> Tensor:
    """uint8 `[F, H, W, 3]` → float32 `[1, 3, F, H, W]` in -1…1."""
    x = torch.from_numpy(np.ascontiguousarray(frames)).permute(3, 0, 1, 2).unsqueeze(0).float()
    return x / 127.5 - 1


def to_frames(pixels: Tensor) -> np.ndarray:
    """float `[1, 3, F, H, W]` in -1…1 → uint8 `[F, H, W, 3]`, cut off (not rounded) as released."""
    x = (pixels[0].float() / 2 + 0.5).clamp(0, 1) * 255
    return x.to(torch.uint8).permute(1, 2, 3, 0).cpu().numpy()


class Autoencoder:
    """A diffusers `AutoencoderKLWan` with its normalisation; `tile` works in pieces of the picture."""

    def __init__(self, model, tile: bool = False):
        self.model = model.eval().requires_grad_(False)
        if tile:
            self.model.enable_tiling()
        shape = (1, model.config.z_dim, 1, 1, 1)
        self.mean = torch.tensor(model.config.latents_mean).view(shape)
        self.std = torch.tensor(model.config.latents_std).view(shape)

    @property
    def _place(self) -> dict:
        return {"device": self.model.device, "dtype": self.model.dtype}

    @torch.no_grad()
    def encode(self, frames: np.ndarray) -> Tensor:
        """4k + 1 frames, sides in multiples of 16 → latent on the CPU."""
        posterior = self.model.encode(to_pixels(frames).to(**self._place)).latent_dist
        return (posterior.mode().float().cpu() - self.mean) / self.std

    @torch.no_grad()
    def decode(self, latent: Tensor) -> np.ndarray:
        """Latent → frames."""
        z = latent.float().cpu() * self.std + self.mean
        return to_frames(self.model.decode(z.to(**self._place), return_dict=False)[0])
