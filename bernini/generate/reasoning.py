"""Thinking before rendering (paper, sections 3.6 and 6.4).

none              the prompt as it is
enhance           another model rewrites it (`enhancer`)
self_text         the planner itself rewrites the instruction, seeing the sources
self_vision_text  the same; then the first frame is edited under that reasoning, and the video is
                  generated with the edited frame as a reference
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bernini.errors import CaseError
from bernini.generate.cases import Case
from bernini.generate.enhancer import Server, enhance
from bernini.generate.inputs import read_inputs
from bernini.generate.pipeline import Pipeline, Progress, quiet
from bernini.generate.planning import look
from bernini.planner.chat import Run, Visual, build
from bernini.prompts import clean_prompt

MODES = ("none", "enhance", "self_text", "self_vision_text")
ASK = (
    "Rewrite the request below as one detailed instruction for a video editor: what changes, where, how it "
    "looks afterwards, what follows from it physically, and what stays. Answer with the instruction only."
    "\nRequest: "
)


def prepare(
    case: Case,
    pipeline: Pipeline,
    mode: str,
    *,
    given: dict | None = None,
    server: Server | None = None,
    warn: Callable[[str], None] = lambda text: None,
    progress: Progress = quiet,
    max_new_tokens: int = 256,
) -> Case:
    """The case that will be rendered; `given` are the user's settings."""
    if mode not in MODES:
        raise CaseError(f"unknown reasoning mode {mode!r}; known: {', '.join(MODES)}")
    case = case.checked()
    if mode == "none":
        return case
    if mode == "enhance":
        return replace(case, prompt=enhance(case, server or Server.from_environment(), warn))
    if not pipeline.model.has_planner:
        raise CaseError(f"reasoning mode {mode} needs a model with planner; use --reasoning enhance, or none")
    progress("reasoning", 0, 1)
    text = reason(case, pipeline, given, max_new_tokens)
    thought = replace(case, prompt=text or case.prompt)
    return _with_edited_frame(thought, pipeline, given, progress) if mode == "self_vision_text" else thought


@torch.no_grad()
def reason(case: Case, pipeline: Pipeline, given: dict | None, max_new_tokens: int) -> str:
    """The planner's own rewriting of the instruction, written by its language head without sampling."""
    parts, settings = pipeline.parts, pipeline.settings(case, given)
    planner, tokenizer = parts["planner"], parts.planner_tokenizer()
    pixels, sources, _ = look(read_inputs(case, settings, planner=True), settings, parts.eye())
    chat = build(
        question(case.prompt, sources),
        lambda t: tokenizer(t, add_special_tokens=False)["input_ids"],
        planner.special,
    )
    ids = chat.ids[None].to(planner.device)
    # what each token is: 0 text, 1 image, 2 video
    kinds = (ids == planner.special.image).int() + 2 * (ids == planner.special.video).int()
    out = planner.mllm.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=kinds,
        do_sample=False,
        max_new_tokens=max_new_tokens,
        pad_token_id=tokenizer.pad_token_id,
        **media_fields(pixels, sources, planner),
    )
    return clean_prompt(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))


def question(prompt: str, sources: list[Visual]) -> list[Run]:
    """The usual chat form of the base model, which writes text, unlike the planning chat."""
    seen: list[Run] = []
    for visual in sources:
        seen += ["<|vision_start|>", visual, "<|vision_end|>"]
    ask = f"{ASK}{clean_prompt(prompt)}<|im_end|>\n<|im_start|>assistant\n"
    return ["<|im_start|>user\n", *seen, ask]


def media_fields(pixels: list[torch.Tensor], sources: list[Visual], planner) -> dict[str, torch.Tensor]:
    """Patches and grids by kind, under the names that transformers wants."""
    names = {"video": ("pixel_values_videos", "video_grid_thw"), "image": ("pixel_values", "image_grid_thw")}
    fields = {}
    for kind, (patches, grids) in names.items():
        chosen = [(p, v.grid) for p, v in zip(pixels, sources, strict=True) if v.kind == kind]
        if chosen:
            fields[patches] = torch.cat([p for p, _ in chosen]).to(planner.device, planner.dtype)
            fields[grids] = torch.tensor([grid for _, grid in chosen], device=planner.device)
    return fields


def _with_edited_frame(case: Case, pipeline: Pipeline, given: dict | None, progress: Progress) -> Case:
    """Edits the first source frame by itself and adds it as a reference image."""
    if not case.videos:
        raise CaseError(
            "reasoning mode self_vision_text edits the first frame of a source video; give --video"
        )
    inputs = read_inputs(case, pipeline.settings(case, given), planner=True)
    folder = Path(case.output).parent
    folder.mkdir(parents=True, exist_ok=True)
    stem = Path(case.output).stem
    first = folder / f"{stem}.first_frame.png"
    Image.fromarray(np.asarray(inputs.videos[0][0])).save(first)
    edit = Case(
        prompt=case.prompt,
        task_type="i2i",
        images=(str(first),),
        output=str(folder / f"{stem}.edited_frame.png"),
    )
    own = {k: v for k, v in (given or {}).items() if k not in ("guidance_mode", "num_frames")}
    size = dict(height=inputs.size.height, width=inputs.size.width)
    made = pipeline.generate(edit, pipeline.settings(edit, own | size), progress)
    saved = pipeline.save(edit, made)
    return replace(case, task_type="rv2v", guidance_mode="", images=(*case.images, str(saved)))
