"""Will it fit? An estimate before anything is loaded, and a refusal that names the flag that would.

Weights are counted exactly from the file headers; activations by a rule of thumb of the largest
tensors alive at once in a forward, which is meant to be high rather than low.
"""

import os
from dataclasses import dataclass

import torch

from bernini.errors import CaseError, MemoryRefused
from bernini.geometry import OutputSize
from bernini.layouts import ModelFolder

GIB = 1024**3
PRECISIONS = {"fp32": 4.0, "bf16": 2.0, "fp8": 1.02}  # bytes a weight; fp8 has a scale a row
OFFLOADS = ("none", "sequential")
STATE_COPIES = 14  # hidden-sized tensors alive in a block: states, q, k, v, their turned forms, feed-forward
VAE_BYTES_PER_PIXEL = (
    4 * 96 * 3
)  # float32, the widest layer at full resolution, three of them, a frame window of 4
TILE_PIXELS = 256 * 256


@dataclass(frozen=True, kw_only=True)
class MemorySettings:
    """How a model is held."""

    device: str = "auto"  # auto, cpu, cuda, cuda:N
    precision: str = "auto"  # weights of the experts and the planner: fp32, bf16, fp8; auto: bf16 on a GPU
    offload: str = "none"  # none: all parts stay; sequential: only the part at work is in memory
    vae_tiling: bool = False  # encode and decode in tiles of 256 px
    force: bool = False  # run although the estimate says it does not fit

    def resolved(self) -> "MemorySettings":
        """With device and precision decided."""
        if self.precision not in ("auto", *PRECISIONS) or self.offload not in OFFLOADS:
            raise CaseError(
                f"precision {self.precision!r} or offload {self.offload!r} unknown; known: auto, "
                f"{', '.join(PRECISIONS)} and {', '.join(OFFLOADS)}"
            )
        device = self.device if self.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
        auto = "fp32" if device == "cpu" else "bf16"
        precision = auto if self.precision == "auto" else self.precision
        return MemorySettings(
            device=device,
            precision=precision,
            offload=self.offload,
            vae_tiling=self.vae_tiling,
            force=self.force,
        )


@dataclass(frozen=True)
class Estimate:
    """Bytes by part, bytes of activations, and the peak of both under the offload rule."""

    weights: dict[str, float]
    activations: dict[str, float]
    offload: str

    @property
    def peak(self) -> float:
        work = {name: self.activations.get(name, 0.0) for name in self.weights}
        if self.offload == "sequential":
            return max(self.weights[n] + work[n] for n in self.weights)
        return sum(self.weights.values()) + max(work.values())

    def __str__(self) -> str:
        parts = ", ".join(f"{n} {_size(b)}" for n, b in self.weights.items())
        work = _size(max(self.activations.values()))
        return f"memory: weights {parts}; work at most {work}; peak {_size(self.peak)}"


def estimate(
    model: ModelFolder, memory: MemorySettings, size: OutputSize, source_tokens: int = 0
) -> Estimate:
    """For one generation of `size` whose sources have `source_tokens` tokens in the renderer."""
    per_weight = PRECISIONS[memory.precision]
    bytes_of = {"vae": 4.0, "text": min(per_weight, 4.0) if memory.precision != "fp8" else 2.0}
    weights = {name: part.num_values * bytes_of.get(name, per_weight) for name, part in model.parts.items()}
    compute = 4 if memory.precision == "fp32" else 2
    config = model.part("high").config
    width = config["num_attention_heads"] * config["attention_head_dim"]
    tokens = size.num_tokens + source_tokens
    renderer = tokens * width * compute * STATE_COPIES + 2 * tokens * config["ffn_dim"] * compute
    renderer += 3 * config["num_layers"] * 2 * 1024 * width * compute  # kept cross keys of three contexts
    pixels = min(size.width * size.height, TILE_PIXELS) if memory.vae_tiling else size.width * size.height
    vae = pixels * VAE_BYTES_PER_PIXEL * 4 + size.width * size.height * size.num_frames * 3 * 4 * 2
    return Estimate(weights, {"high": renderer, "low": renderer, "vae": vae}, memory.offload)


def available(device: str) -> float:
    """Free bytes on a GPU, or of the machine."""
    if device.startswith("cuda"):
        return float(torch.cuda.mem_get_info(device)[0])
    with open("/proc/meminfo") as info:
        fields = dict(line.split(":") for line in info)
    return (
        float(fields["MemAvailable"].split()[0]) * 1024
        if "MemAvailable" in fields
        else float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    )


def check_fits(
    model: ModelFolder, memory: MemorySettings, size: OutputSize, source_tokens: int, free: float
) -> Estimate:
    """The estimate; `MemoryRefused` with the smallest change that would fit when it does not."""
    now = estimate(model, memory, size, source_tokens)
    if now.peak <= free or memory.force:
        return now
    for flags, change in _lighter(memory):
        if estimate(model, change, size, source_tokens).peak <= free:
            raise MemoryRefused(
                f"needs {_size(now.peak)}, {_size(free)} free on {memory.device}; {flags} would fit"
            )
    raise MemoryRefused(
        f"needs {_size(now.peak)}, {_size(free)} free on {memory.device}; no option fits, "
        "take a smaller --max-image-size or --num-frames (or --force)"
    )


def _lighter(memory: MemorySettings):
    """Flags from the mildest to the strongest, with the settings they give."""
    from dataclasses import replace

    steps = (
        ("--vae-tiling", dict(vae_tiling=True)),
        ("--offload sequential", dict(offload="sequential")),
        ("--offload sequential --vae-tiling", dict(offload="sequential", vae_tiling=True)),
        (
            "--precision bf16 --offload sequential --vae-tiling",
            dict(precision="bf16", offload="sequential", vae_tiling=True),
        ),
        (
            "--precision fp8 --offload sequential --vae-tiling",
            dict(precision="fp8", offload="sequential", vae_tiling=True),
        ),
    )
    for flags, change in steps:
        lighter = replace(memory, **change)
        if PRECISIONS[lighter.precision] <= PRECISIONS[memory.precision]:
            yield flags, lighter


def _size(count: float) -> str:
    return f"{count / GIB:.1f} GiB" if count > 0.1 * GIB else f"{count / 1024**2:.1f} MiB"
