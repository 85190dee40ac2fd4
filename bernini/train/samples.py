"""Samples while training: the cases of a file, generated with the averaged weights of the moment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bernini.errors import BerniniError
from bernini.layouts import ModelFolder
from bernini.train.export import by_owner
from bernini.train.loop import Trainer
from bernini.train.lora import A, merged, scale
from bernini.train.parallel import whole


class Sampler:
    """Writes OUTPUT/samples/step-00000100/NAME for each case. A case that fails is named; training goes on."""

    def __init__(self, model: ModelFolder, device: str, say: Callable[[str], None] = print):
        self.model, self.device, self.say = model, device, say
        self._pipeline = None
        self._base: dict[str, dict] = {}  # weights below adapters, as they were

    def __call__(self, step: int, trainer: Trainer) -> None:
        """All processes join to gather the weights; the first one generates."""
        tensors = {n: whole(t).detach().cpu() for n, t in trainer.trained().items()}
        if trainer.world.is_first:
            self._fill(tensors, trainer)
            self._generate(trainer.output / "samples" / f"step-{step:08d}", trainer)
        trainer.world.wait()

    def _fill(self, tensors: dict, trainer: Trainer) -> None:
        from bernini.generate.pipeline import Pipeline
        from bernini.memory import MemorySettings

        if self._pipeline is None:
            self._pipeline = Pipeline(self.model, MemorySettings(device=self.device))
        for owner, own in by_owner(tensors).items():
            module = self._pipeline.parts[owner]
            if owner not in self._base:
                adapted = {n.removesuffix(A) + ".weight" for n in own if n.endswith(A)}
                self._base[owner] = {n: t.clone() for n, t in module.state_dict().items() if n in adapted}
            factor = scale(trainer.config) if trainer.config.lora_rank else 1.0
            module.load_state_dict(merged(own, lambda n, o=owner: self._base[o][n].cpu(), factor), strict=False)

    def _generate(self, folder: Path, trainer: Trainer) -> None:
        from bernini.generate.cases import read_batch

        steps = trainer.config.sample_steps
        given = {"num_inference_steps": steps, "planning_step": steps} if steps else {}
        for number, case in enumerate(read_batch(trainer.config.sample_cases)):
            name = f"{number:03d}-{Path(case.output).name}"
            try:
                case = replace(case, output=str(folder / name)).checked()
                self._pipeline.save(case, self._pipeline.generate(case, self._pipeline.settings(case, given)))
            except BerniniError as error:
                self.say(f"sample {name} was not generated: {error}")
