"""`bernini train`, with `--ray N` as a Ray Train job of N workers on the cluster of RAY_ADDRESS, or here.

Each worker is one process of the same run that torchrun would start: Ray sets the variables, makes
the process group and restarts the job after a failure, which then resumes from its checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from manifests.errors import RunStopped

RETRIES = 3


def main(argv: Sequence[str]) -> int:
    """The command: `--ray` goes to Ray, everything else runs in this process."""
    from bernini.train.command import main as train

    return train(argv, launch=launch)


def launch(config) -> None:
    """Runs the settings on workers and waits; raises `RunStopped` with the first cause when they fail."""
    from pathlib import Path

    import torch
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from .on_ray import connect

    connect()
    output = Path(config.output).resolve()

    def found(path: str) -> str:  # workers begin elsewhere
        return str(Path(path).resolve()) if path and Path(path).exists() else path

    absolute = asdict(config) | {
        "ray": 0, "output": str(output), "data": tuple(map(found, config.data)),
        **{name: found(getattr(config, name)) for name in ("model", "base", "sample_cases")}}
    trainer = TorchTrainer(
        work, train_loop_config=absolute,
        scaling_config=ScalingConfig(num_workers=config.ray, use_gpu=torch.cuda.is_available()),
        run_config=RunConfig(name="bernini-train", storage_path=str(output / "ray"),
                             failure_config=FailureConfig(max_failures=RETRIES)))
    try:
        trainer.fit()
    except Exception as error:  # noqa: BLE001 - Ray wraps whatever a worker raised
        raise RunStopped(f"the workers of the Ray job failed: {_cause(error)}") from error


def work(settings: dict) -> None:
    """One worker: the process group exists, RANK and WORLD_SIZE are set."""
    from bernini.train.command import run
    from bernini.train.stages import TrainConfig

    run(TrainConfig(**{**settings, "data": tuple(settings["data"])}))


def _cause(error: BaseException) -> str:
    """The innermost message, in one line."""
    failures = getattr(error, "worker_failures", None)
    if failures:
        error = next(iter(failures.values()))
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
