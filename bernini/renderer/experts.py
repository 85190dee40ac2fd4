"""Two noise experts and the switch between them (spec 2.3), and the constants of a clip.

The high-noise expert works down to `boundary` (0.875), the low-noise expert below it; a small
model has one expert for all. `Clip` keeps what does not change over the denoising steps: source
tokens, rotary factors, contexts and their keys and values, once for each expert and branch.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bernini.conditions import Sources
from bernini.renderer.transformer import Renderer, SequenceInputs, join

# Larger calls fill the device by themselves, and packing them loses: 10 % at 450 tokens on one core
# (benchmarks/model_guided_step.py); 2048 on a GPU is a guess from reports of others.
PACK_BELOW_TOKENS = {"cpu": 128, "cuda": 2048}


@dataclass(frozen=True)
class Branch:
    """What one forward sees: `sources` none, video, images or all; `context` negative, prompt or plan."""

    sources: str
    context: str


class Experts(nn.Module):
    """High- and low-noise renderer; `low` is None for a model of one expert."""

    def __init__(self, high: Renderer, low: Renderer | None = None, boundary: float = 0.875):
        super().__init__()
        self.high, self.low = high, low
        self.boundary = boundary if low is not None else 0.0

    def name_for(self, timestep: float) -> str:
        """ "high" or "low" for a timestep in 0…1000."""
        return "high" if timestep >= self.boundary * 1000 else "low"

    def __getitem__(self, name: str) -> Renderer:
        return self.high if name == "high" else self.low


class Clip:
    """Branch predictions of one clip through one expert, never the same one twice.

    `num_forwards` counts sequences that went through the transformer.
    """

    def __init__(
        self,
        renderer: Renderer,
        sources: Sources,
        contexts: Mapping[str, Tensor],
        latent_thw: tuple[int, int, int],
        *,
        pack: bool | None = None,
    ):
        self.renderer, self.sources, self.contexts = renderer, sources, contexts
        self.latent_thw, self.pack = latent_thw, pack
        self.num_forwards = self.num_calls = 0
        self._embedded: dict[int, Tensor] = {}
        self._context: dict[str, tuple] = {}
        self._inputs: dict[tuple, SequenceInputs] = {}

    def key(self, branch: Branch) -> tuple:
        """Equal for branches that see the same: visible sources with ids, and the context tensor."""
        return self.sources.visible(branch.sources), id(self.contexts[branch.context]), branch.context

    @torch.no_grad()
    def predict(self, latent: Tensor, timestep: Tensor, branches: Iterable[Branch]) -> dict[Branch, Tensor]:
        """Velocity `[1, C, T, Y, X]` float32 of each branch at a noisy `latent` of that shape."""
        branches = list(branches)
        distinct = {self._identity(b): b for b in reversed(branches)}
        target = self.renderer.embed(latent)
        inputs = {identity: self.inputs(b) for identity, b in distinct.items()}
        outputs = dict(zip(inputs, self._run(target, timestep, list(inputs.values())), strict=True))
        return {b: outputs[self._identity(b)] for b in branches}

    def _identity(self, branch: Branch) -> tuple:
        return self.key(branch)[:2]

    def _run(self, target: Tensor, timestep: Tensor, inputs: list[SequenceInputs]) -> list[Tensor]:
        packs = [inputs] if self._packs(len(target), inputs) else [[i] for i in inputs]
        tokens: list[Tensor] = []
        for pack in packs:
            times = timestep.reshape(1).expand(len(pack))
            tokens += self.renderer([target] * len(pack), times, pack)
        self.num_forwards += len(inputs)
        self.num_calls += len(packs)
        return [self.renderer.unpatch(t, self.latent_thw).float() for t in tokens]

    def _packs(self, num_target: int, inputs: list[SequenceInputs]) -> bool:
        if self.pack is not None:
            return self.pack
        limit = PACK_BELOW_TOKENS.get(self.renderer.proj_out.weight.device.type, 0)
        return max(len(i.sources) for i in inputs) + num_target < limit

    @torch.no_grad()
    def inputs(self, branch: Branch) -> SequenceInputs:
        """Constants of a branch, made once."""
        key = self._identity(branch)
        if key not in self._inputs:
            visible = self.sources.visible(branch.sources)
            context, keys_values = self._context_of(branch.context)
            self._inputs[key] = SequenceInputs(
                self._tokens(visible), self._rope(visible), context, keys_values
            )
        return self._inputs[key]

    def _tokens(self, visible) -> Tensor:
        for index, _ in visible:
            if index not in self._embedded:
                self._embedded[index] = self.renderer.embed(self.sources.items[index].latent)
        width = self.renderer.config.inner_dim
        empty = self.renderer.proj_out.weight.new_zeros(0, width, dtype=self.renderer.dtype)
        return join([self._embedded[i] for i, _ in visible]) if visible else empty

    def _rope(self, visible) -> Tensor:
        segments = [(tuple(self.sources.items[i].latent.shape[2:]), number) for i, number in visible]
        return self.renderer.rope([*segments, (self.latent_thw, 0.0)])

    def _context_of(self, name: str) -> tuple:
        if name not in self._context:
            context = self.renderer.embed_context(self.contexts[name])
            self._context[name] = context, self.renderer.keys_values(context)
        return self._context[name]
