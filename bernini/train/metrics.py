"""What a run says about itself: JSON lines, TensorBoard, Weights & Biases, one line on the screen.

Losses stay on the device until a line is due; then one transfer and one reduction. A line of
metrics.jsonl has `step`, `loss` (weighted, mean a sample), `loss/TERM`, `loss/TASK/TERM`,
`grad_norm` (mean over the steps taken), `steps_not_taken` (their gradient was not finite), `lr`,
`samples`, `tokens`, `skipped` (samples), and under `time` what depends on the machine.
"""

from __future__ import annotations

import json
import math
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from bernini.train.flops import TRAINING, peak_flops
from bernini.train.losses import TERMS, LossWeights
from bernini.train.parallel import World
from manifests.tasks import TASKS

TASK_NAMES = tuple(TASKS)
MOST_NAMED = 32  # samples of a step that was not taken


@dataclass
class StepRecord:
    """One pack of one step, losses `[E]` by term still on the device; `having` says whose they are."""

    step: int
    names: list[str]
    tasks: list[str]
    losses: dict[str, Tensor]
    having: dict[str, list[int]]
    norm: Tensor | None
    num_tokens: int
    flops: float
    skipped: list[str]


@dataclass
class Interval:
    """Sums since the last line, plain numbers: they go into checkpoints, so that a line may span a restart."""

    sums: list[float] = field(default_factory=lambda: [0.0] * (len(TASK_NAMES) * len(TERMS)))
    counts: list[float] = field(default_factory=lambda: [0.0] * (len(TASK_NAMES) * len(TERMS)))
    samples: float = 0.0
    tokens: float = 0.0
    flops: float = 0.0
    skipped: float = 0.0
    norms: list[float] = field(default_factory=list)
    not_taken: int = 0

    def add(self, records: Sequence[StepRecord]) -> list[str]:
        """Takes finished steps over; "what: why" of samples whose loss, and steps whose gradient was not finite."""
        told: list[str] = []
        names: list[str] = []  # of the samples of one step
        guilty: set[int] = set()  # steps of which a sample was named
        for record, losses, norm in zip(records, *_fetch(records), strict=True):
            bad = self._add_losses(record, losses)
            told += bad
            guilty |= {record.step} if bad else set()
            names += record.names
            self.samples += len(record.names)
            self.tokens += record.num_tokens
            self.flops += record.flops
            self.skipped += len(record.skipped) + len(bad)
            if norm is None:
                continue
            if math.isfinite(norm):
                self.norms.append(norm)
            else:
                self.not_taken += 1
                told += [] if record.step in guilty else [_not_taken(record.step, norm, names)]
            names = []
        return told

    def _add_losses(self, record: StepRecord, losses: dict[str, list[float]]) -> list[str]:
        """Sums of a pack's losses; "id: why" of samples whose loss was not finite."""
        bad: list[str] = []
        for term, values in losses.items():
            for i in record.having[term]:
                name, task, value = record.names[i], record.tasks[i], values[i]
                at = TASK_NAMES.index(task) * len(TERMS) + TERMS.index(term)
                if math.isfinite(value):
                    self.sums[at] += value
                    self.counts[at] += 1
                else:
                    bad.append(f"{name}: {term} loss is {value} at step {record.step}; the step was not taken")
        return bad


def _not_taken(step: int, norm: float, names: Sequence[str]) -> str:
    """What is told of a step with finite losses and another gradient; which sample it was, nobody knows."""
    more = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
    return (f"step {step}: the norm of its gradient is {norm}; the step was not taken. Its samples here: "
            f"{', '.join(names[:MOST_NAMED]) or 'none'}{more}")


def _fetch(records: Sequence[StepRecord]) -> tuple[list[dict[str, list[float]]], list[float | None]]:
    """All numbers of several steps in one transfer from the device."""
    parts = [v.detach().double() for r in records for v in r.losses.values()]
    parts += [r.norm.detach().double().reshape(1) for r in records if r.norm is not None]
    values = iter(torch.cat(parts).tolist() if parts else [])
    losses = [{term: [next(values) for _ in r.names] for term in r.losses} for r in records]
    return losses, [next(values) if r.norm is not None else None for r in records]


def line(step: int, lr: float, interval: Interval, world: World, weights: LossWeights) -> dict:
    """The metrics of an interval over all processes."""
    numbers = [*interval.sums, *interval.counts, interval.samples, interval.tokens, interval.flops, interval.skipped]
    total = world.sum(torch.tensor(numbers, dtype=torch.float64, device=world.device)).tolist()
    share = world.sequence.size  # processes of one pack: losses are shares, everything else is counted by each
    size = len(interval.sums)
    sums, counts = total[:size], [c / share for c in total[size : 2 * size]]
    samples, tokens, flops, skipped = (x / share for x in total[2 * size :])
    out: dict = {"step": step, "loss": 0.0}
    for i, term in enumerate(TERMS):
        of_term = sum(sums[i :: len(TERMS)])
        out["loss"] += getattr(weights, term) * of_term / max(1.0, samples)
        if any(counts[i :: len(TERMS)]):
            out[f"loss/{term}"] = of_term / sum(counts[i :: len(TERMS)])
    for at, (value, count) in enumerate(zip(sums, counts, strict=True)):
        if count:
            out[f"loss/{TASK_NAMES[at // len(TERMS)]}/{TERMS[at % len(TERMS)]}"] = value / count
    norms = [n for n in interval.norms if math.isfinite(n)]  # older checkpoints hold others too
    out |= {"grad_norm": sum(norms) / len(norms) if norms else None, "steps_not_taken": interval.not_taken, "lr": lr,
            "samples": samples, "tokens": tokens, "flops": flops, "skipped": skipped}  # fmt: skip
    return out


