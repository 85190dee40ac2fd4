"""Run stages on Ray Data: one actor pool a stage, streaming, resources as declared.

The driver keeps the ledger; workers only compute. `ray` is imported nowhere else.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext

from manifests.errors import ConfigError, RunStopped

from .local import MAX_ATTEMPTS, build, put_aside
from .stage import Stage, apply_op

BLOCKS_PER_WAVE = 4096  # what lies in the object store at once, however long the source


def connect() -> None:
    """Join the cluster named by RAY_ADDRESS (as in a submitted job), or start one on this machine."""
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # a cluster of this machine alone
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR,
                 **({} if address else {"include_dashboard": False}))
    except ConnectionError as error:
        raise ConfigError(f"no Ray cluster answers at RAY_ADDRESS={address}: {error}. Unset it to run on "
                          "this machine, or start one with 'ray start --head'") from None


def run_ray(blocks: Iterator[pa.Table], stages: Sequence[Stage], *, key: str) -> Iterator[tuple[list[str], pa.Table]]:
    """Yields `(source keys, finished rows)` as blocks finish, in any order.

    Each block stays one block (`batch_size` is its number of rows), so that a finished one is
    on disk at once and a crash loses little.
    """
    connect()
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    # Counts what is being worked on. It is an actor of this driver and dies with it.
    pulse = ray.remote(num_cpus=0)(_Pulse).remote()
    while wave := list(islice(blocks, BLOCKS_PER_WAVE)):
        dataset = ray.data.from_arrow(wave)
        for i, stage in enumerate(stages):
            dataset = dataset.map_batches(
                _Worker, fn_constructor_kwargs={"stage": stage, "index": i, "key": key, "pulse": pulse},
                batch_size=min(stage.batch_size, max(t.num_rows for t in wave)), batch_format="pyarrow",
                compute=_pool(stage, len(wave)), num_cpus=stage.num_cpus, num_gpus=stage.num_gpus or None)
        try:
            for done in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=4):
                yield done[key].unique().to_pylist(), done
        except ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, Exception) else error) from None
        except ray.exceptions.RayError as error:
            raise RunStopped(f"Ray stopped: {str(error).splitlines()[0]}. Finished work is kept; run again") from None


def _pool(stage: Stage, num_blocks: int) -> ActorPoolStrategy:
    """As many actors as asked for, else as the cluster and the work bear."""
    if stage.workers:
        return ActorPoolStrategy(size=stage.workers)
    have = ray.cluster_resources()
    fits = have.get("GPU", 0) / stage.num_gpus if stage.num_gpus else have.get("CPU", 1) / stage.num_cpus
    if fits < 1:
        raise ConfigError(f"{stage.name} needs {stage.num_cpus:g} CPUs and {stage.num_gpus:g} GPUs a worker; the "
                          f"cluster has {have.get('CPU', 0):g} and {have.get('GPU', 0):g}")
    return ActorPoolStrategy(size=max(1, min(int(fits), num_blocks)))


class _Pulse:
    """Who works on what. A row that is begun again without having ended has lost its worker."""

    def __init__(self):
        self.begun: Counter = Counter()
        self.alone: Counter = Counter()

    def begin(self, stage: int, keys: list[str]) -> list[str]:
        """Keys that were begun before; a lone key counts as tried alone."""
        lost = [k for k in keys if self.begun[stage, k]]
        self.begun.update((stage, k) for k in keys)
        if len(keys) == 1 and not lost:
            self.alone[stage, keys[0]] += 1
        return lost

    def try_alone(self, stage: int, key: str) -> int:
        self.alone[stage, key] += 1
        return self.alone[stage, key]

    def end(self, stage: int, keys: list[str]) -> None:
        for k in keys:
            self.begun.pop((stage, k), None)
            self.alone.pop((stage, k), None)


class _Worker:
    """Lives on the worker. A batch that lost its worker is tried again row by row."""

    def __init__(self, stage: Stage, index: int, key: str, pulse):
        self.stage, self.index, self.key, self.pulse = stage, index, key, pulse
        self.op = build(stage)

    def __call__(self, table: pa.Table) -> pa.Table:
        keys = table[self.key].to_pylist()
        if ray.get(self.pulse.begin.remote(self.index, keys)):
            done = pa.concat_tables([self._alone(table.slice(i, 1), k) for i, k in enumerate(keys)])
        else:
            done = apply_op(self.op, table)
        ray.get(self.pulse.end.remote(self.index, keys))
        return done

    def _alone(self, row: pa.Table, key: str) -> pa.Table:
        if ray.get(self.pulse.try_alone.remote(self.index, key)) > MAX_ATTEMPTS:
            return put_aside(row, [self.stage], MAX_ATTEMPTS, "the Ray worker was lost")
        return apply_op(self.op, row)
