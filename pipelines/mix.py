"""`bernini mix`: the mixture of a training stage, as weights of its samples.

Tables 1 and 2 of the paper (manifests/mixtures.py) say how often each data set is drawn; here they
meet what is really there. Written is a SAMPLES table of all rows given, whose `weight` adds up,
over each data set, to the share of draws that the data set has (all weights together: 1); inside
a data set the weights that rows had stay in proportion. A share counts draws of samples, not
tokens. Printed is what each data set contributes in samples, seconds of target video and tokens,
and which sets would be repeated more than `--max-repeat` times.

Pair data (V.P., I.P.) decay linearly to nothing over stage IIa: the weights written are those at
the stage's start (`--progress`). The released trainer reads a changing schedule and cannot run it, so
`--snapshots N` writes N constant ones (mix_snapshots.py) and `--simulate` prints what they draw.

Memory: rows pass in batches; what is held is eight bytes a row and a few numbers for each data set.
Manifests that are mixtures themselves are left out: `OUT/samples/*` may hold what an earlier call wrote.

    bernini mix OUT/samples/* --stage IIa --rights research --output MIX --steps 20000 --samples-per-step 64
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tyro

from filters.licence import LICENCE_ID, RIGHTS, ClassifyLicence, rights_rule
from filters.rules import ApplyRules
from manifests.columns import column, set_column
from manifests.errors import ConfigError, RunStopped
from manifests.manifest import Manifest, count_drops, live
from manifests.mixtures import TABLE_2, Mixture, group_of, mixture
from manifests.sample_size import sample_tokens, target_seconds
from manifests.settings import parse
from manifests.tasks import TASKS, VIDEO

from .checks import above_zero, at_least, not_below
from .mix_snapshots import Run, show_draws, write_snapshots
from .place import Place
from .run import finish
from .sources import Sources

MIX = "mix"  # name of the manifests written here
Key = tuple[str, str]  # (source_name, task)
NUM_TOKENS = column("num_tokens", pa.int64(), "tokens of all streams at 480p, and of the text", "tokens")
WEIGHT = column("weight", pa.float64(), "share of all draws of the stage; over a data set they add up to its share")
NEEDED = ("source_name", "task", "drop_reason", "licence", "weight", "images", "videos")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of `bernini mix`."""

    manifests: tyro.conf.Positional[tuple[str, ...]]
    """Samples manifests."""
    output: str
    """Folder below which the mixed samples manifest is written."""
    stage: str
    """I, IIa, IIb, IIIa or IIIb (Table 2), even (every sample equally often), or propagation (vi2v alone)."""
    weight: tuple[str, ...] = ()
    """NAME=W: weight of a data set inside its group, in the units of Table 1; 0 leaves it out."""
    rights: str = "any"
    """any, known (leaves out unknown licences), research (also no-derivatives), commercial (also non-commercial)."""
    progress: float = 0.0
    """Finished share of the stage, 0 to 1, at which the weights are taken."""
    steps: int = 0
    """Optimiser steps of the stage; with samples or tokens a step they tell how often a set is repeated."""
    samples_per_step: float = 0.0
    """Samples of all GPUs in one step."""
    tokens_per_step: float = 0.0
    """Tokens of all GPUs in one step, e.g. 8 * 150000; used where samples_per_step is not given."""
    max_repeat: float = 4.0
    """Warn of data sets drawn more often than this; up to 4 rounds hardly hurt (Muennighoff 2023)."""
    snapshots: int = 1
    """Constant stages that stand for the changing one."""
    trainer_data: str = ""
    """Folder with data.yaml, as `bernini export --form trainer` writes it: snapshots go to its subfolders."""
    simulate: bool = False
    """Draw at random what each snapshot would, and print it."""
    seed: int = 0
    """Of the simulation."""

    def __post_init__(self):
        at_least(self, 0, "steps")
        not_below(self, 0, "samples_per_step", "tokens_per_step")
        above_zero(self, "max_repeat")
        if not 0 <= self.progress <= 1:
            raise ConfigError(f"--progress is {self.progress:g}; it is the finished share of a stage, 0 to 1")
        if self.snapshots < 1:
            raise ConfigError(f"snapshots is {self.snapshots}; it must be at least 1")
        if self.snapshots > max(1, self.steps):
            raise ConfigError(f"--snapshots {self.snapshots} cuts the stage into parts of steps, and --steps is "
                              f"{self.steps}: give the steps of the stage, at least one a snapshot")
        if self.steps and not (self.samples_per_step or self.tokens_per_step):
            raise ConfigError("--steps needs --samples-per-step or --tokens-per-step")

    def mixture(self) -> Mixture:
        base, overrides = mixture(self.stage), {}
        for text in self.weight:
            name, _, value = text.rpartition("=")
            try:
                overrides[name] = float(value)
            except ValueError:
                name = ""
            if not name:
                raise ConfigError(f"--weight {text}: write NAME=W, e.g. --weight pico-banana-400k=2")
            if not 0 <= overrides[name] < math.inf:
                raise ConfigError(f"--weight {text}: a weight is a finite number, 0 or more")
        return replace(base, overrides=overrides)


