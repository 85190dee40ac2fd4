"""What a training run is: its settings, and the paper's stages as presets (section 4.1, Table 2).

    I      planner alone: text 0.2, visual 1; 256p, 2 fps
    IIa    both experts of the renderer, with pair data that fades out; 480p, 16 fps
    IIb    the same without pair data
    IIIa   planner and renderer together; the renderer is shown text, sources and unmasked target tokens
    IIIb   the same with reasoning data
    propagation
           as IIb, on clips with an edited first frame alone: the model that makes more data (section 3.3)

Everything that the stage does not train stays frozen: text encoder, autoencoder and vision tower
always (their features are computed before training), the planner in II, the renderer in I.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, fields, replace

from torch import nn

from bernini.train.losses import LossWeights
from manifests.errors import ConfigError
from manifests.settings import flag

COUNTS = ("steps", "tokens", "accumulate", "log_every", "save_every", "keep", "sequence_parallel", "vit_noises",
          "max_size")  # fmt: skip
ABOVE_ZERO = ("lr", "clip", "fps")
NOT_NEGATIVE = ("lambda_text", "lambda_visual", "lambda_dit", "max_samples", "warmup", "weight_decay", "lora_rank",
                "lora_alpha", "workers", "max_reserved_gib", "sample_every", "sample_steps", "ray")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of one run; the stage gives the defaults."""

    stage: str = "IIb"
    """I, IIa, IIb, IIIa, IIIb or propagation."""
    data: tuple[str, ...] = ()
    """Manifests of samples or latents."""
    model: str = ""
    """Model folder to start from, of any released layout."""
    base: str | None = None
    """Base model in diffusers' layout, for a folder with the two experts only."""
    output: str = "train-out"
    """Folder for checkpoints, metrics and samples; a second start with the same folder resumes."""
    mixture: str = ""
    """Named mixture of Tables 1 and 2, or even; default: the stage's."""
    max_size: int = 848
    """Longest side in pixels of raw samples: 480p. Latents have theirs from `bernini encode`."""
    fps: float = 16.0
    """Frames a second of raw samples' latents (Table 2; what the planner sees has 2, 256p)."""
    noise_recipe: str = "paper"
    """paper or released: table and shifts of the noise levels."""

    planner: bool = False
    """Train the planner."""
    experts: str = "both"
    """Experts of the renderer to train: both, high, low or none."""
    lambda_text: float = 0.2
    """Weight of the next-token loss."""
    lambda_visual: float = 1.0
    """Weight of the loss in ViT space."""
    lambda_dit: float = 1.0
    """Weight of the renderer's loss."""
    vit_noises: int = 16
    """Noise draws for each masked token (spec 3.4)."""
    drop_text: float = 0.1
    """Probability that a sample loses its prompt, for guidance (spec 6)."""
    drop_images: float = 0.1
    """Probability that it loses its reference images."""
    drop_videos: float = 0.1
    """Probability that it loses its source videos."""
    drop_vit: float = 0.1
    """Probability that the planner does not see the sources, in joint training (no published number; as the others)."""
    drop_plan: float = 0.1
    """Probability that the renderer is not shown the planned target, in joint training (no published number)."""

    steps: int = 100_000
    """Optimiser steps in all."""
    tokens: int = 150_000
    """Token budget of a pack (spec 6)."""
    max_samples: int = 0
    """Most samples of a pack; 0: what the tokens allow."""
    accumulate: int = 1
    """Packs of each process in one step."""
    lr: float = 1e-5
    """Learning rate after warm-up, constant (Table 2)."""
    warmup: int = 400
    """Steps of linear warm-up (0.4 % of 100,000, spec 6)."""
    weight_decay: float = 0.01
    """Of AdamW."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    ema_decay: float = 0.9999
    """Of the averaged weights after their warm-up (Table 2)."""
    seed: int = 0
    """Of every draw, with the epoch and the sample's id."""

    lora_rank: int = 0
    """Train adapters of this rank in the experts instead of all their weights; 0 for all weights."""
    lora_alpha: float = 0.0
    """Scale of the adapters times their rank; 0 for the rank itself."""

    precision: str = "auto"
    """fp32, or bf16 with float32 weights; auto: bf16 on a GPU."""
    activations: str = "recompute"
    """keep all, recompute each block in the backward pass, or offload its input to host memory too."""
    attention: str = "auto"
    """Attention kernel of the renderer."""
    sequence_parallel: int = 1
    """Processes that share the tokens of one pack."""
    workers: int = 2
    """Threads that read data ahead."""
    force: bool = False
    """Run although the memory estimate says that it does not fit."""
    max_reserved_gib: float = 0.0
    """Memory to plan with on each device; 0: what is free."""

    log_every: int = 10
    """Steps between lines of metrics."""
    save_every: int = 1000
    """Steps between checkpoints."""
    keep: int = 3
    """Checkpoints that stay."""
    sample_every: int = 0
    """Steps between generated samples; 0 for none."""
    sample_cases: str = ""
    """Cases to generate, as for `bernini generate --inputs`."""
    sample_steps: int = 0
    """Denoising steps of those samples; 0: the preset's."""
    tensorboard: bool = True
    """Write TensorBoard files when that package is installed."""
    wandb: str = ""
    """Project of Weights & Biases; empty for none."""
    export: str = ""
    """Write the averaged weights at the end as diffusers, experts or full; see also `bernini train --export-only`."""
    export_only: bool = False
    """Train nothing, export the newest checkpoint."""
    dry_run: bool = False
    """Print what would happen, the mixture in tokens included, and stop."""
    ray: int = 0
    """Start as a Ray Train job with this many workers."""

    @property
    def weights(self) -> LossWeights:
        return LossWeights(text=self.lambda_text if self.planner else 0.0,
                           visual=self.lambda_visual if self.planner else 0.0,
                           dit=self.lambda_dit if self.experts != "none" else 0.0)  # fmt: skip

    def checked(self) -> TrainConfig:
        """Itself, or a `ConfigError` that names the field."""
        choices = (("stage", STAGES), ("experts", ("both", "high", "low", "none")),
                   ("activations", ("keep", "recompute", "offload")), ("precision", ("auto", "fp32", "bf16")),
                   ("export", ("", "diffusers", "experts", "full")))  # fmt: skip
        for name, known in choices:
            if getattr(self, name) not in known:
                told = ", ".join(k or "(none)" for k in known)
                raise ConfigError(f"--{name} {getattr(self, name)!r} unknown; known: {told}")
        for name in COUNTS:
            if getattr(self, name) < 1:
                raise ConfigError(f"{flag(name)} {getattr(self, name)} must be at least 1")
        for name in (*ABOVE_ZERO, *NOT_NEGATIVE):
            value, words = getattr(self, name), "above 0" if name in ABOVE_ZERO else "0 or more"
            if not math.isfinite(value) or value < 0 or (value == 0 and name in ABOVE_ZERO):
                raise ConfigError(f"{flag(name)} {value} must be {words}")
        if self.planner and self.export not in ("", "full"):
            raise ConfigError(f"--export {self.export} has no place for the trained planner; give --export full")
        if self.export_only and self.dry_run:
            raise ConfigError("--dry-run shows a training; with --export-only there is none")
        if not self.planner and self.experts == "none":
            raise ConfigError("nothing is trained: --experts none without --planner")
        self._check_losses()
        if self.lora_rank and self.experts == "none":
            raise ConfigError("--lora-rank trains adapters of the renderer; with --experts none there is none")
        if bool(self.sample_every) != bool(self.sample_cases):
            raise ConfigError("--sample-every and --sample-cases go together: when, and what")
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"--ema-decay {self.ema_decay} must lie in [0, 1)")
        if not -(2**63) <= self.seed < 2**63:
            raise ConfigError(f"--seed {self.seed} must lie between -2^63 and 2^63 - 1")
        return self

    def _check_losses(self) -> None:
        """What is trained without a loss would only be made smaller, by the weight decay."""
        if not any(asdict(self.weights).values()):
            names = [n for n, used in (("lambda_text", self.planner), ("lambda_visual", self.planner),
                                       ("lambda_dit", self.experts != "none")) if used]  # fmt: skip
            raise ConfigError(f"nothing is learned: all weights of the losses are 0; give {_choice(names)} above 0")
        if self.experts != "none" and not self.lambda_dit:
            raise ConfigError(f"--lambda-dit 0 with --experts {self.experts}: the experts would learn nothing; give "
                              "--lambda-dit above 0, or --experts none")  # fmt: skip

    def without_effect(self, given: Collection[str]) -> str | None:
        """Which of the given settings changes nothing in this run, and why; None when all count."""
        no_planner, no_expert = "the planner is not trained", "no expert of the renderer is trained"
        idle = {
            "lora_alpha": "all weights are trained: give --lora-rank too" if not self.lora_rank else None,
            "sample_steps": "no samples are generated: give --sample-every too" if not self.sample_every else None,
            "lambda_dit": no_expert if self.experts == "none" else None,
            **dict.fromkeys(("max_size", "fps"), "the planner alone reads no VAE latents" if self.experts == "none"
                            else None),
            **dict.fromkeys(("lambda_text", "lambda_visual", "vit_noises"), no_planner if not self.planner else None),
            **dict.fromkeys(("drop_vit", "drop_plan"), no_planner if not self.planner else
                            no_expert if self.experts == "none" else None),
        }  # fmt: skip
        return next((f"{flag(n)} has no effect in this run: {idle[n]}" for n in given if idle.get(n)), None)


