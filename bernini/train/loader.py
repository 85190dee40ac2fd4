"""The stream of packs that one rank trains on, and its state.

    dataset = Dataset(["OUT/latents/encode-0123"], needs=STAGE_NEEDS["II"])
    loader = Loader(dataset, LoaderConfig(mixture="IIb", token_budget=150_000), cost, rank=0, world=8)
    for pack in loader: ...

One sequence of samples exists for all ranks: at each position a data set is drawn by the mixture's
weights and gives its next sample; a data set is gone through in an order of its own each epoch. All
of it is hashed from (seed, position) and (seed, epoch, sample id). A window of the sequence (at
least `window` samples a rank) is packed by cost (`packing`), from the table alone, by every rank
alike; a rank then reads only its own samples. Workers are threads that read ahead: they change when
something is read, never what.

The state is a position, one counter a data set, and how much of the window was handed out. It fits
any number of workers, and any number of ranks: what the old ranks had not handed out comes first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache

import numpy as np

from bernini.train.cost import CostModel, ExampleTokens
from bernini.train.dataset import Dataset
from bernini.train.draws import DrawSettings, draw, drops, uniform, words
from bernini.train.example import Example, Pack
from bernini.train.packing import Item, num_rounds, pack
from manifests.errors import ConfigError, ManifestError, MediaError
from manifests.mixtures import Mixture, mixture

STATE_VERSION = 1
MAX_STAND_INS = 16      # samples tried in place of a pack of which nothing could be read
MAX_BAD_IN_A_ROW = 1000  # samples that cannot be used one after the other: the data is broken, not a sample


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """How samples become packs."""

    mixture: str | Mixture = "even"
    """Name of a stage of Table 2 (I, IIa, IIb, IIIa, IIIb), "even" (by number of samples), or a mixture."""
    token_budget: int = 150_000
    """Most useful tokens of a pack; the released trainer's `max_seq_len`."""
    window: int = 16
    """Samples a rank that are looked at together for balance; below 16 the ranks wait for each other."""
    fill: float = 0.9
    """Share of the budget that a window fills on average; room is what lets costs be balanced."""
    max_samples: int | None = None
    """Most samples of a pack; none = what the budget takes."""
    total_steps: int | None = None
    """Packs a rank in the whole stage, over which pair data decays; none = no decay."""
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
class _State:
    """Where the sequence stands at the beginning of a window, and how many rounds of it were handed out."""

    position: int = 0
    cursors: Mapping[tuple[str, str], int] = field(default_factory=dict)
    carry: tuple[Entry, ...] = ()
    round: int = 0
    packs: int = 0


@dataclass(frozen=True)
class _Shape:
    """What decides how a window is cut; a state from another shape is taken over at the sample."""

    world: int
    token_budget: int
    window: int
    fill: float
    max_samples: int | None


@dataclass(frozen=True)
class _Window:
    rounds: tuple[tuple[tuple[Entry, ...], ...], ...]  # round, rank -> entries
    skipped: tuple[str, ...]
    following: _State


