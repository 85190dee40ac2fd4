"""Averaged weights (paper, Table 2: 0.999 to 0.9999 by stage), with a warm-up.

After step k (from 0) the decay is min(decay, (1 + k) / (10 + k)): short runs do not end with their
first weights. The average moves after the optimiser, and stays where the optimiser cancelled its step.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Average:
    """Float32 averages of tensors by name."""

    def __init__(self, tensors: Mapping[str, Tensor], decay: float):
        self.decay = decay
        self.tensors = {n: t.detach().clone() for n, t in tensors.items()}

    def decay_at(self, step: int) -> float:
        """Decay after optimiser step `step`, counted from 0."""
        return min(self.decay, (1 + step) / (10 + step))

    @torch.no_grad()
    def update(self, tensors: Mapping[str, Tensor], step: int, taken: Tensor | None = None) -> None:
        """Moves towards the tensors; not where `taken`, a number on their device, is 0 instead of 1."""
        weight: Tensor | float = 1.0 - self.decay_at(step)
        if taken is not None:
            weight = weight * taken.to(next(iter(self.tensors.values())).dtype)
        # Tensor by tensor: the fused call takes no weight from the device, and to ask the device for it would wait.
        for name, average in self.tensors.items():
            average.lerp_(tensors[name].detach(), weight)