class Writer:
    """Puts lines to their places; only the first process has one."""

    def __init__(self, folder: Path, *, resumed_at: int, tensorboard: bool, wandb: str, config: dict):
        self.path = folder / "metrics.jsonl"
        self._forget_after(resumed_at)
        self.board = _tensorboard(folder, resumed_at) if tensorboard else None
        self.wandb = _wandb(wandb, folder, config, resumed_at) if wandb else None

    def _forget_after(self, step: int) -> None:
        """Lines of steps that will run again are taken out; the file is replaced whole."""
        if not self.path.exists():
            return
        kept = [t for t in self.path.read_text(errors="replace").splitlines() if _step_of(t) <= step]
        aside = self.path.with_suffix(".aside")
        aside.write_text("".join(t + "\n" for t in kept))
        os.replace(aside, self.path)

    def write(self, metrics: dict) -> None:
        """One line everywhere."""
        with self.path.open("a") as file:
            file.write(json.dumps(metrics) + "\n")
        numbers = {k: v for k, v in (metrics | metrics.get("time", {})).items() if isinstance(v, int | float)}
        if self.board is not None:
            for name, value in numbers.items():
                self.board.add_scalar(name, value, metrics["step"])
            self.board.flush()
        if self.wandb is not None:
            self.wandb.log(numbers, step=metrics["step"])

    def close(self) -> None:
        for sink, end in ((self.board, "close"), (self.wandb, "finish")):
            if sink is not None:
                getattr(sink, end)()


def _step_of(text: str) -> float:
    """Step of a line of metrics; infinite where it was torn in the middle, so that it is taken out."""
    try:
        return json.loads(text)["step"]
    except (ValueError, TypeError, KeyError):
        return math.inf


def _tensorboard(folder: Path, resumed_at: int):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=resumed_at + 1)


def _wandb(project: str, folder: Path, config: dict, resumed_at: int):
    from manifests.errors import ConfigError

    try:
        import wandb
    except ImportError:
        raise ConfigError("--wandb needs the package wandb: pip install wandb") from None
    run = _wandb_id(folder / "wandb-id", begins=resumed_at == 0)
    return wandb.init(project=project, dir=str(folder), config=config, resume="allow", id=run,
                      name=folder.resolve().name)  # fmt: skip


def _wandb_id(file: Path, begins: bool) -> str:
    """The name that makes all starts of one run one curve, and those of no other run."""
    if begins or not file.exists():
        aside = file.with_suffix(".aside")
        aside.write_text(uuid.uuid4().hex + "\n")
        os.replace(aside, file)
    return file.read_text().strip()


class Clock:
    """Speed of an interval: tokens a second, use of the hardware, time left.

    Only what was done since the clock began counts: the interval that a run was resumed in was begun by another.
    """

    def __init__(self, world: World, resumed: Interval):
        self.peak, self.device, self.size = peak_flops(world.device), world.device, world.size
        done = torch.tensor([resumed.tokens, resumed.flops], dtype=torch.float64, device=world.device)
        self.tokens, self.flops = (world.sum(done) / world.sequence.size).tolist()
        self.began = time.perf_counter()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """What is done inside is not training: the time of saving and of generating samples is left out."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # steps still under way are training
        since = time.perf_counter()
        yield
        self.began += time.perf_counter() - since

    def lap(self, metrics: dict, steps: int, left: int) -> dict:
        """Numbers that depend on the machine; starts the next interval."""
        seconds = time.perf_counter() - self.began
        tokens, flops = metrics["tokens"] - self.tokens, metrics["flops"] - self.flops
        self.began, self.tokens, self.flops = time.perf_counter(), 0.0, 0.0
        rate = TRAINING * flops / seconds / self.size
        out = {"tokens_per_s": tokens / seconds, "tflops": rate / 1e12,
               "seconds_per_step": seconds / max(1, steps), "left_s": seconds / max(1, steps) * left}  # fmt: skip
        return out | ({"mfu": rate / self.peak} if self.peak else {})


def progress_line(metrics: dict, total: int) -> str:
    """What a person reads."""
    timing = metrics["time"]
    by_task = {k.removeprefix("loss/"): v for k, v in metrics.items() if k.count("/") == 2}
    tasks = "  ".join(f"{name} {value:.4f}" for name, value in by_task.items())
    use = f"MFU {timing['mfu']:.1%}" if "mfu" in timing else f"{timing['tflops']:.3g} TFLOP/s"
    left = int(timing["left_s"])
    skipped = f"  skipped {metrics['skipped']:.0f}" if metrics["skipped"] else ""
    skipped += f"  steps not taken {metrics['steps_not_taken']}" if metrics["steps_not_taken"] else ""
    return (f"step {metrics['step']}/{total}  loss {metrics['loss']:.4f}  [{tasks}]  "
            f"{timing['tokens_per_s']:,.0f} tokens/s  {use}  "
            f"{left // 3600}:{left % 3600 // 60:02}:{left % 60:02} left{skipped}")  # fmt: skip
