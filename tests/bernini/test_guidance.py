"""Guidance: equation 12, what is skipped, how many forwards it takes, and both solvers."""

import pytest
import torch

from bernini.conditions import Sources
from bernini.errors import CaseError
from bernini.flow import unipc_schedule
from bernini.generate.guidance import (
    PLANNER_MODES,
    RENDERER_MODES,
    Omegas,
    Projection,
    StepState,
    active,
    branches,
    guide,
    mode_named,
    projected,
    projected_clean,
)
from bernini.generate.presets import PRESETS, TASKS, settings_for
from bernini.generate.sample import Denoiser, initial_noise
from bernini.generate.solver import Euler, UniPC, solver_named
from bernini.renderer.experts import Branch, Clip, Experts
from bernini.tiny import tiny_renderer

LOOP = 1e-4  # float order over a whole loop
THW = (2, 4, 4)


@pytest.fixture(scope="module")
def experts():
    torch.manual_seed(0)
    high, low = (tiny_renderer().eval().requires_grad_(False) for _ in range(2))
    return Experts(high, low, 0.875)


@pytest.fixture(scope="module")
def contexts():
    torch.manual_seed(1)
    return {name: torch.randn(1, n, 32) for name, n in (("negative", 6), ("prompt", 8), ("plan", 12))}


def sources(videos=1, images=2, **rules):
    torch.manual_seed(2)
    return Sources.of(
        [torch.randn(1, 16, *THW) for _ in range(videos)],
        [torch.randn(1, 16, 1, 4, 4) for _ in range(images)],
        **rules,
    )


def denoise(experts, contexts, mode, seen, steps=4, pack=None, omegas=None, solver="unipc", **more):
    run = Denoiser(experts, mode, omegas or Omegas(vid=0.75, img=3, txt=4, tgt=1.5), 0.75, pack=pack, **more)
    latent = run(initial_noise(THW, 5), seen, contexts, solver_named(solver, steps, 5.0))
    return latent, run.num_forwards


def reference(experts, contexts, mode_name, seen, steps=4):
    """The released rule written out: every branch of every increment computed anew, one by one."""
    omegas, solver, latent = (
        Omegas(vid=0.75, img=3, txt=4, tgt=1.5),
        UniPC(unipc_schedule(steps, 5.0)),
        initial_noise(THW, 5),
    )
    count, scaled = 0, False
    for i, t in enumerate(solver.schedule.timesteps):
        name = experts.name_for(float(t))
        if name == "low" and not scaled:
            omegas, scaled = omegas.scaled(0.75), True

        def e(s, c, name=name, t=t, latent=latent):
            nonlocal count
            count += 1
            branch = Branch(s, c)
            return Clip(experts[name], seen, contexts, THW, pack=False).predict(latent, t, [branch])[branch]

        full, base = e("all", "plan"), e("none", "negative")
        if mode_name == "rv2v_wapg":
            v, a, b, d = e("video", "negative"), e("all", "negative"), e("all", "prompt"), e("all", "plan")
            guided = (
                base
                + omegas.vid * (v - base)
                + omegas.img * (a - v)
                + omegas.txt * (b - a)
                + omegas.tgt * (d - b)
            )
        else:
            a, b = e("all", "negative"), e("all", "prompt")
            state = StepState(latent, float(solver.schedule.sigmas[i]))
            guided = base + sum(
                w * projected(x, y, 0, state)
                for w, x, y in ((omegas.img, a, base), (omegas.txt, b, a), (omegas.tgt, full, b))
            )
        latent = solver.step(guided, latent)
    return latent, count


@pytest.mark.parametrize(
    "mode, videos, images, ours, released",
    [
        ("rv2v_wapg", 1, 2, 5, 6),  # the release computes the full branch twice
        ("vae_txt_vit_wapg", 0, 0, 3, 4),  # T2V: without sources two branches are one
        ("vae_txt_vit_wapg", 1, 0, 4, 4),
    ],
)
@pytest.mark.parametrize("pack", [False, True])
def test_fewer_forwards_than_the_release_with_equal_results(
    experts, contexts, mode, videos, images, ours, released, pack
):
    seen = sources(videos, images)
    latent, forwards = denoise(experts, contexts, PLANNER_MODES[mode], seen, pack=pack)
    expected, counted = reference(experts, contexts, mode, seen)
    assert (forwards, counted) == (4 * ours, 4 * released)
    assert float((latent - expected).abs().max() / expected.abs().max()) < LOOP


def test_paper_form_projects_each_of_four_increments(experts, contexts):
    latent, forwards = denoise(experts, contexts, PLANNER_MODES["paper"], sources())
    plain, _ = denoise(experts, contexts, PLANNER_MODES["rv2v_wapg"], sources())
    assert forwards == 4 * 5 and not torch.allclose(latent, plain, atol=1e-3)


def test_equation_12_by_hand():
    mode = PLANNER_MODES["rv2v_wapg"]
    e = {
        b: torch.full((1, 1, 1, 1, 1), float(10**i))
        for i, b in enumerate(branches(mode, Omegas(vid=1, img=1)))
    }
    guided = guide(mode, Omegas(vid=2, img=3, txt=5, tgt=7), e, StepState(torch.zeros(1), 0.5))
    assert float(guided) == 1 + 2 * 9 + 3 * 90 + 5 * 900 + 7 * 9000


