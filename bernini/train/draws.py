"""All that is random about one example, as a function of (seed, epoch, sample id, purpose).

Each number comes from a hash of those four, not from a generator that moves on: a draw depends on
nothing that was drawn before, so the stream is the same with any number of workers and ranks, and a
resumed run draws what the uninterrupted one would have drawn.

Distributions go through their inverse CDF, one uniform a draw, also inside an expert's interval:
no rejection. Mask ratio: Beta, Table 3. Noise level: logit-normal(0.5, 1) for images, mode(1.29)
for videos, then a shift, Table 4 with equations 6 and 7. Two recipes:

* "paper": exact sigmas, the shifts of Table 4; an expert's interval is one of sigmas.
* "released" (spec: model.md, 6 and 13): 1000 rows rounded to bfloat16, row `int(1000·u)`, shifts by
  task name, the interval in rows, sigma and timestep rounded apart.

u counts from noise (0) to clean (1), as in the released trainer: sigma = shift(1 - u).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from bernini.flow import TRAINING_SHIFT, index_range, shift_sigmas, training_table
from bernini.train.example import Draws
from manifests.errors import ConfigError
from manifests.tasks import IMAGE, TASKS

RECIPES = ("paper", "released")
# Table 3, by group of tasks. Interleaved documents are not in it: they edit images.
MASK_BETA = {"T2I": (5.0, 1.1), "T2V": (8.0, 1.05), "I2I": (8.0, 1.05), "I2V": (10.0, 1.0), "V2V": (12.0, 0.9),
             "IV2V": (12.0, 0.9), "Int.": (8.0, 1.05), "Und.": (8.0, 1.05)}
PAPER_SHIFT = {"T2I": 3.0, "T2V": 3.0, "I2I": 4.0, "I2V": 5.0, "V2V": 5.0, "IV2V": 5.0, "Int.": 4.0, "Und.": 4.0}
LOGIT_MEAN, LOGIT_STD, MODE_SCALE = 0.5, 1.0, 1.29
DECODER_SHIFT = 2.0  # of the planner's ViT decoder (spec 3.4)
_NORMAL = NormalDist()


@dataclass(frozen=True, kw_only=True)
class DrawSettings:
    """How examples are drawn. Defaults are the paper's."""

    recipe: str = "paper"
    """paper or released: shifts and table of noise levels."""
    interval: tuple[float, float] = (0.0, 1.0)
    """Lowest and highest sigma; an expert is trained on its own part."""
    drop_text: float = 0.1
    """Probability that the prompt is left out (the system prompt stays)."""
    drop_images: float = 0.1
    """Probability that all source images are left out."""
    drop_videos: float = 0.1
    """Probability that all source videos are left out."""
    drop_vit: float = 0.0
    """Probability that the planner does not see the sources; above 0 only where it conditions the renderer."""
    drop_plan: float = 0.0
    """Probability that the renderer is not shown the planned target; above 0 only as `drop_vit`."""

    def __post_init__(self):
        if self.recipe not in RECIPES:
            raise ConfigError(f"no noise recipe {self.recipe!r}; known: {', '.join(RECIPES)}")
        low, high = self.interval
        if not 0 <= low < high <= 1:
            raise ConfigError(f"the noise levels {low:g} to {high:g} are no interval inside 0 to 1")
        for name in ("drop_text", "drop_images", "drop_videos", "drop_vit", "drop_plan"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name):g}; it is a probability")


def words(*key: object) -> tuple[int, ...]:
    """Eight 64-bit integers of a key."""
    digest = hashlib.blake2b("\x1f".join(map(str, key)).encode()).digest()
    return tuple(int.from_bytes(digest[i : i + 8], "little") for i in range(0, 64, 8))


def uniform(*key: object) -> float:
    """A number in (0, 1), both ends left out, of a key."""
    return to_uniform(words(*key)[0])


def to_uniform(word: int) -> float:
    return ((word >> 12) + 0.5) * 2.0**-52


def drops(settings: DrawSettings, seed: int, epoch: str | int, sample_id: str) -> dict[str, bool]:
    """Which conditions are left out: `text`, `images`, `videos`, `vit`, `plan`, each drawn on its own."""
    shares = {"text": settings.drop_text, "images": settings.drop_images, "videos": settings.drop_videos}
    numbers = words(seed, epoch, sample_id, "drop")
    found = {name: to_uniform(word) < share for (name, share), word in zip(shares.items(), numbers, strict=False)}
    for name, share in (("vit", settings.drop_vit), ("plan", settings.drop_plan)):
        found[name] = uniform(seed, epoch, sample_id, f"drop {name}") < share
    return found


