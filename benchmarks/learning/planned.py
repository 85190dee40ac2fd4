"""The renderer with a planner before it: the repo's own planner classes in miniature.

Stage I trains the planner alone (flow matching of masked target features, paper section 2.1.1); stage II
trains the renderer and the connector on the frozen planner's states. Asked are: the planner's own plan, the
true features as plan (oracle), and the plan of another sample (shuffled).

The chats of a subset have one layout, so that B of them are one batch. N tokens of a chat, n of its
target, D width of the planner, V width of a feature (here D), W width of a text row (here D).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bernini.config import HeadsConfig
from bernini.flow import shift_sigmas
from bernini.planner.chat import Chat, Visual, build, positions
from bernini.planner.masks import visible
from bernini.planner.model import Planner, finish, project
from bernini.planner.plan import leaving
from bernini.tiny import tiny_mllm_config

from .arms import ArmConfig, ArmRenderer
from .experiment import Experiment, Question
from .parts import PatchFeatures
from .stops import Loaded
from .train import TrainConfig, rate, train

WIDTH = 64          # of the planner, its features and the text rows
NUM_LAYERS = 5      # the last is never run, as in the release
BETA = (8.0, 1.05)  # mask ratio of image edits, Table 3
PLAN_STEPS, DECODER_STEPS, DECODER_SHIFT = 6, 5, 2.0
PLANNER_STEPS_RATIO = 1.0  # planner steps of one renderer step


def tiny_planner(seed: int) -> Planner:
    """Untrained; its vision tower is replaced by `PatchFeatures`."""
    torch.manual_seed(seed)
    config = tiny_mllm_config()
    config.text_config.num_hidden_layers, config.text_config.intermediate_size = NUM_LAYERS, 3 * WIDTH
    config.text_config.layer_types = ["full_attention"] * NUM_LAYERS
    heads = HeadsConfig(hidden=WIDTH, context_dim=WIDTH, vit_dim=WIDTH, decoder_width=128, decoder_depth=3,
                        num_mask_tokens=4)
    planner = Planner(config, heads)
    planner.mllm.model.visual = nn.Identity()
    with torch.no_grad():  # transformers starts at 0.02, far below the features beside them
        planner.language.embed_tokens.weight.normal_(0, 0.5)
    return planner


@dataclass(frozen=True, kw_only=True)
class Chats:
    """A set as the planner sees it: token ids `[M, N]`, source features `[M, S, n, V]`, target `[M, n, V]`."""

    layout: Chat
    ids: Tensor
    sources: Tensor
    targets: Tensor


class ChatMaker:
    """Prompts and pictures of a subset → chats of one layout; words are numbered in the training set."""

    def __init__(self, loaded: Loaded, special):
        self.words = {w: i + 1 for i, w in enumerate(sorted({w for p in loaded.prompts for w in p.split()}))}
        self.length = max(len(p.split()) for p in loaded.prompts)
        self.features, self.special = PatchFeatures(loaded.targets[:2000, 0]), special
        self.lift = torch.linalg.qr(torch.randn(WIDTH, 12, generator=torch.Generator().manual_seed(0)))[0].T

    def _tokens(self, text: str) -> list[int]:
        ids = [self.words[w] for w in text.split()]
        return ids + [0] * (self.length - len(ids))

    def _see(self, pictures: np.ndarray) -> Tensor:
        return self.features(pictures) @ self.lift

    def __call__(self, loaded: Loaded) -> Chats:
        grid = (1, 8, 8)  # merged 2 x 2: one token for 2 x 2 pixels, as the renderer's
        shown = [Visual("image", "source", grid, i) for i in range(loaded.sources.shape[1])]
        chats = {p: build([*shown, p, Visual("image", "target", grid)], self._tokens, self.special)
                 for p in set(loaded.prompts)}
        sources = [self._see(loaded.sources[:, i, 0]) for i in range(loaded.sources.shape[1])]
        return Chats(layout=next(iter(chats.values())), ids=torch.stack([chats[p].ids for p in loaded.prompts]),
                     sources=torch.stack(sources, 1), targets=self._see(loaded.targets[:, 0]))


def states(planner: Planner, chats: Chats, index: Tensor, target: Tensor) -> Tensor:
    """States `[B, N, D]` before the last layer, the target's tokens carrying `target [B, n, D]`."""
    layout, batch = chats.layout, len(index)
    x = planner.language.embed_tokens(chats.ids[index]).clone()
    for visual in layout.visuals:
        where = slice(visual.start, visual.start + target.shape[1])
        x[:, where] = target if visual.role == "target" else chats.sources[index, visual.index]
    rotary = tuple(r.repeat(batch, 1, 1) for r in planner.rotary(positions(layout, planner.special)))
    mask = visible(layout.token_type, layout.segment_id)
    x = x.flatten(0, 1)
    for layer in planner.language.layers[:-1]:
        q, k, v = (t.unflatten(0, (batch, -1)).transpose(1, 2) for t in project(layer, x, rotary))
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        x = finish(layer, x, seen.transpose(1, 2).flatten(0, 1))
    return x.unflatten(0, (batch, -1))


