"""Multi-source guidance (paper, section 4.2, equations 8 to 12; spec 4.1 and 4.2).

A guidance mode is a chain of branches, each seeing one thing more than the one before:

    nothing → source video → source images → prompt → planned target

    delta_k = e_k - e_(k-1)                              equations 8 to 11
    e^      = e_base + sum_k omega_k · delta_k           equation 12

`MODES` is that chain for every mode; `DIRECTIONS` says what is done to each delta before it is
added (nothing, or one of two forms of adaptive projected guidance). To add a mode: one line.
All predictions are velocities `[1, C, T, Y, X]`, float32.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from bernini.errors import CaseError
from bernini.renderer.experts import Branch


@dataclass(frozen=True, kw_only=True)
class Omegas:
    """Guidance scales; defaults are the paper's Table 5, row V2V."""

    vid: float = 1.25  # source video
    img: float = 1.25  # source images
    txt: float = 4.0  # prompt
    tgt: float = 0.5  # planned target

    def scaled(self, factor: float) -> "Omegas":
        """All four times `factor`: done once, at the switch to the low-noise expert."""
        return Omegas(
            vid=self.vid * factor, img=self.img * factor, txt=self.txt * factor, tgt=self.tgt * factor
        )


@dataclass(frozen=True, kw_only=True)
class Projection:
    """Settings of the projection in clean-sample space; released defaults of the renderer-only pipeline."""

    eta: float = 0.5  # share of the part parallel to the prediction that is kept
    norm_threshold: tuple[float, ...] = (50.0, 50.0, 50.0)  # largest norm of a delta, one an increment
    momentum: float = 0.0  # share of the earlier deltas that is added


@dataclass
class StepState:
    """What the directions may need beside the branches: the noisy latent, sigma, and a memory over steps."""

    latent: Tensor
    sigma: float
    projection: Projection = field(default_factory=Projection)
    running: dict[int, Tensor] = field(default_factory=dict)


# Directions: (later, earlier, increment number, state) -> delta.


def plain(later: Tensor, earlier: Tensor, number: int, state: StepState) -> Tensor:
    """The difference itself."""
    return later - earlier


def projected(later: Tensor, earlier: Tensor, number: int, state: StepState) -> Tensor:
    """Keeps a fifth of the part parallel to the later prediction: whole sample, velocity space."""
    delta = later - earlier
    share = (delta * later).sum() / (later * later).sum().clamp_min(1e-12)
    parallel = share * later
    return delta - 0.8 * parallel


FRAME_DIMS = (-1, -2, -4)  # channels, height, width: each latent frame is projected by itself


def projected_clean(later: Tensor, earlier: Tensor, number: int, state: StepState) -> Tensor:
    """Adaptive projected guidance on clean samples `x = x_t - sigma·v`, each latent frame by itself.

    Momentum, then a limit on the norm, then the parallel part times eta. At sigma 0 the clean
    sample does not depend on v: the plain difference is given instead of a division by zero.
    """
    if state.sigma == 0:
        return later - earlier
    clean = state.latent - state.sigma * later
    delta = state.sigma * (earlier - later)  # difference of the two clean samples
    settings = state.projection
    if settings.momentum:
        delta = delta + settings.momentum * state.running.get(number, 0.0)
        state.running[number] = delta
    norm = inner(delta, delta).sqrt().clamp_min(1e-12)
    delta = delta * (threshold(settings, number) / norm).clamp_max(1.0)
    parallel = inner(delta, clean) / inner(clean, clean).clamp_min(1e-24) * clean
    delta = delta - (1 - settings.eta) * parallel
    return -delta / state.sigma


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of each latent frame."""
    return (a * b).sum(FRAME_DIMS, keepdim=True)


def threshold(settings: Projection, number: int) -> float:
    """Norm limit of an increment; the last one serves all further ones."""
    limits = settings.norm_threshold
    return limits[min(number, len(limits) - 1)]


DIRECTIONS: dict[str, Callable[[Tensor, Tensor, int, StepState], Tensor]] = {
    "plain": plain,
    "projected": projected,
    "projected_clean": projected_clean,
}


@dataclass(frozen=True, kw_only=True)
class Mode:
    """A chain: the base branch, then (omega name, branch) pairs, and the direction of its deltas."""

    base: Branch
    chain: tuple[tuple[str, Branch], ...]
    direction: str = "plain"
    zero_leaves_out: bool = False  # an increment with omega 0 also leaves the chain (planner release)
    projection: Projection | None = None  # fixed by the mode, else the user's
    why: str = ""


DUAL_BRANCH = "dual-branch"  # the one mode that is no chain; made from settings in dual_branch.py


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Guidance that is no chain: `weights(sigma)` is the weight of each branch, 0 leaves it out."""

    weights: Callable[[float], Mapping[Branch, float]]


