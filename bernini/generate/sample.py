"""The denoising loop: noise in, clean latent out (spec 4; paper, section 4.2).

One loop for the renderer alone and for planner + renderer: they differ in the guidance mode and
in the contexts they pass. Numbers that depend only on the clip are made once, and no branch is
computed twice (`renderer.experts.Clip`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bernini.conditions import Sources
from bernini.generate.guidance import Mix, Mode, Omegas, Projection, StepState, branches, guide
from bernini.generate.solver import Euler, UniPC
from bernini.renderer.experts import Clip, Experts


@dataclass(frozen=True)
class StepDone:
    """What a listener learns after each step."""

    index: int
    total: int
    expert: str
    velocity: Tensor
    latent: Tensor


@dataclass
class Denoiser:
    """Settings of a loop; `contexts` maps negative, prompt and (with planner) plan to `[1, L, text_dim]`."""

    experts: Experts
    mode: Mode | Mix
    omegas: Omegas
    omega_scale: float = 1.0
    projection: Projection = field(default_factory=Projection)
    pack: bool | None = None  # None: pack the branches of a step when they are short
    on_step: Callable[[StepDone], None] | None = None
    num_forwards: int = 0

    def __call__(
        self, noise: Tensor, sources: Sources, contexts: Mapping[str, Tensor], solver: UniPC | Euler
    ) -> Tensor:
        """Clean latent `[1, C, T, Y, X]` float32 from `noise` of that shape."""
        latent, omegas, clip, expert = noise.float(), self.omegas, None, ""
        running: dict[int, Tensor] = {}
        for index, timestep in enumerate(solver.schedule.timesteps):
            name = self.experts.name_for(float(timestep))
            if name != expert:
                omegas = self.omegas.scaled(self.omega_scale) if name == "low" else omegas
                clip = None  # lets the expert before go, which may have to make room
                clip, expert = self._clip(name, sources, contexts, tuple(noise.shape[2:])), name
            state = StepState(latent, float(solver.schedule.sigmas[index]), self.projection, running)
            velocity = self._velocity(clip, timestep, omegas, state)
            latent = solver.step(velocity, latent)
            if self.on_step is not None:
                self.on_step(StepDone(index, len(solver.schedule), name, velocity, latent))
        return latent

    def _clip(self, name: str, sources: Sources, contexts: Mapping[str, Tensor], latent_thw) -> Clip:
        return Clip(self.experts[name], sources, contexts, latent_thw, pack=self.pack)

    def _velocity(self, clip: Clip, timestep: Tensor, omegas: Omegas, state: StepState) -> Tensor:
        before = clip.num_forwards
        predictions = clip.predict(state.latent, timestep, branches(self.mode, omegas, state.sigma))
        self.num_forwards += clip.num_forwards - before
        return guide(self.mode, omegas, predictions, state)


def initial_noise(latent_thw: tuple[int, int, int], seed: int, channels: int = 16) -> Tensor:
    """Released start: float32 normal numbers of a CPU generator, so every machine gets the same clip."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(1, channels, *latent_thw, generator=generator, device="cpu")