def test_all_omegas_one_give_the_last_branch():
    for modes in (RENDERER_MODES, PLANNER_MODES):
        for mode in modes.values():
            if mode.direction == "plain":
                one = Omegas(vid=1, img=1, txt=1, tgt=1)
                e = {b: torch.randn(1, 2, 1, 2, 2) for b in branches(mode, one)}
                torch.testing.assert_close(
                    guide(mode, one, e, StepState(torch.zeros(1), 0.5)), e[mode.chain[-1][1]]
                )


def test_zero_omega_leaves_a_branch_out_in_the_planner_release_only():
    zero = Omegas(vid=0, img=3, txt=4, tgt=0)
    assert [w for w, _ in active(PLANNER_MODES["rv2v_wapg"], zero)] == [3, 4]
    assert len(branches(PLANNER_MODES["rv2v_wapg"], zero)) == 3
    assert len(branches(RENDERER_MODES["rv2v"], zero)) == 4  # V is still the base of the next increment
    assert len(branches(RENDERER_MODES["rv2v"], Omegas(vid=1, img=0, txt=0))) == 2


def test_projection_keeps_what_is_orthogonal_and_a_fifth_of_the_rest():
    later = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1, 1)
    earlier = torch.tensor([0.0, -3.0]).view(1, 2, 1, 1, 1)
    delta = projected(later, earlier, 0, StepState(later, 0.5)).flatten()
    torch.testing.assert_close(delta, torch.tensor([0.2, 3.0]))


def test_clean_projection_limits_the_norm_of_each_latent_frame():
    later, earlier = torch.randn(1, 4, 3, 5, 5), torch.randn(1, 4, 3, 5, 5)
    state = StepState(torch.randn(1, 4, 3, 5, 5), 0.5, Projection(eta=1.0, norm_threshold=(2.0,)))
    norms = (0.5 * projected_clean(later, earlier, 0, state)).square().sum((1, 3, 4)).sqrt()
    torch.testing.assert_close(norms, torch.full((1, 3), 2.0))


@pytest.mark.parametrize("mode", RENDERER_MODES)
def test_euler_never_gives_nan_though_its_last_sigma_is_0(experts, contexts, mode):
    latent, _ = denoise(
        experts, contexts, RENDERER_MODES[mode], sources(renumber_images=True), solver="euler"
    )
    assert torch.isfinite(latent).all()


def test_solvers_walk_a_straight_flow_exactly():
    clean, noise = torch.randn(1, 2, 1, 2, 2), torch.randn(1, 2, 1, 2, 2)
    for name in ("unipc", "euler"):
        solver = solver_named(name, 7, 5.0)
        sigma = float(solver.schedule.sigmas[0])
        x = (1 - sigma) * clean + sigma * noise
        for _ in range(7):
            x = solver.step(noise - clean, x)
        torch.testing.assert_close(x, clean, atol=1e-5, rtol=1e-5)  # one step of float32 rounding each


def test_unipc_agrees_with_diffusers_on_a_curved_flow():
    from diffusers import UniPCMultistepScheduler

    theirs = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0, num_train_timesteps=1000
    )
    theirs.set_timesteps(12)
    ours = solver_named("unipc", 12, 5.0)
    theirs.sigmas = ours.schedule.sigmas.clone()  # its own table changed after the release; the steps did not
    x = y = torch.randn(1, 4, 1, 4, 4)
    for t in theirs.timesteps:
        v = torch.sin(3 * y) + 0.3 * y
        y = theirs.step(v, t, y, return_dict=False)[0]
        x = ours.step(torch.sin(3 * x) + 0.3 * x, x)
    torch.testing.assert_close(x, y, atol=LOOP, rtol=LOOP)


def test_euler_moves_by_velocity_times_difference_of_sigmas():
    solver = solver_named("euler", 2, 5.0)
    assert isinstance(solver, Euler)
    assert float(solver.step(torch.tensor(2.0), torch.tensor(1.0))) == pytest.approx(1 + (0 - 1) * 2.0)


@pytest.mark.parametrize(
    "call",
    [
        lambda: mode_named("rv2v", planner=True),
        lambda: mode_named("paper", planner=False),
        lambda: solver_named("heun", 4, 5.0),
        lambda: solver_named("unipc", 0, 5.0),
        lambda: settings_for("released_v3", "v2v", planner=True),
        lambda: settings_for("paper", "x2v", planner=True),
    ],
)
def test_unknown_names_are_refused_with_the_known_ones(call):
    with pytest.raises(CaseError):
        call()


def test_every_preset_knows_every_task_and_a_mode_of_its_model():
    for preset in PRESETS:
        for task in TASKS:
            for planner in (True, False):
                mode_named(settings_for(preset, task, planner=planner).guidance_mode, planner=planner)


def test_presets_hold_the_published_numbers():
    paper = settings_for("paper", "rv2v", planner=True)
    assert (paper.omega_txt, paper.omega_vid, paper.omega_img, paper.omega_tgt) == (4, 1.25, 3, 1.5)
    assert settings_for("paper", "t2v", planner=True).num_inference_steps == 60
    two = settings_for("released_v2", "rv2v", planner=True)
    assert (two.omega_txt, two.omega_img, two.omega_vid, two.omega_scale, two.planning_step) == (
        5.5,
        4,
        1.75,
        0.75,
        50,
    )
    assert settings_for("released_v1", "v2v", planner=False).guidance_mode == "v2v_apg"
