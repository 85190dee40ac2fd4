"""Reading a folder of recorded numbers, and measuring how far ours are from them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from bernini.errors import ParityError

FORWARD = 1e-5  # one forward in float32: other sums, other order
LOOP = 1e-4  # a whole loop: the same, many times over
EXACT = 0.0


@dataclass(frozen=True)
class Result:
    """One comparison; `error` above `tolerance` (or not a number) is a failure."""

    case: str
    quantity: str
    error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        return self.error <= self.tolerance

    def __str__(self) -> str:
        verdict = "ok" if self.ok else "FAIL"
        return f"{self.case} {self.quantity} {self.error:.2e} {self.tolerance:.0e} {verdict}"


@dataclass
class Record:
    """One recorded file: `meta` of its JSON, tensors loaded when asked for."""

    name: str
    folder: Path
    meta: dict
    attention: str = "sdpa"
    device: str = "cpu"

    @classmethod
    def read(cls, path: Path) -> "Record":
        try:
            meta = json.loads(path.read_text())
        except (OSError, json.JSONDecodeError) as error:
            raise ParityError(f"{path} cannot be read as JSON: {error}") from None
        return cls(meta.get("name", path.stem), path.parent, meta)

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors beside the JSON."""
        return self.load(self.meta.get("data_file", f"{self.name}.safetensors"))

    def load(self, file: str) -> dict[str, Tensor]:
        path = self.folder / file
        if not path.exists():
            raise ParityError(f"{path} is missing; copy it beside {self.name}.json")
        return load_file(path, device=self.device)

    def weights(self, prefix: str, file: str | None = None) -> dict[str, Tensor]:
        """Tensors under `prefix`, which is taken off their names."""
        tensors = self.load(file) if file else self.tensors
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    def result(self, case: str, quantity: str, ours: Tensor, theirs: Tensor, tolerance: float) -> Result:
        """Largest difference over the largest recorded value."""
        return Result(f"{self.name}/{case}", quantity, relative_error(ours, theirs), tolerance)

    def exact(self, case: str, quantity: str, ours, theirs) -> Result:
        """0 when equal, else 1: for whole numbers, masks and texts."""
        same = torch.equal(ours.cpu(), theirs.cpu()) if isinstance(ours, Tensor) else ours == theirs
        return Result(f"{self.name}/{case}", quantity, 0.0 if same else 1.0, EXACT)


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """max |a - b| / max |b|; infinite for different shapes."""
    if ours.shape != theirs.shape:
        return float("inf")
    ours, theirs = ours.detach().double().cpu(), theirs.double().cpu()
    if not torch.isfinite(ours).all():
        return float("inf")
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-30))


def relative_rms(ours: Tensor, theirs: Tensor) -> float:
    """Root mean square of the difference over that of `theirs`."""
    ours, theirs = ours.detach().double(), theirs.double()
    return float((ours - theirs).square().mean().sqrt() / theirs.square().mean().sqrt())


def read_folder(folder: Path) -> Iterator[Record]:
    """Every record of a folder, by name."""
    if not folder.is_dir():
        raise ParityError(f"{folder} is not a folder; give the one with the recorded .json files")
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise ParityError(f"{folder} holds no .json record")
    for path in paths:
        yield Record.read(path)
