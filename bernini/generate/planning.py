"""From a case to the contexts of the renderer, through text encoder and planner (spec 2.4, 3)."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from bernini.errors import CaseError
from bernini.generate.cases import Case
from bernini.generate.inputs import Inputs, placeholder
from bernini.generate.parts import Parts
from bernini.generate.presets import Settings
from bernini.planner.chat import Chat, Visual, build, runs
from bernini.planner.plan import Plan, Planning, PlanSettings
from bernini.prompts import NEGATIVE_PROMPT, clean_prompt
from bernini.text import context, positive_text
from bernini.vision import Eye

MAX_TARGET_TOKENS = 4096


def text_features(case: Case, settings: Settings, parts: Parts) -> dict[str, Tensor]:
    """Unpadded features `[rows, text_dim]` of the prompt and of the negative prompt."""
    encode = parts["text"]
    return {
        "prompt": encode(positive_text(case.task_type, case.prompt, settings.system_prompt)),
        "negative": encode(clean_prompt(settings.neg_prompt or NEGATIVE_PROMPT)),
    }


def contexts(text: dict[str, Tensor], plan: Plan | None) -> dict[str, Tensor]:
    """`[1, rows, text_dim]` of each context; "plan" only with a planner."""
    if plan is None:
        return {name: context(rows) for name, rows in text.items()}
    return {
        "negative": context(text["negative"], plan.unconditional.cpu()),
        "prompt": context(text["prompt"], plan.without_target.cpu()),
        "plan": context(text["prompt"], plan.with_target.cpu()),
    }


def make_plan(
    case: Case,
    settings: Settings,
    inputs: Inputs,
    parts: Parts,
    on_step: Callable[[int, int], None] | None = None,
) -> Plan:
    """Plans the target's visual features."""
    planner = parts["planner"]
    seen, sources, target = look(inputs, settings, parts.eye())
    chats = make_chats(case, settings, sources, target, parts)
    features = [planner.see(pixels, visual.grid) for pixels, visual in zip(seen, sources, strict=True)]
    count = target.num_tokens(planner.special.merge)
    if count > MAX_TARGET_TOKENS:
        raise CaseError(
            f"the planner would have {count} target tokens, at most {MAX_TARGET_TOKENS}; fewer frames"
        )
    order, noise = randomness(count, features_width(planner), settings.seed)
    plan_settings = PlanSettings(
        num_steps=settings.planning_step,
        decoder_steps=settings.vit_denoising_step,
        source_guidance=settings.vit_txt_cfg,
        prompt_guidance=settings.vit_img_cfg,
    )
    return Planning(planner, chats, features, plan_settings).run(order, noise, on_step)


def look(inputs: Inputs, settings: Settings, eye: Eye) -> tuple[list[Tensor], list[Visual], Visual]:
    """Patches of each source, the sources' place in the chat, and the target's."""
    seen = [("video", *eye.video(f)) for f in inputs.seen_videos]
    seen += [("image", *eye.image(f[0])) for f in inputs.images]
    sources = [Visual(kind, "source", grid, i) for i, (kind, _, grid) in enumerate(seen)]
    frames, kind = placeholder(inputs, settings)
    grid = (eye.video(frames) if kind == "video" else eye.image(frames[0]))[1]
    return [pixels for _, pixels, _ in seen], sources, Visual(kind, "target", grid)


def features_width(planner) -> int:
    """Width of a visual feature."""
    return planner.vit_decoder.net.input_proj.in_features


def make_chats(
    case: Case, settings: Settings, sources: list[Visual], target: Visual, parts: Parts
) -> dict[str, Chat]:
    """The three branches: everything; nothing but the negative prompt; the prompt without sources."""
    tokenizer, special = parts.planner_tokenizer(), parts["planner"].special

    def tokenize(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    prompt, negative = clean_prompt(case.prompt), clean_prompt(settings.neg_prompt or NEGATIVE_PROMPT)
    negative = negative if len(negative) > 1 else ""
    said = {"cond": (prompt, sources), "nothing": (negative, []), "prompt_only": (prompt, [])}
    return {
        name: build(runs(case.task_type, text, visuals, target), tokenize, special)
        for name, (text, visuals) in said.items()
    }


def randomness(count: int, width: int, seed: int) -> tuple[list[int], Callable[[int], Tensor]]:
    """Decoding order and decoder noise from the released generators, each freshly seeded.

    The released pipeline draws other things in between (spec 10.13), so its own runs with one seed
    differ; ours depend on the seed alone.
    """
    order = np.arange(count)
    np.random.RandomState(seed).shuffle(order)
    generator = torch.Generator("cpu").manual_seed(seed)
    return order.tolist(), lambda n: torch.randn(n, width, generator=generator, device="cpu")