@dataclass
class Amount:
    """What there is of one data set."""

    samples: int = 0
    seconds: float = 0.0
    tokens: int = 0
    weight: float = 0.0
    licences: set[str] = field(default_factory=set)


def main(argv: list[str]) -> int:
    """Weights of a stage's mixture for the samples given, and what it will draw."""
    mix(parse(Config, argv, prog="bernini mix", description=__doc__))
    return 0


def mix(config: Config) -> Manifest:
    blend, sources = config.mixture(), Sources(unmixed(config.manifests), "samples")
    for name in NEEDED:
        sources.require(name)
    sources.check_keys()
    ruled = Ruled(sources, config.rights)
    amounts = count(ruled)
    counts = {key: amount.samples for key, amount in amounts.items()}
    if not counts:
        raise RunStopped(f"no sample is left for the mixture. Dropped: "
                         f"{'; '.join(f'{r} ({n})' for r, n in ruled.drops.items()) or 'nothing was there'}")
    shares = blend.weights(counts, config.progress)
    run = Run.plan(config, amounts, lambda progress: blend.weights(counts, progress))
    show(config, blend, amounts, shares, run, ruled.drops)
    manifest = write(config, blend, sources, ruled, amounts, shares)
    if config.simulate:
        show_draws(run, amounts, config.seed)
    if config.trainer_data:
        write_snapshots(run, config.trainer_data)
    print(f"manifest  {manifest.path}")
    return manifest


def unmixed(paths: Sequence[str]) -> list[str]:
    """The manifests that are no mixtures: those hold rows of the others again."""
    mixed = [path for path in paths if Manifest.open(path).header.get("name") == MIX]
    if mixed and len(mixed) == len(paths):
        raise ConfigError(f"{', '.join(mixed)}: a mixture is not mixed again; name the samples that it was made of")
    for path in mixed:
        print(f"left out: {path} is a mixture itself")
    return [path for path in paths if path not in mixed]


class Ruled:
    """Batches of the sources with their licences classified and the rights rule applied."""

    def __init__(self, sources: Sources, policy: str):
        self._sources, self._classify = sources, ClassifyLicence()
        self.rules = (rights_rule(policy),)
        self._apply = ApplyRules(self.rules)
        self.drops: dict[str, int] = {}

    def batches(self, columns=None) -> Iterator[pa.Table]:
        self.drops = {}
        for batch in self._sources.batches(columns):
            batch = self._apply(self._classify(batch))
            for reason, num in count_drops(batch["drop_reason"]).items():
                self.drops[reason] = self.drops.get(reason, 0) + num
            yield batch


def count(ruled: Ruled) -> dict[Key, Amount]:
    """What each data set has to give: one pass over seven columns."""
    amounts: dict[Key, Amount] = {}
    for batch in map(live, ruled.batches(NEEDED)):
        if not batch.num_rows:
            continue
        keys, index = _keys(batch)
        is_video = np.array([TASKS[t].output == VIDEO for _, t in keys])[index]
        tokens = sample_tokens(batch["images"], batch["videos"])
        seconds = target_seconds(batch["videos"], is_video)
        weights = _weights(batch)
        for n, key in enumerate(keys):
            mine, amount = index == n, amounts.setdefault(key, Amount())
            amount.samples += int(mine.sum())
            amount.tokens += int(tokens[mine].sum())
            amount.seconds += float(seconds[mine].sum())
            amount.weight += float(weights[mine].sum())
            named = pc.fill_null(pc.unique(batch[LICENCE_ID.name].filter(pa.array(mine))), "unknown")
            amount.licences.update(named.to_pylist())
    return amounts


def _keys(batch: pa.Table) -> tuple[list[Key], np.ndarray]:
    """The data sets of a batch, and for each row the number of its own."""
    both = pc.binary_join_element_wise(batch["source_name"], batch["task"], "\x00").combine_chunks()
    coded = both.dictionary_encode()
    keys = [tuple(text.split("\x00")) for text in coded.dictionary.to_pylist()]
    for _, task in keys:
        if task not in TASKS:
            raise ConfigError(f"a sample has the task {task!r}; known: {', '.join(TASKS)}")
    return keys, coded.indices.to_numpy()


def _weights(batch: pa.Table) -> np.ndarray:
    return np.nan_to_num(pc.fill_null(batch["weight"], 1.0).to_numpy(), nan=1.0)


def write(config: Config, blend: Mixture, sources: Sources, ruled: Ruled, amounts: dict[Key, Amount],
          shares: dict[Key, float]) -> Manifest:
    new = (LICENCE_ID, RIGHTS, NUM_TOKENS)
    schema = pa.schema([*(WEIGHT if f.name == WEIGHT.name else f for f in sources.schema
                          if f.name not in {n.name for n in new}), *new])
    settings = [config.stage, sorted(config.weight), config.rights, config.progress]
    made_by = {n.name: {"op": "filters.licence:ClassifyLicence"} for n in new[:2]} | {
        "num_tokens": {"op": "manifests.sample_size:sample_tokens"}, "weight": {"op": "pipelines.mix:mix"}}
    target = Place(config.output, MIX, config).target("samples", (), parents=sources.manifests, settings=settings,
                                                        rules=ruled.rules, policy=blend,
                                                        made_by=sources.owners | made_by)
    return finish(target, schema, _weighted(ruled, amounts, shares))


