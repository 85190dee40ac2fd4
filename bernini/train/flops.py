"""Work of a training step, for the utilisation of the hardware (performance.md, B.0).

Matrix products only, 2·m·n·k each. Self-attention counts every sequence of a pack by itself:
N² becomes the sum of nᵢ². Training is three forwards (the backward pass is two); recomputation is
not useful work and not counted.

N tokens of a pack, nᵢ of a sequence, Tᵢ its context rows, d width, f feed-forward width, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bernini.config import RendererConfig

TRAINING = 3.0  # forwards that one step costs
# Dense bfloat16 TFLOP/s that the makers state.
PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "H800": 989.0, "H20": 148.0, "A100": 312.0, "B200": 2250.0, "L40S": 362.0}


def renderer_flops(config: RendererConfig, lengths: Sequence[int], context_lengths: Sequence[int]) -> float:
    """One forward of a pack of the renderer, blocks only (all else is below 0.1 %)."""
    d, f = config.inner_dim, config.ffn_dim
    total = sum(lengths)
    blocks = 8 * total * d * d + 4 * d * sum(n * n for n in lengths)
    blocks += 4 * total * d * d + 4 * d * d * sum(context_lengths)
    blocks += 4 * d * sum(n * t for n, t in zip(lengths, context_lengths, strict=True))
    blocks += 4 * total * d * f
    return float(config.num_layers * blocks)


def peak_flops(device: torch.device) -> float | None:
    """Operations a second of a device at best, None when unknown (a CPU, another card)."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    found = [tflops for known, tflops in PEAK_TFLOPS.items() if known in name]
    return found[0] * 1e12 if found else None
