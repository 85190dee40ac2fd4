"""The training loop: packs in, optimiser steps, metrics and checkpoints out.

Nothing in a step waits for the device: losses stay there until a line of metrics is due, and a
gradient that is not a number cancels the update there too (fused AdamW's `found_inf`) and is told
with the next line. All that decides a step is in the checkpoint, so a run that was killed goes on
bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from bernini.planner.chat import Special
from bernini.train.chats import Tokenize
from bernini.train.checkpoint import Checkpoints, Saved
from bernini.train.ema import Average
from bernini.train.example import Pack
from bernini.train.losses import TrainModel
from bernini.train.metrics import Clock, Interval, StepRecord, Writer, line, progress_line
from bernini.train.parallel import Shards, World
from bernini.train.prepare import Batch, Needs, dummies, prepare
from bernini.train.stages import TrainConfig, differences
from manifests.errors import ConfigError, RunStopped

WARMUP_FROM = 0.071  # of the learning rate: 7.1e-7 of 1e-5 (spec 6)
MOMENTS = ("exp_avg", "exp_avg_sq")
MOST_EMPTY = 8  # packs in a row without one usable sample: the data is wrong, not a sample


class Loader(Protocol):
    """Endless packs of one process, with a place that can be stored as JSON."""

    def __iter__(self) -> Iterator[Pack]: ...
    def state_dict(self) -> dict: ...
    def load_state_dict(self, state: dict) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How packs become batches: what samples must have, and the planner's words."""

    needs: Needs
    tokenize: Tokenize | None = None
    special: Special | None = None