def _weighted(ruled: Ruled, amounts: dict[Key, Amount], shares: dict[Key, float]) -> Iterator[pa.Table]:
    for batch in ruled.batches():
        keys, index = _keys(batch)
        per_weight = np.array([shares.get(k, 0.0) / amounts[k].weight if k in amounts and amounts[k].weight else 0.0
                               for k in keys])
        alive = batch["drop_reason"].is_null().to_numpy()
        values = np.where(alive, _weights(batch) * (per_weight[index] if len(keys) else 0.0), 0.0)
        batch = set_column(batch, WEIGHT, pa.array(values))
        yield set_column(batch, NUM_TOKENS, pa.array(sample_tokens(batch["images"], batch["videos"])))


def show(config: Config, blend: Mixture, amounts: dict[Key, Amount], shares: dict[Key, float], run: Run,
         drops: dict[str, int]) -> None:
    drawn = sum(shares[k] * a.tokens / a.samples for k, a in amounts.items() if shares.get(k))
    print(f"stage {blend.name} at progress {config.progress:g}; a drawn sample has {drawn:,.0f} tokens on average")
    head = f"{'group':<6}{'data set':<30}{'task':<13}{'samples':>10}{'seconds':>11}{'M tokens':>10}"
    print(f"{head}{'draws %':>9}{'tokens %':>9}{'repeat':>8}  licences")
    repeats = run.repeats()
    for key in sorted(amounts, key=lambda k: (list(TABLE_2["I"]).index(g) if (g := group_of(*k)) in TABLE_2["I"]
                                              else 99, -shares.get(k, 0.0), k)):
        amount, share = amounts[key], shares.get(key, 0.0)
        tokens = share * amount.tokens / amount.samples / drawn
        repeat = f"{repeats[key]:>8.2f}" if run.num_samples else f"{'-':>8}"
        print(f"{group_of(*key):<6}{key[0][:29]:<30}{key[1]:<13}{amount.samples:>10,}{amount.seconds:>11,.0f}"
              f"{amount.tokens / 1e6:>10,.1f}{share:>9.2%}{tokens:>9.2%}{repeat}  "
              f"{', '.join(sorted(amount.licences))[:40]}")
    for reason, num in sorted(drops.items(), key=lambda item: (-item[1], item[0])):
        print(f"left out: {num:,} {reason}")
    there = {group_of(*key) for key in amounts}
    if config.trainer_data and blend.decayed and config.snapshots == 1:
        print(f"warning: {', '.join(blend.decayed)} decay in this stage; one constant mixture holds them at their "
              "mean. Cut the stage with --snapshots, e.g. --snapshots 8")
    if missing := [f"{g} {w:g}" for g, w in blend.groups.items() if g not in there]:
        print(f"warning: nothing is there of {', '.join(missing)}; the rest takes their shares")
    for name in sorted(blend.overrides or {}):
        if reason := _no_effect(name, blend, amounts):
            print(f"warning: --weight {name} has no effect: {reason}")
    for key in sorted(amounts):
        _tell_of(key, config, blend, shares, run)


def _no_effect(name: str, blend: Mixture, amounts: dict[Key, Amount]) -> str:
    """Why a weight inside its group changes nothing; empty where it does."""
    groups = {group_of(*key) for key in amounts if key[0] == name}
    if blend.tasks and not any(other == name and task in blend.tasks for other, task in amounts):
        return f"stage {blend.name} draws only {', '.join(blend.tasks)}"
    if not blend.groups:
        return ""
    if not groups & set(blend.groups):
        return f"stage {blend.name} draws nothing of {', '.join(sorted(groups))}"
    alone = all(other == name for other, task in amounts if group_of(other, task) in groups)
    if alone and len(groups) == 1 and blend.overrides[name]:
        return f"it is all there is of {groups.pop()}, whose share the stage sets"
    return ""


def _tell_of(key: Key, config: Config, blend: Mixture, shares: dict[Key, float], run: Run) -> None:
    """What is unusual about a data set: it is not drawn, or too often."""
    name, repeats = f"{key[0]} ({key[1]})", run.repeats()[key]
    if not shares.get(key):
        decayed = config.progress and group_of(*key) in blend.decayed and any(s.get(key) for s in run.shares)
        print(f"note: {name} has no weight at this progress ({config.progress:g}), only earlier in the stage"
              if decayed else f"note: {name} has no weight in this stage and will not be drawn")
    if run.num_samples and repeats > config.max_repeat:
        most = math.floor(config.steps * config.max_repeat / repeats + 1e-6)
        steps = f", or at most {most:,} step{'s' if most > 1 else ''}" if most else ""
        advice = "give more samples" + (f", a lower --weight{steps}" if steps else " or a lower --weight")
        print(f"warning: each sample of {name} would be drawn {repeats:.1f} times, more than {config.max_repeat:g}: "
              f"{advice}")
