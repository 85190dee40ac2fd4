"""Checkpoints that can be trusted: written aside, summed, renamed; a broken one is passed over.

    OUTPUT/checkpoints/step-00000100/
        shard-*.safetensors   weights, averages and optimiser state, each process its shards
        rank-00000.json       place of the data stream, open interval of metrics; one a process
        checkpoint.json       step, settings, size and checksum of every file; written last

Tensors go through torch.distributed.checkpoint in its safetensors form, so another number of
processes can read them, and nothing is ever unpickled. The folder has its name only when complete.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter

from bernini.errors import CheckpointError
from bernini.train.parallel import World

INDEX = "checkpoint.json"
PIECE = 64 * 2**20


@dataclass(frozen=True)
class Saved:
    """A complete checkpoint on disk."""

    folder: Path
    index: dict

    @property
    def step(self) -> int:
        return int(self.index["step"])

    def rank(self, rank: int) -> dict:
        """What a process wrote about itself."""
        return json.loads((self.folder / f"rank-{rank:05d}.json").read_text())

    def load_into(self, tensors: dict[str, Tensor], world: World | None = None) -> None:
        """Fills tensors (whole or sharded) by name, in place; all processes call this together."""
        alone = world is None or world.size == 1
        with _quiet():
            dcp.load(tensors, storage_reader=HuggingFaceStorageReader(str(self.folder)), no_dist=alone)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Whole shape of every tensor by name."""
        return {name: tuple(meta.size) for name, meta in self._stored().items()}

    def _stored(self) -> dict:
        with _quiet():
            return HuggingFaceStorageReader(str(self.folder)).read_metadata().state_dict_metadata

    def whole(self, prefix: str) -> dict[str, Tensor]:
        """All tensors whose names begin with `prefix`, without it, joined from all shards, on the CPU."""
        tensors = {n: torch.empty(m.size, dtype=m.properties.dtype) for n, m in self._stored().items()
                   if n.startswith(prefix)}  # fmt: skip
        self.load_into(tensors)
        return {n.removeprefix(prefix): t for n, t in tensors.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """torch warns that no process group is there; that is as meant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Checkpoints:
    """The checkpoints of one run; `keep` newest stay."""

    def __init__(self, output: Path, keep: int, world: World, say: Callable[[str], None] = print):
        self.folder, self.keep, self.world, self.say = output / "checkpoints", keep, world, say

    def newest(self) -> Saved | None:
        """The newest one that is whole; broken ones are named and passed over. All processes agree."""
        found = self._newest() if self.world.is_first else None
        step = self.world.gather(None if found is None else str(found.folder))[0]
        return None if step is None else Saved(Path(step), json.loads((Path(step) / INDEX).read_text()))

    def _newest(self) -> Saved | None:
        for leftover in self.folder.glob(".aside-*"):
            shutil.rmtree(leftover)
        for folder in sorted(self.folder.glob("step-*"), reverse=True):
            why = broken(folder)
            if why is None:
                return Saved(folder, json.loads((folder / INDEX).read_text()))
            self.say(f"checkpoint {folder} is broken ({why}); trying the one before")
        return None

    def save(self, step: int, tensors: dict[str, Tensor], own: dict, config: dict) -> Path:
        """Writes a checkpoint; on failure the earlier ones are untouched and a `CheckpointError` says why."""
        aside, final = self.folder / f".aside-{step:08d}", self.folder / f"step-{step:08d}"
        try:
            self._write(aside, step, tensors, own, config)
        except (OSError, CheckpointException, CheckpointError) as error:
            if self.world.is_first:
                shutil.rmtree(aside, ignore_errors=True)
            raise CheckpointError(
                f"checkpoint of step {step} could not be written to {self.folder} ({_reason(error)}); the earlier "
                "ones are intact: free some space and run the same command again"
            ) from None
        if self.world.is_first:
            if final.exists():  # a broken one of the same step
                shutil.rmtree(final)
            os.replace(aside, final)
            _flush(self.folder)
            self._trim(step)
        self.world.wait()
        return final

    def _trim(self, step: int) -> None:
        """What is numbered above the step just written was passed over as broken: it must not push that one out."""
        folders = sorted(self.folder.glob("step-*"))
        above = [f for f in folders if f.name > f"step-{step:08d}"]
        for old in [*above, *folders[: len(folders) - len(above)][: -self.keep]]:
            shutil.rmtree(old)

    def _write(self, aside: Path, step: int, tensors: dict[str, Tensor], own: dict, config: dict) -> None:
        if self.world.is_first:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
        self.world.wait()
        with _quiet():
            writer = HuggingFaceStorageWriter(str(aside), save_distributed=True)
            dcp.save(tensors, storage_writer=writer, no_dist=self.world.size == 1)
        rank, failure, sums = self.world.rank, None, {}
        try:
            (aside / f"rank-{rank:05d}.json").write_text(json.dumps(own))
            mine = [*aside.glob(f"shard-{rank + 1:05d}-*"), aside / f"rank-{rank:05d}.json"]
            sums = {file.name: [file.stat().st_size, checksum(file)] for file in mine}
            for file in mine:
                _flush(file)
        except OSError as error:
            failure = str(error)
        answers = self.world.gather((failure, sums))
        failed = next((why for why, _ in answers if why), None)
        if failed:
            raise CheckpointError(failed)
        if self.world.is_first:
            files = {name: entry for _, part in answers for name, entry in part.items()}
            index = {"step": step, "processes": self.world.size, "config": config, "files": files}
            (aside / INDEX).write_text(json.dumps(index, indent=1))
            _flush(aside / INDEX)


def broken(folder: Path) -> str | None:
    """What is wrong with a checkpoint, None when every file is there, of its size and checksum."""
    try:
        index = json.loads((folder / INDEX).read_text())
        files = {str(name): (int(size), int(total)) for name, (size, total) in index["files"].items()}
        int(index["step"]), dict(index["config"])
    except FileNotFoundError:
        return f"{INDEX} is missing"
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:  # a damaged file may say anything
        return f"{INDEX} cannot be read: {type(error).__name__} {error}"
    for name, (size, total) in files.items():
        file = folder / name
        if not file.exists():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size:,} bytes instead of {size:,}"
        if checksum(file) != total:
            return f"checksum of {name} does not fit"
    return None


def checksum(file: Path) -> int:
    """CRC-32 of a file, read in pieces."""
    total = 0
    with file.open("rb") as stream:
        while piece := stream.read(PIECE):
            total = zlib.crc32(piece, total)
    return total


def _flush(path: Path) -> None:
    """To the disk itself, so that a power cut cannot leave a named but empty file."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _reason(error: Exception) -> str:
    """The first cause, in one line."""
    if isinstance(error, CheckpointException) and error.failures:
        error = next(iter(error.failures.values()))[0]
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
