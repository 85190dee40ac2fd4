"""Packs of random tensors and latents of random numbers, for the training core alone."""

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="needs the extra 'models': pip install 'bernini[models]'")

from bernini.train.dataset import Dataset  # noqa: E402
from bernini.train.example import Draws, Example, Pack, Part, Visual  # noqa: E402

from .latents import write_latents  # noqa: E402
from .streams import NEEDS, TASKS  # noqa: E402

TEXT, VIT = 32, 64  # widths of the tiny model


def visual(g, kind="image", target=False, thw=None, grid=None) -> Visual:
    thw = thw or ((2, 4, 4) if kind == "video" else (1, 4, 4))
    grid = grid or ((2, 4, 4) if kind == "video" else (1, 4, 6))
    count = grid[0] * grid[1] * grid[2] // 4
    return Visual(kind=kind, is_target=target, latent=torch.randn(1, 16, *thw, generator=g).bfloat16(),
                  vit=torch.randn(count, VIT, generator=g).bfloat16(), grid=grid)


def example(number: int, task: str = "v2v", **changes) -> Example:
    """One sample of a task; lengths vary with its number."""
    g = torch.Generator().manual_seed(number)
    wide = (1, 4, 4 + 2 * (number % 3))
    parts, visuals = [], []
    for kind in {"t2i": [], "t2v": [], "i2i": ["image"], "v2v": ["video"], "vr2v": ["video", "image", "image"],
                 "understanding": ["image"], "cot": ["video"]}[task]:
        parts.append(Part(visual=len(visuals)))
        visuals.append(visual(g, kind, thw=wide if kind == "image" else None))
    parts.append(Part(text=f"make it {number}"))
    if task in ("understanding", "cot"):
        parts.append(Part(text=f"because of {number}", has_loss=True))
    if task != "understanding":
        parts.append(Part(visual=len(visuals), has_loss=True))
        kind = "image" if task.endswith("2i") else "video"
        visuals.append(visual(g, kind, target=True, thw=wide if kind == "image" else None))
    made = Example(sample_id=f"s{number}", task={"cot": "v2v"}.get(task, task), source_name="test",
                   parts=tuple(parts), visuals=tuple(visuals),
                   text_embedding=torch.randn(3 + number % 4, TEXT, generator=g),
                   empty_embedding=torch.randn(2, TEXT, generator=g))
    return replace(made, **changes)


def draws(number: int, epoch: int = 0, **changes) -> Draws:
    g = torch.Generator().manual_seed(1000 * epoch + number)
    sigma, ratio, level = torch.rand(3, generator=g).tolist()
    made = Draws(sigma=sigma, timestep=1000 * sigma, noise_seed=number + 7 * epoch, mask_ratio=0.3 + 0.6 * ratio,
                 mask_seed=number, vit_sigma=level, vit_noise_seed=number)
    return replace(made, **changes)


def pack(tasks, first: int = 0, epoch: int = 0, **changes) -> Pack:
    """A pack of one example of each task."""
    numbers = range(first, first + len(tasks))
    examples = [example(n, task) for n, task in zip(numbers, tasks, strict=True)]
    return Pack(examples=examples, draws=[draws(n, epoch, **changes) for n in numbers],
                num_tokens=100 * len(tasks), flops=1e6, epoch=epoch)


def singles(of: Pack) -> list[Pack]:
    return [replace(of, examples=[e], draws=[d]) for e, d in zip(of.examples, of.draws, strict=True)]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Made-up latents of three data sets."""
    return write_latents(tmp_path_factory.mktemp("latents"), TASKS)


@pytest.fixture(scope="module")
def dataset(manifest):
    return Dataset([manifest], needs=NEEDS)
