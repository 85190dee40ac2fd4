"""Recorded sampling loops: every step of every guidance mode, with tiny experts."""

from collections.abc import Iterator

import torch

from bernini.conditions import Sources
from bernini.flow import Schedule
from bernini.generate.guidance import Omegas, Projection, mode_named
from bernini.generate.sample import Denoiser
from bernini.generate.solver import solver_named
from bernini.parity.records import LOOP, Record, Result
from bernini.parity.renderer import build
from bernini.renderer.experts import Experts


def experts(record: Record, boundary: float, count: int = 2) -> Experts:
    """The recorded pair of experts."""
    file, config = record.meta.get("weights_file"), record.meta["config"]["transformer"]
    high = build(record, config, record.weights("w.transformer.", file))
    low = build(record, config, record.weights("w.transformer_2.", file)) if count == 2 else None
    return Experts(high, low, boundary)


def _loop(
    record: Record, name: str, case: dict, denoiser: Denoiser, sources: Sources, contexts
) -> Iterator[Result]:
    """Runs one recorded loop and compares everything that was recorded of it."""
    steps: list = []
    denoiser.on_step = steps.append
    noise = record.tensors[case["noise"]]
    solver = solver_named(case.get("scheduler", "unipc"), case["num_inference_steps"], case["flow_shift"])
    final = denoiser(noise, sources, contexts, solver)
    yield from _table(record, name, case, solver.schedule)
    yield record.exact(name, "experts", [s.expert for s in steps], case["expert_per_step"])
    for quantity in ("velocity", "latents"):
        ours = torch.cat([s.velocity if quantity == "velocity" else s.latent for s in steps])
        yield record.result(name, quantity, ours, record.tensors[f"out.{name}.{quantity}"], LOOP)
    yield record.result(name, "final", final, record.tensors[f"out.{name}.final"], LOOP)
    most = case["forwards_per_step"] * case["num_inference_steps"]
    yield Result(f"{record.name}/{name}", "forwards_over_reference", max(0, denoiser.num_forwards - most), 0)


def _table(record: Record, name: str, case: dict, schedule: Schedule) -> Iterator[Result]:
    yield record.exact(name, "timesteps", [float(t) for t in schedule.timesteps], case["timesteps"])
    recorded = torch.tensor(case["sigmas"])
    yield record.result(name, "sigmas", schedule.sigmas[: len(recorded)], recorded, 1e-6)


def sampler_renderer(record: Record) -> Iterator[Result]:
    tensors = record.tensors
    contexts = {"negative": tensors["in.text_neg"], "prompt": tensors["in.text_pos"]}
    for name, case in record.meta["cases"].items():
        images = [n for n in (case["image"], *case["images"]) if n]
        sources = Sources.of(
            [tensors[f"in.{n}"] for n in case["videos"]],
            [tensors[f"in.{n}"] for n in images],
            max_trained=record.meta["config"]["max_trained_source_id"],
            renumber_images=True,
            first_video_only=True,
        )
        denoiser = Denoiser(
            experts(record, case["switch_boundary"], case["experts"]),
            mode_named(case["guidance_mode"], planner=False),
            _omegas(case),
            case["omega_scale"],
            Projection(
                eta=case["eta"], norm_threshold=tuple(case["norm_threshold"]), momentum=case["momentum"]
            ),
        )
        yield from _loop(record, name, case, denoiser, sources, contexts)


def _omegas(case: dict) -> Omegas:
    return Omegas(**{k: case.get(f"omega_{k}", 0.0) for k in ("vid", "img", "txt", "tgt")})


def sampler_full(record: Record) -> Iterator[Result]:
    tensors = record.tensors
    contexts = {
        "negative": tensors["in.ctx_wotxt_wovit"],
        "prompt": tensors["in.ctx_wtxt_wovit"],
        "plan": tensors["in.ctx_wtxt_wvit"],
    }
    for name, case in record.meta["cases"].items():
        latents = ([tensors[f"in.{n}"] for n in case[kind]] for kind in ("videos", "images"))
        sources = Sources.of(*latents, max_trained=record.meta["config"].get("max_trained_source_id", 5))
        yield record.exact(name, "source_ids", [i for _, i in sources.visible("all")], case["source_ids"])
        denoiser = Denoiser(
            experts(record, record.meta["config"]["switch_boundary"]),
            mode_named(case["guidance_mode"], planner=True),
            _omegas(case),
            case["omega_scale"],
        )
        yield from _loop(record, name, case, denoiser, sources, contexts)
