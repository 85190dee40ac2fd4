"""Solvers of the flow: from a guided velocity at one noise level to the latent at the next.

UniPC is the released one (order 2, `bh2`, clean-sample prediction, lower order at the ends; Zhao
et al. 2023, "UniPC", algorithm 1 with B2(h) = e^h - 1); Euler is the simple one. Both work on
float32 latents; the coefficients are double precision numbers from the float32 sigma table.
"""

import math

import torch
from torch import Tensor

from bernini.errors import CaseError
from bernini.flow import Schedule, euler_schedule, unipc_schedule


class Euler:
    """`x_next = x + (sigma_next - sigma)·v`."""

    def __init__(self, schedule: Schedule):
        self.schedule, self.index = schedule, 0

    def step(self, velocity: Tensor, latent: Tensor) -> Tensor:
        """Latent at the next sigma; call once a step, in order."""
        sigma, following = self.schedule.sigmas[self.index : self.index + 2].tolist()
        self.index += 1
        return latent + (following - sigma) * velocity


class UniPC:
    """Predictor and corrector of order 2."""

    def __init__(self, schedule: Schedule):
        self.schedule, self.index = schedule, 0
        self._clean: list[Tensor] = []  # clean predictions of the last two steps
        self._start: Tensor | None = None  # latent from which the last step went
        self._order = 0

    def step(self, velocity: Tensor, latent: Tensor) -> Tensor:
        """Latent at the next sigma; call once a step, in order."""
        sigma = self._sigma(self.index)
        clean = latent - sigma * velocity
        if self._start is not None:
            latent = self._correct(clean)
        self._clean = [*self._clean[-1:], clean]
        self._order = min(2, len(self._clean), len(self.schedule) - self.index)
        self._start = latent
        result = self._predict(latent)
        self.index += 1
        return result

    def _sigma(self, index: int) -> float:
        return float(self.schedule.sigmas[index])

    def _log_ratio(self, index: int) -> float:
        """lambda = log(alpha / sigma) with alpha = 1 - sigma."""
        sigma = self._sigma(index)
        return math.log1p(-sigma) - math.log(sigma)

    def _predict(self, latent: Tensor) -> Tensor:
        following, clean = self._sigma(self.index + 1), self._clean[-1]
        if following == 0:  # h is infinite: the step ends on the clean prediction
            return clean
        h = self._log_ratio(self.index + 1) - self._log_ratio(self.index)
        growth = math.expm1(-h)
        result = following / self._sigma(self.index) * latent - (1 - following) * growth * clean
        if self._order == 2:
            result = result - (1 - following) * growth * 0.5 * self._slope(self.index, h)
        return result

    def _slope(self, index: int, h: float) -> Tensor:
        """Divided difference of the two clean predictions known before the step from `index`."""
        ratio = (self._log_ratio(index - 1) - self._log_ratio(index)) / h
        return (self._clean[-2] - self._clean[-1]) / ratio

    def _correct(self, clean: Tensor) -> Tensor:
        """The latent at the current sigma again, now that its own clean prediction is known."""
        here, before = self.index, self.index - 1
        sigma, h = self._sigma(here), self._log_ratio(here) - self._log_ratio(before)
        growth = math.expm1(-h)
        base = sigma / self._sigma(before) * self._start - (1 - sigma) * growth * self._clean[-1]
        new = clean - self._clean[-1]
        if self._order == 1:
            return base - (1 - sigma) * growth * 0.5 * new
        old_weight, new_weight = self._corrector_weights(before, h)
        return base - (1 - sigma) * growth * (old_weight * self._slope(before, h) + new_weight * new)

    def _corrector_weights(self, before: int, h: float) -> tuple[float, float]:
        """Solves the 2x2 order conditions of the corrector."""
        ratio = (self._log_ratio(before - 1) - self._log_ratio(before)) / h
        growth = math.expm1(-h)
        phi2 = growth / -h - 1
        phi3 = phi2 / -h - 0.5
        right = torch.tensor([phi2 / growth, 2 * phi3 / growth], dtype=torch.float64)
        left = torch.tensor([[1.0, 1.0], [ratio, 1.0]], dtype=torch.float64)
        return tuple(torch.linalg.solve(left, right).tolist())


SOLVERS = {"unipc": (UniPC, unipc_schedule), "euler": (Euler, euler_schedule)}


def solver_named(name: str, num_steps: int, shift: float) -> UniPC | Euler:
    """A fresh solver with its table of noise levels."""
    if name not in SOLVERS:
        raise CaseError(f"unknown solver {name!r}; known: {', '.join(SOLVERS)}")
    if num_steps < 1:
        raise CaseError(f"{num_steps} steps cannot denoise; give at least 1")
    make, schedule = SOLVERS[name]
    return make(schedule(num_steps, shift))
