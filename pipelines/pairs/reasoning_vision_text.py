"""D12: self-vision-text reasoning, an edit thought through in words and on one frame.

Paper section 3.6: text alone has no grounding in what is seen, so the edit is taken in two steps. First the initial
frame is edited, guided by the textual reasoning; the edited frame is the visual intermediate. Then the target
video is generated from it, the edit carried on through time. The input is a PAIRS manifest of any recipe that
edits videos, `--input OUT/pairs/NAME`; a column `reasoning` (as D11 writes it) guides the image editor where
it is there, else the reasoning is written first.

    PAIRS of another recipe → PAIRS with edited first frame and frame reasoning
          → SAMPLES: source, instruction, reasoning (learned), edited frame (learned), target

Without an image editor the edited frame is the target's own first frame, which is what an editor should have made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from datagen.build_samples import BuildSamples
from filters.rules import Rule
from manifests.errors import ConfigError
from manifests.manifest import Manifest
from manifests.schema import SAMPLES
from manifests.tasks import TASKS, VIDEO

from ..backend_config import ImageEditorConfig
from ..recipe import AskConfig, Needs, Steps, apply_rules, open_pairs, stops
from ..stage import Stage

WHY = "the instruction of any video edit, thought through in words and on the edited first frame, before the target"
RECIPE = "reasoning-vision-text"
NEEDS = Needs(
    makes="the task of the given pairs: reasoning-vision-text",
    laptop="nothing: the target's own first frame, and its measured difference in words",
    cluster="an image editor (Qwen-Image-Edit, one GPU a worker), a served Qwen3-VL",
    cost="laptop: 0.03 CPU hours a 1,000 samples (measured, 40 samples at 240 lines); cluster: one to two requests "
         "and one edited image a sample, GPU hours not measured",
)
# Not vi2v: its edited first frame is given, so nothing is left to be thought of.
EDITS = tuple(t.name for t in TASKS.values() if t.output == VIDEO and t.inputs and t.inputs[0].startswith(VIDEO)
              and t.name != "vi2v")


@dataclass(frozen=True, kw_only=True)
class Config(AskConfig, ImageEditorConfig):
    """Settings of the recipe."""

    input: str
    """Folder OUT/pairs/NAME with the finished pairs of a recipe that edits videos."""

    image_editor: str = ""
    """Image editor of the first frame: qwen-image-edit, flux-kontext, openai, or module:Class; empty = the target's
    first frame is the edited one."""
    edited_min: float = 0.003
    """Least share of the first frame that the edit visibly changes; else it begins later in the clip."""
    gap_max: float = 12.0
    """Largest mean distance (CIE76) of an editor's frame from the target's first: the video must follow from it."""

    def __post_init__(self):
        super().__post_init__()
        if self.image_editor == "classical":
            raise ConfigError("the classical image editor cannot read an instruction; leave --image-editor empty: the "
                              "target's first frame is then the edited one")

    def pair_rules(self) -> tuple[Rule, ...]:
        return (Rule(column="task", allowed=EDITS, why="paper: a source video and an editing instruction"),
                Rule(column="instruction", why="nothing to think through"))

    def frame_rules(self) -> tuple[Rule, ...]:
        return (Rule(column="edited_share", min=self.edited_min, why="the edit must be seen in the first frame"),
                Rule(column="edited_gap", max=self.gap_max, why="the target must follow from the edited frame"))


PRESETS = {
    "laptop": {},
    "cluster": {"annotator": "openai", "image_editor": "qwen-image-edit", "image_editor_gpus": 1.0},
}


def build(config: Config, has_reasoning: bool) -> dict[str, tuple[Stage, ...]]:
    think = () if has_reasoning or not config.image_editor else (
        config.ask("annotators.reasoning:WriteReasoning"),
        apply_rules(Rule(column="reasoning", why="guides the editor")))
    edit = Stage(op="datagen.edit_first_frame:EditFirstFrame", batch_size=4, num_gpus=config.image_editor_gpus,
                 kwargs={"media": config.media_root, "backend": config.image_editor,
                         "options": config.image_editor_options, "seed": config.seed,
                         "told": "reasoning" if config.image_editor else "instruction"})
    return {"pairs": (
        apply_rules(*config.pair_rules()), *think, edit, apply_rules(*config.frame_rules()),
        config.ask("annotators.reasoning:ReasonEditedFrame"),
        apply_rules(Rule(column="frame_reasoning", why="the text that is to be learned")),
    )}


@stops(hint=lambda *_: f"Tasks that edit a video are {', '.join(EDITS)}.")
def run_steps(config: Config) -> Iterator[tuple[str, Manifest]]:
    needs = "reasoning needs --input OUT/pairs/NAME of a recipe that edits videos"
    given, steps = open_pairs(config.input, needs, ("instruction",)), Steps(config, RECIPE)
    stages = build(config, "reasoning" in given.schema.names)["pairs"]
    yield "pairs", (pairs := steps.run("pairs", given, stages, rows_per_block=8, parents=[given],
                                       rules=(*config.pair_rules(), *config.frame_rules()),
                                       made_by=given.header.get("owners")))
    samples = BuildSamples(RECIPE, reasoning="frame_reasoning", intermediate="edited_path")
    yield "samples", steps.finish("samples", SAMPLES.schema, map(samples, pairs.batches()), parents=[pairs],
                                  settings=RECIPE)
