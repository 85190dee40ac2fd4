"""Packed forward passes with gradients: renderer and planner, whole or shared by several processes.

The parts are those of generation (`renderer.transformer`, `planner.model`); what differs is how
many sequences run at once, what is kept for the backward pass, and who holds which tokens.
On a CPU the planner's hybrid mask is a loop over documents (FlexAttention has no backward there),
on a GPU one block mask for the pack.

B sequences, N tokens of all of them, D width, n target tokens of a sequence, L context rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bernini.planner.chat import Chat, positions
from bernini.planner.masks import TARGET, attend, attend_flex, rule, visible
from bernini.planner.model import Planner, finish, project
from bernini.renderer.layers import modulate, wide
from bernini.renderer.transformer import Renderer, patchify
from bernini.train.ulysses import SequenceGroup

ACTIVATIONS = ("keep", "recompute", "offload")


@dataclass(frozen=True)
class PassOptions:
    """`activations`: keep all; recompute each block in the backward pass; offload: and keep its input in
    host memory. `alone` is the sequence group of one process.
    """

    activations: str = "keep"
    sequence: SequenceGroup = SequenceGroup()

    def run(self, block: Callable[..., Tensor], *args) -> Tensor:
        """One block, with what the backward pass needs held as asked."""
        if self.activations == "keep" or not torch.is_grad_enabled():
            return block(*args)
        where = torch.autograd.graph.save_on_cpu(pin_memory=args[0].is_cuda)
        with where if self.activations == "offload" else nullcontext():
            return checkpoint(block, *args, use_reentrant=False, preserve_rng_state=False)


@dataclass
class Velocity:
    """Prediction of one sequence on the target tokens that this process holds: rows `[start, stop)` of n."""

    values: Tensor
    start: int
    stop: int
    num_tokens: int


@dataclass
class RenderInput:
    """One sequence: clean sources and noisy target `[1, C, T, Y, X]` with ids, target last (id 0)."""

    latents: list[Tensor]
    ids: list[float]
    context: Tensor
    timestep: Tensor


def velocities(renderer: Renderer, inputs: Sequence[RenderInput], options: PassOptions) -> list[Velocity]:
    """Predictions of a pack of sequences, values ordered (pt, ph, pw, c)."""
    group = options.sequence
    patches = [[patchify(x, renderer.config.patch_size) for x in i.latents] for i in inputs]
    lengths = [sum(len(p) for p in parts) for parts in patches]
    first, last = group.span(sum(lengths))
    here = group.local_lengths(lengths)
    x = _embed(renderer, torch.cat([p for parts in patches for p in parts])[first:last])
    rope = torch.cat([renderer.rope(_segments(i)) for i in inputs])[first:last]
    times = torch.stack([i.timestep for i in inputs]).to(x.device)
    temb, time = renderer.condition_embedder.time(times, x.dtype)
    rows = torch.cat([renderer.embed_context(i.context[None]) for i in inputs])
    context_lengths = [len(i.context) for i in inputs]
    around = group.around(renderer.attend, sum(lengths))

    def attend_self(q, k, v, *ignored):
        return around(q, k, v, lengths, lengths)

    for block in renderer.blocks:
        x = options.run(block, x, time, rope, rows, here, context_lengths, renderer.attend, attend_self)
    shift, scale = (renderer.scale_shift_table + wide(temb).unsqueeze(1)).unbind(1)
    spans = _target_spans(lengths, [len(parts[-1]) for parts in patches], first, last)
    x = torch.cat([x[a:b] for a, b, _ in spans])
    kept = [b - a for a, b, _ in spans]
    x = renderer.proj_out(modulate(renderer.norm_out(x), shift, scale, kept).to(x.dtype))
    return [Velocity(values, at, at + len(values), len(parts[-1]))
            for values, (_, _, at), parts in zip(x.split(kept), spans, patches, strict=True)]  # fmt: skip


def _embed(renderer: Renderer, patches: Tensor) -> Tensor:
    """Patches `[N, (pt ph pw c)]` → tokens: the patch convolution as the linear map it is."""
    conv = renderer.patch_embedding
    weight = conv.weight.permute(0, 2, 3, 4, 1).flatten(1)
    return F.linear(patches.to(weight.dtype), weight, conv.bias)


def _segments(inputs: RenderInput) -> list[tuple[tuple[int, int, int], float]]:
    return [(tuple(x.shape[2:]), i) for x, i in zip(inputs.latents, [*inputs.ids, 0.0], strict=True)]


def _target_spans(
    lengths: Sequence[int], targets: Sequence[int], first: int, last: int
) -> list[tuple[int, int, int]]:
    """For each sequence: local rows of its target tokens, and the number of its first one there."""
    spans, end = [], 0
    for length, num in zip(lengths, targets, strict=True):
        end += length
        a, b = max(first, end - num), max(min(last, end), max(first, end - num))
        spans.append((min(a, last) - first, min(b, last) - first, min(max(0, a - (end - num)), num)))
    return spans


def hybrid_layer(
    layer: nn.Module, x: Tensor, rotary: tuple[Tensor, Tensor], seen: Callable[..., Tensor]
) -> Tensor:
    """A layer of the language model with an attention of our own."""
    return finish(layer, x, seen(*project(layer, x, rotary)))


def adopt(planner: Planner) -> Planner:
    """Gives the layers a forward that runs `hybrid_layer`: sharding and recomputation act on forwards.

    The vision tower goes: features are computed before training.
    """
    for layer in planner.language.layers:
        layer.forward = partial(hybrid_layer, layer)
    planner.mllm.model.visual = nn.Identity()
    return planner


@dataclass
class PlannerStates:
    """Input of the last layer for all tokens `[N, D]`, and where each document begins."""

    penultimate: Tensor
    starts: list[int]
    local: Tensor
    last: Callable[[Tensor], Tensor]

    def of(self, number: int, places: Tensor) -> Tensor:
        """Rows of a document."""
        return self.penultimate[places + self.starts[number]]

    def final(self) -> Tensor:
        """States after the last layer and norm `[N, D]`, what the language head reads."""
        return self.last(self.local)


def planner_states(
    planner: Planner, chats: Sequence[Chat], embedded: Sequence[Tensor], options: PassOptions
) -> PlannerStates:
    """One packed pass over documents that do not see each other; `embedded` `[N_i, D]` of each."""
    group, device = options.sequence, planner.device
    lengths = [len(c.ids) for c in chats]
    total = sum(lengths)
    first, last = group.span(total)
    rotary = planner.rotary(torch.cat([positions(c, planner.special) for c in chats], dim=1)[:, first:last])
    x = torch.cat(list(embedded))[first:last]
    seen = group.around(hybrid_attention(chats, device), total)
    layers = planner.language.layers
    for layer in layers[:-1]:
        x = options.run(layer, x, rotary, seen)

    def final(state: Tensor) -> Tensor:
        return planner.language.norm(group.gather(options.run(layers[-1], state, rotary, seen), total))

    starts = torch.tensor([0, *lengths]).cumsum(0).tolist()[:-1]
    return PlannerStates(group.gather(x, total), starts, x, final)


def hybrid_attention(chats: Sequence[Chat], device: torch.device) -> Callable[..., Tensor]:
    """`attend(q, k, v)` over a pack in which each document has the hybrid mask and sees only itself."""
    if device.type == "cuda":
        mask = _block_mask(chats, device)
        return lambda q, k, v: attend_flex(q, k, v, mask)
    lengths = [len(c.ids) for c in chats]
    masks = [visible(c.token_type, c.segment_id) if bool((c.token_type == TARGET).any()) else None for c in chats]
    masks = [None if m is None else m.to(device) for m in masks]

    def loop(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        parts = zip(q.split(lengths), k.split(lengths), v.split(lengths), masks, strict=True)
        return torch.cat([attend(*qkv, mask, causal=mask is None) for *qkv, mask in parts])

    return loop


def _block_mask(chats: Sequence[Chat], device: torch.device):
    """The rule for the whole pack, made once; keys of other documents are skipped in blocks."""
    from torch.nn.attention.flex_attention import create_block_mask

    types = torch.cat([c.token_type for c in chats]).to(device)
    segments = torch.cat([c.segment_id for c in chats]).to(device)
    document = torch.cat([torch.full_like(c.ids, i) for i, c in enumerate(chats)]).to(device)

    def mask(batch, head, q, k):
        seen = rule(types[q], types[k], segments[q], segments[k], q, k)
        return seen & (document[q] == document[k])

    return create_block_mask(mask, None, None, len(types), len(types), device=str(device))