nothing = Branch("none", "negative")
video = Branch("video", "negative")
images = Branch("images", "negative")
sources = Branch("all", "negative")
prompt = Branch("none", "prompt")
images_prompt = Branch("images", "prompt")
sources_prompt = Branch("all", "prompt")
planned = Branch("all", "plan")

FOUR = (("vid", video), ("img", sources), ("txt", sources_prompt), ("tgt", planned))  # equations 8 to 11
MERGED = (("img", sources), ("txt", sources_prompt), ("tgt", planned))

RENDERER_MODES = {
    "t2v": Mode(base=nothing, chain=(("txt", prompt),)),
    "v2v": Mode(base=sources, chain=(("txt", sources_prompt),)),
    "v2v_chain": Mode(base=nothing, chain=(("vid", video), ("txt", sources_prompt))),
    "rv2v": Mode(base=nothing, chain=(("vid", video), ("img", sources), ("txt", sources_prompt))),
    "t2v_apg": Mode(base=nothing, chain=(("txt", prompt),), direction="projected_clean"),
    "v2v_apg": Mode(base=sources, chain=(("txt", sources_prompt),), direction="projected_clean"),
    "r2v_apg": Mode(
        base=nothing, chain=(("img", images), ("txt", images_prompt)), direction="projected_clean"
    ),
}
PLANNER_MODES = {
    "vae_txt_vit": Mode(base=nothing, chain=MERGED, zero_leaves_out=True),
    "vae_txt_vit_wapg": Mode(base=nothing, chain=MERGED, direction="projected", zero_leaves_out=True),
    "rv2v_wapg": Mode(
        base=nothing, chain=FOUR, zero_leaves_out=True, why="plain deltas despite its name, as released"
    ),
    "v2v_apg": Mode(
        base=nothing,
        chain=(("txt", planned),),
        direction="projected_clean",
        projection=Projection(eta=1.0, norm_threshold=(50.0,)),
    ),
    "paper": Mode(
        base=nothing,
        chain=FOUR,
        direction="projected",
        zero_leaves_out=True,
        why="equations 8 to 12 with adaptive projected guidance on each increment",
    ),
}


def mode_named(name: str, *, planner: bool) -> Mode:
    """The mode of that name for a model with or without planner."""
    table = PLANNER_MODES if planner else RENDERER_MODES
    if name not in table:
        kind = "with planner" if planner else "without planner"
        known = ", ".join([*table, DUAL_BRANCH])
        raise CaseError(f"unknown guidance mode {name!r} for a model {kind}; known: {known}")
    return table[name]


def active(mode: Mode, omegas: Omegas) -> list[tuple[float, Branch]]:
    """The increments that count, `(omega, branch)`: none after the last omega that is not 0."""
    chain = [(getattr(omegas, name), branch) for name, branch in mode.chain]
    if mode.zero_leaves_out:
        return [(omega, branch) for omega, branch in chain if omega != 0]
    while chain and chain[-1][0] == 0:
        chain.pop()
    return chain


def branches(mode: Mode | Mix, omegas: Omegas, sigma: float = 0.0) -> list[Branch]:
    """The branches a step needs, in the order of the chain; equal ones are found by the clip."""
    if isinstance(mode, Mix):
        return [branch for branch, weight in mode.weights(sigma).items() if weight != 0]
    return list(dict.fromkeys([mode.base, *(branch for _, branch in active(mode, omegas))]))


def guide(
    mode: Mode | Mix, omegas: Omegas, predictions: Mapping[Branch, Tensor], state: StepState
) -> Tensor:
    """Equation 12 for any chain, the weighted sum for a mix: the guided velocity."""
    if isinstance(mode, Mix):
        return sum(w * predictions[b] for b, w in mode.weights(state.sigma).items() if w != 0)
    if mode.projection is not None:
        state = replace(state, projection=mode.projection)
    direction = DIRECTIONS[mode.direction]
    guided = earlier = predictions[mode.base]
    for number, (omega, branch) in enumerate(active(mode, omegas)):
        later = predictions[branch]
        guided = guided + omega * direction(later, earlier, number, state)
        earlier = later
    return guided


def without_effect(mode: Mode | Mix, given: Iterable[str], *, planner: bool) -> list[str]:
    """Settings that were given by name but do nothing in this mode: to be said, not passed over."""
    omegas = {f"omega_{name}" for name in ("vid", "img", "txt", "tgt")}
    projection = {"eta", "norm_threshold", "momentum"}
    planning = {"planning_step", "vit_denoising_step", "vit_txt_cfg", "vit_img_cfg"}
    if isinstance(mode, Mix):
        idle = omegas | projection | {"omega_scale"}
    else:
        own_projection = mode.direction == "projected_clean" and mode.projection is None
        idle = omegas - {f"omega_{n}" for n, _ in mode.chain} | (set() if own_projection else projection)
        idle |= {"alpha", "alpha_schedule", "dual_weights"}
    idle |= set() if planner else planning
    return sorted(idle & set(given))
