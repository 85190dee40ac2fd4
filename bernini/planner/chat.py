"""The planner's token sequence (spec 3.7): messages, visual spans, three-axis positions.

For each message that has content: `<|im_start|>`, role, newline, stripped content; no
`<|im_end|>`. A visual is `<|vision_start|>`, its pads, `<|vision_end|>`. Order: system; user with
videos, images and the prompt; assistant with the target.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bernini.planner.masks import SOURCE, TARGET, TEXT
from bernini.prompts import planner_system_prompt

Grid = tuple[int, int, int]  # temporal patches, rows and columns of patches before merging


@dataclass(frozen=True)
class Visual:
    """A video or image in a chat; `index` says whose features fill it."""

    kind: str  # "video" or "image"
    role: str  # "source" or "target"
    grid: Grid
    index: int = 0
    start: int = 0  # first token, known once it stands in a chat

    def num_tokens(self, merge: int) -> int:
        """Tokens after the vision tower's merger."""
        t, h, w = self.grid
        return t * (h // merge) * (w // merge)


@dataclass(frozen=True)
class Chat:
    """One sequence: `ids`, `token_type`, `segment_id` int64 `[N]`, and its visuals in order."""

    ids: Tensor
    token_type: Tensor
    segment_id: Tensor
    visuals: tuple[Visual, ...]

    @property
    def target(self) -> slice:
        """Where the target stands."""
        where = (self.token_type == TARGET).nonzero().flatten()
        return slice(int(where[0]), int(where[-1]) + 1)


@dataclass(frozen=True)
class Special:
    """Token ids and vision constants a chat needs; defaults are Qwen2.5-VL's."""

    image: int = 151655
    video: int = 151656
    vision_start: int = 151652
    vision_end: int = 151653
    merge: int = 2
    tokens_per_second: int = 2


Run = str | Visual


def runs(task: str, prompt: str, visuals: Sequence[Visual], target: Visual) -> list[Run]:
    """The chat as text runs and visuals; a message without content is left out."""
    content: list[Run] = []
    for visual in visuals:
        content += ["<|vision_start|>", visual, "<|vision_end|>"]
    text = prompt if visuals else prompt.strip()  # stripped at the ends of the whole content only
    content += [text.rstrip()] if text.strip() else []
    messages = [
        ("system", [planner_system_prompt(task)]),
        ("user", content),
        ("assistant", ["<|vision_start|>", target, "<|vision_end|>"]),
    ]
    out: list[Run] = []
    for role, parts in messages:
        if parts:
            out += [f"<|im_start|>{role}\n", *parts]
    return out


def build(run_list: Sequence[Run], tokenize: Callable[[str], list[int]], special: Special) -> Chat:
    """Token ids of `runs`; header and content are tokenised apart, as released."""
    ids: list[int] = []
    types: list[int] = []
    segments: list[int] = []
    placed: list[Visual] = []
    for run in run_list:
        if isinstance(run, Visual):
            placed.append(replace(run, start=len(ids)))
            count, kind = run.num_tokens(special.merge), TARGET if run.role == "target" else SOURCE
            ids += [special.video if run.kind == "video" else special.image] * count
            types += [kind] * count
            segments += [len(placed)] * count
        else:
            new = tokenize(run)
            segments += range(len(ids), len(ids) + len(new))
            ids += new
            types += [TEXT] * len(new)
    return Chat(torch.tensor(ids), torch.tensor(types), torch.tensor(segments), tuple(placed))


def positions(chat: Chat, special: Special) -> Tensor:
    """Three-axis positions int64 `[3, N]`.

    Text counts up on all axes. A visual starts after the largest position so far; time advances
    by `tokens_per_second` a temporal patch in videos and not at all in images.
    """
    parts: list[Tensor] = []
    at = following = 0
    for visual in chat.visuals:
        parts.append(_text_positions(following, visual.start - at))
        following += visual.start - at
        block = _visual_positions(visual, special) + following
        parts.append(block)
        following, at = int(block.max()) + 1, visual.start + block.shape[1]
    parts.append(_text_positions(following, len(chat.ids) - at))
    return torch.cat(parts, dim=1)


def _text_positions(first: int, count: int) -> Tensor:
    return torch.arange(first, first + count).expand(3, -1)


def _visual_positions(visual: Visual, special: Special) -> Tensor:
    t, h, w = visual.grid
    stride = special.tokens_per_second if visual.kind == "video" else 0
    axes = torch.meshgrid(
        torch.arange(t) * stride,
        torch.arange(h // special.merge),
        torch.arange(w // special.merge),
        indexing="ij",
    )
    return torch.stack([a.flatten() for a in axes])
