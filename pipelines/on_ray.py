"""Run stages on Ray: a pool of actors for each stage that needs hardware, blocks streaming through.

Plain Ray actors, not Ray Data, for three measured reasons: a block keeps its identity, so a
finished one is on disk at once and a lost worker is blamed on exactly the rows it held; the
first row is done 5 s after the start instead of 10 s (Ray Data's import and its workers'); and
a crash of one row costs that row, not the data set. The driver holds the ledger; a stage takes
a new block only when the next one can follow (back-pressure).
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import ray

from manifests.columns import NUM_ATTEMPTS, set_column
from manifests.errors import ConfigError, RunStopped

from .local import MAX_ATTEMPTS, build_all, put_aside, run_ops
from .stage import Stage

LOST = (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError, ray.exceptions.WorkerCrashedError)
GROW_EVERY_S = 10.0  # how often a growing cluster is given more workers
PATIENCE_S = 60.0    # without a finished block before what is waited for is told; then twice as long, and so on


def connect() -> None:
    """Join the cluster named by RAY_ADDRESS (as in a submitted job), or start one on this machine."""
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # a cluster of this machine alone
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    else:
        _knock(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR,
                 **({} if address else {"include_dashboard": False}))
    except (ConnectionError, ValueError) as error:
        raise ConfigError(f"no Ray cluster answers at RAY_ADDRESS={address}: {str(error).splitlines()[0]} Unset it "
                          "to run on this machine, or start one with 'ray start --head'") from None


def _knock(address: str) -> None:
    """Ray itself waits minutes for a head that is not there."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():  # "auto", "local": Ray knows
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise ConfigError(f"no Ray cluster answers at RAY_ADDRESS={address} ({error.strerror or error}). Unset it to "
                          "run on this machine, or start one with 'ray start --head'") from None


@dataclass
class _Item:
    """One block on its way; `deaths` counts workers lost while they held only this row."""

    rows: pa.Table
    deaths: int = 0


def run_ray(blocks: Iterator[pa.Table], stages: Sequence[Stage], *, key: str,
            tell: Callable[[str], None] = lambda line: None) -> Iterator[tuple[list[str], pa.Table]]:
    """Yields `(source keys, finished rows)` as blocks finish, in any order; `tell` gets a line where none does."""
    connect()
    pools, patience = _pools(_groups(stages)), _Patience(tell)
    source, more = blocks, True
    try:
        while True:
            while more and len(pools[0].waiting) < pools[0].room:
                block = next(source, None)
                more = block is not None
                if more:
                    pools[0].waiting.append(_Item(block))
            for pool, following in zip(pools, [*pools[1:], None], strict=True):
                pool.submit(None if following is None else following.room - len(following.waiting))
            running = [ref for pool in pools for ref in pool.running]
            if not running:
                return
            ready, _ = ray.wait(running, num_returns=1, timeout=GROW_EVERY_S)
            patience.look(pools, bool(ready))
            for ref in ready:
                i = next(i for i, pool in enumerate(pools) if ref in pool.running)
                for item in pools[i].collect(ref):
                    if i + 1 < len(pools):
                        pools[i + 1].waiting.append(_Item(item.rows))
                    else:
                        yield item.rows[key].to_pylist(), item.rows
    finally:
        for pool in pools:
            pool.close()


class _Patience:
    """Workers write to files of their own: a model that loads, or a server that does not answer, would not be seen."""

    def __init__(self, tell: Callable[[str], None]):
        self._tell, self._since_s, self._wait_s = tell, time.monotonic(), PATIENCE_S

    def look(self, pools: list[_Pool], something_came: bool) -> None:
        silent_s = time.monotonic() - self._since_s
        if something_came:
            self._since_s, self._wait_s = time.monotonic(), PATIENCE_S
        elif silent_s >= self._wait_s:
            self._wait_s *= 2
            at_work = ", ".join(f"{len(pool.running)} x {' + '.join(stage.name for stage in pool.stages)}"
                                for pool in pools if pool.running)
            self._tell(f"nothing has finished for {silent_s:.0f} s; at work: {at_work}. A model may be loading, or its "
                       f"server busy: workers write to {_logs()}")


def _logs() -> str:
    """Where workers write, on the node that each is on."""
    context = ray.get_runtime_context()
    return f"{context.get_temp_dir()}/{context.get_session_name()}/logs/worker-*.err"


def _groups(stages: Sequence[Stage]) -> list[list[Stage]]:
    """Stages that share a worker: one that needs hardware, then cheap ones and ones with equal needs."""
    groups: list[list[Stage]] = []
    for stage in stages:
        needs = (stage.num_cpus, stage.num_gpus, stage.workers)
        if groups and (needs[:2] == (0, 0) or needs == (groups[-1][0].num_cpus, groups[-1][0].num_gpus,
                                                        groups[-1][0].workers)):
            groups[-1].append(stage)
        else:
            groups.append([stage])
    return groups


