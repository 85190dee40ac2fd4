"""The three losses of a pack, example by example (paper, section 2.2, equation 3).

    text     next-token cross-entropy of the answers, mean over their tokens
    visual   flow matching of the masked target tokens in ViT space, mean over values, tokens, draws
    dit      flow matching of the target latent, mean over values of its tokens

A pack is the sum of its examples: the gradient does not depend on what else is in it. The renderer
is shown text features and the planner's states of text, sources and *unmasked* target tokens
(paper, section 4.1); what is masked, it must not see.

E examples of a pack, n target tokens, m masked ones, K noise draws, D and V widths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bernini.planner.model import Planner
from bernini.renderer.layers import wide
from bernini.renderer.transformer import Renderer, patchify
from bernini.text import context
from bernini.train.chats import Document
from bernini.train.decoding import learn
from bernini.train.passes import PassOptions, PlannerStates, RenderInput, adopt, planner_states, velocities
from bernini.train.prepare import Batch, RenderItem

TERMS = ("text", "visual", "dit")


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the terms (paper, section 4.1: 0.2, 1, 1); a term of weight 0 is not computed."""

    text: float = 0.2
    visual: float = 1.0
    dit: float = 1.0


class TrainModel(nn.Module):
    """The modules that take part in a stage; call with a batch for the losses of its examples."""

    def __init__(
        self,
        planner: Planner | None,
        high: Renderer | None,
        low: Renderer | None,
        weights: LossWeights,
        options: PassOptions | None = None,
    ):
        super().__init__()
        self.planner = adopt(planner) if planner is not None else None
        if planner is not None:
            learn(planner.vit_decoder.net)
        self.high, self.low = high, low
        self.weights, self.options = weights, options or PassOptions()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Losses by term, float `[E]` each, zero where an example has no such term.

        With several processes on one pack each gives its share of every loss.
        """
        losses, states = {}, None
        if self.planner is not None and batch.documents:
            states = self._plan(batch.documents)
            if self.weights.text:
                losses["text"] = self._text(batch, states)
            if self.weights.visual:
                losses["visual"] = self._visual(batch, states)
        if self.weights.dit and batch.items:
            losses["dit"] = self._dit(batch, states)
        return losses

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """Weighted sum over terms and examples: what is differentiated."""
        return torch.stack([getattr(self.weights, term) * loss.sum() for term, loss in losses.items()]).sum()

    def _plan(self, documents: Sequence[Document]) -> PlannerStates:
        planner = self.planner
        ids = torch.cat([d.chat.ids for d in documents]).to(planner.device, non_blocking=True)
        embedded = planner.language.embed_tokens(ids).split([len(d.chat.ids) for d in documents])
        filled = [_fill(planner, d, x) for d, x in zip(documents, embedded, strict=True)]
        return planner_states(planner, [d.chat for d in documents], filled, self.options)

    def _text(self, batch: Batch, states: PlannerStates) -> Tensor:
        """Each process takes every P-th of the learned tokens."""
        final, group = states.final(), self.options.sequence
        terms, rows, labels = [], [], []
        for number, document in enumerate(batch.documents):
            places = document.learned[group.rank :: group.size]
            if len(document.learned):
                rows.append(final[states.starts[number] + places - 1])
                labels.append(document.labels[group.rank :: group.size])
                terms.append((document.example, len(document.learned)))
        if not rows:  # the language head takes part all the same
            nothing = self.planner.mllm.lm_head(final[:1]).sum() * 0
            return nothing + _by_example(batch, [])
        logits = self.planner.mllm.lm_head(torch.cat(rows))
        errors = F.cross_entropy(wide(logits), torch.cat(labels), reduction="none").split([len(r) for r in rows])
        return _by_example(batch, [(e, x.sum() / n) for (e, n), x in zip(terms, errors, strict=True)])

    def _visual(self, batch: Batch, states: PlannerStates) -> Tensor:
        """Each process takes every P-th of the masked tokens, with all their noises."""
        planner, group = self.planner, self.options.sequence
        mine = slice(group.rank, None, group.size)
        terms, hidden, clean, noise, sigma = [], [], [], [], []
        for number, document in enumerate(batch.documents):
            target = document.target
            if target is None:
                continue
            masked = target.masked[mine]
            hidden.append(states.of(number, masked + document.chat.target.start))
            clean.append(target.clean[masked])
            noise.append(target.noise[:, mine])
            sigma.append(target.sigma[:, mine])
            terms.append((document.example, target.noise.shape[0] * len(target.masked)))
        if not terms:
            return _by_example(batch, [])
        condition = planner.connector.for_decoder(torch.cat(hidden))
        x = torch.cat(clean).to(hidden[0].dtype)
        errors = planner.vit_decoder.net.errors(condition, x, noise, sigma, self.options)
        errors = errors.split([len(h) for h in hidden], dim=1)
        return _by_example(batch, [(e, err.sum() / n) for (e, n), err in zip(terms, errors, strict=True)])

    def _dit(self, batch: Batch, states: PlannerStates | None) -> Tensor:
        terms = []
        for name, expert in (("high", self.high), ("low", self.low)):
            items = [item for item in batch.items if item.expert == name]
            if items:
                inputs = [self._render_input(item, batch, states) for item in items]
                found = velocities(expert, inputs, self.options)
                terms += [(item.example, _velocity_error(item, v)) for item, v in zip(items, found, strict=True)]
        return _by_example(batch, terms)

    def _render_input(self, item: RenderItem, batch: Batch, states: PlannerStates | None) -> RenderInput:
        noisy = item.latent + item.sigma.to(item.latent.dtype) * (item.noise - item.latent)
        plan = None
        if item.plan is not None and states is not None:
            document = batch.documents[item.plan]
            plan = self.planner.connector.for_renderer(states.of(item.plan, document.shown))
        rows = context(item.text, plan)[0] if plan is None else context(item.text.to(plan.dtype), plan)[0]
        return RenderInput([*item.sources, noisy], item.ids, rows, item.timestep)


def _fill(planner: Planner, document: Document, x: Tensor) -> Tensor:
    """Embeddings `[N, D]` of a document: features of sources and visible target tokens, the mask token elsewhere."""
    chat, places, rows = document.chat, [], []
    for visual in chat.visuals:
        where = torch.arange(visual.start, visual.start + visual.num_tokens(planner.special.merge))
        if visual.role != "target":
            places.append(where.to(x.device))
            rows.append(document.features[visual.index].to(x.dtype))
        elif document.target is not None:
            target = document.target
            places += [target.masked + visual.start, target.visible + visual.start]
            rows.append(planner.mask_tokens[0, :1].expand(len(target.masked), -1).to(x.dtype))
            rows.append(target.clean[target.visible].to(x.dtype))
    return x.index_copy(0, torch.cat(places), torch.cat(rows)) if places else x


def _velocity_error(item: RenderItem, velocity) -> Tensor:
    """Squared error against noise - latent, summed over the tokens here, as a share of the mean over all."""
    wanted = patchify(item.noise - item.latent)[velocity.start : velocity.stop]
    return (wide(velocity.values) - wide(wanted)).square().mean(1).sum() / velocity.num_tokens


def _by_example(batch: Batch, terms: Sequence[tuple[int, Tensor]]) -> Tensor:
    """`[E]` from (example, loss) pairs; a dummy (example -1) takes part with weight 0."""
    zero = torch.zeros((), device=batch.counts.device)
    out: list[Tensor] = [zero] * len(batch.names)
    nothing = zero
    for example, loss in terms:
        if example < 0:
            nothing = nothing + 0 * loss
        else:
            out[example] = out[example] + loss
    return torch.stack(out) + nothing if out else nothing[None][:0] + nothing
