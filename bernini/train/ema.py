"""Averaged weights (paper, Table 2: 0.999 to 0.9999 by stage), with a warm-up.

After step k (from 0) the decay is min(decay, (1 + k) / (10 + k)): short runs do not end with their
first weights. The average moves after the optimiser, in one fused call over all tensors.
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
    def update(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Moves towards the tensors."""
        now = [tensors[n].detach() for n in self.tensors]
        torch._foreach_lerp_(list(self.tensors.values()), now, 1.0 - self.decay_at(step))