def _choice(names: Sequence[str]) -> str:
    """Settings as a user calls them: "--a, --b or --c"."""
    flags = [flag(n) for n in names]
    return " or ".join([", ".join(flags[:-1]), flags[-1]] if len(flags) > 1 else flags)


def _stage(name: str, ema: float, **changes) -> TrainConfig:
    return TrainConfig(stage=name, mixture=name, ema_decay=ema, **changes)


STAGES = {
    "I": _stage("I", 0.999, planner=True, experts="none"),
    "IIa": _stage("IIa", 0.9995),
    "IIb": _stage("IIb", 0.9999),
    "IIIa": _stage("IIIa", 0.9995, planner=True),
    "IIIb": _stage("IIIb", 0.999, planner=True),
    "propagation": _stage("propagation", 0.9999),
}


def preset(stage: str, **changes) -> TrainConfig:
    """Settings of a stage with changes."""
    if stage not in STAGES:
        raise ConfigError(f"no stage {stage!r}; known: {', '.join(STAGES)}")
    return replace(STAGES[stage], **changes)


def differences(config: TrainConfig, stored: dict) -> list[str]:
    """Settings that differ from those of a checkpoint, as "name: then -> now"."""
    now = asdict(config)
    names = [f.name for f in fields(config) if f.name not in ("output", "export_only", "dry_run", "force", "ray")]
    return [f"{n}: {stored[n]} -> {now[n]}" for n in names
            if n in stored and stored[n] != (list(now[n]) if isinstance(now[n], tuple) else now[n])]  # fmt: skip


