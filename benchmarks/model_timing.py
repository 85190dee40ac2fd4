"""Honest timing of two or more ways to do the same: interleaved, medians, after a warm-up."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call, with the device finished."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def interleaved(ways: Mapping[str, Callable[[], object]], repeats: int = 5) -> dict[str, float]:
    """Median seconds of each way; order A B … B A, so that drift of the machine hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for work in ways.values():
        work()
    names = list(ways)
    for _ in range(repeats):
        for name in (*names, *reversed(names)):
            times[name].append(seconds(ways[name]))
    return {name: statistics.median(values) for name, values in times.items()}


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """max |a - b| / max |b|."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def machine() -> str:
    """What the numbers were measured on."""
    import platform

    device = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else platform.processor() or platform.machine()
    )
    return f"{device}, torch {torch.__version__}, {torch.get_num_threads()} thread(s)"
