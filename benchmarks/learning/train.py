"""Flow-matching training of an arm, and Euler sampling: the same batches, noises and steps for every arm.

B samples of a batch, S sources, C T Y X latent channels, frames, height and width.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from bernini.flow import draw_uniform

from .arms import velocity


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How an arm is trained."""

    steps: int = 1200
    """Optimiser steps."""
    batch: int = 32
    """Samples of a step."""
    lr: float = 2e-3
    """Learning rate after the warm-up; falls to a tenth over the last fifth."""
    warmup: int = 50
    """Steps of the warm-up."""
    weight_decay: float = 0.01
    """AdamW's."""
    ema: float = 0.995
    """Most that the moving average keeps; it starts lower ((1 + step) / (10 + step))."""
    device: str = "cpu"
    """cpu or cuda."""


@dataclass(frozen=True, kw_only=True)
class Tensors:
    """A set as the model sees it: `sources [N, S, C, T, Y, X]`, `targets [N, C, T, Y, X]`, `texts [P, L, W]`
    of distinct prompts and `prompt [N]`, the row of each sample.
    """

    sources: Tensor
    targets: Tensor
    texts: Tensor
    prompt: Tensor

    def context(self, index: Tensor) -> Tensor:
        return self.texts[self.prompt[index]]


Contexts = Callable[[Tensor], Tensor]  # indices of samples [B] → context rows [B, L, W]


def train(model: nn.Module, data: Tensors, config: TrainConfig, seed: int, *, context: Contexts | None = None,
          log: Callable[[int, float], None] = lambda step, loss: None) -> tuple[nn.Module, float]:
    """`(moving average of the weights, CPU seconds)`. Everything drawn is a function of `seed` alone."""
    generator, began = torch.Generator().manual_seed(seed), time.process_time()
    device, context = config.device, context or data.context
    model.to(device).train()
    average = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), config.lr, betas=(0.9, 0.99), weight_decay=config.weight_decay)
    ids = [float(i + 1) for i in range(data.sources.shape[1])]
    for step in range(config.steps):
        for group in optimizer.param_groups:
            group["lr"] = config.lr * rate(step, config)
        index = torch.randint(len(data.targets), (config.batch,), generator=generator)
        noise = torch.randn(config.batch, *data.targets.shape[1:], generator=generator).to(device)
        sigma = draw_uniform("i2i", config.batch, generator).float().to(device)  # logit-normal(0.5, 1), Table 4
        loss = flow_loss(model, data.targets[index].to(device), data.sources[index].to(device),
                         context(index).to(device), ids, noise, sigma)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        follow(average, model, min(config.ema, (1 + step) / (10 + step)))
        if step % 50 == 49:
            log(step + 1, float(loss.detach()))
    return average.eval(), time.process_time() - began


def flow_loss(model: nn.Module, targets: Tensor, sources: Tensor, context: Tensor, ids: Sequence[float],
              noise: Tensor, sigma: Tensor) -> Tensor:
    """Mean square error of the velocity `noise - clean`."""
    s = sigma.view(-1, 1, 1, 1, 1)
    predicted = velocity(model, (1 - s) * targets + s * noise, sources, sigma * 1000, context, ids)
    return (predicted - tokens_of(noise - targets)).square().mean()


def tokens_of(latents: Tensor) -> Tensor:
    """`[B, C, T, Y, X]` → `[B, n, 4·C]` in the order of the renderer's output."""
    return rearrange(latents, "b c t (y p) (x q) -> b (t y x) (p q c)", p=2, q=2)


def latents_of(tokens: Tensor, thw: Sequence[int]) -> Tensor:
    """Inverse of `tokens_of`."""
    t, y, x = thw
    return rearrange(tokens, "b (t y x) (p q c) -> b c t (y p) (x q)", t=t, y=y // 2, x=x // 2, p=2, q=2)


def rate(step: int, config: TrainConfig) -> float:
    """Share of the learning rate: linear up, constant, linear down to a tenth over the last fifth."""
    left = (config.steps - step) / max(1.0, 0.2 * config.steps)
    return min(1.0, (step + 1) / config.warmup) * min(1.0, 0.1 + 0.9 * left)


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, keep: float) -> None:
    """One step of the moving average."""
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - keep)


@torch.no_grad()
def generate(model: nn.Module, data: Tensors, *, ids: Sequence[float], seed: int = 0, num_steps: int = 8,
             batch: int = 128, device: str = "cpu", context: Contexts | None = None) -> Tensor:
    """Latents `[N, C, T, Y, X]` of all samples by Euler steps from noise, no guidance."""
    context, out = context or data.context, []
    generator = torch.Generator().manual_seed(seed)
    sigmas = torch.linspace(1, 0, num_steps + 1).tolist()
    for start in range(0, len(data.targets), batch):
        index = torch.arange(start, min(start + batch, len(data.targets)))
        x = torch.randn(len(index), *data.targets.shape[1:], generator=generator).to(device)
        sources, rows = data.sources[index].to(device), context(index).to(device)
        for high, low in zip(sigmas, sigmas[1:], strict=False):
            timesteps = torch.full((len(index),), 1000 * high, device=device)
            v = latents_of(velocity(model, x, sources, timesteps, rows, ids), x.shape[2:])
            x = x + (low - high) * v
        out.append(x.cpu())
    return torch.cat(out)
