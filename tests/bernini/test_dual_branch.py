"""The dual-branch sampler: equation 4 written out, its constraints, its forwards, and the command."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from bernini.conditions import Sources
from bernini.errors import CaseError
from bernini.generate.cases import Case
from bernini.generate.command import main
from bernini.generate.dual_branch import WEIGHTS, BranchWeights, DualWeights, dual_branch
from bernini.generate.guidance import Omegas
from bernini.generate.pipeline import Pipeline
from bernini.generate.sample import Denoiser, initial_noise
from bernini.generate.solver import UniPC, solver_named
from bernini.layouts import open_model
from bernini.memory import MemorySettings
from bernini.renderer.experts import Branch, Clip, Experts
from bernini.tiny import tiny_renderer
from bernini.video_io import read_frames

THW, STEPS = (2, 4, 4), 4
EXACT = 1e-5  # float32 sums of the same six numbers in two orders
UNEQUAL = DualWeights(i2v=BranchWeights.of(text=2.0, cond=0.7), v2v=BranchWeights.of(text=3.5, cond=0.2))


@pytest.fixture(scope="module")
def experts():
    torch.manual_seed(0)
    high, low = (tiny_renderer().eval().requires_grad_(False) for _ in range(2))
    return Experts(high, low, 0.875)


@pytest.fixture(scope="module")
def seen():
    """Source video V and edited first frame I; I alone is source 1."""
    torch.manual_seed(2)
    return Sources.of([torch.randn(1, 16, *THW)], [torch.randn(1, 16, 1, 4, 4)], renumber_images=True)


@pytest.fixture(scope="module")
def contexts():
    torch.manual_seed(1)
    return {name: torch.randn(1, n, 32) for name, n in (("negative", 6), ("prompt", 8), ("motion", 7))}


def transcription(experts, seen, contexts, weights, alpha, beta):
    """Equation 4 as printed: six predictions, each from a clip that holds nothing but its own sources."""
    video, image = seen.items
    w, u = weights.i2v, weights.v2v
    solver, x, count = UniPC(solver_named("unipc", STEPS, 5.0).schedule), initial_noise(THW, 5), 0
    for t in solver.schedule.timesteps:

        def e(text, *items, t=t, x=x):
            nonlocal count
            count += 1
            clip = Clip(experts[experts.name_for(float(t))], Sources(items), {"c": contexts[text]}, THW, pack=False)
            branch = Branch("all", "c")
            return clip.predict(x, t, [branch])[branch]

        i2v = w.full * e("motion", image) - w.text * e("negative", image) - w.cond * e("motion")
        v2v = u.full * e("prompt", video) - u.text * e("negative", video) - u.cond * e("prompt")
        x = solver.step(alpha * i2v + beta * v2v, x)
    return x, count


def denoise(experts, seen, contexts, mode, pack=None):
    run = Denoiser(experts, mode, Omegas(), pack=pack)
    return run(initial_noise(THW, 5), seen, contexts, solver_named("unipc", STEPS, 5.0)), run.num_forwards


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_sampler_equals_equation_4_written_out(experts, seen, contexts, alpha, pack):
    expected, counted = transcription(experts, seen, contexts, UNEQUAL, alpha, 1 - alpha)
    latent, forwards = denoise(experts, seen, contexts, dual_branch(UNEQUAL, alpha), pack)
    assert counted == 6 * STEPS and forwards == (6 if 0 < alpha < 1 else 3) * STEPS
    assert float((latent - expected).abs().max() / expected.abs().max()) < EXACT


def test_one_text_for_both_branches_is_rendered_without_sources_once(experts, seen, contexts):
    same = contexts | {"motion": contexts["prompt"]}
    expected, _ = transcription(experts, seen, same, UNEQUAL, 0.4, 0.6)
    latent, forwards = denoise(experts, seen, same, dual_branch(UNEQUAL, 0.4))
    assert forwards == 5 * STEPS
    assert float((latent - expected).abs().max() / expected.abs().max()) < EXACT


@pytest.mark.parametrize("name, forwards", [("table5", 6), ("firm-frame", 6), ("text-only", 4), ("unguided", 2)])
def test_named_weights_keep_the_constraints_and_leave_zeros_out(experts, seen, contexts, name, forwards):
    for branch in (WEIGHTS[name].i2v, WEIGHTS[name].v2v):
        assert branch.full - branch.text - branch.cond == pytest.approx(1)
    assert denoise(experts, seen, contexts, dual_branch(WEIGHTS[name], 0.5))[1] == forwards * STEPS


def test_weights_of_all_branches_sum_to_one_at_every_noise_level():
    for schedule, at_noise, at_picture in (("constant", 0.6, 0.6), ("falling", 0.6, 0.0), ("rising", 0.0, 0.6)):
        mode = dual_branch(UNEQUAL, 0.6, schedule=schedule)
        for sigma in (0.0, 0.25, 1.0):
            assert sum(mode.weights(sigma).values()) == pytest.approx(1)
        for sigma, share in ((1.0, at_noise), (0.0, at_picture)):
            i2v = sum(w for b, w in mode.weights(sigma).items() if "motion" in b.context or b.sources == "images")
            assert i2v == pytest.approx(share)


@pytest.mark.parametrize("call, words", [
    (lambda: BranchWeights(full=4, text=3, cond=0.5), "4 - 3 - 0.5 is 0.5. With these text and cond, full is 4.5"),
    (lambda: dual_branch(UNEQUAL, 0.5, 0.6), r"alpha \+ beta must be 1; 0.5 \+ 0.6 is 1.1"),
    (lambda: dual_branch(UNEQUAL, 1.2), "alpha is 1.2"),
    (lambda: dual_branch(UNEQUAL, 0.5, schedule="cosine"), "known: constant, falling, rising"),
])
def test_broken_constraints_are_refused_with_the_numbers(call, words):
    with pytest.raises(CaseError, match=words):
        call()


SMALL = dict(num_frames=9, num_inference_steps=2, max_image_size=64)


def case_of(media, frame, **more) -> Case:
    return Case(prompt="Replace the cup by a guitar.", motion_prompt="She plays the guitar.", task_type="rv2v",
                guidance_mode="dual-branch", videos=(str(media["silent"]),), image=str(frame), **more)


@pytest.fixture(scope="module")
def frame(media, tmp_path_factory):
    path = tmp_path_factory.mktemp("frame") / "first.png"
    Image.fromarray(255 - read_frames(media["silent"], [0])[0]).save(path)
    return path


@pytest.mark.parametrize("layout, forwards", [("diffusers", 6), ("full", 6)])
def test_a_model_of_each_kind_edits_a_clip_through_its_first_frame(tiny, media, frame, layout, forwards):
    pipeline = Pipeline(open_model(tiny(layout)), MemorySettings(device="cpu", precision="fp32"))
    case = case_of(media, frame)
    small = SMALL | dict(planning_step=2, vit_denoising_step=1)
    made = {a: pipeline.generate(case, pipeline.settings(case, small | {"alpha": a})) for a in (0.0, 0.5, 1.0)}
    assert made[0.5].frames.shape == (9, 48, 64, 3) and made[0.5].num_forwards == 2 * forwards
    assert len({g.latent_hash for g in made.values()}) == 3
    again = pipeline.generate(case, pipeline.settings(case, small | {"alpha": 0.5}))
    assert np.array_equal(again.frames, made[0.5].frames)
    # alpha 0 asks neither for the edited frame nor for its prompt, alpha 1 not for the video-to-video prompt
    other = replace(case, motion_prompt="She sleeps.")
    assert pipeline.generate(other, pipeline.settings(case, small | {"alpha": 0.0})).latent_hash == made[0.0].latent_hash
    other = replace(case, prompt="Remove the cup.")
    assert pipeline.generate(other, pipeline.settings(case, small | {"alpha": 1.0})).latent_hash == made[1.0].latent_hash


def test_the_command_takes_a_first_frame(tiny, media, frame, tmp_path, capsys):
    out = tmp_path / "out.mp4"
    flags = ["--num-frames", "9", "--num-inference-steps", "1", "--max-image-size", "64", "--device", "cpu", "--quiet"]
    argv = ["--model", str(tiny("diffusers")), "--prompt", "p", "--motion-prompt", "m", "--video", str(media["silent"]),
            "--first-frame", str(frame), "--output", str(out), *flags]
    assert main([*argv, "--alpha", "0.3", "--omega-txt", "5"]) == 0 and out.exists()
    assert "--omega-txt has no effect here (guidance mode dual-branch)" in capsys.readouterr().err
    assert main([*argv, "--alpha", "1.5"]) == 2
    assert "alpha is 1.5" in capsys.readouterr().err
    assert main([*argv, "--task", "v2v"]) == 2
    assert "--first-frame goes with task type rv2v alone" in capsys.readouterr().err


def test_inputs_that_do_not_fit_are_refused_before_anything_loads(media, frame):
    with pytest.raises(CaseError, match="one video and its edited first frame"):
        replace(case_of(media, frame), images=(str(frame),)).checked()
    with pytest.raises(CaseError, match="motion_prompt would be ignored"):
        replace(case_of(media, frame), guidance_mode="").checked()
