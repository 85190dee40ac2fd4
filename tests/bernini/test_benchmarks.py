"""The benchmark scripts run, and what they compare agrees before it is timed."""

import pytest
import torch

from benchmarks import h200_model, h200_training, model_guided_step, planner_loop, renderer_forward, training

FORWARD = 1e-5  # float32, other order of sums


def test_renderer_forward_agrees_with_diffusers():
    times, error = renderer_forward.compare(2, 24, 64, 2, (2, 4, 6), repeats=1)
    assert error < FORWARD and set(times) == {"diffusers", "ours", "ours, in a loop"}


def test_planner_loop_agrees_with_the_released_rule():
    times, error, tokens = planner_loop.compare(64, 3, (2, 4, 4), (2, 4, 4), 20, repeats=1)
    assert error < 1e-4 and times["ours"] < times["released"]


def test_guided_step_agrees_with_the_released_rule():
    todo = model_guided_step.ways(*model_guided_step.setting(2, 24, 64, 2, (2, 4, 6)))
    expected = todo["released"]()
    for name in ("deduplicated", "packed"):
        assert float((todo[name]() - expected).abs().max() / expected.abs().max()) < FORWARD


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_gpu_row_runs_in_miniature(tmp_path):
    path = tmp_path / "table.md"
    assert h200_model.main(["--tiny", "--repeats", "1", "--output", str(path)]) == 0
    text = path.read_text()
    assert all(f"| {row} |" in text for row in h200_model.ROWS)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_the_full_rows_are_refused_in_one_line(capsys):
    assert h200_model.main([]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.filterwarnings("ignore")
def test_training_ways_give_the_outputs_of_diffusers():
    ours, peer = training.models()
    data = training.samples((1, 3, 2), side=4)
    with torch.no_grad():
        alone = [training.batched(peer, [s])[0] for s in data]
        for one, other in zip(training.packed(ours, data), alone, strict=True):
            assert float((one - other).abs().max() / other.abs().max()) < FORWARD


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_training_row_runs_in_miniature(tmp_path):
    assert h200_training.main(["--tiny", "--repeats", "1", "--output", str(tmp_path / "t.md")]) == 0
    table = (tmp_path / "t.md").read_text()
    assert all(f"| {row} |" in table for row in ("G6", "G7", "G10"))
