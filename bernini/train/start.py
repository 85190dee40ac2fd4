"""From settings to a trainer: model, adapters, what is frozen, memory, processes, data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from bernini.config import HeadsConfig
from bernini.encoder_parts import fingerprints
from bernini.layouts import ModelFolder, open_model
from bernini.memory import available
from bernini.renderer.attention import kernel
from bernini.train.budget import Decoder, Network, TrainEstimate, check
from bernini.train.cost import CostModel
from bernini.train.dataset import Dataset
from bernini.train.draws import DrawSettings
from bernini.train.loader import Loader, LoaderConfig
from bernini.train.loop import Reading, Trainer, use_half
from bernini.train.lora import adapt
from bernini.train.losses import TrainModel
from bernini.train.parallel import World, shard
from bernini.train.passes import PassOptions
from bernini.train.prepare import Needs
from bernini.train.stages import TrainConfig, freeze
from manifests.errors import ConfigError

GIB = 2**30


@dataclass(frozen=True)
class Plan:
    """What will run, before any weight is read."""

    config: TrainConfig
    model: ModelFolder
    experts: tuple[tuple[str, float, float], ...]
    estimate: TrainEstimate

    @property
    def features(self) -> tuple[str, ...]:
        """What samples must have, in the words of `bernini encode`."""
        return (("latent", "text") if self.experts else ()) + (("vit",) if self.config.planner else ())


def plan(config: TrainConfig, world: World) -> Plan:
    """Checks the settings against the model and the memory; reads headers only."""
    config.checked()
    for name, value in (("--model", config.model), ("--data", config.data)):
        if not value:
            raise ConfigError(f"{name} is missing; see bernini train --help")
    model = open_model(config.model, config.base)
    kernel(config.attention)
    if config.planner:
        model.part("planner")  # refused with its name when the model has none
    experts = trained_experts(config, model)
    free = config.max_reserved_gib * GIB or available(str(world.device))
    share = 1 if world.device.type == "cuda" else world.size  # processes on a CPU divide its memory
    networks = [_network(config, model, n) for n in ([*(e for e, _, _ in experts)] + ["planner"] * config.planner)]
    found = check(networks, config, world.size, use_half(config, world), free / share, world.device.type)
    return Plan(config, model, experts, found)


def trained_experts(config: TrainConfig, model: ModelFolder) -> tuple[tuple[str, float, float], ...]:
    """Names of the trained experts with the noise levels that they work on."""
    if config.experts == "none":
        return ()
    if "low" not in model.parts:
        if config.experts == "low":
            raise ConfigError(f"{model.path} has one expert, which is named high; give --experts both")
        return (("high", 0.0, 1.0),)
    both = (("high", model.boundary, 1.0), ("low", 0.0, model.boundary))
    return both if config.experts == "both" else tuple(e for e in both if e[0] == config.experts)


def _network(config: TrainConfig, model: ModelFolder, name: str) -> Network:
    part = model.part(name)
    if name == "planner":
        text = part.config["mllm"].get("text_config", part.config["mllm"])
        layers, width, ffn = text["num_hidden_layers"], text["hidden_size"], text["intermediate_size"]
        seen = sum(e.num_values for k, e in part.entries.items() if ".visual." in k)  # dropped before training
        heads = HeadsConfig.of(part.config, width)
        decoder = Decoder(width=heads.decoder_width, depth=heads.decoder_depth, vit=heads.vit_dim)
        return Network(name=name, num_weights=part.num_values - seen, num_trained=part.num_values - seen,
                       layers=layers, width=width, ffn=ffn,
                       decoder=decoder if config.weights.visual else None)  # fmt: skip
    c = part.config
    width = c["num_attention_heads"] * c["attention_head_dim"]
    per_layer = config.lora_rank * (16 * width + 2 * (width + c["ffn_dim"]))  # eight square and two wide linears
    trained = c["num_layers"] * per_layer if config.lora_rank else part.num_values
    return Network(name=name, num_weights=part.num_values, num_trained=trained, layers=c["num_layers"],
                   width=width, ffn=c["ffn_dim"])  # fmt: skip


def modules(plan: Plan) -> dict[str, nn.Module | None]:
    """The networks with their weights in float32, frozen and adapted as the stage wants it."""
    config = plan.config
    found: dict[str, nn.Module | None] = {"planner": None, "high": None, "low": None}
    if config.planner:
        found["planner"] = plan.model.part("planner").load(dtype=torch.float32)
    for name, _, _ in plan.experts:
        found[name] = plan.model.part(name).load(dtype=torch.float32)
        found[name].attend = kernel(config.attention)
        if config.lora_rank:
            adapt(found[name], config)
    freeze(found["planner"], {n: found[n] for n, _, _ in plan.experts}, config)
    return found


def reading(plan: Plan, found: dict[str, nn.Module | None]) -> Reading:
    """What samples must have for these networks, and the planner's tokenizer."""
    renderer = next((found[n] for n, _, _ in plan.experts), None)
    planner, tokenize = found["planner"], None
    if planner is not None:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(plan.model.processor)

        def tokenize(text: str) -> list[int]:
            return tokenizer(text, add_special_tokens=False)["input_ids"]

    needs = Needs(planner=planner is not None, renderer=renderer is not None, experts=plan.experts,
                  text_width=renderer.config.text_dim if renderer is not None else 0,
                  latent_channels=renderer.config.in_channels if renderer is not None else 16,
                  vit_width=planner.vit_decoder.net.input_proj.in_features if planner is not None else 0,
                  merge=planner.special.merge if planner is not None else 2)  # fmt: skip
    return Reading(needs=needs, tokenize=tokenize, special=planner.special if planner is not None else None)