def freeze(planner: nn.Module | None, experts: dict[str, nn.Module], config: TrainConfig) -> None:
    """Sets `requires_grad` of everything as the stage wants it."""
    for expert in experts.values():
        if not config.lora_rank:
            expert.requires_grad_(True)
    if planner is None:
        return
    planner.requires_grad_(config.planner)
    unused = ["mllm.model.visual."]  # its features are computed before training
    if config.experts == "none":
        unused.append("connector.proj_gen.")
    if not config.lambda_text:  # only the language head reads the last layer
        last = len(planner.language.layers) - 1
        unused += ["mllm.lm_head.", f"mllm.model.language_model.layers.{last}.", "mllm.model.language_model.norm."]
    if not config.lambda_visual:
        unused += ["connector.pred_vit.", "vit_decoder."]
    for name, parameter in planner.named_parameters():
        if name.startswith(tuple(unused)):
            parameter.requires_grad_(False)


def trained_table(modules: dict[str, nn.Module | None]) -> str:
    """Module by module: parameters trained and frozen."""
    counts: dict[str, list[int]] = {}
    for owner, module in modules.items():
        for name, parameter in module.named_parameters() if module is not None else ():
            row = counts.setdefault(f"{owner}.{_group(name)}", [0, 0])
            row[0 if parameter.requires_grad else 1] += parameter.numel()
    width = max(map(len, counts), default=0)
    lines = [f"{'module':<{width}}  {'trained':>15}  {'frozen':>15}"]
    lines += [f"{name:<{width}}  {a:>15,}  {b:>15,}" for name, (a, b) in counts.items()]
    total = [sum(c[i] for c in counts.values()) for i in (0, 1)]
    return "\n".join([*lines, f"{'all':<{width}}  {total[0]:>15,}  {total[1]:>15,}"])


def _group(name: str) -> str:
    """The module that a person would name: without numbers of layers and below."""
    short = name.replace("mllm.model.language_model.", "language.").replace("mllm.model.visual.", "vision.")
    first, *rest = short.split(".")
    return f"{first}.{rest[0]}" if first in ("language", "connector", "condition_embedder", "mllm") else first
