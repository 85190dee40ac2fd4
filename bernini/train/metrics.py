"""What a run says about itself: JSON lines, TensorBoard, Weights & Biases, one line on the screen.

Losses stay on the device until a line is due; then one transfer and one reduction. A line of
metrics.jsonl has `step`, `loss` (weighted, mean a sample), `loss/TERM`, `loss/TASK/TERM`,
`grad_norm`, `lr`, `samples`, `tokens`, `skipped`, and under `time` what depends on the machine.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from bernini.train.flops import TRAINING, peak_flops
from bernini.train.losses import TERMS, LossWeights
from bernini.train.parallel import World
from manifests.tasks import TASKS

TASK_NAMES = tuple(TASKS)


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

    def add(self, records: Sequence[StepRecord]) -> list[str]:
        """Takes finished steps over; "id: why" of samples whose loss was not a number."""
        bad: list[str] = []
        for record, losses, norm in zip(records, *_fetch(records), strict=True):
            for term, values in losses.items():
                for i in record.having[term]:
                    name, task, value = record.names[i], record.tasks[i], values[i]
                    at = TASK_NAMES.index(task) * len(TERMS) + TERMS.index(term)
                    if value == value and abs(value) != float("inf"):
                        self.sums[at] += value
                        self.counts[at] += 1
                    else:
                        bad.append(f"{name}: {term} loss is {value} at step {record.step}; the step was not taken")
            self.samples += len(record.names)
            self.tokens += record.num_tokens
            self.flops += record.flops
            self.skipped += len(record.skipped)
            self.norms += [] if norm is None else [norm]
        self.skipped += len(bad)
        return bad


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
    norms = [n for n in interval.norms if n == n]
    out |= {"grad_norm": sum(norms) / len(norms) if norms else None, "lr": lr, "samples": samples,
            "tokens": tokens, "flops": flops, "skipped": skipped}  # fmt: skip
    return out


class Writer:
    """Puts lines to their places; only the first process has one."""

    def __init__(self, folder: Path, *, resumed_at: int, tensorboard: bool, wandb: str, config: dict):
        self.path = folder / "metrics.jsonl"
        self._forget_after(resumed_at)
        self.board = _tensorboard(folder, resumed_at) if tensorboard else None
        self.wandb = _wandb(wandb, folder, config) if wandb else None

    def _forget_after(self, step: int) -> None:
        """Lines of steps that will run again are taken out; the file is replaced whole."""
        if not self.path.exists():
            return
        kept = [t for t in self.path.read_text().splitlines() if t.endswith("}") and json.loads(t)["step"] <= step]
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


def _tensorboard(folder: Path, resumed_at: int):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=resumed_at + 1)


def _wandb(project: str, folder: Path, config: dict):
    from manifests.errors import ConfigError

    try:
        import wandb
    except ImportError:
        raise ConfigError("--wandb needs the package wandb: pip install wandb") from None
    return wandb.init(project=project, dir=str(folder), config=config, resume="allow", id=folder.name)


class Clock:
    """Speed of an interval: tokens a second, use of the hardware, time left."""

    def __init__(self, device: torch.device, world_size: int):
        self.peak = peak_flops(device)
        self.size, self.began = world_size, time.perf_counter()

    def lap(self, metrics: dict, steps: int, left: int) -> dict:
        """Numbers that depend on the machine; starts the next interval."""
        seconds = time.perf_counter() - self.began
        self.began = time.perf_counter()
        rate = TRAINING * metrics["flops"] / seconds / self.size
        out = {"tokens_per_s": metrics["tokens"] / seconds, "tflops": rate / 1e12,
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
    return (f"step {metrics['step']}/{total}  loss {metrics['loss']:.4f}  [{tasks}]  "
            f"{timing['tokens_per_s']:,.0f} tokens/s  {use}  "
            f"{left // 3600}:{left % 3600 // 60:02}:{left % 60:02} left{skipped}")  # fmt: skip