def _pools(groups: list[list[Stage]]) -> list[_Pool]:
    """A pool for each group, so that one worker of every pool finds its place: else the first starve the last."""
    have, leads = ray.cluster_resources(), [group[0] for group in groups]
    cpus, gpus = sum(lead.num_cpus for lead in leads), sum(lead.num_gpus for lead in leads)
    if gpus > have.get("GPU", 0):
        each = ", ".join(f"{lead.name} {lead.num_gpus:g}" for lead in leads if lead.num_gpus)
        raise ConfigError(f"the stages need {gpus:g} GPUs at once ({each}); the cluster has {have.get('GPU', 0):g}. "
                          "Give each a smaller share of a GPU, or join more nodes")
    # CPUs are Ray's bookkeeping: on a small machine every worker asks for less.
    squeeze = min(1.0, int(10_000 * have.get("CPU", 0) / cpus) / 10_000) if cpus else 1.0
    return [_Pool(group, share=1 / len(groups), squeeze=squeeze,
                  others={"CPU": squeeze * (cpus - lead.num_cpus), "GPU": gpus - lead.num_gpus})
            for group, lead in zip(groups, leads, strict=True)]


class _Pool:
    """Actors of one group. Each holds one block at a time, so that a lost one is blamed exactly."""

    def __init__(self, stages: list[Stage], *, share: float, squeeze: float, others: dict[str, float]):
        self.stages, self.lead, self._share, self._others = stages, stages[0], share, others
        self._num_cpus = self.lead.num_cpus * squeeze
        self.waiting: deque[_Item] = deque()
        self.running: dict = {}   # ref -> (actor, item)
        self._idle: list = []
        self._num = 0
        self._looked_s = -GROW_EVERY_S

    @property
    def room(self) -> int:
        """Blocks that may wait: enough to keep every worker busy, no more."""
        return self._most() + 1

    def submit(self, limit: int | None) -> None:
        """Hand waiting blocks to idle workers, at most `limit` of them."""
        self._grow()
        limit = len(self.waiting) if limit is None else limit - len(self.running)
        while self.waiting and self._idle and limit > 0:
            actor, item = self._idle.pop(), self.waiting.popleft()
            self.running[actor.run.remote(item.rows)] = (actor, item)
            limit -= 1

    def collect(self, ref) -> list[_Item]:
        """The finished block, or nothing where the worker died and the block waits again."""
        actor, item = self.running.pop(ref)
        try:
            rows = ray.get(ref)
        except ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, Exception) else error) from None
        except LOST as error:
            self._num -= 1
            return self._lost(item, str(error).splitlines()[0])
        except ray.exceptions.RayError as error:
            raise RunStopped(f"Ray stopped: {str(error).splitlines()[0]} Finished work is kept; run again") from None
        self._idle.append(actor)
        if item.deaths:
            rows = set_column(rows, NUM_ATTEMPTS, [item.deaths + 1] * rows.num_rows)
        return [_Item(rows)]

    def close(self) -> None:
        for actor in [*self._idle, *(actor for actor, _ in self.running.values())]:
            ray.kill(actor)

    def _lost(self, item: _Item, how: str) -> list[_Item]:
        if item.rows.num_rows > 1:  # which row was it? each is tried alone
            self.waiting.extendleft(_Item(item.rows.slice(i, 1)) for i in range(item.rows.num_rows))
            return []
        item.deaths += 1
        if item.deaths < MAX_ATTEMPTS:
            self.waiting.append(item)
            return []
        return [_Item(put_aside(item.rows, self.stages, item.deaths, how))]

    def _grow(self) -> None:
        """Workers as asked for, else as many as the cluster bears now and the work needs."""
        if self._num and time.monotonic() - self._looked_s < GROW_EVERY_S:
            return
        self._looked_s = time.monotonic()
        wanted = min(self._most(), max(1, len(self.waiting) + len(self.running)))
        for _ in range(wanted - self._num):
            worker = ray.remote(num_cpus=self._num_cpus, num_gpus=self.lead.num_gpus)(_Worker)
            self._idle.append(worker.remote(self.stages, os.getcwd()))
            self._num += 1

    def _most(self) -> int:
        """Workers as asked for, but one of every other pool must find its place; else this pool's share."""
        have, lead = ray.cluster_resources(), self.lead
        needs = [(kind, need) for kind, need in (("CPU", self._num_cpus), ("GPU", lead.num_gpus)) if need]
        if any(have.get(kind, 0) < need for kind, need in needs):
            raise ConfigError(f"{lead.name} needs {self._num_cpus:g} CPUs and {lead.num_gpus:g} GPUs a worker; the "
                              f"cluster has {have.get('CPU', 0):g} and {have.get('GPU', 0):g}")
        left = min((int((have[kind] - self._others[kind]) / need + 1e-6) for kind, need in needs), default=1)
        fair = min((int(have[kind] / need * self._share) for kind, need in needs), default=1)
        return max(1, min(lead.workers, left) if lead.workers else fair)


class _Worker:
    """Lives on the worker; builds its ops (models) once, with the first block."""

    def __init__(self, stages: list[Stage], folder: str):
        if os.path.isdir(folder):  # files that were named relative to it; another node may not have it
            os.chdir(folder)
        self.stages, self.ops = stages, None

    def run(self, rows: pa.Table) -> pa.Table:
        self.ops = self.ops or build_all(self.stages)
        return run_ops(self.ops, rows)
