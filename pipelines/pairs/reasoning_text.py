"""D11: self-text reasoning, an editing instruction thought through before the edit.

Paper section 3.6: a language model that sees the source video, the target video and the original instruction
rewrites the instruction into a more detailed, structured one; that text is the reasoning which a planner
learns to write before it edits. It covers whatever edits there are: the input is a PAIRS manifest
of any recipe that edits videos, `--input OUT/pairs/NAME`, and this file knows none of them.

    PAIRS of another recipe → PAIRS with `reasoning` → SAMPLES with the reasoning as text to be learned
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from datagen.build_samples import BuildSamples
from filters.rules import Rule
from manifests.manifest import Manifest
from manifests.schema import SAMPLES
from manifests.tasks import TASKS, VIDEO

from ..recipe import AskConfig, Needs, Steps, apply_rules, open_pairs, stops
from ..stage import Stage

WHY = "the instruction of any video edit, thought through in a structured text that is learned before the target"
RECIPE = "reasoning-text"
NEEDS = Needs(
    makes="the task of the given pairs: reasoning-text",
    laptop="nothing: the instruction and the measured difference of the two clips",
    cluster="a served Qwen3-VL",
    cost="laptop: 0.15 CPU hours a 1,000 samples (measured, 10 clips); cluster: one request with 12 pictures a pair; "
         "no pixels are made",
)
EDITS = tuple(t.name for t in TASKS.values() if t.output == VIDEO and t.inputs and t.inputs[0].startswith(VIDEO))


@dataclass(frozen=True, kw_only=True)
class Config(AskConfig):
    """Settings of the recipe."""

    input: str
    """Folder OUT/pairs/NAME with the finished pairs of a recipe that edits videos."""

    def pair_rules(self) -> tuple[Rule, ...]:
        return (
            Rule(column="task", allowed=EDITS, why="paper: (source video, target video, instruction)"),
            Rule(column="instruction", why="nothing to think through"),
        )


PRESETS = {"laptop": {}, "cluster": {"annotator": "openai"}}


def build(config: Config) -> dict[str, tuple[Stage, ...]]:
    return {"pairs": (
        apply_rules(*config.pair_rules()),
        config.ask("annotators.reasoning:WriteReasoning"),
        apply_rules(Rule(column="reasoning", why="the text that is to be learned")),
    )}


@stops(hint=lambda *_: f"Tasks that edit a video are {', '.join(EDITS)}.")
def run_steps(config: Config) -> Iterator[tuple[str, Manifest]]:
    needs = "reasoning needs --input OUT/pairs/NAME of a recipe that edits videos"
    given, steps = open_pairs(config.input, needs, ("instruction",)), Steps(config, RECIPE)
    yield "pairs", (pairs := steps.run("pairs", given, build(config)["pairs"], rows_per_block=16, parents=[given],
                                       rules=config.pair_rules(), made_by=given.header.get("owners")))
    samples = BuildSamples(RECIPE, reasoning="reasoning")
    yield "samples", steps.finish("samples", SAMPLES.schema, map(samples, pairs.batches()), parents=[pairs],
                                  settings=RECIPE)
