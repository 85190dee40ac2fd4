"""The dual-branch sampler of human motion-aware editing (paper, section 3.3, equation 4).

Source video V, its edited first frame I, a prompt for each branch:

    e^ = alpha (w_full e(T_i2v, -, I) - w_T e(-, -, I) - w_I e(T_i2v, -, -))
       + beta  (w_full e(T_v2v, V, -) - w_T e(-, V, -) - w_V e(T_v2v, -, -))

    in each branch w_full - w_T - w_cond = 1;  alpha + beta = 1

The image-to-video branch lets motion follow from the edit, the video-to-video branch keeps the
source's; alpha chooses between them. It is one more guidance mode of the ordinary loop: branches
with weight 0 are left out (alpha 0 or 1 takes 3 forwards, both branches 6), and those that see
the same are computed once (5, where both branches have one and the same text).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from bernini.errors import CaseError
from bernini.generate.cases import Case
from bernini.generate.guidance import DUAL_BRANCH, Mix, Mode, mode_named
from bernini.generate.inputs import Inputs
from bernini.generate.parts import Parts
from bernini.generate.planning import contexts, text_features
from bernini.generate.presets import Settings
from bernini.planner.plan import Plan
from bernini.renderer.experts import Branch
from bernini.text import positive_text
from bernini.vae import resize

TOLERANCE = 1e-6  # of the constraints: rounding of decimal numbers, not of mistakes
PROMPT, MOTION = "prompt", "motion"  # contexts: text of the video-to-video and of the image-to-video branch


@dataclass(frozen=True, kw_only=True)
class BranchWeights:
    """Weights of one branch: everything, without text, without its picture or video."""

    full: float
    text: float
    cond: float

    def __post_init__(self):
        total = self.full - self.text - self.cond
        if abs(total - 1) > TOLERANCE:
            raise CaseError(
                f"the weights of a branch must satisfy full - text - cond = 1; {self.full:g} - {self.text:g} - "
                f"{self.cond:g} is {total:g}. With these text and cond, full is {1 + self.text + self.cond:g}"
            )

    @classmethod
    def of(cls, *, text: float, cond: float) -> "BranchWeights":
        """The weights that satisfy the constraint."""
        return cls(full=1 + text + cond, text=text, cond=cond)


@dataclass(frozen=True, kw_only=True)
class DualWeights:
    """Weights of both branches."""

    i2v: BranchWeights
    v2v: BranchWeights


def alike(*, text: float, cond: float) -> DualWeights:
    """Both branches with the same weights."""
    return DualWeights(i2v=BranchWeights.of(text=text, cond=cond), v2v=BranchWeights.of(text=text, cond=cond))


# The paper names no weights. A scale omega pushes away from what lacks a condition with weight omega - 1.
WEIGHTS = {
    "table5": alike(text=3.0, cond=0.25),  # Table 5, row V2V: text 4, video 1.25
    "text-only": alike(text=3.0, cond=0.0),  # ordinary classifier-free guidance of scale 4: 4 forwards
    "firm-frame": DualWeights(  # the edited frame as strongly as Table 5's references (row S2V: 2.5)
        i2v=BranchWeights.of(text=3.0, cond=1.5), v2v=BranchWeights.of(text=3.0, cond=0.25)
    ),
    "unguided": alike(text=0.0, cond=0.0),  # 2 forwards: to look at what each branch wants by itself
}

# Share of the image-to-video branch by noise level: sigma is 1 at the start, 0 at the end.
SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "constant": lambda alpha, sigma: alpha,  # equation 4 as written
    "falling": lambda alpha, sigma: alpha * sigma,  # motion is settled early, details come from the source
    "rising": lambda alpha, sigma: alpha * (1 - sigma),
}


def dual_branch(
    weights: DualWeights, alpha: float, beta: float | None = None, schedule: str = "constant"
) -> Mix:
    """Equation 4 as a guidance mode; contexts "prompt" (T_v2v), "motion" (T_i2v) and "negative"."""
    beta = 1 - alpha if beta is None else beta
    if abs(alpha + beta - 1) > TOLERANCE:
        raise CaseError(f"alpha + beta must be 1; {alpha:g} + {beta:g} is {alpha + beta:g}")
    if not 0 <= alpha <= 1:
        raise CaseError(f"alpha is {alpha:g}; it is the share of the image-to-video branch, from 0 to 1")
    if schedule not in SCHEDULES:
        raise CaseError(f"unknown alpha schedule {schedule!r}; known: {', '.join(SCHEDULES)}")

    def at(sigma: float) -> dict[Branch, float]:
        share = SCHEDULES[schedule](alpha, sigma)
        return _signed("images", MOTION, weights.i2v, share) | _signed("video", PROMPT, weights.v2v, 1 - share)

    return Mix(weights=at)


def _signed(source: str, text: str, weights: BranchWeights, share: float) -> dict[Branch, float]:
    """The three terms of one branch."""
    return {
        Branch(source, text): share * weights.full,
        Branch(source, "negative"): -share * weights.text,
        Branch("none", text): -share * weights.cond,
    }


def mode_of(settings: Settings, *, planner: bool) -> Mode | Mix:
    """The guidance that settings ask for."""
    if settings.guidance_mode != DUAL_BRANCH:
        return mode_named(settings.guidance_mode, planner=planner)
    if settings.dual_weights not in WEIGHTS:
        raise CaseError(f"unknown dual-branch weights {settings.dual_weights!r}; known: {', '.join(WEIGHTS)}")
    return dual_branch(WEIGHTS[settings.dual_weights], settings.alpha, schedule=settings.alpha_schedule)


def dual_inputs(inputs: Inputs) -> Inputs:
    """The edited first frame in the size of the result: it is a frame of it, not a reference."""
    if (len(inputs.videos), len(inputs.images)) != (1, 1):
        raise CaseError(
            "dual-branch sampling takes one video and its edited first frame; "
            f"{len(inputs.videos)} and {len(inputs.images)} given"
        )
    picture = resize(inputs.images[0], inputs.size.width, inputs.size.height)
    return replace(inputs, images=(picture,))


def dual_contexts(
    case: Case,
    settings: Settings,
    inputs: Inputs,
    parts: Parts,
    plan: Callable[[Case, Inputs], Plan | None],
) -> dict[str, Tensor]:
    """Contexts of both branches, each with its own task's system prompt and, with a planner, its own plan.

    Equation 4 knows no planned target, so of a plan only the part without it is used.
    """
    v2v = replace(case, task_type="v2v")
    i2v = replace(case, task_type="i2v", prompt=case.motion_prompt or case.prompt)
    text_v2v, text_i2v = (text_features(c, settings, parts) for c in (v2v, i2v))
    seen = contexts(text_v2v, plan(v2v, replace(inputs, images=())))
    found = {PROMPT: seen[PROMPT], "negative": seen["negative"], MOTION: seen[PROMPT]}
    same = len({positive_text(c.task_type, c.prompt, settings.system_prompt) for c in (v2v, i2v)}) == 1
    if not same or parts.model.has_planner:
        alone = replace(inputs, videos=(), seen_videos=())
        found[MOTION] = contexts(text_i2v, plan(i2v, alone))[PROMPT]
    return found
