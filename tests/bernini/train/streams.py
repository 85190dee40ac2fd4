"""Streams of packs over a few made-up latents, and what they say as comparable values."""

from __future__ import annotations

import itertools

import torch

from bernini.train.cost import CostModel
from bernini.train.draws import DrawSettings
from bernini.train.loader import Loader, LoaderConfig

NEEDS = ("latent", "vit", "text")
COST = CostModel(renderer_layers=2, renderer_width=48, renderer_ffn=64, planner_layers=2, planner_width=32,
                 planner_ffn=48, planner_kv_width=16, context=8)
KEEP = DrawSettings(drop_text=0, drop_images=0, drop_videos=0)
TASKS = {("edits", "v2v"): 30, ("subjects", "vr2v"): 12, ("pictures", "t2i"): 25}


def make(dataset, *, rank=0, world=1, num_workers=0, **settings):
    config = LoaderConfig(**{"token_budget": 400, "window": 8, **settings})
    return Loader(dataset, config, COST, rank=rank, world=world, num_workers=num_workers)


def take(loader, num):
    return list(itertools.islice(loader, num))


def content(pack):
    """All that a pack says, as comparable values; tensors by their bits."""
    return ([(e.sample_id, e.parts, [(v.kind, v.is_target, v.grid, v.latent.view(torch.int16).tolist(),
                                      v.vit.view(torch.int16).tolist()) for v in e.visuals],
              e.text_embedding.view(torch.int16).tolist()) for e in pack.examples],
            list(pack.draws), pack.num_tokens, pack.flops, pack.epoch, pack.skipped)


def seen(packs):
    return [(e.sample_id, d) for p in packs for e, d in zip(p.examples, p.draws, strict=True)]
