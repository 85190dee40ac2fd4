"""The one sequence of samples that all ranks train on, and the windows that it is packed in.

At each position a data set is drawn by the mixture's weights and gives its next sample; a data set is
gone through in an order of its own each epoch. All of it is hashed from (seed, position) and (seed,
epoch, sample id), and a window is a function of the state at its beginning: every rank, and a resumed
run, finds the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from bernini.train.cost import CostModel, ExampleTokens
from bernini.train.dataset import Dataset
from bernini.train.draws import DrawSettings, drops, mask_ratio, uniform, words
from bernini.train.pace import Pace
from bernini.train.packing import Item, num_rounds, pack
from manifests.errors import ConfigError, ManifestError, MediaError
from manifests.mixtures import Mixture, mixture

MAX_BAD_IN_A_ROW = 1000  # samples that cannot be used one after the other: the data is broken, not a sample


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """How samples become packs."""

    mixture: str | Mixture = "even"
    """Name of a stage of Table 2 (I, IIa, IIb, IIIa, IIIb), "propagation", "even" (by number of samples), or a
    mixture."""
    token_budget: int = 150_000
    """Most useful tokens of a pack; the released trainer's `max_seq_len`."""
    window: int = 16
    """Samples a rank that are looked at together for balance; below 16 the ranks wait for each other."""
    fill: float = 0.9
    """Share of the budget that a window fills on average; room is what lets costs be balanced."""
    max_samples: int | None = None
    """Most samples of a pack; none = what the budget takes."""
    total_steps: int | None = None
    """Optimiser steps of the whole stage, over which pair data decays; none = no decay."""
    accumulate: int = 1
    """Packs a rank in one step."""
    seed: int = 0
    """Decides order, mixture and all draws."""
    draws: DrawSettings = field(default_factory=DrawSettings)
    """Noise levels, mask ratios and condition dropout."""

    def __post_init__(self):
        if min(self.token_budget, self.window) < 1 or not 0 < self.fill <= 1 or (self.max_samples or 1) < 1:
            raise ConfigError("token_budget, window and max_samples are at least 1, fill is above 0 and at most 1")

    @property
    def mix(self) -> Mixture:
        return self.mixture if isinstance(self.mixture, Mixture) else mixture(self.mixture)

    @property
    def pace(self) -> Pace | None:
        """Of a run from its beginning; none where the mixture stays as it is."""
        return Pace(self.total_steps, self.accumulate) if self.total_steps and self.mix.decayed else None


@dataclass(frozen=True)
class Entry:
    """One place in the sequence: a sample by its number, the epoch of its data set, the how-many-th copy in it."""

    index: int
    epoch: int
    copy: int = 0

    @property
    def key(self) -> str | int:
        """The epoch as the draws see it: two copies of a sample differ."""
        return f"{self.epoch}.{self.copy}" if self.copy else self.epoch


@dataclass(frozen=True)
class State:
    """Where the sequence stands at the beginning of a window, and how many rounds of it were handed out."""

    position: int = 0
    cursors: Mapping[tuple[str, str], int] = field(default_factory=dict)
    carry: tuple[Entry, ...] = ()
    round: int = 0
    packs: int = 0
    pace: Pace | None = None


@dataclass(frozen=True)
class Shape:
    """What decides how a window is cut; a state from another shape is taken over at the sample."""

    world: int
    token_budget: int
    window: int
    fill: float
    max_samples: int | None


@dataclass(frozen=True)
class Window:
    rounds: tuple[tuple[tuple[Entry, ...], ...], ...]  # round, rank -> entries
    skipped: tuple[str, ...]
    following: State


