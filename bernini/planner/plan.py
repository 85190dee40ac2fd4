"""Planning: the target's visual features from all masked to all known (paper, sections 2.1.1 and 4.2).

In K steps, tokens leave the mask in a random order on a cosine schedule; those that leave are
decoded from noise under guidance of three branches, and written into all of them.

The released loop runs 3K + 2 whole passes. Here every branch computes its prefix once, each step
runs only the n target tokens (three branches packed, equal branches once), and the last layer is
never run. Results are the same up to float order.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bernini.planner.chat import Chat, positions
from bernini.planner.model import Planner, Prefix

NoiseSource = Callable[[int], Tensor]  # number of tokens → standard normal `[n, V]`


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """Defaults are the paper's (25 steps, 5 decoder steps, scales 1.2 and 1.0)."""

    num_steps: int = 25
    decoder_steps: int = 5
    source_guidance: float = 1.2  # released as vit_txt_cfg, though it scales the sources' increment
    prompt_guidance: float = 1.0  # released as vit_img_cfg, though it scales the prompt's increment
    skip_lone_index0: bool = False  # a fault of the release: a step that predicts only token 0 is skipped


@dataclass
class Plan:
    """Result: `target [n, V]` and the contexts for the renderer `[rows, context_dim]`."""

    target: Tensor
    with_target: Tensor  # prompt, sources and planned target
    without_target: Tensor  # prompt and sources
    unconditional: Tensor  # negative prompt alone
    hidden: dict[str, Tensor] = field(default_factory=dict)  # final states of each branch, in chat order
    num_prefix_passes: int = 0
    num_target_passes: int = 0


def still_masked(num_tokens: int, num_steps: int) -> list[int]:
    """Number of masked tokens after each step: cosine schedule, at least one fewer a step where possible."""
    left, out = num_tokens, []
    for step in range(num_steps):
        ratio = math.cos(math.pi / 2 * (step + 1) / num_steps)
        left = 0 if step == num_steps - 1 else max(1, min(left - 1, math.floor(num_tokens * ratio)))
        out.append(left)
    return out


def leaving(order: Sequence[int], num_steps: int) -> Iterator[list[int]]:
    """Token indices (rising) that leave the mask at each step; the first ones of `order` leave last."""
    before = len(order)
    for after in still_masked(len(order), num_steps):
        yield sorted(order[after:before])
        before = after


@dataclass
class BranchState:
    """One branch while the target is planned."""

    chat: Chat
    prefix: Prefix
    rotary: tuple[Tensor, Tensor]  # of the target tokens


class Planning:
    """Plans one request; keep it for one use.

    `chats` has "cond", and "nothing" (negative prompt, no sources) and "prompt_only" for guidance;
    equal chats are computed once.
    """

    def __init__(
        self, planner: Planner, chats: Mapping[str, Chat], features: Sequence[Tensor], settings: PlanSettings
    ):
        self.planner, self.settings = planner, settings
        self.num_prefix_passes = self.num_target_passes = 0
        self._same = {name: self._first_equal(chats, name) for name in chats}
        self.branches = {
            name: self._begin(chats[name], features) for name in dict.fromkeys(self._same.values())
        }
        cond = chats["cond"]
        self.x = planner.embed(cond, features)[cond.target].detach()

    @staticmethod
    def _first_equal(chats: Mapping[str, Chat], name: str) -> str:
        """The first branch that is the same as `name`."""

        def same(a: Chat, b: Chat) -> bool:
            return a.visuals == b.visuals and torch.equal(a.ids, b.ids)

        return next(other for other in chats if same(chats[other], chats[name]))

    @torch.no_grad()
    def _begin(self, chat: Chat, features: Sequence[Tensor]) -> BranchState:
        planner = self.planner
        prefix = planner.prefix(chat, planner.embed(chat, features))
        self.num_prefix_passes += 1
        rotary = planner.rotary(positions(chat, planner.special)[:, chat.target])
        return BranchState(chat, prefix, rotary)

    @torch.no_grad()
    def run(self, order: Sequence[int], noise: NoiseSource, on_step: Callable | None = None) -> Plan:
        """Plans in `order`, a permutation of the target tokens; `on_step(index, total)` after each step."""
        total = self.settings.num_steps
        for step, indices in enumerate(leaving(order, total)):
            if indices and not (self.settings.skip_lone_index0 and indices == [0]):
                self.x[indices] = self._decode(indices, noise(len(indices)))
            if on_step is not None:
                on_step(step, total)
        return self._finish()

    def _decode(self, indices: list[int], noise: Tensor) -> Tensor:
        settings = self.settings
        names = list(self._same) if settings.source_guidance > 1 else ["cond"]
        hidden = self.target_hidden(names)
        conditions = {n: self.planner.connector.for_decoder(hidden[n][indices]) for n in names}
        return self.planner.vit_decoder.sample(
            noise.to(self.x),
            conditions,
            num_steps=settings.decoder_steps,
            source_guidance=settings.source_guidance,
            prompt_guidance=settings.prompt_guidance,
        )

    def target_hidden(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Current states of the target in the named branches, `[n, D]` each."""
        distinct = list(dict.fromkeys(self._same[n] for n in names))
        branches = [self.branches[n] for n in distinct]
        hidden = self.planner.target_hidden(
            self.x, [b.prefix for b in branches], [b.rotary for b in branches]
        )
        self.num_target_passes += len(distinct)
        states = dict(zip(distinct, hidden, strict=True))
        return {n: states[self._same[n]] for n in names}

    def _finish(self) -> Plan:
        """One more pass of the planned target, then the contexts (spec 2.4)."""
        target = self.target_hidden(["cond"])["cond"]
        whole = self.in_chat_order("cond", target)
        connector, cond = self.planner.connector, self.branches[self._same["cond"]]
        nothing = self.branches[self._same.get("nothing", "cond")]
        return Plan(
            self.x,
            connector.for_renderer(whole),
            connector.for_renderer(cond.prefix.hidden),
            connector.for_renderer(nothing.prefix.hidden),
            {"cond": whole},
            self.num_prefix_passes,
            self.num_target_passes,
        )

    def in_chat_order(self, name: str, target: Tensor) -> Tensor:
        """Constant and target states of a branch put together `[N, D]`."""
        branch = self.branches[self._same[name]]
        where, fixed = branch.chat.target, branch.prefix.hidden
        return torch.cat([fixed[: where.start], target, fixed[where.start :]])


def shuffled(num_tokens: int, generator: torch.Generator) -> list[int]:
    """A decoding order from a generator of its own, independent of anything else drawn."""
    return torch.randperm(num_tokens, generator=generator).tolist()
