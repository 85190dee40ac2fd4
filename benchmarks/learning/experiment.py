"""One subset made ready: stops written and read, tensors, what is generated and how it is judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import nn

from datagen.sprite_judge import judge
from datagen.sprites import render
from manifests.manifest import Manifest

from .arms import ArmConfig, ArmRenderer
from .encode import SpriteEncoders, encode, read_tensors
from .parts import PatchCodec, WordVectors
from .stops import Loaded, SpriteConfig, load, write_stops
from .train import Contexts, Tensors, TrainConfig, generate, train

FITTED_CLIPS = 2000  # on which the codec's axes are fitted
REFERENCES = ("id", "content")  # subsets with reference pictures: also asked with one more than trained


@dataclass(frozen=True, kw_only=True)
class SetSizes:
    """How much is made."""

    train: int = 10_000
    """Training samples."""
    test: int = 512
    """Samples of each test; all of held-out combinations."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A set that is asked after training, with the segment ids of its sources."""

    name: str
    loaded: Loaded
    tensors: Tensors
    ids: tuple[float, ...]


class Experiment:
    """Training set and tests of a subset; `root` holds the stops."""

    def __init__(self, root: str, subset: str, sizes: SetSizes, device: str = "cpu"):
        self.root, self.subset, self.sizes, self.device = root, subset, sizes, device
        self.samples = self._write(sizes.train, seed=0)
        fitted = load(self.samples, limit=FITTED_CLIPS).targets
        self.mean_picture = fitted.mean(0).round().astype(np.uint8)
        self.codec, self.words = PatchCodec(fitted, temporal=subset == "motion"), WordVectors()
        self.latents = encode(self.samples, root, SpriteEncoders(self.codec, self.words))
        self.train_tensors = read_tensors(self.latents)
        self.tests = self._tests()

    def _write(self, count: int, **settings) -> Manifest:
        return write_stops(SpriteConfig(output=self.root, subset=self.subset, count=count, **settings))

    def _load(self, count: int, **settings) -> Loaded:
        return load(self._write(count, **settings))

    @cached_property
    def train_set(self) -> Loaded:
        """Pictures and prompts of the training samples, in the order of the tensors."""
        return load(self.samples)

    def _tests(self) -> list[Question]:
        held_out = self._load(self.sizes.test, seed=1, held_out=True)
        count = held_out.sources.shape[1]
        tests = [self._test("held-out", held_out, whole_ids(count))]
        if self.subset in REFERENCES:
            more = self._load(self.sizes.test, seed=2, held_out=True, references=3)
            tests += [self._test("one more source, new id", more, whole_ids(count + 1)),
                      self._test("one more source, ids interpolated", more,
                                 tuple(np.linspace(1, count, count + 1).tolist()))]
        return tests

    def _test(self, name: str, loaded: Loaded, ids: tuple[float, ...]) -> Question:
        return Question(name=name, loaded=loaded, tensors=self.tensors(loaded), ids=ids)

    def tensors(self, loaded: Loaded) -> Tensors:
        """Latents and text rows of a set."""
        texts, row = self.words.table(loaded.prompts)
        sources = [self.codec.encode_many(loaded.sources[:, i]) for i in range(loaded.sources.shape[1])]
        return Tensors(sources=torch.stack(sources, 1), targets=self.codec.encode_many(loaded.targets),
                       texts=texts, prompt=row)

    def arm(self, arm: str, config: ArmConfig, seed: int) -> ArmRenderer:
        """An untrained renderer; equal seeds give equal weights in every arm."""
        torch.manual_seed(seed)
        return ArmRenderer(config, arm)

    def measure(self, model: nn.Module, test: Question, *, context: Contexts | None = None) -> dict[str, float]:
        """What the judge says of what a model generates for a test."""
        latents = generate(model, test.tensors, ids=test.ids, device=self.device, context=context)
        return judge(self.codec.decode_many(latents), test.loaded.cases).means()

    def run(self, arm: str, config: ArmConfig, training: TrainConfig, seed: int, log) -> dict:
        """Trains an arm and asks every test: `{"cpu_s": …, "tests": {name: verdicts}}`."""
        model, cpu_s = train(self.arm(arm, config, seed), self.train_tensors, training, seed, log=log)
        return {"cpu_s": cpu_s, "parameters": sum(p.numel() for p in model.parameters()),
                "tests": {t.name: self.measure(model, t) for t in self.tests}}

    def sanity(self) -> dict[str, dict[str, float]]:
        """Verdicts of the judge on pictures that no model made."""
        test = self.tests[0].loaded
        rng = np.random.default_rng(0)
        noise = rng.integers(0, 256, test.targets.shape, np.uint8)
        rows = {"ground truth through the codec": self.codec.decode_many(self.tests[0].tensors.targets),
                "copy of the first source": test.sources[:, 0], "copy of the last source": test.sources[:, -1],
                "mean picture": np.broadcast_to(self.mean_picture, test.targets.shape), "noise": noise,
                "target of another sample": np.roll(test.targets, 1, axis=0)}
        if self.subset in REFERENCES:
            rows["what the wrong reference asks for"] = wrong_reference(test)
        return {name: judge(np.ascontiguousarray(p), test.cases).means() for name, p in rows.items()}


def wrong_reference(loaded: Loaded) -> np.ndarray:
    """The edit done faultlessly with the other reference."""
    cases = loaded.cases
    target = replace(cases.target, colour=cases.wrong_colour[:, None])
    if (cases.wrong_background >= 0).all():
        target = replace(target, background=cases.wrong_background)
    return render(target, cases.frames)


def whole_ids(count: int) -> tuple[float, ...]:
    """Ids 1, 2, … of `count` sources."""
    return tuple(float(i + 1) for i in range(count))


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample deviation (nan for one value)."""
    array = np.array(values, float)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else float("nan")

