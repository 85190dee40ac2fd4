"""A small training run as a program of its own, for tests that kill it: `python -m … OUTPUT [STEPS [FIELD=VALUE…]]`."""

import sys
from dataclasses import replace

import torch

from bernini.tiny import _planner_tokenizer, tiny_planner, tiny_renderer
from bernini.train.loop import Reading, Trainer
from bernini.train.losses import TrainModel
from bernini.train.parallel import join, shard
from bernini.train.passes import PassOptions
from bernini.train.prepare import Needs
from bernini.train.stages import TrainConfig, freeze, preset
from tests.bernini.train.conftest import TEXT, VIT, pack

EXPERTS = (("high", 0.5, 1.0), ("low", 0.0, 0.5))


class MemoryLoader:
    """Endless packs made from their number; rank r of n takes the numbers r, r + n, …"""

    def __init__(self, tasks=(("v2v", "t2i"), ("i2i",)), rank: int = 0, size: int = 1):
        self.tasks, self.rank, self.size, self.at = tasks, rank, size, 0

    def __iter__(self):
        while True:
            number = self.at * self.size + self.rank
            self.at += 1
            yield pack(self.tasks[number % len(self.tasks)], first=3 * number, epoch=number)

    def state_dict(self) -> dict:
        return {"at": self.at}

    def load_state_dict(self, state: dict) -> None:
        self.at = state["at"]


def config_of(output, steps: int = 6, **changes) -> TrainConfig:
    made = preset("IIb", output=str(output), steps=steps, lr=1e-3, warmup=3, save_every=2, log_every=3, ema_decay=0.99,
                  tensorboard=False, activations="keep", vit_noises=2)
    return replace(made, **changes)


def trainer_of(config: TrainConfig, loader=None, *, dtype=torch.float32, say=lambda text: None, world=None) -> Trainer:
    """A trainer of the tiny model, in the processes that are there."""
    world = world or join(config.sequence_parallel)
    torch.manual_seed(0)
    planner = tiny_planner().to(dtype) if config.planner else None
    experts = {n: tiny_renderer().to(dtype) for n in ("high", "low")} if config.experts != "none" else {}
    freeze(planner, experts, config)
    model = TrainModel(planner, experts.get("high"), experts.get("low"), config.weights,
                       PassOptions(config.activations, world.sequence))
    shard(model, world, half=False)
    needs = Needs(planner=config.planner, renderer=bool(experts), experts=EXPERTS if experts else (), text_width=TEXT,
                  vit_width=VIT)
    tokenizer = _planner_tokenizer()
    reading = Reading(needs=needs, tokenize=lambda t: tokenizer(t, add_special_tokens=False)["input_ids"],
                      special=planner.special if planner is not None else None)
    loader = loader or MemoryLoader(rank=world.data_rank, size=world.data_size)
    return Trainer(config, model, loader, reading, world, say=say)


def value(text: str):
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text == "True" if text in ("True", "False") else text


if __name__ == "__main__":
    torch.set_num_threads(1)
    output, steps, *rest = sys.argv[1:]
    trainer_of(config_of(output, int(steps), **{k: value(v) for k, v in (r.split("=") for r in rest)}), say=print).run()