class Trainer:
    """One run. `sample(step, trainer)` is called every `sample_every` steps, on all processes."""

    def __init__(
        self,
        config: TrainConfig,
        model: TrainModel,
        loader: Loader,
        reading: Reading,
        world: World | None = None,
        *,
        say: Callable[[str], None] = print,
        sample: Callable[[int, Trainer], None] | None = None,
    ):
        self.config, self.model, self.loader, self.reading = config, model, loader, reading
        self.world, self.say, self.sample = world or World(), say, sample
        self.output = Path(config.output)
        self.shards = Shards.of(model)
        self.optimizer = torch.optim.AdamW(
            list(self.shards.local.values()), lr=config.lr, weight_decay=config.weight_decay, fused=True
        )
        self.average = Average(self.shards.local, config.ema_decay)
        self.checkpoints = Checkpoints(self.output, config.keep, self.world, say)
        self.step = self.empty = 0
        self.interval, self.records = Interval(), []
        self.half = use_half(config, self.world)

    def run(self) -> None:
        """From the newest checkpoint, or from the start, to the last step."""
        self._resume()
        first, config = self.world.is_first, self.config
        if first and self.step >= config.steps:
            self.say(f"nothing is left to train: the run is at step {self.step} of --steps {config.steps}; give a "
                     "larger --steps to go on")  # fmt: skip
        self.output.mkdir(parents=True, exist_ok=True)
        writer = Writer(self.output, resumed_at=self.step, tensorboard=config.tensorboard, wandb=config.wandb,
                        config=asdict(config)) if first else None  # fmt: skip
        if writer is not None and config.tensorboard and writer.board is None:
            self.say("TensorBoard is not installed (pip install -e '.[train]'); metrics.jsonl has the same numbers")
        packs, clock = iter(self.loader), Clock(self.world, self.interval)
        logged = self.step
        while self.step < config.steps:
            self.train_step(packs)
            if self.step % config.log_every == 0 or self.step == config.steps:
                self._log(writer, clock, self.step - logged)
                logged = self.step
            if self.step % config.save_every == 0 or self.step == config.steps:
                with clock.stopped():
                    self.save()
            if self.sample is not None and config.sample_every and self.step % config.sample_every == 0:
                with clock.stopped():
                    self.sample(self.step, self)
        if writer is not None:
            writer.close()

    def train_step(self, packs: Iterator[Pack]) -> None:
        """One optimiser step over `accumulate` packs of every process."""
        self.model.train()
        counts = []
        for _ in range(self.config.accumulate):
            batch = self._next(packs)
            losses = self._backward(batch)
            counts.append(batch.counts)
            having = {term: batch.having(term) for term in losses}
            self.records.append(StepRecord(self.step + 1, batch.names, batch.tasks, losses, having, None,
                                           batch.num_tokens, batch.flops, batch.skipped))  # fmt: skip
        count = self.world.sum(torch.stack(counts).sum()) / self.world.sequence.size
        norm = self._update(count)
        self.records[-1] = replace(self.records[-1], norm=norm)
        self.step += 1

    def _next(self, packs: Iterator[Pack]) -> Batch:
        reading = self.reading
        try:
            pack = next(packs)
        except StopIteration:
            raise RunStopped(f"the data ended at step {self.step} of {self.config.steps}") from None
        batch = prepare(pack, reading.needs, reading.tokenize, reading.special, self.config.vit_noises)
        for why in batch.skipped:
            self.say(f"skipped {why}")
        self.empty = 0 if batch.names else self.empty + 1
        if self.empty == MOST_EMPTY:
            why = batch.skipped[-1] if batch.skipped else "they are empty"
            raise RunStopped(f"{MOST_EMPTY} packs in a row have no sample that can be used, the last: {why}")
        if self.world.size > 1:
            batch = dummies(batch, reading.needs, reading.special)
        return batch.to(self.world.device, next(iter(self.shards.local.values())).dtype)

    def _backward(self, batch: Batch) -> dict[str, Tensor]:
        if not batch.items and not batch.documents:
            return {}
        with torch.autocast(self.world.device.type, torch.bfloat16) if self.half else nullcontext():
            losses = self.model(batch)
        if losses:
            self.model.total(losses).backward()
        return {term: loss.detach() for term, loss in losses.items()} if batch.names else {}

    @torch.no_grad()
    def _update(self, count: Tensor) -> Tensor:
        """Mean over samples, clip, AdamW, average. The norm before clipping; not finite, or without a sample: nothing
        moves, neither by momentum nor by weight decay."""
        gradients = self.shards.take_gradients()
        squares = torch.stack([n.double().square() for n in torch._foreach_norm(gradients)]).sum()
        some, count = count > 0, count.clamp_min(1.0).double()
        norm = self.world.sum(squares).sqrt() / count
        scale = (self.config.clip / (norm + 1e-6)).clamp_max(1.0) / count
        torch._foreach_mul_(gradients, scale.to(gradients[0].dtype))
        taken = norm.isfinite() & some
        self.optimizer.found_inf = (~taken).float()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(self.step)
        self.optimizer.step()
        self.average.update(self.shards.local, self.step, taken)
        self.shards.drop_gradients()
        return norm

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0: linear warm-up, then constant."""
        config = self.config
        done = min(1.0, step / config.warmup) if config.warmup else 1.0
        return config.lr * (WARMUP_FROM + (1 - WARMUP_FROM) * done)

    def _log(self, writer: Writer | None, clock: Clock, steps: int) -> None:
        self._collect()
        metrics = line(self.step, self.rate(self.step - 1), self.interval, self.world, self.model.weights)
        metrics["time"] = clock.lap(metrics, steps, self.config.steps - self.step)
        self.interval = Interval()
        if writer is not None:
            writer.write(metrics)
            self.say(progress_line(metrics, self.config.steps))

    def _collect(self) -> None:
        """Losses of finished steps off the device."""
        for why in self.interval.add(self.records):
            self.say(f"skipped {why}")
        self.records = []

    def state(self) -> dict[str, Tensor]:
        """All tensors of the run by name: weights, averages, moments of the optimiser."""
        shards = self.shards
        out: dict[str, Tensor] = {f"model.{n}": shards.like(n, p.detach()) for n, p in shards.local.items()}
        out |= {f"ema.{n}": shards.like(n, t) for n, t in self.average.tensors.items()}
        for name, parameter in shards.local.items():
            state = self.optimizer.state[parameter]
            if not state:  # not stepped yet: as AdamW begins
                state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
                state.update({m: torch.zeros_like(parameter) for m in MOMENTS})
            out |= {f"{m}.{name}": shards.like(name, state[m]) for m in MOMENTS}
            out[f"taken.{name}"] = state["step"].view(1)
        return out

    def save(self) -> None:
        """A checkpoint of this step."""
        self._collect()
        own = {"loader": self.loader.state_dict(), "interval": asdict(self.interval)}
        self.checkpoints.save(self.step, self.state(), own, asdict(self.config))

    def _resume(self) -> None:
        saved = self.checkpoints.newest()
        if saved is None:
            return
        tensors = self.state()
        self._check_same(saved, tensors)
        saved.load_into(tensors, self.world)
        same = saved.index["processes"] == self.world.size
        own = saved.rank(self.world.rank if same else 0)
        self.loader.load_state_dict(own["loader"])
        self.interval, self.step = Interval(**own["interval"]) if same else Interval(), saved.step
        if self.world.is_first:
            self.say(f"resumed at step {self.step} from {saved.folder}")
            for change in differences(self.config, saved.index["config"]):
                self.say(f"changed since then: {change}")
            if not same:
                self.say(f"written by {saved.index['processes']} processes, now {self.world.size}: the data goes on "
                         "where it stood, the open interval of metrics begins anew")  # fmt: skip

    def _check_same(self, saved: Saved, tensors: Mapping[str, Tensor]) -> None:
        """Refuses a checkpoint of other modules: tensors that it has alone would be lost with the next one."""
        stored, wanted = saved.shapes(), {name: tuple(t.shape) for name, t in tensors.items()}
        if stored == wanted:
            return
        name = next(n for n in (*stored, *wanted) if stored.get(n) != wanted.get(n))
        changes = "; ".join(differences(self.config, saved.index["config"])) or "the model folder"
        there, here = stored.get(name, "none"), wanted.get(name, "none")
        raise ConfigError(f"{saved.folder} holds other tensors than this run trains ({name}: {there} there, {here} "
                          f"here). Changed since then: {changes}. Give the settings that it was begun with, or another "
                          "--output")  # fmt: skip

    def trained(self, averaged: bool = True) -> Mapping[str, Tensor]:
        """Trained tensors by name, as shards of the whole ones."""
        local = self.average.tensors if averaged else self.shards.local
        return {n: self.shards.like(n, t.detach()) for n, t in local.items()}


def use_half(config: TrainConfig, world: World) -> bool:
    """Are matrix products done in bfloat16?"""
    return config.precision == "bf16" or (config.precision == "auto" and world.device.type == "cuda")
