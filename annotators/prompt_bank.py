"""A bank of edit prompts that stays diverse: new ones enter, the least diverse leave (D4).

The bank goes forward in rounds. In a round all workers see the bank as the last one left it and *offer*
prompts, each batch as one small file named after its content. Closing the round takes all of them
in an order that depends on their words alone. So the next bank depends on the last one and on
the *set* of prompts offered: not on how many workers there were, who was first, or who died and
offered the same again. Files appear whole or not at all.

    <folder>/bank-00003.jsonl            settings, then one prompt a line: the bank after round 3
    <folder>/offers-00003/<hash>.jsonl   what was offered in the round that is open

Novelty is 1 - cosine of text embeddings to the nearest prompt. The default embedding counts
hashed words and letter groups: no weights; it knows words, not meanings. `embedder` may name a
sentence model as "module:Class" with `embed(list of str) -> (N, D)` of unit length.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pkgutil import resolve_name

import numpy as np

from manifests import storage
from manifests.errors import ConfigError
from manifests.ids import digest

DIM = 512


class HashedNgrams:
    """Words, pairs of words and groups of 4 letters, hashed with signs into 512 numbers of unit length."""

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        vectors = np.zeros((len(texts), DIM))
        for row, text in enumerate(texts):
            for gram, weight in _grams(text):
                value = int.from_bytes(hashlib.blake2b(gram.encode(), digest_size=4).digest(), "little")
                vectors[row, value % DIM] += weight if value >> 31 else -weight
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def _grams(text: str) -> Iterable[tuple[str, float]]:
    words = re.findall(r"\w+", text.lower())
    yield from ((f"1 {w}", 1.0) for w in words)
    yield from ((f"2 {a} {b}", 1.0) for a, b in zip(words, words[1:], strict=False))
    joined = " ".join(words)
    yield from ((f"4 {joined[i : i + 4]}", 0.3) for i in range(len(joined) - 3))


@dataclass(frozen=True, kw_only=True)
class Closed:
    """What a round did: the bank's new round, and prompts that entered, were too close, or left."""

    round: int
    entered: tuple[str, ...]
    refused: tuple[str, ...]
    left: tuple[str, ...]


class PromptBank:
    """The bank in `folder`; made there with these settings if there is none, else its own hold.

    `round` opens it as that round left it (a resumed run sees what the first one saw); None = the last one.
    `begin` is what a new bank knows before its first round.
    """

    def __init__(self, folder: str, *, capacity: int = 2000, min_novelty: float = 0.35, embedder: str = "ngrams",
                 round: int | None = None, begin: Sequence[str] = ()):
        self.folder = folder
        rounds = [name for name, _ in storage.list_files(folder) if name.startswith("bank-")]
        if round is not None and _file_of(round) not in rounds:
            raise ConfigError(f"the prompt bank {folder} has no round {round}; it has {', '.join(sorted(rounds))}")
        if rounds:
            self._load(max(rounds) if round is None else _file_of(round))
        else:
            if capacity < 1 or not 0 <= min_novelty <= 1:
                raise ConfigError("a bank needs capacity >= 1 and min_novelty in [0, 1], "
                                  f"not {capacity} and {min_novelty}")
            self.round, self.capacity, self.min_novelty, self.embedder = 0, capacity, min_novelty, embedder
            self.prompts: list[str] = []
        self._embed = (HashedNgrams() if self.embedder == "ngrams" else resolve_name(self.embedder)()).embed
        self.vectors = self._embed(self.prompts) if self.prompts else np.empty((0, DIM))
        if not rounds:
            self._take_in(list(dict.fromkeys(begin)))
            self._save()

    def __len__(self) -> int:
        return len(self.prompts)

    def sample(self, key: str, num: int) -> list[str]:
        """`num` prompts, drawn by `key`: other ones for each row, the same ones for a row in each run."""
        return sorted(self.prompts, key=lambda prompt: digest(key, prompt))[:num]

    def novelty(self, prompt: str) -> tuple[float, str]:
        """1 - cosine to the nearest prompt of the bank, and that prompt; (1, "") for an empty bank."""
        if not self.prompts:
            return 1.0, ""
        near = self.vectors @ self._embed([prompt])[0]
        return round(1.0 - float(near.max()), 6), self.prompts[int(near.argmax())]

    def offer(self, prompts: Sequence[str]) -> None:
        """Put prompts before the open round. Offering the same again changes nothing."""
        if prompts := sorted(set(prompts)):
            name = f"{digest(prompts)}.jsonl"
            storage.write_bytes(storage.join(self._offers, name), _lines(prompts))

    def close_round(self) -> Closed:
        """Take in what was offered and write the next bank. For one process: the one that runs the recipe."""
        offered = {prompt for name, _ in storage.list_files(self._offers) if name.endswith(".jsonl")
                   for prompt in map(json.loads, storage.read_bytes(storage.join(self._offers, name)).splitlines())}
        new = sorted(offered - set(self.prompts), key=lambda prompt: (digest(prompt), prompt))
        before, refused = set(self.prompts), self._take_in(new)
        self.round += 1
        self._save()
        now = set(self.prompts)
        return Closed(round=self.round, entered=tuple(p for p in new if p in now), refused=tuple(refused),
                      left=tuple(sorted(before - now)))

    def _take_in(self, new: Sequence[str]) -> list[str]:
        """One by one: refused when too close, else in; over capacity, the least diverse one leaves."""
        refused: list[str] = []
        alike = np.round(self.vectors @ self.vectors.T, 6)
        np.fill_diagonal(alike, -1.0)
        for prompt, vector in zip(new, self._embed(new) if new else (), strict=True):
            near = np.round(self.vectors @ vector, 6)
            if len(near) and 1.0 - near.max() < self.min_novelty:
                refused.append(prompt)
                continue
            self.prompts.append(prompt)
            self.vectors = np.vstack([self.vectors.reshape(-1, len(vector)), vector])
            alike = np.block([[alike, near[:, None]], [near[None, :], np.full((1, 1), -1.0)]])
            if len(self.prompts) > self.capacity:
                alike = self._drop_least_diverse(alike)
        return refused

    def _drop_least_diverse(self, alike: np.ndarray) -> np.ndarray:
        """Of the two prompts that are most alike, the one that is nearer to all the others leaves."""
        nearest, mean = alike.max(axis=1), np.round(alike.mean(axis=1), 6)
        last = min(range(len(self.prompts)), key=lambda i: (-nearest[i], -mean[i], digest(self.prompts[i])))
        del self.prompts[last]
        self.vectors = np.delete(self.vectors, last, axis=0)
        return np.delete(np.delete(alike, last, axis=0), last, axis=1)

    @property
    def _offers(self) -> str:
        return storage.join(self.folder, f"offers-{self.round:05d}")

    def _save(self) -> None:
        header = {"round": self.round, "capacity": self.capacity, "min_novelty": self.min_novelty,
                  "embedder": self.embedder}
        storage.write_bytes(storage.join(self.folder, _file_of(self.round)), _lines([header, *self.prompts]))

    def _load(self, name: str) -> None:
        header, *prompts = map(json.loads, storage.read_bytes(storage.join(self.folder, name)).splitlines())
        self.round, self.capacity = header["round"], header["capacity"]
        self.min_novelty, self.embedder, self.prompts = header["min_novelty"], header["embedder"], prompts


def _file_of(round: int) -> str:
    return f"bank-{round:05d}.jsonl"


def _lines(values: Iterable[object]) -> bytes:
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values).encode()
