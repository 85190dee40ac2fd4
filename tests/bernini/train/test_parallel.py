"""Two and four processes give the numbers of one: shards, shared sequences, packs of their own.

In float64, so what remains is the order of sums. The numbers say that it is right, not that it is fast.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bernini.train.checkpoint import Checkpoints
from bernini.train.parallel import World
from bernini.train.ulysses import SequenceGroup
from manifests.errors import ConfigError

ROOT = Path(__file__).parents[3]
WORKER = "tests.bernini.train.parallel_worker"


def launch(folder: Path, jobs: str, processes: int) -> Path:
    """Runs the worker, under torchrun when there are several."""
    folder.mkdir(parents=True)
    command = [sys.executable, "-m"]
    if processes > 1:
        command += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, WORKER, str(folder), jobs], cwd=ROOT, env=env, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    return launch(tmp_path_factory.mktemp("alone") / "a", "gradients:1:4,train:3,single:1", 1)


def assert_same(ours: dict, theirs: dict, tolerance: float) -> None:
    assert ours.keys() == theirs.keys() and len(ours) > 50
    worst = max((float((ours[n] - theirs[n]).abs().max()), n) for n in ours)
    assert worst[0] <= tolerance, worst


def metrics(folder: Path, run: str = "run") -> list[dict]:
    rows = [json.loads(t) for t in (folder / run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("time", "flops")} for row in rows]


@pytest.mark.slow
@pytest.mark.timeout(600)  # up to five interpreters with torch on a busy machine
@pytest.mark.parametrize("processes, jobs", [(2, "gradients:1:4,gradients:2:4,train:3,single:1"), (4, "gradients:2:4,gradients:4:4,train:3,single:1")])
def test_several_processes_give_the_numbers_of_one(alone, tmp_path, processes, jobs):
    several = launch(tmp_path / "b", jobs, processes)
    whole = load_file(alone / "gradients-1.safetensors")
    compared = sorted(several.glob("gradients-*.safetensors"))
    assert len(compared) == 2
    for file in compared:
        shared = load_file(file)
        # Modules that no sample of a rank needs still take part there: their gradient is zero, not absent.
        assert_same({n: shared[n] for n in whole}, whole, 1e-10)
    one, many = (Checkpoints(f / "run", 3, World()).newest() for f in (alone, several))
    assert one.step == many.step == 3 and many.index["processes"] == processes
    for prefix in ("model.", "ema.", "exp_avg."):  # 1e-7: three AdamW steps, the first divides by tiny second moments
        assert_same(many.whole(prefix), one.whole(prefix), 1e-7)
    for a, b in zip(metrics(several), metrics(alone), strict=True):
        assert a == pytest.approx(b, rel=1e-6)
    assert metrics(several, "single")[-1] == pytest.approx(metrics(alone, "single")[-1], rel=1e-4)  # float32


def test_tokens_are_shared_out_evenly():
    group = SequenceGroup(1, 4)
    assert group.sizes(10) == [3, 3, 2, 2] and group.span(10) == (3, 6)
    assert group.local_lengths([2, 5, 3]) == [0, 3, 0]
    assert [SequenceGroup(r, 4).local_lengths([2, 5, 3]) for r in (0, 2, 3)] == [[2, 1, 0], [0, 1, 1], [0, 0, 2]]


def test_heads_must_divide():
    with pytest.raises(ConfigError, match="the renderer has 12 heads, which do not divide by --sequence-parallel 8"):
        SequenceGroup(0, 8).check_heads(12, "the renderer")


@pytest.mark.parametrize("heads, shared, size", [(28, 4, 7), (28, 4, 14), (12, 4, 6), (12, 2, 3)])
def test_grouped_heads_that_cannot_be_shared_out_are_refused(heads, shared, size):
    with pytest.raises(ConfigError, match=f"the planner has {shared} heads of keys and values, .* --sequence-parallel {size}"):
        SequenceGroup(0, size).check_heads(heads, "the planner", shared)


@pytest.mark.parametrize("heads, shared, size", [(28, 4, 1), (28, 4, 2), (28, 4, 4), (28, 4, 28), (12, 4, 12), (12, 2, 4)])
def test_grouped_heads_are_repeated_until_each_process_has_whole_ones(heads, shared, size):
    group = SequenceGroup(0, size)
    group.check_heads(heads, "the planner", shared)
    assert group._enough(torch.zeros(5, shared, 8)).shape[1] % size == 0


def test_a_planner_is_refused_before_it_is_shared_out():
    from bernini.tiny import tiny_planner
    from bernini.train.losses import LossWeights, TrainModel
    from bernini.train.parallel import shard

    planner = tiny_planner()
    config = planner.language.config
    config.num_attention_heads, config.num_key_value_heads = 12, 4
    with pytest.raises(ConfigError, match="it can be 1, 2, 4, 12$"):
        shard(TrainModel(planner, None, None, LossWeights()), World(0, 6, sequence=SequenceGroup(0, 6)), False)


def test_alone_nothing_is_exchanged():
    x = torch.randn(5, 2, 3)
    assert SequenceGroup().gather(x, 5) is x
