"""Stand-ins for the pretrained encoders: a patch transform for the autoencoder, fixed word vectors for T5,
principal components for the vision tower. Closed form or fixed by a hash; nothing here is trained.

N clips, T frames, C latent channels, Y X latent height and width.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

PATCH_PX = 1  # with the renderer's own 2 x 2 patches one token covers 2 x 2 pixels, as in the prototype
GROUP = 4     # frames of a latent frame, after the first, which stands alone
# A channel's deviation is not taken below this share of the largest: full whitening would raise the
# faint texture channels to the weight of those that carry colour.
MIN_SPREAD = 0.25


def haar() -> Tensor:
    """Orthonormal two-level Haar transform of four frames, `[4, 4]`, mean first."""
    s, r = 0.5, 0.5**0.5
    return torch.tensor([[s, s, s, s], [s, s, -s, -s], [r, -r, 0, 0], [0, 0, r, -r]])


class PatchCodec:
    """Orthonormal transform of PATCH_PX x PATCH_PX pixel patches to principal axes, each brought near unit scale.

    With `temporal` four frames become one latent frame of four times the channels (causal Haar: the first
    frame stands alone), so that F = 4k + 1 frames give T = k + 1, as Wan's autoencoder does.
    """

    def __init__(self, clips: np.ndarray, *, temporal: bool = False):
        """Fits the axes on uint8 `[N, T, S, S, 3]`."""
        self.temporal = temporal
        self.num_channels = 3 * PATCH_PX**2 * (GROUP if temporal else 1)
        flat = rearrange(self._coefficients(clips), "n c t y x -> (n t y x) c").double()
        self.mean = flat.mean(0)
        values, self.axes = torch.linalg.eigh(torch.cov(flat.T))
        spread = values.clamp(min=0).sqrt()
        self.scale = spread.clamp(min=float(spread.max()) * MIN_SPREAD)

    def _coefficients(self, clips: np.ndarray) -> Tensor:
        x = torch.from_numpy(np.ascontiguousarray(clips)).float() / 127.5 - 1
        x = rearrange(x, "n t (y a) (x b) c -> n (a b c) t y x", a=PATCH_PX, b=PATCH_PX)
        if not self.temporal:
            return x
        first = torch.zeros(len(x), x.shape[1], GROUP, *x.shape[3:])
        first[:, :, 0] = x[:, :, 0] * GROUP**0.5  # the level of four equal frames
        groups = rearrange(x[:, :, 1:], "n c (t g) y x -> n c g t y x", g=GROUP)
        rest = torch.einsum("hg,ncgtyx->nchtyx", haar(), groups)
        return rearrange(torch.cat([first.unsqueeze(3), rest], 3), "n c g t y x -> n (c g) t y x")

    def encode_many(self, clips: np.ndarray) -> Tensor:
        """uint8 `[N, T, S, S, 3]` → float32 `[N, C, T', Y, X]`."""
        x = self._coefficients(clips).movedim(1, -1).double()
        return (((x - self.mean) @ self.axes) / self.scale).movedim(-1, 1).float()

    def decode_many(self, latents: Tensor) -> np.ndarray:
        """Inverse of `encode_many`, cut off to 0…255."""
        x = (latents.double().cpu().movedim(1, -1) * self.scale) @ self.axes.T + self.mean
        x = x.movedim(-1, 1).float()
        if self.temporal:
            groups = rearrange(x, "n (c g) t y x -> n c g t y x", g=GROUP)
            rest = torch.einsum("hg,nchtyx->ncgtyx", haar(), groups[:, :, :, 1:])
            first = groups[:, :, :1, 0] / GROUP**0.5
            x = torch.cat([first, rearrange(rest, "n c g t y x -> n c (t g) y x")], 2)
        x = rearrange(x, "n (a b c) t y x -> n t (y a) (x b) c", a=PATCH_PX, b=PATCH_PX)
        return ((x / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).numpy()

    def encode(self, frames: np.ndarray) -> Tensor:
        """uint8 `[F, S, S, 3]` → `[1, C, T, Y, X]`: the interface of `bernini.vae.Autoencoder`."""
        return self.encode_many(frames[None])

    def decode(self, latent: Tensor) -> np.ndarray:
        """`[1, C, T, Y, X]` → uint8 `[F, S, S, 3]`."""
        return self.decode_many(latent)[0]


class WordVectors:
    """One row a word: a vector of the word plus a vector of its place, both fixed by a hash.

    Call with a text: float32 `[words, width]`, the interface of `bernini.text.TextEncoder`.
    """

    def __init__(self, width: int = 64):
        self.width = width

    def __call__(self, text: str) -> Tensor:
        rows = [self._vector(f"word {w}") + self._vector(f"place {i}") for i, w in enumerate(text.split())]
        return torch.stack(rows) / 2**0.5

    def _vector(self, name: str) -> Tensor:
        seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
        return torch.from_numpy(np.random.default_rng(seed).standard_normal(self.width)).float()

    def table(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """Distinct prompts `[P, L, width]`, zero rows after the last word, and the row of each prompt `[N]`."""
        distinct = sorted(set(prompts))
        parts = [self(p) for p in distinct]
        index = {p: i for i, p in enumerate(distinct)}
        return (torch.nn.utils.rnn.pad_sequence(parts, batch_first=True),
                torch.tensor([index[p] for p in prompts]))


class PatchFeatures:
    """Features of 2 x 2 pixel patches on their principal axes, full whitening: the planner's target space.

    Another transform than the codec's, and never the judge's. float32 `[N, patches, V]`, raster order.
    """

    def __init__(self, pictures: np.ndarray, width: int = 12):
        flat = self._patches(pictures).flatten(0, 1)
        self.mean = flat.mean(0)
        values, axes = torch.linalg.eigh(torch.cov((flat - self.mean).T))
        self.axes = axes[:, -width:] / values[-width:].sqrt()

    @staticmethod
    def _patches(pictures: np.ndarray) -> Tensor:
        x = torch.from_numpy(np.ascontiguousarray(pictures)).double() / 127.5 - 1
        return rearrange(x, "n (y a) (x b) c -> n (y x) (a b c)", a=2, b=2)

    def __call__(self, pictures: np.ndarray) -> Tensor:
        """uint8 `[N, S, S, 3]` → `[N, (S/2)², V]`."""
        return ((self._patches(pictures) - self.mean) @ self.axes).float()
