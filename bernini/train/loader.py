"""The stream of packs that one rank trains on, and its state.

    dataset = Dataset(["OUT/latents/encode-0123"], needs=STAGE_NEEDS["II"])
    loader = Loader(dataset, LoaderConfig(mixture="IIb", token_budget=150_000), cost, rank=0, world=8)
    for pack in loader: ...

A window of the one sequence (`sequence`) is packed by cost from the table alone, by every rank alike;
a rank then reads only its own samples. Workers are threads that read ahead: they change when
something is read, never what.

The state is a position, one counter a data set, how much of the window was handed out, and how far a
mixture that changes has come. It fits any number of workers, of steps and of packs in one, and any
number of ranks: what the old ranks had not handed out comes first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace

import numpy as np

from bernini.train.cost import CostModel
from bernini.train.dataset import Dataset
from bernini.train.draws import draw
from bernini.train.example import Example, Pack
from bernini.train.pace import Pace
from bernini.train.sequence import Entry, LoaderConfig, Shape, State, Windows
from manifests.errors import ConfigError, ManifestError, MediaError

STATE_VERSION = 1
MAX_STAND_INS = 16  # samples tried in place of a pack of which nothing could be read

__all__ = ["Loader", "LoaderConfig"]


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
        self._shape = Shape(world, config.token_budget, config.window, config.fill, config.max_samples)
        self._state = State(pace=config.pace)
        self._windows = Windows(dataset, config, cost)

    # The stream

    def __iter__(self) -> Iterator[Pack]:
        pool = ThreadPoolExecutor(self.num_workers, "loader") if self.num_workers else None
        ahead: deque[tuple[State, tuple, tuple, list]] = deque()
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

    def _plans(self) -> Iterator[tuple[State, tuple[Entry, ...], tuple[str, ...]]]:
        """`(state after it, entries, samples skipped unread)` of each pack of this rank."""
        state = self._state
        while True:
            window = self._windows.window(state, self._shape)
            for k in range(state.round, len(window.rounds)):
                after = replace(state, round=k + 1, packs=state.packs + k + 1 - state.round)
                after = window.following if k + 1 == len(window.rounds) else after
                first_rank = self.rank == 0 and k == 0  # what no rank reads is told once
                yield after, window.rounds[k][self.rank], window.skipped if first_rank else ()
            state = window.following

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
        tokens = [self._windows.drawn(e) for e, _ in good]
        return Pack(examples=tuple(x for _, x in good), draws=tuple(draws), skipped=skipped,
                    num_tokens=sum(map(self.cost.num_tokens, tokens)), flops=sum(map(self.cost.flops, tokens)),
                    epoch=max(e.epoch for e, _ in good))

    def _stand_in(self, entry: Entry) -> tuple[Entry, Example, list[str]]:
        """A pack is never empty, or its rank would let the others wait.

        The next sample of the same epoch that can be read and fits the budget, which is all left to it.
        """
        key = next(k for k, index in self.dataset.members.items() if entry.index in index)
        order = self._windows.order(key, entry.epoch)
        at, tried = next(i for i, (index, _) in enumerate(order) if index == entry.index), []
        for index, copy in np.roll(order, -at - 1, axis=0):
            other = Entry(int(index), entry.epoch, int(copy))
            if isinstance(self._windows.tokens(other, self._shape.token_budget), str):
                continue  # it is named where its own turn comes
            loaded = self._load(other)
            if not isinstance(loaded, str):
                return other, loaded, tried
            tried.append(loaded)
            if len(tried) == MAX_STAND_INS:
                break
        raise ManifestError(f"{len(tried)} samples of {key[0]} ({key[1]}) in a row cannot be read: {tried[-1]}")

    def mixture_table(self, progress: float = 0.0) -> list[dict]:
        """What is drawn, data set by data set (`Windows.mixture_table`)."""
        return self._windows.mixture_table(progress)

    # State

    def state_dict(self) -> dict:
        """Where the stream stands after the last pack that was handed out; plain JSON values."""
        s = self._state
        return {"version": STATE_VERSION, "position": s.position, "cursors": [[*k, n] for k, n in s.cursors.items()],
                "carry": [[e.index, e.epoch, e.copy] for e in s.carry], "round": s.round, "packs": s.packs,
                "pace": asdict(s.pace) if s.pace else None, "shape": asdict(self._shape), "seed": self.config.seed,
                "data": self.dataset.fingerprint}

    def load_state_dict(self, state: Mapping) -> None:
        """Go on where `state` stands; also with another number of ranks, workers, steps or another token budget."""
        if state.get("version") != STATE_VERSION:
            raise ConfigError(f"the loader state has version {state.get('version')}, this code reads {STATE_VERSION}")
        if state["data"] != self.dataset.fingerprint:
            raise ConfigError("the loader state belongs to other samples: give the manifests of the interrupted run, "
                              "in the same order")
        if state["seed"] != self.config.seed:
            raise ConfigError(f"the loader state has seed {state['seed']}, this run has {self.config.seed}")
        had = state.get("pace", asdict(self.config.pace) if self.config.pace else None)  # none in states of old
        loaded = State(state["position"], {(name, task): n for name, task, n in state["cursors"]},
                       tuple(Entry(*e) for e in state["carry"]), state["round"], state["packs"],
                       Pace(**had) if had else None)
        shape, pace = Shape(**state["shape"]), self.config.pace
        if pace and loaded.pace:
            pace = loaded.pace.then(loaded.packs, pace.total, pace.accumulate)
        if loaded.round and (shape, loaded.pace) != (self._shape, pace):
            loaded = self._take_over(loaded, shape)
        self._state = replace(loaded, pace=pace)

    def _take_over(self, state: State, shape: Shape) -> State:
        """The window was begun in another shape or pace: what it had not handed out comes first."""
        window = self._windows.window(state, shape)
        rest = [e for packs in window.rounds[state.round:] for entries in packs for e in entries]
        return replace(window.following, carry=(*rest, *window.following.carry), packs=state.packs)
