"""Stored tensors: where each lies, how many become a module, how they are written again.

For `layouts` and `convert`. Only safetensors are read; sizes and shapes come from the headers, so
nothing is loaded before it is needed. Missing and misshapen tensors are refused by name.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from bernini.config import read_json
from bernini.errors import CheckpointError

DTYPE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "F8_E4M3": 1, "U8": 1, "BOOL": 1}


@dataclass(frozen=True)
class Entry:
    """A stored tensor before it is read."""

    file: Path
    key: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def num_bytes(self) -> int:
        return int(torch.Size(self.shape).numel()) * DTYPE_BYTES.get(self.dtype, 4)

    @property
    def num_values(self) -> int:
        return int(torch.Size(self.shape).numel())


Entries = dict[str, Entry]


def read_entries(folder: Path) -> Entries:
    """All tensors of the safetensors files of a folder, by key; headers only."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise CheckpointError(f"{folder} holds no .safetensors file; is the download complete?")
    named = {n for index in folder.glob("*.index.json") for n in read_json(index)["weight_map"].values()}
    for name in sorted(named - {f.name for f in files}):
        raise CheckpointError(f"{folder / name} is missing; its index names it, fetch it again")
    entries: Entries = {}
    for file in files:
        entries.update(_file_entries(file))
    return entries


def _file_entries(file: Path) -> Iterator[tuple[str, Entry]]:
    try:
        with safe_open(file, framework="pt") as stored:
            for key in stored.keys():
                view = stored.get_slice(key)
                yield key, Entry(file, key, tuple(view.get_shape()), view.get_dtype())
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} cannot be read ({error}); fetch it again") from None


def prefer_ema(entries: Entries) -> Entries:
    """Names without `ema.`; where both copies are stored, the averaged one."""
    averaged = {k.removeprefix("ema."): e for k, e in entries.items() if k.startswith("ema.")}
    return {k: e for k, e in entries.items() if not k.startswith("ema.")} | averaged


def under(entries: Entries, prefixes: Iterable[str]) -> Entries:
    """Tensors under the first prefix that has any, named without it; bare names must be a transformer's."""
    for prefix in prefixes:
        found = {k.removeprefix(prefix): e for k, e in entries.items() if k.startswith(prefix)}
        if found and (prefix or any(k.startswith("patch_embedding") for k in found)):
            return found
    return {}


@dataclass(frozen=True)
class Part:
    """One module of a model: where its configuration and tensors are."""

    name: str  # high, low, planner, text, vae
    config: dict
    entries: Entries
    make: Callable[[dict], nn.Module]
    rename: Callable[[Iterable[str]], Mapping[str, str]] | None = None
    folder: Path | None = None

    @property
    def num_bytes(self) -> int:
        return sum(e.num_bytes for e in self.entries.values())

    @property
    def num_values(self) -> int:
        return sum(e.num_values for e in self.entries.values())

    def empty(self) -> nn.Module:
        """The module without memory for its parameters; buffers are real."""
        from accelerate import init_empty_weights

        with init_empty_weights(include_buffers=False):
            return self.make(self.config)

    def compare(self) -> "Difference":
        """Missing, unexpected and misshapen tensors, without reading any."""
        module, names = self.empty(), self.names()
        wanted = {k: tuple(v.shape) for k, v in module.state_dict().items()}
        have = {names[k]: e.shape for k, e in self.entries.items()}
        tied = tied_names(module)
        return Difference(
            sorted(k for k in wanted if k not in have and k not in tied),
            sorted(k for k in have if k not in wanted),
            [(k, have[k], wanted[k]) for k in sorted(have.keys() & wanted.keys()) if have[k] != wanted[k]],
        )

    def names(self) -> Mapping[str, str]:
        """Stored name → name in the module."""
        return self.rename(self.entries) if self.rename else {k: k for k in self.entries}

    def load(self, *, dtype: torch.dtype | None = None, device: str = "cpu") -> nn.Module:
        """The module with its weights; anything missing or misshapen is refused with its name."""
        self.compare().refuse(self.name, self.folder)
        module, names = self.empty(), self.names()
        state = {names[k]: v for k, v in read_tensors(self.entries, dtype, device)}
        for tied, original in tied_names(module).items():
            if tied not in state and original in state:
                state[tied] = state[original]
        module.load_state_dict(state, strict=False, assign=True)
        return module.to(device).eval().requires_grad_(False)


def tied_names(module: nn.Module) -> dict[str, str]:
    """Names that share another's tensor and may be absent in a file."""
    tied = getattr(module, "_tied_weights_keys", None)
    pairs = dict(tied) if isinstance(tied, dict) else {}
    for name, child in module.named_children():
        pairs |= {f"{name}.{a}": f"{name}.{b}" for a, b in tied_names(child).items()}
    return pairs


@dataclass(frozen=True)
class Difference:
    """How the stored tensors differ from what the module wants."""

    missing: list[str]
    unexpected: list[str]
    misshapen: list[tuple[str, tuple, tuple]]

    def refuse(self, name: str, folder: Path | None) -> None:
        """Raises when the module cannot be filled; unexpected tensors are only reported by inspect."""
        if self.misshapen:
            key, have, want = self.misshapen[0]
            raise CheckpointError(
                f"{name} in {folder}: {key} has shape {list(have)}, the configuration wants {list(want)}"
                f" ({len(self.misshapen)} such); weights and configuration are of different models"
            )
        if self.missing:
            more = f" and {len(self.missing) - 1} more" if len(self.missing) > 1 else ""
            raise CheckpointError(
                f"{name} in {folder}: {self.missing[0]}{more} missing; wrong or incomplete checkpoint"
            )


def read_tensors(
    entries: Entries, dtype: torch.dtype | None = None, device: str = "cpu"
) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) file by file; floats cast to `dtype`."""
    by_file: dict[Path, list[str]] = {}
    for name, entry in entries.items():
        by_file.setdefault(entry.file, []).append(name)
    for file, names in by_file.items():
        with safe_open(file, framework="pt", device=device) as stored:
            for name in names:
                tensor = stored.get_tensor(entries[name].key)
                yield name, tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor


def save_sharded(
    tensors: Iterable[tuple[str, Tensor]], folder: Path, stem: str, shard_bytes: int = 5 * 10**9
) -> None:
    """Writes tensors as they come into shards with an index, or one file when one is enough."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    written: list[tuple[Path, list[str]]] = []
    held: dict[str, Tensor] = {}
    total = 0

    def flush() -> None:
        file = folder / f"{stem}-{len(written) + 1:05d}.safetensors"
        try:
            save_file(held, file, metadata={"format": "pt"})
        except SafetensorError as error:  # its word for a full disk
            raise OSError(f"{file}: {error}") from None
        written.append((file, list(held)))
        held.clear()

    for name, tensor in tensors:
        size = tensor.numel() * tensor.element_size()
        if held and sum(t.numel() * t.element_size() for t in held.values()) + size > shard_bytes:
            flush()
        held[name] = tensor.contiguous()
        total += size
    flush()
    _name_shards(folder, stem, written, total)


def _name_shards(folder: Path, stem: str, written: list[tuple[Path, list[str]]], total: int) -> None:
    """Names that readers look for: `stem.safetensors`, or `stem-00001-of-00003.safetensors` and an index."""
    if len(written) == 1:
        written[0][0].rename(folder / f"{stem}.safetensors")
        return
    weight_map = {}
    for number, (file, names) in enumerate(written, 1):
        name = f"{stem}-{number:05d}-of-{len(written):05d}.safetensors"
        file.rename(folder / name)
        weight_map |= dict.fromkeys(names, name)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=1))
