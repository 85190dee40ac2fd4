"""From an example to what the planner reads (paper, sections 2.1.1 and 2.3; spec 3.7).

One example gives up to two documents, each in the form that the same job has in generation:

    writing    user turns, then answers to be learned; the base model's chat form with `<|im_end|>`.
               Understanding, and the reasoning text of CoT data.
    planning   system, user, assistant with the target. With reasoning text, that text is the prompt,
               as `generate --reasoning self_text` uses it; the text encoder reads the same
               (`encode.renderer_prompt`).

In a planning document only the last visual to be generated is masked; an earlier one (the edited
frame of self-vision-text reasoning) is a finished input there, as it is in generation.

n target tokens, V width of a ViT feature, K noise draws a token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bernini.flow import shift_sigmas
from bernini.planner.chat import Chat, Run, Special, Visual, build, runs
from bernini.prompts import clean_prompt
from bernini.train.cost import num_masked
from bernini.train.example import Draws, Example

Tokenize = Callable[[str], list[int]]
NOTHING = torch.zeros(0, dtype=torch.int64)
DECODER_SHIFT = 2.0  # of the decoder's noise levels (spec 3.4)


@dataclass
class Target:
    """The masked visual of a document. `masked` and `visible` index its tokens, int64; together all of them.

    `clean [n, V]`; for each masked token K noises `[K, m, V]` at levels `sigma [K, m]`.
    """

    clean: Tensor
    masked: Tensor
    visible: Tensor
    noise: Tensor
    sigma: Tensor


@dataclass
class Document:
    """One sequence of the planner. `features[i]` fills the visual with index i.

    `learned` int64 are the places of tokens to be predicted, each from the place before it, `labels` their
    ids. `shown` int64 are the places whose states condition the renderer: all but masked target tokens.
    """

    example: int
    chat: Chat
    features: list[Tensor]
    learned: Tensor
    labels: Tensor
    shown: Tensor
    target: Target | None = None


def documents(
    index: int, example: Example, draws: Draws, tokenize: Tokenize, special: Special, num_noises: int
) -> list[Document]:
    """The documents of the `index`-th example of a pack."""
    found = []
    if any(part.is_learned for part in example.parts):
        found.append(_writing(index, example, tokenize, special))
    if example.target is not None and example.target.vit is not None:
        found.append(_planning(index, example, draws, tokenize, special, num_noises))
    return found


def _writing(index: int, example: Example, tokenize: Tokenize, special: Special) -> Document:
    """Turns of user and assistant up to the last text that is to be learned."""
    last = max(i for i, part in enumerate(example.parts) if part.is_learned)
    turns: list[tuple[str, list[Run]]] = []
    features: list[Tensor] = []
    for part in example.parts[: last + 1]:
        role = "assistant" if part.is_learned else "user"
        if not turns or turns[-1][0] != role:
            turns.append((role, []))
        if part.visual is None:
            turns[-1][1].append(part.text if part.is_learned else _asked(example, part.text))
        else:
            seen = example.visuals[part.visual]
            turns[-1][1].extend(_span(Visual(seen.kind, "source", seen.grid, len(features))))
            features.append(seen.vit)
    run_list: list[Run] = []
    answers: list[int] = []  # which runs are learned
    for role, content in turns:
        run_list += [f"<|im_start|>{role}\n", *content, "<|im_end|>" if role == "assistant" else "<|im_end|>\n"]
        if role == "assistant":
            answers += range(len(run_list) - 1 - len(content), len(run_list))
    chat = build(run_list, tokenize, special)
    learned = _places(run_list, answers, tokenize, special)
    return Document(index, chat, features, learned, chat.ids[learned], NOTHING)


def _asked(example: Example, text: str) -> str:
    """The request as generation puts it to the planner when it is to reason before it plans."""
    if example.target is None or example.task == "interleaved":
        return text
    from bernini.generate.reasoning import ASK  # generation brings packages that training does without

    return ASK + clean_prompt(text)


def _places(run_list: Sequence[Run], chosen: Sequence[int], tokenize: Tokenize, special: Special) -> Tensor:
    """Places of the tokens of the chosen runs."""
    places: list[int] = []
    at = 0
    for i, run in enumerate(run_list):
        count = run.num_tokens(special.merge) if isinstance(run, Visual) else len(tokenize(run))
        places += range(at, at + count) if i in chosen and isinstance(run, str) else ()
        at += count
    return torch.tensor(places, dtype=torch.int64)


def _span(visual: Visual) -> list[Run]:
    return ["<|vision_start|>", visual, "<|vision_end|>"]


def _planning(
    index: int, example: Example, draws: Draws, tokenize: Tokenize, special: Special, num_noises: int
) -> Document:
    target = example.target
    target_index = max(i for i, v in enumerate(example.visuals) if v is target)
    dropped = {k for k, drop in (("image", draws.drop_images), ("video", draws.drop_videos)) if drop}
    features: list[Tensor] = []
    content: list[Run] = []
    for part in example.parts:
        if part.visual == target_index:
            continue
        if part.visual is None:
            content.append(part.text)
        elif example.visuals[part.visual].kind not in dropped and not draws.drop_vit:
            seen = example.visuals[part.visual]
            content += _span(Visual(seen.kind, "source", seen.grid, len(features)))
            features.append(seen.vit)
    run_list = _planning_runs(example, draws, content, Visual(target.kind, "target", target.grid, -1))
    chat, found = build(run_list, tokenize, special), mask(target.vit, draws, num_noises)
    return planned(index, chat, features, found, is_shown=not hides_plan(draws, len(example.visuals) > 1))


def hides_plan(draws: Draws, has_sources: bool) -> bool:
    """Is the planned target kept from the renderer?

    Also where the planner does not see the sources that there are: no branch of guidance shows a plan made
    without them (spec 4.2: `wotxt_wovit`, `wtxt_wovit`, `wtxt_wvit`).
    """
    return draws.drop_plan or (draws.drop_vit and has_sources)


def planned(index: int, chat: Chat, features: list[Tensor], target: Target, is_shown: bool = True) -> Document:
    """A document whose target is masked; the renderer is shown all else (paper, section 4.1), or no target at all."""
    keep = torch.ones(len(chat.ids), dtype=torch.bool)
    keep[target.masked + chat.target.start if is_shown else chat.target] = False
    return Document(index, chat, features, NOTHING, NOTHING, keep.nonzero().flatten(), target)


def _planning_runs(example: Example, draws: Draws, content: list[Run], target: Visual) -> list[Run]:
    """Interleaved documents keep their order; all others have visuals first, then the prompt."""
    if example.task == "interleaved" and not draws.drop_text:
        frame = runs(example.task, "x", [], target)
        return [*frame[:3], *content, *frame[4:]]  # in the place of the prompt
    texts = [p.text for p in example.parts if p.is_learned and p.text]
    texts = texts or [p.text for p in example.parts if p.visual is None]
    prompt = "" if draws.drop_text else clean_prompt(" ".join(texts))
    return runs(example.task, prompt, [r for r in content if isinstance(r, Visual)], target)


def mask(clean: Tensor, draws: Draws, num_noises: int) -> Target:
    """Which target tokens are hidden, and at which noise levels the decoder has to find them.

    At least one token is hidden. The first noise of all tokens has the example's level, further
    ones have levels of their own, uniform before the shift.
    """
    count = len(clean)
    hidden = num_masked(count, draws.mask_ratio)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(draws.mask_seed))
    masked, visible = order[:hidden].sort().values, order[hidden:].sort().values
    generator = torch.Generator().manual_seed(draws.vit_noise_seed)
    noise = torch.randn(num_noises, hidden, clean.shape[1], generator=generator)
    levels = torch.rand(num_noises, hidden, generator=generator, dtype=torch.float64)
    sigma = shift_sigmas(levels, DECODER_SHIFT)
    sigma[0] = draws.vit_sigma
    return Target(clean, masked, visible, noise, sigma)
