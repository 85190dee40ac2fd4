"""Gradients and training steps in the processes that torchrun started; alone, the numbers to compare with.

`… parallel_worker OUTPUT gradients SEQUENCE_PARALLEL PACKS` or `… OUTPUT train STEPS`; several at once with `,`.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from bernini import tiny
from bernini.planner.model import Planner
from bernini.tiny import tiny_planner
from bernini.train import decoding
from bernini.train.losses import LossWeights, TrainModel
from bernini.train.parallel import join, shard, whole
from bernini.train.passes import PassOptions
from bernini.train.prepare import Needs, dummies, prepare
from tests.bernini.train.conftest import TEXT, VIT, pack
from tests.bernini.train.tiny_run import MemoryLoader, config_of, trainer_of

# Uneven on purpose: the second has no text to learn and no low-noise sample, the third nothing to render.
TASKS = (("v2v", "cot", "t2i"), ("vr2v",), ("understanding",), ("i2i", "t2v"))
EXPERTS = (("high", 0.5, 1.0), ("low", 0.0, 0.5))


def four_heads() -> None:
    tiny.RENDERER = replace(tiny.RENDERER, num_attention_heads=4)


def gradients(folder: Path, sequence_parallel: int, num_packs: int) -> None:
    """Sum over `num_packs` packs of losses and gradients, shared out over the processes."""
    world = join(sequence_parallel)
    torch.manual_seed(0)
    planner: Planner = tiny_planner().double()
    experts = [tiny.tiny_renderer().double() for _ in range(2)]
    activations = "recompute" if world.size > 1 else "keep"
    model = TrainModel(planner, *experts, LossWeights(), PassOptions(activations, world.sequence))
    shard(model, world, half=False)
    needs = Needs(planner=True, renderer=True, experts=EXPERTS, text_width=TEXT, vit_width=VIT)
    tokenizer = tiny._planner_tokenizer()
    total = torch.zeros(3, dtype=torch.float64)
    for number in range(world.data_rank, num_packs, world.data_size):
        made = pack(TASKS[number], first=10 * number, **({"sigma": 0.8, "timestep": 800.0} if number == 1 else {}))
        batch = prepare(made, needs, lambda t: tokenizer(t, add_special_tokens=False)["input_ids"], planner.special, 2)
        if world.size > 1:
            batch = dummies(batch, needs, planner.special)
        losses = model(batch.to("cpu", torch.float64))
        model.total(losses).backward()
        total += torch.stack([losses[t].detach().sum() if t in losses else torch.zeros(()) for t in ("text", "visual", "dit")])
    found = {n: whole(p.grad) for n, p in model.named_parameters() if p.grad is not None}
    found["losses"] = world.sum(total)
    if world.is_first:
        save_file({n: g.contiguous() for n, g in found.items()}, folder / f"gradients-{sequence_parallel}.safetensors")


def single(folder: Path, steps: int) -> None:
    """Steps in float32, as users train: that they run, and the loss they give."""
    world = join()
    config = config_of(folder / "single", steps, accumulate=4 // world.size, planner=True, warmup=0, lr=1e-4, save_every=99)
    trainer_of(config, MemoryLoader(TASKS, world.data_rank, world.data_size), world=world).run()


def train(folder: Path, steps: int) -> None:
    """Steps of four packs each, shared out; then on from the checkpoint by a second trainer."""
    world = join()
    config = config_of(folder / "run", steps, accumulate=4 // world.size, planner=True, warmup=0, lr=1e-4, clip=0.1)
    for until in (steps - 1, steps):
        loader = MemoryLoader(TASKS, world.data_rank, world.data_size)
        trainer_of(replace(config, steps=until), loader, dtype=torch.float64, world=world).run()


if __name__ == "__main__":
    torch.set_num_threads(1)
    four_heads()
    decoding.ROWS = 6  # runs of three tokens: processes with unequal packs have unequal numbers of runs
    for job in sys.argv[2].split(","):
        kind, *numbers = job.split(":")
        {"gradients": gradients, "train": train, "single": single}[kind](Path(sys.argv[1]), *map(int, numbers))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