class Windows:
    """Cuts the sequence into windows and packs them."""

    def __init__(self, dataset: Dataset, config: LoaderConfig, cost: CostModel):
        self.dataset, self.config, self.cost = dataset, config, cost
        self.order = lru_cache(maxsize=2 * len(dataset.members) + 2)(self._order_of)
        self._check_mixture()

    def window(self, state: State, shape: Shape) -> Window:
        """Pack the next stretch of the sequence: a function of its arguments alone."""
        started = state.packs - state.round  # packs before this window
        take = _Cursor(self, state, self.weights(state.pace.at(started) if state.pace else 0.0))
        entries, tokens, skipped = [], [], []

        def add(entry: Entry) -> None:
            cost = self.tokens(entry, shape.token_budget)
            if isinstance(cost, str):
                skipped.append(f"{self.dataset.ids[entry.index].as_py()}: {cost}")
                if len(skipped) > MAX_BAD_IN_A_ROW and not entries:
                    raise ManifestError(f"{len(skipped)} samples in a row cannot be used, the last is {skipped[-1]}")
            else:
                entries.append(entry)
                tokens.append(cost)

        for entry in state.carry:
            add(entry)
        while len(entries) < shape.world * shape.window:
            add(take())
        total = sum(map(self.cost.num_tokens, tokens))
        rounds = num_rounds(total, world=shape.world, budget=shape.token_budget, fill=shape.fill)
        if shape.max_samples:
            rounds = max(rounds, -(-len(entries) // (shape.world * shape.max_samples)))
        carry = self._top_up(take, add, entries, tokens, rounds, shape)
        items = [Item(i, self.cost.num_tokens(t), self.cost.flops(t)) for i, t in enumerate(tokens)]
        packed = pack(items, world=shape.world, rounds=min(rounds, len(items) // shape.world),
                      budget=shape.token_budget, max_items=shape.max_samples)
        shuffled = sorted(range(len(packed.rounds)), key=lambda k: words(self.config.seed, "round", state.position, k))
        left = tuple(entries[i] for i in packed.left)
        following = State(take.position, take.cursors, (*left, *carry), 0, started + len(shuffled),
                          state.pace)
        return Window(tuple(tuple(tuple(entries[i] for i in indices) for indices in packed.rounds[k])
                             for k in shuffled), tuple(skipped), following)

    def _top_up(self, take, add, entries: list, tokens: list, rounds: int, shape: Shape) -> list[Entry]:
        """More samples while the packs have room; the one that did not fit is kept for the next window."""
        room = shape.world * rounds * shape.token_budget * shape.fill
        most = shape.world * rounds * shape.max_samples if shape.max_samples else None
        total = sum(map(self.cost.num_tokens, tokens))
        while most is None or len(entries) < most:
            before = len(entries)
            entry = take()
            add(entry)
            if len(entries) == before:
                continue
            total += self.cost.num_tokens(tokens[-1])
            if total > room:
                entries.pop()
                tokens.pop()
                return [entry]
        return []

    def tokens(self, entry: Entry, budget: int) -> ExampleTokens | str:
        """What is left of a sample after its conditions were dropped, or why it cannot be used."""
        try:
            tokens = self.drawn(entry)
        except MediaError as error:
            return str(error)
        num = self.cost.num_tokens(tokens)
        if not num:
            return "nothing in it is trained in this stage: no visual to generate, and no text to learn for a planner"
        if num > budget:
            return f"has {num:,} tokens, the budget of a pack is {budget:,}: raise --tokens"
        return tokens

    def drawn(self, entry: Entry) -> ExampleTokens:
        """Tokens of a sample as its draws leave them. Raises `MediaError` where they cannot be told."""
        tokens = self.dataset.tokens(entry.index)
        key = self.config.seed, entry.key, self.dataset.ids[entry.index].as_py()
        tokens = tokens.dropped(**drops(self.config.draws, *key))
        return tokens.hiding(mask_ratio(*key, self.dataset.tasks[entry.index].as_py()))

    def _check_mixture(self) -> None:
        names = {name for name, _ in self.dataset.members}
        for name in self.config.mix.overrides or ():
            if name not in names:
                raise ConfigError(f"the mixture gives a weight to {name}, which has no sample; there are "
                                  f"{', '.join(sorted(names))}")
        self.weights(0.0)  # a mixture without weight for anything is refused before the first step

    def weights(self, progress: float) -> dict[tuple[str, str], float]:
        return {k: w for k, w in self.config.mix.weights(self.dataset.counts, progress).items() if w > 0}

    def _order_of(self, key: tuple[str, str], epoch: int) -> np.ndarray:
        """`[n, 2]` numbers and copies of a data set's epoch. A weight above the mean comes more than once."""
        order = self.dataset.order(key, words(self.config.seed, "order", *key, epoch)[0] >> 2)
        weights = self.dataset.weights[order]
        if np.ptp(weights) == 0:
            return np.stack([order, np.zeros_like(order)], axis=1)
        wanted = weights / weights.mean()
        times = [int(w + uniform(self.config.seed, "copies", epoch, self.dataset.ids[int(i)].as_py()))
                 for w, i in zip(wanted, order, strict=True)]
        rows = [(i, copy) for copy in range(max(times)) for i, n in zip(order, times, strict=True) if copy < n]
        return np.array(rows, np.int64)

    def mixture_table(self, progress: float = 0.0, *, most: int = 256) -> list[dict]:
        """What is drawn, data set by data set: samples, weight, and mean tokens and FLOPs of up to `most` samples."""
        weights, rows = self.config.mix.weights(self.dataset.counts, progress), []
        for key, index in self.dataset.members.items():
            looked = self.dataset.order(key, 0)[:most]
            read = [t for t in (self.tokens(Entry(int(i), 0), 2**62) for i in looked) if not isinstance(t, str)]
            tokens = [t for t in read if self.cost.num_tokens(t) <= self.config.token_budget]
            rows.append({"source_name": key[0], "task": key[1], "samples": len(index), "weight": weights.get(key, 0.0),
                         "too_long": (len(read) - len(tokens)) / max(1, len(read)),
                         "mean_tokens": sum(map(self.cost.num_tokens, tokens)) / max(1, len(tokens)),
                         "mean_flops": sum(map(self.cost.flops, tokens)) / max(1, len(tokens))})
        for share, value in (("token_share", "mean_tokens"), ("flop_share", "mean_flops")):
            total = sum(r["weight"] * r[value] for r in rows) or 1.0
            for r in rows:
                r[share] = r["weight"] * r[value] / total
        return rows


class _Cursor:
    """Walks the sequence from a state on: call it for the next entry."""

    def __init__(self, windows: Windows, state: State, weights: Mapping[tuple[str, str], float]):
        self._windows, self.position, self.cursors = windows, state.position, dict(state.cursors)
        self._keys = sorted(weights)
        self._ends = np.cumsum([weights[k] for k in self._keys])

    def __call__(self) -> Entry:
        p = uniform(self._windows.config.seed, "mixture", self.position) * self._ends[-1]
        key = self._keys[min(int(np.searchsorted(self._ends, p, side="right")), len(self._keys) - 1)]
        self.position += 1
        return self._next_of(key)

    def _next_of(self, key: tuple[str, str]) -> Entry:
        """The next sample of a data set. Its cursor counts `epoch · 2^40 + place`."""
        epoch, place = divmod(self.cursors.get(key, 0), 1 << 40)
        order = self._windows.order(key, epoch)
        if place >= len(order):
            epoch, place = epoch + 1, 0
            order = self._windows.order(key, epoch)
        self.cursors[key] = (epoch << 40) + place + 1
        index, copy = order[place]
        return Entry(int(index), epoch, int(copy))
