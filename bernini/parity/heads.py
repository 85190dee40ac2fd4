"""Recorded numbers of the planner's heads and of its attention mask."""

from collections.abc import Iterator

import torch
from torch import Tensor

from bernini.config import HeadsConfig
from bernini.flow import decoder_schedule
from bernini.parity.records import FORWARD, Record, Result
from bernini.planner.heads import Connector, ViTDecoder
from bernini.planner.masks import visible

# Recorded names of the decoder's branches and ours.
BRANCHES = {"cond": "cond", "uncond": "nothing", "imgcond": "prompt_only"}


def mask(record: Record) -> Iterator[Result]:
    for case in record.meta["cases"]:
        types, segments, theirs = (
            record.tensors[f"{case['case']}.{k}"] for k in ("token_type", "segment_id", "visible")
        )
        yield record.exact(case["sequence"].replace(" ", "_"), "visible", visible(types, segments), theirs)


@torch.no_grad()
def heads(record: Record) -> Iterator[Result]:
    tensors, sizes = record.tensors, record.meta["config"]
    config = HeadsConfig(
        hidden=sizes["hidden"],
        context_dim=sizes["gen"],
        vit_dim=sizes["vit"],
        decoder_width=sizes["width"],
        decoder_depth=sizes["depth"],
        decoder_shift=sizes["shift"],
    )
    connector, decoder = Connector(config), ViTDecoder(config)
    connector.load_state_dict(record.weights("w.connector."))
    decoder.load_state_dict(record.weights("w.vit_decoder."))
    hidden = tensors["in.hidden"]
    yield record.result(
        "connector", "for_gen", connector.for_renderer(hidden), tensors["out.for_gen"], FORWARD
    )
    yield record.result(
        "connector", "for_vit", connector.for_decoder(hidden), tensors["out.for_vit"], FORWARD
    )
    net = decoder.net(tensors["in.net_x"], tensors["in.net_t"], tensors["in.z_cond"])
    yield record.result("decoder", "net", net, tensors["out.net"], FORWARD)
    for name, case in record.meta["cases"].items():
        yield from _decoder_case(record, decoder, name, case)
    if "train.pred" in tensors:
        yield from _decoder_training(record, decoder)


def _decoder_case(record: Record, decoder: ViTDecoder, name: str, case: dict) -> Iterator[Result]:
    tensors = record.tensors
    names = {1: ["cond"], 2: ["cond", "uncond"], 3: ["cond", "uncond", "imgcond"]}[case["branches"]]
    conditions = {BRANCHES[n]: tensors[f"in.z_{n}"] for n in names}
    path: list[Tensor] = []
    final = decoder.sample(
        tensors[f"in.noise.{name}"],
        conditions,
        num_steps=case["steps"],
        source_guidance=case["cfg"],
        prompt_guidance=case["img_cfg"] or 1.0,
        path=path,
    )
    schedule = decoder_schedule(case["steps"], decoder.shift)
    yield record.exact(name, "sigmas", schedule.sigmas[:-1].tolist(), case["sigmas"])
    yield record.exact(name, "timesteps", schedule.timesteps.tolist(), case["timesteps"])
    yield record.result(name, "path", torch.stack(path), tensors[f"out.{name}.path"], FORWARD)
    yield record.result(name, "final", final, tensors[f"out.{name}"], FORWARD)


def _decoder_training(record: Record, decoder: ViTDecoder) -> Iterator[Result]:
    tensors, repeats = record.tensors, record.meta["config"]["batch_mul"]
    schedule, index = decoder_schedule(1000, decoder.shift), record.tensors["train.timestep_index"].cpu()
    sigma = schedule.sigmas[:-1][index]
    yield record.exact("training", "sigma", sigma, tensors["train.sigma"])
    yield record.exact("training", "timestep", schedule.timesteps[index], tensors["train.timestep"])
    target, noise = tensors["train.target"].repeat(repeats, 1), tensors["train.noise"]
    sigma, timesteps = sigma.to(noise), schedule.timesteps[index].to(noise)
    noisy = (1 - sigma[:, None]) * target + sigma[:, None] * noise
    pred = decoder.net(noisy, timesteps, tensors["in.z_cond"].repeat(repeats, 1))
    loss = (pred - (noise - target)).square().mean(-1)
    yield record.result("training", "pred", pred, tensors["train.pred"], FORWARD)
    for quantity, weight in (("unweighted", 1.0), ("bell", tensors["train.weight_bell"])):
        ours = (loss * weight).unflatten(0, (repeats, -1)).mean(0)
        yield record.result("training", f"loss_{quantity}", ours, tensors[f"train.loss_{quantity}"], FORWARD)
