"""A pack made ready for the device: checked, conditions dropped, noise drawn. All on the CPU.

A sample that cannot be used (a NaN, a missing latent, a level outside the trained expert's range)
is left out here and named; the samples beside it are untouched.

B sequences of an expert, C latent channels, T Y X latent frames, height, width, W text width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor

from bernini.conditions import source_ids
from bernini.planner.chat import Chat, Special, build
from bernini.planner.chat import Visual as Planned
from bernini.train.chats import Document, Target, Tokenize, documents, planned
from bernini.train.example import Draws, Example, Pack, Visual, wrong_latent, wrong_vit

ROUNDING = 2.0**-7  # two steps of bfloat16 below 1: rows with equal timesteps share the first one's sigma


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What the trained modules ask of a sample. `experts` maps "high", "low" to their `[lowest, highest]` sigma."""

    planner: bool
    renderer: bool
    experts: tuple[tuple[str, float, float], ...] = ()
    text_width: int = 0
    vit_width: int = 0
    latent_channels: int = 16
    merge: int = 2  # sides of the square of patches that is one ViT feature

    def expert(self, sigma: float) -> str | None:
        """Which trained expert denoises this level; the released table rounds levels over the end of its interval."""
        for margin in (0.0, ROUNDING):
            for name, low, high in self.experts:
                if low - margin <= sigma <= high + margin:
                    return name
        return None


@dataclass
class RenderItem:
    """One sequence of an expert: clean `sources` with their ids, target `latent` and `noise` `[1, C, T, Y, X]`.

    `text [L, W]`; `plan` is the number of the document whose states follow the text, or None.
    """

    example: int
    expert: str
    sources: list[Tensor]
    ids: list[float]
    latent: Tensor
    noise: Tensor
    sigma: Tensor
    timestep: Tensor
    text: Tensor
    plan: int | None = None


@dataclass
class Batch:
    """What the losses read. `names` are the sample ids, `tasks` their tasks, `skipped` "id: why"."""

    names: list[str]
    tasks: list[str]
    documents: list[Document]
    items: list[RenderItem]
    skipped: list[str]
    num_tokens: int = 0
    flops: float = 0.0
    counts: Tensor = field(default_factory=lambda: torch.zeros(()))

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Batch:
        """The same on a device; floats in `dtype` when given."""
        return _move(self, torch.device(device), dtype)

    def having(self, term: str) -> list[int]:
        """Examples that have a loss: text to learn, a target to plan, a target to render."""
        found = {"text": [d.example for d in self.documents if len(d.learned)],
                 "visual": [d.example for d in self.documents if d.target is not None],
                 "dit": [item.example for item in self.items]}  # fmt: skip
        return [e for e in found[term] if e >= 0]


def _move(value, device: torch.device, dtype: torch.dtype | None):
    if isinstance(value, Tensor):
        wanted = dtype if dtype and value.is_floating_point() else value.dtype
        if device.type == "cuda" and value.device.type == "cpu":
            value = value.pin_memory()
        return value.to(device, wanted, non_blocking=True)
    if isinstance(value, Chat):  # stays: positions and masks are made on the CPU
        return value
    if isinstance(value, list):
        return [_move(v, device, dtype) for v in value]
    if isinstance(value, Document | RenderItem | Target | Batch):
        return replace(value, **{f.name: _move(getattr(value, f.name), device, dtype) for f in fields(value)})
    return value


def prepare(pack: Pack, needs: Needs, tokenize: Tokenize | None, special: Special | None, num_noises: int) -> Batch:
    """A batch of the usable examples of a pack."""
    batch = Batch([], [], [], [], list(pack.skipped), pack.num_tokens, pack.flops)
    for example, draws in zip(pack.examples, pack.draws, strict=True):
        why = unusable(example, draws, needs)
        if why is not None:
            batch.skipped.append(f"{example.sample_id}: {why}")
            continue
        index = len(batch.names)
        batch.names.append(example.sample_id)
        batch.tasks.append(example.task)
        plan = None
        if needs.planner:
            for document in documents(index, example, draws, tokenize, special, num_noises):
                plan = len(batch.documents) if document.target is not None else plan
                batch.documents.append(document)
        if needs.renderer and example.target is not None:
            batch.items.append(replace(render_item(index, example, draws, needs), plan=plan))
    batch.counts = torch.tensor(float(len(batch.names)))
    return batch