def draw_mask(batch: int, count: int, generator: torch.Generator, numbers: np.random.Generator, *,
              shares: int | None = None) -> Tensor:
    """Which target tokens are hidden, bool `[B, n]`, at least one each; the share by Beta(8, 1.05).

    `shares` 1: one for the whole batch, so that equally many remain of each sample.
    """
    share = torch.from_numpy(numbers.beta(*BETA, shares or batch)).float().expand(batch)
    order = torch.rand(batch, count, generator=generator).argsort(1).argsort(1)
    return order < (share * count).round().clamp(min=1).unsqueeze(1)


def shown(states_of: Tensor, chats: Chats, mask: Tensor | None = None) -> Tensor:
    """Of the states `[B, N, D]` what the renderer sees: text, sources, and the target's tokens that are not hidden.

    Each sample of `mask` hides equally many; None hides nothing.
    """
    if mask is None:
        return states_of
    target = chats.layout.target
    seen = states_of[:, target][~mask].unflatten(0, (len(mask), -1))
    rest = torch.ones(states_of.shape[1], dtype=torch.bool)
    rest[target] = False
    return torch.cat([states_of[:, rest], seen], 1)


def hidden_target(planner: Planner, targets: Tensor, mask: Tensor) -> Tensor:
    """Target features with the mask token where hidden."""
    return torch.where(mask.unsqueeze(-1), planner.mask_tokens[0, 0], targets)


