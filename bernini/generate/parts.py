"""The modules of a model while it generates: loaded when needed, kept or dropped by the offload rule.

With offload "sequential" only the part at work is in memory: text encoder, planner, autoencoder,
high-noise expert, low-noise expert, autoencoder, one after another, each read from its files.
"""

import gc
from collections.abc import Callable

import torch
from torch import nn

from bernini.layouts import ModelFolder
from bernini.memory import MemorySettings
from bernini.renderer.experts import Experts
from bernini.renderer.fp8 import store_in_fp8
from bernini.text import TextEncoder
from bernini.vae import Autoencoder
from bernini.vision import Eye

COMPUTE = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp8": torch.bfloat16}


class Parts:
    """Loads parts by name: text, vae, planner, high, low."""

    def __init__(
        self,
        model: ModelFolder,
        memory: MemorySettings,
        *,
        attention: str = "auto",
        round_rotary: bool = True,
        say: Callable[[str], None] = lambda text: None,
    ):
        self.model, self.memory, self.attention = model, memory.resolved(), attention
        self.round_rotary, self.say = round_rotary, say
        self._held: dict[str, object] = {}
        self.num_loads = 0

    def __getitem__(self, name: str):
        """The part, ready; other parts are dropped first when offloading."""
        if name not in self._held:
            if self.memory.offload == "sequential":
                self.drop_all()
            self.say(f"loading {name}")
            self._held[name] = self._load(name)
            self.num_loads += 1
        return self._held[name]

    def drop_all(self) -> None:
        """Frees all parts."""
        self._held.clear()
        gc.collect()
        if self.memory.device.startswith("cuda"):
            torch.cuda.empty_cache()

    def _load(self, name: str):
        make = {"text": self._text, "vae": self._vae, "planner": self._planner}.get(name)
        return make() if make else self._expert(name)

    def _expert(self, name: str) -> nn.Module:
        from bernini.renderer.attention import kernel

        dtype = COMPUTE[self.memory.precision]
        expert = self._into(self.model.part(name).load(dtype=dtype, device=self._first_stop), "blocks", dtype)
        expert.attend = kernel(self.attention)
        return expert if self.model.has_planner else expert.keep_in_float32()

    def _planner(self) -> nn.Module:
        dtype = COMPUTE[self.memory.precision]
        planner = self.model.part("planner").load(dtype=dtype, device=self._first_stop)
        planner = self._into(planner, "language.layers", dtype)
        return planner.round_rotary() if self.round_rotary else planner

    @property
    def _first_stop(self) -> str:
        """8-bit weights are made on the CPU, so that the larger form never lies on the device."""
        return "cpu" if self.memory.precision == "fp8" else self.memory.device

    def _into(self, module: nn.Module, large: str, dtype: torch.dtype) -> nn.Module:
        if self.memory.precision == "fp8":
            where = module
            for name in large.split("."):
                where = getattr(where, name)
            store_in_fp8(where, dtype)
        return module.to(self.memory.device)

    def _text(self) -> TextEncoder:
        from transformers import AutoTokenizer

        dtype = COMPUTE[self.memory.precision]
        model = self.model.part("text").load(dtype=dtype, device=self.memory.device)
        return TextEncoder(AutoTokenizer.from_pretrained(self.model.tokenizer), model)

    def _vae(self) -> Autoencoder:
        model = self.model.part("vae").load(dtype=torch.float32, device=self.memory.device)
        return Autoencoder(model, self.memory.vae_tiling)

    def eye(self) -> Eye:
        """Processors of the planner's vision tower."""
        return Eye.of(self["planner"].mllm.config.vision_config)

    def planner_tokenizer(self):
        """Tokenizer of the planner's chat."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.model.processor)


class LazyExperts(Experts):
    """Experts that are loaded when their noise range begins."""

    def __init__(self, parts: Parts):
        nn.Module.__init__(self)
        self.parts, self.boundary = parts, parts.model.boundary

    def __getitem__(self, name: str):
        return self.parts[name]
