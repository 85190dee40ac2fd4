"""Will the run fit? An estimate before anything is loaded, and a refusal that names the option that would.

For each trained weight 20 bytes: float32 itself, its gradient, two moments of AdamW, its average.
Sharded over all processes; a block is whole while it works. Activations by the tensors that the
backward pass needs; meant to be high rather than low.

The ViT decoder works on `vit_noises` rows of each masked token (spec 3.4). Their noises lie on the
device in float32; what a row leaves for the backward pass is there for all of them, or for one run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from bernini.errors import MemoryRefused
from bernini.memory import STATE_COPIES, _size
from bernini.train.decoding import ROWS
from bernini.train.stages import TrainConfig

TRAINED_BYTES = 20.0
FROZEN_BYTES = 4.0
KEPT_COPIES = 2 * STATE_COPIES  # hidden-sized tensors of a block that its backward pass reads
PLANNER_SHARE = 1 / 16  # planner tokens of a pack for each of the renderer's; far above what data has
MOST_PROCESSES = 1024
# Of the planner's tokens that are masked target tokens: all but text, by the largest mean of Table 3, Beta(12, 0.9).
MASKED_SHARE = 12 / 12.9
DECODER_KEPT = 12  # decoder-wide tensors of a row that each of its blocks keeps; 11.4 were counted at the released size
CONDITION_KEPT = 6  # tensors that the connector keeps of a masked token (spec 3.4: three linears, a norm)
NOISE_BYTES = 4  # noises come to the device as the trained weights are kept


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """Sizes of the ViT decoder; `vit` is the width of a feature."""

    width: int
    depth: int
    vit: int

    @property
    def num_weights(self) -> float:
        """Linears of the blocks (two and a triple one), of the conditions and both ends (spec 3.4)."""
        return self.width * (self.width * (5 * self.depth + 3) + 3 * self.vit + 256)

    @property
    def row(self) -> float:
        """Values that a row leaves for the backward pass."""
        return DECODER_KEPT * self.depth * self.width + 6 * self.vit


@dataclass(frozen=True, kw_only=True)
class Network:
    """Sizes of one trained or frozen network."""

    name: str
    num_weights: float
    num_trained: float
    layers: int
    width: int
    ffn: int
    decoder: Decoder | None = None

    @property
    def largest(self) -> float:
        """Weights that are gathered at once: a block, or the decoder."""
        return max(self.num_weights / max(1, self.layers), self.decoder.num_weights if self.decoder else 0)


@dataclass(frozen=True)
class TrainEstimate:
    """Bytes on one process, by what they are."""

    parts: dict[str, float]

    @property
    def peak(self) -> float:
        return sum(self.parts.values())

    def __str__(self) -> str:
        parts = ", ".join(f"{n} {_size(b)}" for n, b in self.parts.items() if b)
        return f"memory a process: {parts}; peak {_size(self.peak)}"


def estimate(networks: list[Network], config: TrainConfig, processes: int, half: bool) -> TrainEstimate:
    """Peak of one process."""
    compute = 2 if half else 4
    trained = sum(n.num_trained for n in networks)
    frozen = sum(n.num_weights - n.num_trained for n in networks)
    gathered = 0.0
    if processes > 1:
        gathered = 2 * max(n.largest for n in networks) * compute
    return TrainEstimate({
        "weights": 4 * trained / processes, "gradients": 4 * trained / processes,
        "optimiser": 8 * trained / processes, "average": 4 * trained / processes,
        "frozen weights": FROZEN_BYTES * frozen / processes, "gathered blocks": gathered,
        "activations": sum(_activations(n, config, compute) for n in networks),
        "ViT decoder": sum(_decoder(n, config, compute) for n in networks)})  # fmt: skip


def _tokens(network: Network, config: TrainConfig) -> float:
    """Tokens of a pack in a network."""
    return config.tokens * (PLANNER_SHARE if network.name == "planner" and config.experts != "none" else 1)


def _decoder(network: Network, config: TrainConfig, compute: int) -> float:
    """Noises of all rows, conditions of their tokens, and what the rows of this process, or one run of them, leave."""
    if network.decoder is None:
        return 0.0
    decoder, share = network.decoder, config.sequence_parallel
    masked = _tokens(network, config) * MASKED_SHARE
    rows = masked * config.vit_noises
    held = rows / share if config.activations == "keep" else min(rows / share, max(ROWS, config.vit_noises))
    conditions = masked / share * CONDITION_KEPT * decoder.vit * compute
    return rows * decoder.vit * NOISE_BYTES + held * decoder.row * compute + conditions


def _activations(network: Network, config: TrainConfig, compute: int) -> float:
    tokens = _tokens(network, config) / config.sequence_parallel
    one_block = tokens * (KEPT_COPIES * network.width + 3 * network.ffn) * compute
    inputs = tokens * network.width * compute
    if config.activations == "keep":
        return network.layers * one_block
    return one_block + inputs * (network.layers if config.activations == "recompute" else 2)


def check(
    networks: list[Network], config: TrainConfig, processes: int, half: bool, free: float, device: str
) -> TrainEstimate:
    """The estimate; `MemoryRefused` with the mildest option that would fit when it does not."""
    now = estimate(networks, config, processes, half)
    if now.peak <= free or config.force:
        return now
    for said, changed, more in _lighter(config, processes):
        lighter = [replace(n, num_trained=n.num_trained * 0.01) if changed.lora_rank > config.lora_rank else n
                   for n in networks]  # fmt: skip
        if estimate(lighter, changed, more, half).peak <= free:
            raise MemoryRefused(f"{now}; {_size(free)} free on each {device}. {said} would fit (or --force)")
    raise MemoryRefused(f"{now}; {_size(free)} free on each {device}. No option fits; take a smaller model")


def _lighter(config: TrainConfig, processes: int) -> Iterator[tuple[str, TrainConfig, int]]:
    """Options from the mildest to the strongest: words, settings, processes."""
    if config.activations == "keep":
        yield "--activations recompute", replace(config, activations="recompute"), processes
    offload = replace(config, activations="offload")
    if config.activations != "offload":
        yield "--activations offload", offload, processes
    noises = config.vit_noises // 2 if config.weights.visual else 0
    while noises:
        yield f"--activations offload --vit-noises {noises}", replace(offload, vit_noises=noises), processes
        noises //= 2
    tokens = config.tokens // 2
    while tokens >= config.tokens // 8 and tokens:
        yield f"--activations offload --tokens {tokens}", replace(offload, tokens=tokens), processes
        tokens //= 2
    more = 2 * processes
    while more <= MOST_PROCESSES:
        yield f"torchrun with {more} processes", config, more
        yield f"torchrun with {more} processes and --activations offload", offload, more
        more *= 2
    if not config.lora_rank and config.experts != "none" and not config.planner:
        yield "--lora-rank 32 --activations offload", replace(offload, lora_rank=32), processes
