"""Recorded numbers of the renderer: rotary factors, forwards, guidance, loops, one training step."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from bernini.config import RendererConfig
from bernini.generate.guidance import PLANNER_MODES, Branch, Omegas, Projection, StepState, guide
from bernini.parity.records import FORWARD, LOOP, Record, Result, relative_rms
from bernini.renderer.rope import patch_grid, segment_rope
from bernini.renderer.transformer import Renderer, SequenceInputs, patchify, unpatch


def build(
    record: Record, config: dict, weights: dict[str, Tensor], dtype: torch.dtype = torch.float32
) -> Renderer:
    """A renderer of recorded sizes and weights."""
    model = Renderer(RendererConfig.of(config), record.attention)
    model.load_state_dict(weights)
    return model.to(dtype).eval()


def rope(record: Record) -> Iterator[Result]:
    for case in record.meta["cases"]:
        grid = patch_grid(tuple(case["latent_thw"]))
        ours = segment_rope(grid, float(case["source_id"]), case["head_dim"])
        tensors = record.tensors
        theirs = torch.complex(tensors[case["key"] + ".real"], tensors[case["key"] + ".imag"])
        error = float((ours - theirs).abs().max())
        yield Result(f"rope/{case['key']}", "factors", error, 1e-12)


def _segment_latents(name: str, case: dict, tensors: dict[str, Tensor]) -> tuple[list[Tensor], Tensor]:
    """Source latents in order and the target: recorded inputs of the right shapes, videos before images."""
    kinds = ("in.video", "in.image") if "video" in name else ("in.image",)
    remaining = sorted(
        (k for k in tensors if k.startswith(kinds)), key=lambda k: (k.startswith("in.image"), k)
    )
    found: list[Tensor] = []
    for segment in case["segments"]:
        if segment["source_id"] != 0:
            shape = tuple(segment["latent_thw"])
            key = next(k for k in remaining if tuple(tensors[k].shape[2:]) == shape)
            remaining.remove(key)
            found.append(tensors[key])
    return found, tensors["in.target"]


def sequence(
    model: Renderer, latents: list[Tensor], ids: list[float], target: Tensor, text: Tensor
) -> SequenceInputs:
    """One packed sequence: sources, then the target."""
    segments = [(tuple(x.shape[2:]), i) for x, i in zip(latents, ids, strict=True)]
    empty = torch.zeros(0, model.config.inner_dim, dtype=model.dtype)
    tokens = torch.cat([empty, *(model.embed(x) for x in latents)])
    grid = (tuple(target.shape[2:]), 0.0)
    return SequenceInputs(tokens, model.rope([*segments, grid]), model.embed_context(text))


@torch.no_grad()
def dit(record: Record) -> Iterator[Result]:
    tensors, config, cases = record.tensors, record.meta["config"], record.meta["cases"]
    model = build(record, config, record.weights("w."))
    for name, case in cases.items():
        if "segments" not in case:
            continue
        output = _forward(model, name, case, tensors)
        yield record.result(name, "velocity", output[None], tensors[f"out.{name}"], FORWARD)
        if f"out.{name}.spatial" in tensors:
            yield from _spatial(record, name, output)
        for variant in ("bf16", "bf16_all"):
            if f"{variant}_relative_rms_error_to_float32" in case:
                yield _half_precision(record, name, case, variant)
    if "packed" in cases:
        yield from _packed(record, model)
    yield from _intermediate(record, model)


def _forward(model: Renderer, name: str, case: dict, tensors: dict[str, Tensor]) -> Tensor:
    latents, target = _segment_latents(name, case, tensors)
    ids = [float(s["source_id"]) for s in case["segments"] if s["source_id"] != 0]
    inputs = sequence(model, latents, ids, target, tensors[f"in.{case['text']}"])
    return model([model.embed(target)], torch.tensor([case["timestep"]]), [inputs])[0]


def _spatial(record: Record, name: str, output: Tensor) -> Iterator[Result]:
    target = record.tensors["in.target"]
    spatial = unpatch(output, tuple(target.shape[2:]))
    yield record.result(name, "latent", spatial, record.tensors[f"out.{name}.spatial"], FORWARD)
    stock = f"out.{name}.stock_diffusers"
    if stock in record.tensors:
        yield record.result(name, "diffusers", spatial, record.tensors[stock], FORWARD)


def _half_precision(record: Record, name: str, case: dict, variant: str) -> Result:
    model = build(record, record.meta["config"], record.weights("w."), torch.bfloat16)
    if variant == "bf16":
        model.keep_in_float32()
    ours = _forward(model, name, case, record.tensors)[None]
    error = relative_rms(ours, record.tensors[f"out.{name}"])
    allowed = 1.5 * case[f"{variant}_relative_rms_error_to_float32"]
    return Result(f"{record.name}/{name}", f"{variant}_rms", error, allowed)


def _packed(record: Record, model: Renderer) -> Iterator[Result]:
    """Sample a: video and target; sample b: the images with ids from 1 and target_b; one call."""
    tensors = record.tensors
    images = [tensors[k] for k in sorted(tensors) if k.startswith("in.image")]
    parts = [("a", [tensors["in.video"]], tensors["in.target"]), ("b", images, tensors["in.target_b"])]
    sequences = [
        sequence(model, latents, [float(i + 1) for i in range(len(latents))], target, tensors[f"in.text_{n}"])
        for n, latents, target in parts
    ]
    times = torch.cat([tensors[f"in.timestep_{n}"] for n, _, _ in parts])
    outputs = model([model.embed(target) for _, _, target in parts], times, sequences)
    for (n, _, _), output in zip(parts, outputs, strict=True):
        yield record.result("packed", n, output[None], tensors[f"out.packed.{n}"], FORWARD)


def _intermediate(record: Record, model: Renderer) -> Iterator[Result]:
    """Hidden states inside the network, for the cases that have them."""
    recorded = {k.split(".")[1] for k in record.tensors if k.startswith("mid.")}
    for name in sorted(recorded & record.meta["cases"].keys()):
        case = record.meta["cases"][name]
        temb, six = model.condition_embedder.time(torch.tensor([case["timestep"]]), torch.float32)
        ours = {
            f"block{i}": state[None] for i, state in enumerate(_states(model, name, case, record.tensors))
        }
        for quantity, value in {**ours, "temb": temb, "timestep_proj": six.flatten(1)}.items():
            theirs = record.tensors.get(f"mid.{name}.{quantity}")
            if theirs is not None:
                yield record.result(name, quantity, value, theirs, FORWARD)


def _states(model: Renderer, name: str, case: dict, tensors: dict[str, Tensor]) -> list[Tensor]:
    """Hidden states `[N, D]` after each block."""
    states: list[Tensor] = []
    hooks = [b.register_forward_hook(lambda *a: states.append(a[-1])) for b in model.blocks]
    _forward(model, name, case, tensors)
    for hook in hooks:
        hook.remove()
    return states


RECORDED_BRANCHES = {
    "base": Branch("none", "negative"),
    "V": Branch("video", "negative"),
    "A": Branch("all", "negative"),
    "B": Branch("all", "prompt"),
    "D": Branch("all", "plan"),
}


def guidance(record: Record) -> Iterator[Result]:
    tensors = record.tensors
    thw = tuple(record.meta["config"]["latent_shape"][2:])
    for name, case in record.meta["cases"].items():
        scale = case["branch_scale"]
        predictions = {b: unpatch(scale * tensors[f"in.{k}"][0], thw) for k, b in RECORDED_BRANCHES.items()}
        state = StepState(tensors["in.x_t"], case.get("sigma", 1.0))
        mode = PLANNER_MODES[case["mode"]]
        if mode.projection is not None:
            limits = case["norm_threshold"]
            projection = Projection(
                eta=case["eta"],
                norm_threshold=tuple(limits) if isinstance(limits, list) else (limits,),
                momentum=case["momentum"],
            )
            mode = replace(mode, projection=projection)
        guided = guide(mode, Omegas(**case["omegas"]), predictions, state)
        yield record.result(name, "guided", patchify(guided)[None], tensors[f"out.{name}"], FORWARD)


def train_step(record: Record) -> Iterator[Result]:
    """Loss and gradients of two packed samples: squared velocity error, mean a token, a sample, the batch."""
    tensors, model = record.tensors, build(record, record.meta["config"], record.weights("w."))
    targets, sequences, wanted, times = [], [], [], []
    for sample in record.meta["samples"]:
        number, ids = sample["sample"], [float(i) for i in sample["source_ids"][:-1]]
        latents = [tensors[f"in.{number}.latent{i}"][None] for i in range(len(sample["latent_thw"]))]
        noise = _unpack_noise(tensors[f"in.{number}.noise"], tuple(latents[-1].shape[2:]))
        noisy = (1 - sample["sigma"]) * latents[-1] + sample["sigma"] * noise
        sequences.append(sequence(model, latents[:-1], ids, noisy, tensors[f"in.{number}.text"]))
        targets.append(model.embed(noisy))
        wanted.append(patchify(noise - latents[-1]))
        times.append(sample["timestep"])
    outputs = model(targets, torch.tensor(times), sequences)
    errors = [(o - w).square() for o, w in zip(outputs, wanted, strict=True)]
    per_sample = torch.stack([e.mean() for e in errors])
    per_sample.mean().backward()
    for quantity, ours in (
        ("squared_error", torch.cat(errors)),
        ("loss_per_sample", per_sample),
        ("loss", per_sample.mean()[None]),
    ):
        yield record.result("two_samples", quantity, ours, tensors[f"out.{quantity}"], FORWARD)
    parameters = dict(model.named_parameters())
    for key in sorted(k for k in tensors if k.startswith("grad.")):
        yield record.result(
            "two_samples", key, parameters[key.removeprefix("grad.")].grad, tensors[key], LOOP
        )
    norm = torch.stack([p.grad.norm() for p in parameters.values()]).norm()
    recorded = torch.tensor(record.meta["total_gradient_norm"])
    yield record.result("two_samples", "total_gradient_norm", norm, recorded, LOOP)


def _unpack_noise(noise: Tensor, thw: tuple[int, int, int]) -> Tensor:
    """Recorded patches `[n, C, 1, 2, 2]` → latent."""
    return unpatch(noise.permute(0, 2, 3, 4, 1).flatten(1), thw)