class Loader:
    """Packs for one of `world` data-parallel ranks, without end. `num_workers` threads read ahead; 0 = none.

    Raises `ConfigError` or `ManifestError` for what cannot be trained at all; a single sample that cannot
    be used is left out and named in `Pack.skipped`.
    """

    def __init__(self, dataset: Dataset, config: LoaderConfig, cost: CostModel, *, rank: int = 0, world: int = 1,
                 num_workers: int = 2, prefetch: int = 4):
        if not 0 <= rank < world:
            raise ConfigError(f"rank {rank} is not one of {world} ranks, which count from 0")
        self.dataset, self.config, self.cost = dataset, config, cost
        self.rank, self.num_workers, self.prefetch = rank, num_workers, prefetch
        self._shape = _Shape(world, config.token_budget, config.window, config.fill, config.max_samples)
        self._state = _State()
        self._check_mixture()
        self._order = lru_cache(maxsize=2 * len(dataset.members) + 2)(self._order_of)

    # The stream

    def __iter__(self) -> Iterator[Pack]:
        pool = ThreadPoolExecutor(self.num_workers, "loader") if self.num_workers else None
        ahead: deque[tuple[_State, tuple, tuple, list]] = deque()
        try:
            plans = self._plans()
            while True:
                while len(ahead) < (self.prefetch + 1 if pool else 1):
                    state, entries, skipped = next(plans)
                    ahead.append((state, entries, skipped, [pool.submit(self._load, e) if pool else e
                                                            for e in entries]))
                state, entries, skipped, loading = ahead.popleft()
                loaded = [w.result() if isinstance(w, Future) else self._load(w) for w in loading]
                self._state = state
                yield self._pack(entries, loaded, skipped)
        finally:
            if pool:
                pool.shutdown(wait=True, cancel_futures=True)

    def _plans(self) -> Iterator[tuple[_State, tuple[Entry, ...], tuple[str, ...]]]:
        """`(state after it, entries, samples skipped unread)` of each pack of this rank."""
        state = self._state
        while True:
            window = self._window(state, self._shape)
            for k in range(state.round, len(window.rounds)):
                after = replace(state, round=k + 1, packs=state.packs + k + 1 - state.round)
                after = window.following if k + 1 == len(window.rounds) else after
                first_rank = self.rank == 0 and k == 0  # what no rank reads is told once
                yield after, window.rounds[k][self.rank], window.skipped if first_rank else ()
            state = window.following

    def _window(self, state: _State, shape: _Shape) -> _Window:
        """Pack the next stretch of the sequence: a function of its arguments alone."""
        started = state.packs - state.round  # packs before this window
        take = _Sequence(self, state, self._weights(started))
        entries, tokens, skipped = [], [], []

        def add(entry: Entry) -> None:
            cost = self._tokens(entry, shape.token_budget)
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
        following = _State(take.position, take.cursors, (*left, *carry), 0, started + len(shuffled))
        return _Window(tuple(tuple(tuple(entries[i] for i in indices) for indices in packed.rounds[k])
                             for k in shuffled), tuple(skipped), following)

    def _top_up(self, take, add, entries: list, tokens: list, rounds: int, shape: _Shape) -> list[Entry]:
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

    def _tokens(self, entry: Entry, budget: int) -> ExampleTokens | str:
        """What is left of a sample after its conditions were dropped, or why it cannot be used."""
        try:
            tokens = self.dataset.tokens(entry.index)
        except MediaError as error:
            return str(error)
        sample_id = self.dataset.ids[entry.index].as_py()
        tokens = tokens.dropped(**drops(self.config.draws, self.config.seed, entry.key, sample_id))
        num = self.cost.num_tokens(tokens)
        if num > budget:
            return f"has {num:,} tokens, the budget of a pack is {budget:,}: raise --token-budget"
        return tokens

    # One pack

    def _load(self, entry: Entry) -> Example | str:
        """The example, or why it cannot be used."""
        try:
            return self.dataset.example(entry.index)
        except MediaError as error:
            return f"{self.dataset.ids[entry.index].as_py()}: {error}"

    def _pack(self, entries: tuple[Entry, ...], loaded: list[Example | str], skipped: tuple[str, ...]) -> Pack:
        skipped = (*skipped, *(e for e in loaded if isinstance(e, str)))
        good = [(e, x) for e, x in zip(entries, loaded, strict=True) if not isinstance(x, str)]
        if not good:
            entry, example, tried = self._stand_in(entries[0])
            good, skipped = [(entry, example)], (*skipped, *tried)
        draws = [draw(self.config.draws, self.config.seed, e.key, x.sample_id, x.task) for e, x in good]
        tokens = [self.dataset.tokens(e.index).dropped(text=d.drop_text, images=d.drop_images, videos=d.drop_videos)
                  for (e, _), d in zip(good, draws, strict=True)]
        return Pack(examples=tuple(x for _, x in good), draws=tuple(draws), skipped=skipped,
                    num_tokens=sum(map(self.cost.num_tokens, tokens)), flops=sum(map(self.cost.flops, tokens)),
                    epoch=max(e.epoch for e, _ in good))

    def _stand_in(self, entry: Entry) -> tuple[Entry, Example, list[str]]:
        """A pack is never empty, or its rank would let the others wait: the next good sample of the same epoch."""
        key = next(k for k, index in self.dataset.members.items() if entry.index in index)
        order = self._order(key, entry.epoch)
        at, tried = next(i for i, (index, _) in enumerate(order) if index == entry.index), []
        for i in range(1, MAX_STAND_INS + 1):
            index, copy = order[(at + i) % len(order)]
            other = Entry(int(index), entry.epoch, int(copy))
            loaded = self._load(other)
            if not isinstance(loaded, str):
                return other, loaded, tried
            tried.append(loaded)
        raise ManifestError(f"{MAX_STAND_INS} samples of {key[0]} ({key[1]}) in a row cannot be read: {tried[-1]}")

    # Mixture and order

    def _check_mixture(self) -> None:
        names = {name for name, _ in self.dataset.members}
        for name in self.config.mix.overrides or ():
            if name not in names:
                raise ConfigError(f"the mixture gives a weight to {name}, which has no sample; there are "
                                  f"{', '.join(sorted(names))}")
        self._weights(0)  # a mixture without weight for anything is refused before the first step

    def _weights(self, packs: int) -> dict[tuple[str, str], float]:
        total = self.config.total_steps
        # Just short of the end, so that a stage of pair data alone still has something to draw in its last step.
        progress = min(packs / total, 1.0 - 1e-9) if total else 0.0
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
            tokens = [t for t in (self._tokens(Entry(int(i), 0), 2**62) for i in looked) if not isinstance(t, str)]
            rows.append({"source_name": key[0], "task": key[1], "samples": len(index), "weight": weights.get(key, 0.0),
                         "mean_tokens": sum(map(self.cost.num_tokens, tokens)) / max(1, len(tokens)),
                         "mean_flops": sum(map(self.cost.flops, tokens)) / max(1, len(tokens))})
        for share, value in (("token_share", "mean_tokens"), ("flop_share", "mean_flops")):
            total = sum(r["weight"] * r[value] for r in rows) or 1.0
            for r in rows:
                r[share] = r["weight"] * r[value] / total
        return rows

    # State

    def state_dict(self) -> dict:
        """Where the stream stands after the last pack that was handed out; plain JSON values."""
        s = self._state
        return {"version": STATE_VERSION, "position": s.position, "cursors": [[*k, n] for k, n in s.cursors.items()],
                "carry": [[e.index, e.epoch, e.copy] for e in s.carry], "round": s.round, "packs": s.packs,
                "shape": asdict(self._shape), "seed": self.config.seed, "data": self.dataset.fingerprint}

    def load_state_dict(self, state: Mapping) -> None:
        """Go on where `state` stands; also with another number of ranks, workers or another token budget."""
        if state.get("version") != STATE_VERSION:
            raise ConfigError(f"the loader state has version {state.get('version')}, this code reads {STATE_VERSION}")
        if state["data"] != self.dataset.fingerprint:
            raise ConfigError("the loader state belongs to other samples: give the manifests of the interrupted run, "
                              "in the same order")
        if state["seed"] != self.config.seed:
            raise ConfigError(f"the loader state has seed {state['seed']}, this run has {self.config.seed}")
        loaded = _State(state["position"], {(name, task): n for name, task, n in state["cursors"]},
                        tuple(Entry(*e) for e in state["carry"]), state["round"], state["packs"])
        shape = _Shape(**state["shape"])
        self._state = loaded if shape == self._shape or loaded.round == 0 else self._take_over(loaded, shape)

    def _take_over(self, state: _State, shape: _Shape) -> _State:
        """The window was begun in another shape: what it had not handed out comes first."""
        window = self._window(state, shape)
        rest = [e for packs in window.rounds[state.round:] for entries in packs for e in entries]
        return replace(window.following, carry=(*rest, *window.following.carry), packs=state.packs)


class _Sequence:
    """The one sequence of samples, from a state on: call it for the next entry."""

    def __init__(self, loader: Loader, state: _State, weights: Mapping[tuple[str, str], float]):
        self._loader, self.position, self.cursors = loader, state.position, dict(state.cursors)
        self._keys = sorted(weights)
        self._ends = np.cumsum([weights[k] for k in self._keys])

    def __call__(self) -> Entry:
        p = uniform(self._loader.config.seed, "mixture", self.position) * self._ends[-1]
        key = self._keys[min(int(np.searchsorted(self._ends, p, side="right")), len(self._keys) - 1)]
        self.position += 1
        return self._next_of(key)

    def _next_of(self, key: tuple[str, str]) -> Entry:
        """The next sample of a data set. Its cursor counts `epoch · 2^40 + place`."""
        epoch, place = divmod(self.cursors.get(key, 0), 1 << 40)
        order = self._loader._order(key, epoch)
        if place >= len(order):
            epoch, place = epoch + 1, 0
            order = self._loader._order(key, epoch)
        self.cursors[key] = (epoch << 40) + place + 1
        index, copy = order[place]
        return Entry(int(index), epoch, int(copy))
