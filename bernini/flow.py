"""Noise levels of flow matching: `x_sigma = (1 - sigma)·x + sigma·noise`, timestep `1000·sigma`.

For the samplers, the planner's decoder and training. Two families exist in the release and
both are needed to reproduce it: the UniPC table in float32 (spec 4.4) and a linear table whose
values were rounded to bfloat16 (spec 3.4, 13.3), timesteps rounded on their own. Tables are made
on the CPU: another device rounds some entries differently.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

NUM_TRAIN_TIMESTEPS = 1000


@dataclass(frozen=True)
class Schedule:
    """`sigmas` has one entry more than `timesteps`: the last is where the last step ends."""

    sigmas: Tensor
    timesteps: Tensor

    def __len__(self) -> int:
        return len(self.timesteps)


def shift_sigmas(sigmas: Tensor, shift: float) -> Tensor:
    """Moves noise levels towards 1: `s·u / (1 + (s - 1)·u)`, any float dtype."""
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def unipc_schedule(num_steps: int, shift: float) -> Schedule:
    """Released table for UniPC: from 0.999 down, 0 at the end; timesteps cut to whole numbers."""
    u = 1 - torch.linspace(1, 1 / NUM_TRAIN_TIMESTEPS, num_steps + 1, dtype=torch.float64, device="cpu")
    sigmas = shift_sigmas(u.flip(0)[:-1], shift)
    timesteps = (sigmas * NUM_TRAIN_TIMESTEPS).to(torch.int64)
    return Schedule(torch.cat([sigmas, sigmas.new_zeros(1)]).float(), timesteps)


def linear_sigmas(
    num_steps: int,
    shift: float,
    *,
    sigma_min: float,
    sigma_max: float = 1.0,
    extra_step: bool,
    dtype: torch.dtype = torch.bfloat16,
) -> Tensor:
    """Shifted linear table `[num_steps]`; with `extra_step` the end point is left out."""
    count = num_steps + 1 if extra_step else num_steps
    u = torch.linspace(sigma_max, sigma_min, count, dtype=dtype, device="cpu")
    return shift_sigmas(u[:num_steps], shift)


def linear_schedule(
    num_steps: int, shift: float, *, sigma_min: float, extra_step: bool, dtype: torch.dtype = torch.bfloat16
) -> Schedule:
    """Linear table with 0 appended, as float32 numbers already rounded to `dtype`."""
    sigmas = linear_sigmas(num_steps, shift, sigma_min=sigma_min, extra_step=extra_step, dtype=dtype)
    timesteps = (sigmas * NUM_TRAIN_TIMESTEPS).float()
    return Schedule(torch.cat([sigmas.float(), sigmas.new_zeros(1).float()]), timesteps)


def euler_schedule(num_steps: int, shift: float) -> Schedule:
    """Released table for Euler: the last of its steps already stands at sigma 0 and does nothing."""
    return linear_schedule(num_steps, shift, sigma_min=0.0, extra_step=False)


DECODER_SIGMA_MIN = 0.003 / 1.002


def decoder_schedule(num_steps: int, shift: float = 2.0, dtype: torch.dtype = torch.bfloat16) -> Schedule:
    """Table of the planner's ViT decoder (spec 3.4): 5 steps give 1, .890625, .75, .5703125, .3359375."""
    return linear_schedule(num_steps, shift, sigma_min=DECODER_SIGMA_MIN, extra_step=True, dtype=dtype)


# Noise levels of renderer training (paper, equations 6 and 7; released recipe, spec 6).

TRAINING_SHIFT = {"t2i": 3.0, "t2v": 3.0, "i2i": 4.0, "r2i": 4.0, "r2v": 4.0}  # all others: 5
IMAGE_TASKS = ("t2i", "i2i", "r2i")


def training_table(shift: float) -> Schedule:
    """1000 noise levels from 1 down, rounded to bfloat16 as released, 0 appended."""
    return linear_schedule(1000, shift, sigma_min=0.0, extra_step=True)


def index_range(shift: float, lowest: float, highest: float) -> tuple[int, int]:
    """First and last row of a training table for an expert's interval of sigmas.

    By the nearest exact sigma: in the rounded table many rows lie equally near.
    """
    sigmas = linear_sigmas(1000, shift, sigma_min=0.0, extra_step=True, dtype=torch.float32)
    return int((sigmas - highest).abs().argmin()), int((sigmas - lowest).abs().argmin())


def draw_uniform(task: str, count: int, generator: torch.Generator) -> Tensor:
    """`count` numbers in 0…1 from the task's density: logit-normal(0.5, 1) for images, else mode(1.29)."""
    how = dict(generator=generator, dtype=torch.float64, device=generator.device)
    if task in IMAGE_TASKS:
        return torch.sigmoid(torch.randn(count, **how) + 0.5)
    r = torch.rand(count, **how)
    return 1 - r - 1.29 * (torch.cos(torch.pi / 2 * r).square() - 1 + r)


def bell_weights(schedule: Schedule) -> Tensor:
    """Bell-shaped weight of each row of a training table, mean 1; of the general flow-matching recipe."""
    timesteps, count = schedule.timesteps, len(schedule)
    bell = torch.exp(-2 * ((timesteps - count / 2) / count).square())
    bell = bell - bell.min()
    return bell * (count / bell.sum())
