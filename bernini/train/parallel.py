"""Processes of a run: who they are, and how weights are shared out (FSDP2).

Started by `torchrun` or by Ray Train, which both set RANK, WORLD_SIZE and LOCAL_RANK. Weights,
gradients, optimiser state and averages are sharded over all processes; `sequence_parallel` of
them share each pack (`ulysses`), the others work on packs of their own.

Optimiser, averages and clipping see the local shards as plain tensors, so they are one code with
and without processes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard

from bernini.train.losses import TrainModel
from bernini.train.ulysses import SequenceGroup
from manifests.errors import ConfigError


@dataclass(frozen=True)
class World:
    """This process among all. `data_rank` of `data_size` says whose packs it works on."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")
    sequence: SequenceGroup = SequenceGroup()

    @property
    def data_rank(self) -> int:
        return self.rank // self.sequence.size

    @property
    def data_size(self) -> int:
        return self.size // self.sequence.size

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def sum(self, value: Tensor) -> Tensor:
        """Sum over all processes, in place, on the device."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def gather(self, value):
        """A small Python value of every process, in order."""
        if self.size == 1:
            return [value]
        out = [None] * self.size
        dist.all_gather_object(out, value)
        return out

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            dist.barrier()


def join(sequence_parallel: int = 1) -> World:
    """Joins the processes that the launcher started; alone when there was none."""
    size, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    if size % sequence_parallel:
        raise ConfigError(f"{size} processes do not divide by --sequence-parallel {sequence_parallel}")
    if size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return World(rank, size, device, _sequence_group(rank, size, sequence_parallel))


def _sequence_group(rank: int, size: int, degree: int) -> SequenceGroup:
    if degree == 1:
        return SequenceGroup()
    mine = None
    for first in range(0, size, degree):  # every process must make every group
        ranks = list(range(first, first + degree))
        group = dist.new_group(ranks)
        mine = group if rank in ranks else mine
    return SequenceGroup(rank % degree, degree, mine)


def shard(model: TrainModel, world: World, half: bool) -> TrainModel:
    """Weights in shards over all processes, gathered block by block; in bfloat16 when `half`."""
    for expert in (model.high, model.low):
        if expert is not None:
            world.sequence.check_heads(expert.config.num_attention_heads, "the renderer")
    if model.planner is not None:
        config = model.planner.language.config
        world.sequence.check_heads(config.num_attention_heads, "the planner", config.num_key_value_heads)
    if world.size == 1:
        return model
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(world.device.type, (world.size,))
    precision = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if half else None, reduce_dtype=torch.float32 if half else None,
        cast_forward_inputs=False)  # fmt: skip
    for block in _units(model):
        fully_shard(block, mesh=mesh, mp_policy=precision)
    if model.planner is not None:
        register_fsdp_forward_method(model.planner.vit_decoder.net, "errors")
    fully_shard(model, mesh=mesh, mp_policy=precision)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)  # the loss of a pack is a sum, and so is its gradient
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no other
    return model


def _units(model: TrainModel) -> Iterable[nn.Module]:
    """What is gathered together: one block, one layer, a large table."""
    for expert in (model.high, model.low):
        if expert is not None:
            yield from expert.blocks
    if model.planner is not None:
        yield from model.planner.language.layers
        if model.weights.visual:
            yield model.planner.vit_decoder.net


@dataclass(frozen=True)
class Shards:
    """The trained parameters by name, and this process's part of each as a plain leaf tensor."""

    parameters: dict[str, nn.Parameter]
    local: dict[str, nn.Parameter]

    @classmethod
    def of(cls, model: nn.Module) -> Shards:
        trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        if not trained:
            raise ConfigError("no parameter is trained; see --planner, --experts and --lora-rank")
        return cls(trained, {n: nn.Parameter(_local(p).detach()) for n, p in trained.items()})

    def take_gradients(self) -> list[Tensor]:
        """Gradients of the local parts, zero where a parameter had none."""
        for name, parameter in self.parameters.items():
            gradient = parameter.grad
            mine = self.local[name]
            mine.grad = torch.zeros_like(mine) if gradient is None else _local(gradient)
        return [p.grad for p in self.local.values()]

    def drop_gradients(self) -> None:
        for name, parameter in self.parameters.items():
            parameter.grad = self.local[name].grad = None

    def like(self, name: str, local: Tensor) -> Tensor:
        """A local tensor as the shard of a whole one, placed as the parameter is."""
        parameter = self.parameters[name]
        if not isinstance(parameter, DTensor):
            return local
        return DTensor.from_local(local, parameter.device_mesh, parameter.placements, run_check=False,
                                  shape=parameter.shape, stride=parameter.stride())  # fmt: skip


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor on every process."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def is_sharded(tensor: Tensor) -> bool:
    """Does every process hold a part of its own?"""
    return isinstance(tensor, DTensor) and any(isinstance(p, Shard) for p in tensor.placements)
