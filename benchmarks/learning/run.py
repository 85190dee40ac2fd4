"""Does a renderer learn to follow instructions, and what does the position code do for it?

    python -m benchmarks.learning.run --subset content --arms sa plain segment --seeds 0 1 2
    python -m benchmarks.learning.run --subset reasoning --planner on --seeds 0 1 2
    python -m benchmarks.learning.run --preset h200 --device cuda --subset content
    python -m benchmarks.learning.run --smoke            # the whole path in miniature

Procedural edits go through the pipeline's stops, tiny renderers of the repo's own classes are trained on
what the stops hold, and an analytic judge measures what they generate for held-out combinations. Every
finished (arm, seed) is written at once; the same command goes on with those that are missing.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import tyro

from bernini.errors import CaseError

from .arms import ARMS, ArmConfig
from .experiment import Experiment, SetSizes
from .report import Results, write_report
from .train import TrainConfig

# Prototype sizes (two cores) and one large card. `h200` has not been run; `--smoke` runs its path in miniature.
PRESETS = {
    "cpu": (ArmConfig(), TrainConfig(), SetSizes()),
    "h200": (ArmConfig(num_layers=8, num_heads=8, head_dim=48, ffn_ratio=4, theta=1000.0),
             TrainConfig(steps=1500, batch=1024, lr=1e-3, ema=0.999, warmup=100), SetSizes(train=100_000, test=2048)),
}
STEPS = {"cpu": {"id": 2400, "content": 2400, "edits": 2400, "reasoning": 1600, "motion": 1600}, "h200": {}}
LAYERS = {"cpu": {"id": 3}, "h200": {}}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to train and to ask."""

    subset: str = "content"
    """edits, id, content, reasoning or motion."""
    arms: tuple[str, ...] = ("sa", "plain", "segment")
    """sa, plain, segment, both."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One training of each arm a seed; batches and noises of a seed are the same in every arm."""
    steps: int | None = None
    """Optimiser steps; none = the preset's for the subset."""
    preset: str = "cpu"
    """cpu (two cores) or h200 (one large GPU)."""
    planner: str = "off"
    """off, or on: a planner is trained first, and the renderer with its plan as further context."""
    device: str = "cpu"
    """cpu or cuda."""
    threads: int = 1
    """Threads of torch."""
    theta: float | None = None
    """Another rotary base, for all arms."""
    segment_init: float | None = None
    """Another deviation of the segment vectors at the start."""
    lr: float | None = None
    """Another learning rate."""
    smoke: bool = False
    """Sixteen samples, two steps, width 48: shows that every path runs, measures nothing."""
    work: str = ""
    """Folder of the stops; none = a temporary one."""
    results: str = str(Path(__file__).resolve().parent.parent / "results" / "learning.json")
    """File of the finished rows."""

    def __post_init__(self):
        for arm in self.arms:
            if arm not in ARMS:
                raise CaseError(f"unknown arm {arm!r}; known: {', '.join(ARMS)}")
        if self.preset not in PRESETS:
            raise CaseError(f"unknown preset {self.preset!r}; known: {', '.join(PRESETS)}")
        if self.planner not in ("on", "off"):
            raise CaseError(f"--planner is {self.planner!r}; it is on or off")


def settings(options: Options) -> tuple[ArmConfig, TrainConfig, SetSizes]:
    """The preset with what the options change."""
    arm, training, sizes = PRESETS[options.preset]
    steps = options.steps or STEPS[options.preset].get(options.subset, training.steps)
    training = replace(training, steps=steps, device=options.device, lr=options.lr or training.lr)
    layers = LAYERS[options.preset].get(options.subset, arm.num_layers)
    arm = replace(arm, num_layers=layers, channels=12 if options.subset == "motion" else arm.channels,
                  theta=options.theta or arm.theta, segment_init=options.segment_init or arm.segment_init)
    if options.smoke:
        arm = replace(arm, num_layers=2, num_heads=2, head_dim=24)
        training, sizes = replace(training, steps=2, batch=4), SetSizes(train=16, test=8)
    return arm, training, sizes


def main(options: Options) -> Path:
    """Trains what is missing and writes the report; returns its path."""
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(prefix="learning-") as folder:
        folder = Path(options.work or folder)
        results = Results(folder / "smoke.json" if options.smoke else Path(options.results))
        run_missing(options, str(folder), results)
        report = write_report(results)
        print(report.read_text())
    return report


def run_missing(options: Options, folder: str, results: Results) -> None:
    """Every (arm, seed) of the options that the results do not hold yet, seed by seed."""
    arm_config, training, sizes = settings(options)
    experiment = None
    for seed in options.seeds:
        for arm in options.arms:
            key = {"subset": options.subset, "arm": arm, "planner": options.planner, "seed": seed,
                   "preset": options.preset, "model": asdict(arm_config), "training": asdict(training),
                   "sizes": asdict(sizes)}
            if results.has(key):
                continue
            if experiment is None:
                experiment = Experiment(folder, options.subset, sizes, options.device)
                results.add_sanity(options.subset, experiment.sanity())
            log = progress(f"{options.subset} {arm} seed {seed}" + (" planner" if options.planner == "on" else ""))
            if options.planner == "on":
                from .planned import run_planned

                row = run_planned(experiment, arm, arm_config, training, seed, log)
            else:
                row = experiment.run(arm, arm_config, training, seed, log)
            results.add(key, row)


def progress(name: str):
    """A function that prints step and loss."""
    def log(step: int, loss: float) -> None:
        print(f"{name}: step {step}, loss {loss:.4f}", flush=True)
    return log


if __name__ == "__main__":
    main(tyro.cli(Options))