def open_loader(plan: Plan, world: World, say: Callable[[str], None] = print) -> Loader:
    """The stream of packs of this process, from latents or from raw samples."""
    config = plan.config
    dataset = Dataset(config.data, needs=plan.features, encoders=_encoders(plan, world),
                      expects=fingerprints(plan.model, plan.features), say=say)  # fmt: skip
    one_of_two = len(plan.experts) == 1 and plan.model.boundary > 0
    joint = config.planner and plan.experts  # the planner conditions the renderer
    draws = DrawSettings(recipe=config.noise_recipe, interval=plan.experts[0][1:] if one_of_two else (0.0, 1.0),
                         drop_text=config.drop_text, drop_images=config.drop_images,
                         drop_videos=config.drop_videos, drop_vit=config.drop_vit if joint else 0.0,
                         drop_plan=config.drop_plan if joint else 0.0)  # fmt: skip
    settings = LoaderConfig(mixture=config.mixture or config.stage, token_budget=config.tokens, draws=draws,
                            total_steps=config.steps, accumulate=config.accumulate, seed=config.seed,
                            max_samples=config.max_samples or None)  # fmt: skip
    cost = CostModel.of(plan.model, plan.features, config.vit_noises if config.weights.visual else 0)
    return Loader(dataset, settings, cost, rank=world.data_rank, world=world.data_size, num_workers=config.workers)


def _encoders(plan: Plan, world: World):
    """Encoders of raw samples; None when all manifests hold latents."""
    from bernini.encode import Encoders, EncodeSettings
    from manifests.manifest import Manifest

    config = plan.config
    if all(Manifest.open(path).stop.name == "latents" for path in config.data):
        return None
    stage = "I" if not plan.experts else "III" if config.planner else "II"
    settings = EncodeSettings(stage=stage, max_size=config.max_size, fps=config.fps)
    return Encoders(plan.model, settings, device=str(world.device))


def build(plan: Plan, world: World, *, say: Callable[[str], None] = print) -> Trainer:
    """A trainer with its data, ready to run."""
    config = plan.config
    loader = open_loader(plan, world, say)  # data first: its mistakes cost no loading of weights
    _make(Path(config.output))
    found = modules(plan)
    how = reading(plan, found)
    model = TrainModel(found["planner"], found["high"], found["low"], config.weights,
                       PassOptions(config.activations, world.sequence))  # fmt: skip
    model = shard(model.to(world.device), world, use_half(config, world))
    sample = None
    if config.sample_every:
        from bernini.generate.cases import read_batch
        from bernini.train.samples import Sampler

        read_batch(config.sample_cases)  # a file that cannot be read is refused now
        sample = Sampler(plan.model, str(world.device), say)
    return Trainer(config, model, loader, how, world, say=say, sample=sample)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--output {folder} cannot be made ({error}); name another folder") from None
