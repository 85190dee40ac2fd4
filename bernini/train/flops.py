"""Use of the hardware: operations of a step against the most that a device can do.

A pack brings the operations of one forward (`cost.CostModel`). Training is three forwards, the
backward pass being two; recomputation is not useful work and not counted.
"""

from __future__ import annotations

import torch

TRAINING = 3.0  # forwards that one step costs
# Dense bfloat16 TFLOP/s that the makers state.
PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "H800": 989.0, "H20": 148.0, "A100": 312.0, "B200": 2250.0, "L40S": 362.0}


def peak_flops(device: torch.device) -> float | None:
    """Operations a second of a device at best, None when unknown (a CPU, another card)."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    found = [tflops for known, tflops in PEAK_TFLOPS.items() if known in name]
    return found[0] * 1e12 if found else None
