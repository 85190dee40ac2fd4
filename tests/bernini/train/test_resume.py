"""A run that was killed goes on bit for bit; broken checkpoints are passed over."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bernini.errors import CheckpointError
from bernini.train.checkpoint import Checkpoints, broken
from bernini.train.parallel import World
from tests.bernini.train.tiny_run import config_of, trainer_of

ROOT = Path(__file__).parents[3]
STEPS = 6


def start(output: Path, steps: int, *fields: str, limit_bytes: int | None = None) -> subprocess.Popen:
    def limit():
        if limit_bytes:
            import resource

            resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", "tests.bernini.train.tiny_run", str(output), str(steps), *fields],
                            cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=limit)


def losses(output: Path) -> list[dict]:
    rows = [json.loads(t) for t in (output / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "time"} for row in rows]


def tensors(output: Path, step: int) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for file in sorted((output / "checkpoints" / f"step-{step:08d}").glob("*.safetensors")):
        found |= load_file(file)
    return found


def own(output: Path, step: int) -> dict:
    return json.loads((output / "checkpoints" / f"step-{step:08d}" / "rank-00000.json").read_text())


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("whole")
    trainer_of(config_of(output, STEPS)).run()
    return output


def copy_of(run: Path, to: Path) -> Path:
    return Path(shutil.copytree(run, to / "copy"))


@pytest.mark.slow
def test_killed_at_any_step_it_ends_with_the_same_bits(uninterrupted, tmp_path):
    """SIGKILL once a checkpoint is being or has just been written, twice; then to the end."""
    for wanted in (2, 4):
        run = start(tmp_path, STEPS)
        deadline = time.monotonic() + 120
        folder = tmp_path / "checkpoints"
        while not [*folder.glob(f".aside-{wanted:08d}"), *folder.glob(f"step-{wanted:08d}")]:
            assert run.poll() is None, run.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        run.send_signal(signal.SIGKILL)
        run.communicate()
        assert run.returncode == -signal.SIGKILL
    last = start(tmp_path, STEPS)
    said = last.communicate(timeout=120)[0]
    assert last.returncode == 0, said
    whole, resumed = tensors(uninterrupted, STEPS), tensors(tmp_path, STEPS)
    kinds = {name.split(".")[0] for name in whole}
    assert kinds == {"model", "ema", "exp_avg", "exp_avg_sq", "taken"} and whole.keys() == resumed.keys()
    assert [n for n in whole if not torch.equal(whole[n], resumed[n])] == []
    assert losses(uninterrupted) == losses(tmp_path)
    assert own(uninterrupted, STEPS) == own(tmp_path, STEPS)


def test_stopped_between_lines_of_metrics_it_writes_the_same_lines(uninterrupted, tmp_path):
    """Step 4 lies inside the second interval of three steps: its open sums are in the checkpoint."""
    trainer_of(config_of(tmp_path, 4, log_every=3)).run()
    (tmp_path / "metrics.jsonl").write_text("".join(
        t + "\n" for t in (tmp_path / "metrics.jsonl").read_text().splitlines() if json.loads(t)["step"] == 3))
    index = json.loads((tmp_path / "checkpoints" / "step-00000004" / "checkpoint.json").read_text())
    assert index["step"] == 4
    shutil.rmtree(tmp_path / "checkpoints" / "step-00000004")
    said = []
    trainer_of(config_of(tmp_path, STEPS), say=said.append).run()
    assert said[0].startswith("resumed at step 2")
    assert any("changed since then: steps: 4 -> 6" in s for s in said)
    assert losses(uninterrupted) == losses(tmp_path)


@pytest.mark.parametrize("torn", [b'{"step": 7, "time": {"mfu": 0.1}', b'{"step": 7, "lo', b'{"step": 7, "\xff', b"7", b"{}", b"[]"])
def test_a_torn_line_of_metrics_is_taken_out(uninterrupted, tmp_path, torn):
    """A power cut leaves any part of the last line; the steps that it was of run again."""
    output = copy_of(uninterrupted, tmp_path)
    with (output / "metrics.jsonl").open("ab") as file:
        file.write(torn)
    trainer_of(config_of(output, STEPS + 1)).run()
    assert [row["step"] for row in losses(output)] == [3, 6, 7] and losses(output)[:2] == losses(uninterrupted)


@pytest.mark.parametrize("damage, why", [
    (lambda f: f.write_bytes(f.read_bytes()[:-10]), r"bytes instead of"),
    (lambda f: f.unlink(), "is missing"),
    (lambda f: f.write_bytes(f.read_bytes()[:-1] + b"x"), "checksum of"),
])
def test_a_broken_checkpoint_is_passed_over(uninterrupted, tmp_path, damage, why):
    output, said = copy_of(uninterrupted, tmp_path), []
    newest = output / "checkpoints" / f"step-{STEPS:08d}"
    damage(next(newest.glob("*.safetensors")))
    assert re.search(why, broken(newest))
    found = Checkpoints(output, 3, World(), said.append).newest()
    assert found.step == 4 and "is broken" in said[0] and "trying the one before" in said[0]


def test_an_index_that_is_no_json_or_gone_is_passed_over(uninterrupted, tmp_path):
    output = copy_of(uninterrupted, tmp_path)
    (output / "checkpoints" / "step-00000006" / "checkpoint.json").write_text("{")
    (output / "checkpoints" / "step-00000004" / "checkpoint.json").unlink()
    assert Checkpoints(output, 3, World(), lambda t: None).newest().step == 2


@pytest.mark.parametrize("content", [b"\xff\xfe\x00noise", b"[]", b'{"files": {"a": 3}}', b"null"])
def test_an_index_of_any_content_is_passed_over(uninterrupted, tmp_path, content):
    output, said = copy_of(uninterrupted, tmp_path), []
    (output / "checkpoints" / "step-00000006" / "checkpoint.json").write_bytes(content)
    assert Checkpoints(output, 3, World(), said.append).newest().step == 4
    assert "checkpoint.json cannot be read" in said[0] and "trying the one before" in said[0]


def test_a_new_checkpoint_is_not_pushed_out_by_broken_ones_above_it(uninterrupted, tmp_path):
    output = copy_of(uninterrupted, tmp_path)
    for step in (4, 6):
        (output / "checkpoints" / f"step-{step:08d}" / "checkpoint.json").unlink()
    trainer_of(config_of(output, 3, save_every=1, keep=1), say=lambda t: None).run()
    assert [p.name for p in (output / "checkpoints").iterdir()] == ["step-00000003"]
    assert Checkpoints(output, 1, World()).newest().step == 3


def test_only_the_newest_stay(uninterrupted, tmp_path):
    names = sorted(p.name for p in (uninterrupted / "checkpoints").iterdir())
    assert names == ["step-00000002", "step-00000004", "step-00000006"]
    trainer_of(config_of(tmp_path, 4, save_every=1, keep=2)).run()
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-00000003", "step-00000004"]


@pytest.mark.slow
def test_a_full_disk_leaves_the_earlier_checkpoint(uninterrupted, tmp_path):
    """A limit on the size of files stands for the full disk: the same error path of a failed write."""
    output = copy_of(uninterrupted, tmp_path)
    run = start(output, STEPS + 2, limit_bytes=200_000)
    said = run.communicate(timeout=120)[0]
    assert run.returncode != 0
    assert "CheckpointError: checkpoint of step 8 could not be written" in said and "earlier ones are intact" in said
    assert broken(output / "checkpoints" / "step-00000006") is None
    assert not list((output / "checkpoints").glob(".aside-*"))


def test_another_number_of_processes_goes_on_and_says_so(uninterrupted, tmp_path):
    output, said = copy_of(uninterrupted, tmp_path), []
    index = output / "checkpoints" / "step-00000006" / "checkpoint.json"
    index.write_text(index.read_text().replace('"processes": 1', '"processes": 4'))
    trainer_of(config_of(output, 7), say=said.append).run()
    assert any("written by 4 processes, now 1" in s for s in said)


def test_disk_error_while_writing_is_one_clear_line(tmp_path, monkeypatch):
    trainer = trainer_of(config_of(tmp_path, 2))
    trainer.run()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bernini.train.checkpoint.dcp.save", full)
    trainer.step = 4
    with pytest.raises(CheckpointError, match="step 4 could not be written.*No space left on device.*intact"):
        trainer.save()
    assert Checkpoints(tmp_path, 3, World()).newest().step == 2