def draw(settings: DrawSettings, seed: int, epoch: str | int, sample_id: str, task: str) -> Draws:
    """The draws of one example. `epoch` counts the passes over its data set; a repeat within one is "3.1"."""
    def u(purpose: str) -> float:
        return uniform(seed, epoch, sample_id, purpose)

    def generator_seed(purpose: str) -> int:
        return words(seed, epoch, sample_id, purpose)[0] >> 1  # torch takes 63 bits

    sigma, timestep = noise_level(settings, task, u("sigma"))
    return Draws(
        sigma=sigma, timestep=timestep, noise_seed=generator_seed("noise"),
        mask_ratio=mask_ratio(seed, epoch, sample_id, task), mask_seed=generator_seed("mask order"),
        vit_sigma=float(shift_sigmas(u("vit sigma"), DECODER_SHIFT)), vit_noise_seed=generator_seed("vit noise"),
        **{f"drop_{name}": dropped for name, dropped in drops(settings, seed, epoch, sample_id).items()},
    )


def mask_ratio(seed: int, epoch: str | int, sample_id: str, task: str) -> float:
    """Share of the planned target that is masked (Table 3)."""
    return beta_quantile(uniform(seed, epoch, sample_id, "mask"), *MASK_BETA[TASKS[task].group])


def noise_level(settings: DrawSettings, task: str, p: float) -> tuple[float, float]:
    """`(sigma, timestep)` of the quantile `p` of the task's distribution, inside the expert's interval."""
    low, high = settings.interval
    if settings.recipe == "released":
        table = _released(TRAINING_SHIFT.get(task, 5.0), low, high)
        row = min(999, int(1000 * quantile(task, p, *table.interval)))
        return table.sigmas[row], table.timesteps[row]
    shift = PAPER_SHIFT[TASKS[task].group]
    sigma = shift_sigmas(1.0 - quantile(task, p, 1.0 - unshift(high, shift), 1.0 - unshift(low, shift)), shift)
    return sigma, 1000.0 * sigma


def unshift(sigma: float, shift: float) -> float:
    """The level before the shift: inverse of `flow.shift_sigmas`."""
    return sigma / (shift - (shift - 1) * sigma)


def is_image_task(task: str) -> bool:
    """Logit-normal or mode? By what is generated."""
    return TASKS[task].output == IMAGE


def quantile(task: str, p: float, low: float = 0.0, high: float = 1.0) -> float:
    """u of the task's density (equation 6 or 7), restricted to [low, high], at the quantile `p`."""
    if is_image_task(task):
        first, last = logit_normal_cdf(low), logit_normal_cdf(high)
        z = LOGIT_MEAN + LOGIT_STD * _NORMAL.inv_cdf(min(max(first + p * (last - first), 1e-300), 1 - 1e-16))
        return min(max(1.0 / (1.0 + math.exp(-z)), low), high)
    # r is uniform and u falls with r, so the quantile p of u is the quantile 1 - p of r.
    first, last = mode_inverse(low), mode_inverse(high)
    return min(max(mode(first + p * (last - first)), low), high)


def logit_normal_cdf(u: float) -> float:
    """Share of logit-normal(0.5, 1) below u."""
    if u <= 0.0 or u >= 1.0:
        return float(u >= 1.0)
    return _NORMAL.cdf((math.log(u / (1.0 - u)) - LOGIT_MEAN) / LOGIT_STD)


def mode(r: float) -> float:
    """Equation 7; falls from 1 to 0."""
    return 1.0 - r - MODE_SCALE * (math.cos(math.pi / 2 * r) ** 2 - 1.0 + r)


@lru_cache(maxsize=64)
def mode_inverse(u: float) -> float:
    """r with mode(r) = u, by halving."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if mode(middle) > u else (low, middle)
    return (low + high) / 2


@dataclass(frozen=True)
class _Table:
    """Rows of the released table: sigma of the first row with the same timestep, timestep, interval of u."""

    sigmas: list[float]
    timesteps: list[float]
    interval: tuple[float, float]


@lru_cache(maxsize=16)
def _released(shift: float, low: float, high: float) -> _Table:
    table = training_table(shift)
    first: dict[float, float] = {}
    for t, s in zip(table.timesteps.tolist(), table.sigmas.tolist(), strict=False):
        first.setdefault(t, s)
    begin, end = index_range(shift, low, high)
    timesteps = table.timesteps.tolist()
    return _Table([first[t] for t in timesteps], timesteps, (begin / 1000, end / 1000))


def beta_quantile(p: float, a: float, b: float) -> float:
    """Inverse CDF of Beta(a, b), to about 1e-6."""
    xs, cdf = _beta_table(a, b)
    return float(np.interp(p, cdf, xs))


@lru_cache(maxsize=16)
def _beta_table(a: float, b: float, panels: int = 16_384) -> tuple[np.ndarray, np.ndarray]:
    """Points x and their CDF. With y = (1 - x)^b the density is bounded also for b < 1; two Gauss points a panel."""
    y = np.linspace(0.0, 1.0, panels + 1)
    middle, half = (y[1:] + y[:-1]) / 2, 0.5 / panels
    inside = sum((1 - (middle + s * half / math.sqrt(3)) ** (1 / b)) ** (a - 1) for s in (-1, 1))
    above = np.concatenate([[0.0], np.cumsum(inside)])
    return (1 - y ** (1 / b))[::-1], (1 - above / above[-1])[::-1]