def train_planner(planner: Planner, chats: Chats, config: TrainConfig, seed: int, log) -> float:
    """Stage I: flow matching of the hidden target features; CPU seconds."""
    began, generator = time.process_time(), torch.Generator().manual_seed(seed)
    numbers = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(planner.parameters(), config.lr, betas=(0.9, 0.99), weight_decay=0.01)
    for step in range(round(config.steps * PLANNER_STEPS_RATIO)):
        for group in optimizer.param_groups:
            group["lr"] = config.lr * rate(step, config)
        index = torch.randint(len(chats.ids), (config.batch,), generator=generator)
        targets = chats.targets[index]
        mask = draw_mask(len(index), targets.shape[1], generator, numbers)
        seen = states(planner, chats, index, hidden_target(planner, targets, mask))[:, chats.layout.target]
        condition, clean = planner.connector.for_decoder(seen[mask]), targets[mask]
        noise = torch.randn(clean.shape, generator=generator)
        sigma = shift_sigmas(torch.rand(len(clean), generator=generator), DECODER_SHIFT)
        noisy = torch.lerp(clean, noise, sigma.unsqueeze(1))
        loss = (planner.vit_decoder.net(noisy, sigma * 1000, condition) - (noise - clean)).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(planner.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 49:
            log(step + 1, float(loss.detach()))
    planner.eval().requires_grad_(False)
    return time.process_time() - began


@torch.no_grad()
def plan(planner: Planner, chats: Chats, seed: int = 0, batch: int = 128) -> Tensor:
    """Features `[M, n, V]` of the targets, planned from all hidden to all known; no guidance."""
    generator, out = torch.Generator().manual_seed(seed), []
    count = chats.targets.shape[1]
    order = torch.randperm(count, generator=generator).tolist()
    for index in torch.arange(len(chats.ids)).split(batch):
        x = planner.mask_tokens[0, 0].expand(len(index), count, WIDTH).clone()
        for now in leaving(order, PLAN_STEPS):
            if now:
                seen = states(planner, chats, index, x)[:, chats.layout.target][:, now]
                noise = torch.randn(len(index) * len(now), WIDTH, generator=generator)
                condition = {"cond": planner.connector.for_decoder(seen).flatten(0, 1)}
                x[:, now] = planner.vit_decoder.sample(noise, condition, num_steps=DECODER_STEPS, source_guidance=1.0
                                                       ).unflatten(0, (len(index), -1))
        out.append(x)
    return torch.cat(out)


class PlannedRenderer(ArmRenderer):
    """An arm whose context rows are text rows and then states of the planner, through the connector."""

    def __init__(self, config: ArmConfig, arm: str, connector: nn.Module, num_text_rows: int):
        super().__init__(config, arm)
        self.connector, self.num_text_rows = connector, num_text_rows

    def embed_context(self, features: Tensor) -> Tensor:
        """Rows `[1, L + N, W]` → `[L + N, D]`."""
        text, plan_states = features[:, : self.num_text_rows], features[:, self.num_text_rows :]
        return super().embed_context(torch.cat([text, self.connector(plan_states)], 1))


def run_planned(experiment: Experiment, arm: str, config: ArmConfig, training: TrainConfig, seed: int, log) -> dict:
    """Both stages and all tests, each with three kinds of plan."""
    planner = tiny_planner(seed)
    make = ChatMaker(experiment.train_set, planner.special)
    chats = make(experiment.train_set)
    planner_s = train_planner(planner, chats, training, seed, lambda step, loss: log(step, loss))
    torch.manual_seed(seed)
    data = experiment.train_tensors
    model = PlannedRenderer(config, arm, planner.connector.proj_gen.requires_grad_(True), data.texts.shape[1])
    generator, numbers = torch.Generator().manual_seed(seed + 1), np.random.default_rng(seed + 1)

    @torch.no_grad()
    def context(index: Tensor) -> Tensor:
        targets = chats.targets[index]
        mask = draw_mask(len(index), targets.shape[1], generator, numbers, shares=1)
        seen = states(planner, chats, index, hidden_target(planner, targets, mask))
        return torch.cat([data.context(index), shown(seen, chats, mask)], 1)

    model, cpu_s = train(model, data, training, seed, context=context, log=log)
    tests = {}
    for test in experiment.tests:
        tests |= ask(experiment, model, planner, make(test.loaded), test)
    counted = [*model.parameters(), *(p for p in planner.parameters() if p.shape)]
    return {"cpu_s": cpu_s + planner_s, "parameters": sum(p.numel() for p in {id(p): p for p in counted}.values()),
            "tests": tests}


@torch.no_grad()
def ask(experiment: Experiment, model: nn.Module, planner: Planner, chats: Chats, test: Question) -> dict[str, dict]:
    """Verdicts with the planner's plan, the true features, and another sample's plan; cosine of the plan."""
    planned, out = plan(planner, chats), {}
    kinds = {test.name: planned, f"{test.name}, plan from the truth": chats.targets,
             f"{test.name}, plan of another sample": planned.roll(1, 0)}
    for name, target in kinds.items():
        def context(index: Tensor, target: Tensor = target) -> Tensor:
            return torch.cat([test.tensors.context(index), states(planner, chats, index, target[index])], 1)

        cosine = F.cosine_similarity(target, chats.targets, dim=-1).mean()
        out[name] = experiment.measure(model, test, context=context) | {"plan_cosine": float(cosine)}
    return out