def unusable(example: Example, draws: Draws, needs: Needs) -> str | None:
    """Why this sample cannot be trained on, or None."""
    checks: list[Callable[[], str | None]] = [lambda: _bad_visuals(example, needs)]
    if needs.renderer and example.target is not None:
        checks += [lambda: _bad_render(example, draws, needs)]
    elif not needs.planner:
        return "nothing to generate in it, and only the renderer is trained"
    if needs.planner and example.target is None and not any(p.is_learned for p in example.parts):
        return "neither a target nor a text to be learned"
    return next((why for check in checks if (why := check()) is not None), None)


def _bad_visuals(example: Example, needs: Needs) -> str | None:
    for number, visual in enumerate(example.visuals):
        for name, tensor, wanted in (("latent", visual.latent, needs.renderer and example.target is not None),
                                     ("ViT features", visual.vit, needs.planner)):  # fmt: skip
            if not wanted:
                continue
            if tensor is None:
                return f"visual {number} has no {name}; encode it"
            if not bool(tensor.isfinite().all()):
                return f"NaN or infinity in the {name} of visual {number}"
            if (why := _wrong_shape(name, visual, needs)) is not None:
                return f"{name} of visual {number} {why}"
    return None


def _wrong_shape(name: str, visual: Visual, needs: Needs) -> str | None:
    if name == "latent":
        return wrong_latent(visual.latent.shape, needs.latent_channels)
    return wrong_vit(visual.vit.shape, visual.grid, needs.vit_width, needs.merge)


def _bad_render(example: Example, draws: Draws, needs: Needs) -> str | None:
    text = example.empty_embedding if draws.drop_text else example.text_embedding
    if text is None:
        return "no text embedding; encode it"
    if text.ndim != 2:
        return f"text embedding has the shape {list(text.shape)}, not [rows, {needs.text_width}]"
    if text.shape[1] != needs.text_width:
        return f"text embedding is {text.shape[1]} wide, the renderer wants {needs.text_width}"
    if not bool(text.isfinite().all()):
        return "NaN or infinity in the text embedding"
    if needs.expert(draws.sigma) is None:
        ranges = ", ".join(f"{name} {low:g} to {high:g}" for name, low, high in needs.experts)
        return f"noise level {draws.sigma:.3f} is in the range of no trained expert ({ranges})"
    return None


def render_item(index: int, example: Example, draws: Draws, needs: Needs) -> RenderItem:
    """Sources after dropout, numbered from 1 in their order, and the target with its noise."""
    target = example.target
    dropped = {k for k, drop in (("image", draws.drop_images), ("video", draws.drop_videos)) if drop}
    sources = [v.latent.float() for v in example.visuals if v is not target and v.kind not in dropped]
    latent = target.latent.float()
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(draws.noise_seed))
    text = example.empty_embedding if draws.drop_text else example.text_embedding
    return RenderItem(
        index,
        needs.expert(draws.sigma) or "",
        sources,
        source_ids(len(sources)),
        latent,
        noise,
        torch.tensor(draws.sigma, dtype=torch.float64),
        torch.tensor(draws.timestep, dtype=torch.float64),
        text.float(),
    )


def dummies(batch: Batch, needs: Needs, special: Special | None) -> Batch:
    """Adds weightless work for modules that this pack leaves out: under FSDP all ranks must call all modules."""
    items, docs = list(batch.items), list(batch.documents)
    if needs.planner and not any(d.target is not None for d in docs):
        docs.append(_dummy_document(needs, special))
    plan = next((i for i, d in enumerate(docs) if d.target is not None), None)
    for name, low, _ in needs.experts if needs.renderer else ():
        if not any(item.expert == name for item in items):
            latent = torch.zeros(1, needs.latent_channels, 1, 8, 8)  # 16 tokens: some for each of a sequence group
            level = torch.tensor(low, dtype=torch.float64)
            text = torch.zeros(1, needs.text_width)
            items.append(RenderItem(-1, name, [], [], latent, latent, level, 1000 * level, text, plan))
    return replace(batch, items=items, documents=docs)


def _dummy_document(needs: Needs, special: Special) -> Document:
    grid = (1, special.merge, 2 * special.merge)  # two tokens, one of them masked
    chat = build([Planned("image", "target", grid, -1)], lambda text: [], special)
    zeros = torch.zeros(len(chat.ids), needs.vit_width)
    target = Target(zeros, torch.tensor([0]), torch.arange(1, len(zeros)), zeros[None, :1], torch.zeros(1, 1))
    return planned(-1, chat, [], target)
