"""Histograms and the funnel of the report, as inline SVG and HTML with no script.

Fig. 4 of the paper: similarity of the pairs, length of the clips, tokens of the prompts.
Colours come from CSS classes, so that the same drawing works on dark and on light.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .columns import FAILED
from .manifest import Manifest
from .report_text import count, esc, number, share

WIDTH, HEIGHT = 400, 236
LEFT, RIGHT, TOP, BOTTOM = 46, 388, 26, 192
MAX_REASONS = 12
OWN_SCALE = 3.0  # rejected rows get an axis of their own when they tower over the accepted by this much
TITLES = {"videos": "Videos", "clips": "Clips", "frames": "Frames", "documents": "Documents",
          "candidates": "Candidate pairs", "pairs": "Pairs", "samples": "Training samples"}


@dataclass(frozen=True)
class Histogram:
    """`accepted` and `rejected` (N,) float64, NaN where it was not measured."""

    title: str
    unit: str
    noun: str                                # what is counted, plural
    accepted: np.ndarray
    rejected: np.ndarray
    step: float | None = None                # bin width; chosen when None
    span: tuple[float, float] | None = None  # shown at least
    band: tuple[float, float] | None = None  # shaded: what the paper keeps
    is_count: bool = False
    has_tails: bool = False                  # a few far values may lie beyond the axis, counted in words


def histogram(h: Histogram) -> str:
    """A `<figure>` with the drawing, and the same in words."""
    accepted, rejected = (a[np.isfinite(a)] for a in (h.accepted, h.rejected))
    if not len(accepted) and not len(rejected):
        return (f'<figure class="chart"><h3>{esc(h.title)}</h3>'
                f'<p class="empty">No measured values of {esc(h.noun)}.</p></figure>')
    edges = _edges(h, np.concatenate([accepted, rejected]))
    counts, others = (np.histogram(a, edges)[0] for a in (accepted, rejected))
    beyond = len(accepted) + len(rejected) - int(counts.sum() + others.sum())
    words = _in_words(h, accepted, len(rejected)) + (f"; {count(beyond)} beyond the axis" if beyond else "")
    return (f'<figure class="chart"><h3>{esc(h.title)}</h3>{_drawing(h, edges, counts, others, words)}'
            f"<figcaption>{esc(words)}</figcaption></figure>")


def _in_words(h: Histogram, accepted: np.ndarray, num_rejected: int) -> str:
    words = [f"{count(len(accepted))} {h.noun}"]
    if len(accepted):
        low, middle, high = np.quantile(accepted, (0, 0.5, 1))
        words.append(f"median {number(float(middle))}, from {number(float(low))} to {number(float(high))}")
    if num_rejected:
        words.append(f"outlined: {count(num_rejected)} rejected")
    unmeasured = int(np.isnan(h.accepted).sum())
    return "; ".join(words + ([f"{count(unmeasured)} not measured"] if unmeasured else []))


def _edges(h: Histogram, values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    if h.has_tails:
        near, far = np.quantile(values, (0.05, 0.95))
        low, high = max(low, near - 1.5 * (far - near)), min(high, far + 1.5 * (far - near))
        low, high = (low, high) if low < high else (float(values.min()), float(values.max()))
    if low == high:  # one value: a bar in the middle of a little room
        room = 5 if h.is_count else abs(low) / 4 or 1.0
        low, high = low - room, high + room
    if h.span:
        low, high = min(low, h.span[0]), max(high, h.span[1])
    step = h.step or _nice((high - low) / 24)
    if (high - low) / step > 60:
        step = _nice((high - low) / 30)
    step = max(1.0, round(step)) if h.is_count else step
    first = math.floor(low / step + 1e-9)
    last = max(math.ceil(high / step - 1e-9), first + 1)
    if h.is_count and high >= last * step:  # a whole number starts its bin
        last += 1
    return np.arange(first, last + 1) * step


def _nice(step: float) -> float:
    """1, 2, 2.5 or 5 times a power of ten, at least `step`."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= step * (1 - 1e-9))


def _drawing(h: Histogram, edges: np.ndarray, counts: np.ndarray, others: np.ndarray, words: str) -> str:
    top = int(counts.max()) or int(others.max())
    own_scale = bool(counts.any()) and others.max() > OWN_SCALE * counts.max()
    top = top if own_scale else max(top, int(others.max()))
    x = LEFT + (RIGHT - LEFT) * (edges - edges[0]) / (edges[-1] - edges[0])
    svg = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{esc(h.title)}: {esc(words)}">']
    if h.band:
        a, b = np.interp(h.band, edges, x)
        svg.append(f'<rect class="band" x="{a:.1f}" y="{TOP}" width="{b - a:.1f}" height="{BOTTOM - TOP}"/>')
    svg += _count_axis(top, h.noun)
    if others.any():
        svg += _outline(x, others, int(others.max()) if own_scale else top, own_scale)
    svg += _bars(x, counts, top, edges)
    svg += _value_axis(edges, x, h.unit)
    return "".join(svg) + "</svg>"


def _height(value: float, top: int) -> float:
    return BOTTOM - (BOTTOM - TOP) * value / top


def _bars(x: np.ndarray, counts: np.ndarray, top: int, edges: np.ndarray) -> list[str]:
    gap = 1.0 if x[1] - x[0] > 5 else 0.3
    return [f'<rect class="bar" x="{x[i] + gap / 2:.1f}" y="{_height(n, top):.1f}" '
            f'width="{x[i + 1] - x[i] - gap:.1f}" height="{BOTTOM - _height(n, top):.1f}">'
            f"<title>{number(float(edges[i]))} – {number(float(edges[i + 1]))}: {count(int(n))}</title></rect>"
            for i, n in enumerate(counts) if n]


def _outline(x: np.ndarray, counts: np.ndarray, top: int, own_scale: bool) -> list[str]:
    steps = "".join(f"V{_height(n, top):.1f}H{x[i + 1]:.1f}" for i, n in enumerate(counts))
    label = f"outline: own scale, up to {count(int(counts.max()))}" if own_scale else "outline: rejected"
    return [f'<path class="outline" d="M{x[0]:.1f} {BOTTOM}{steps}V{BOTTOM}"/>',
            f'<text class="muted" x="{RIGHT}" y="16" text-anchor="end">{label}</text>']


def _count_axis(top: int, noun: str) -> list[str]:
    step = max(1, int(_nice(top / 4)))
    lines = [f'<text x="2" y="16" class="muted">{esc(noun)}</text>']
    for n in range(0, top + 1, step):
        y = _height(n, top)
        lines.append(f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
                     f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{count(n)}</text>')
    return lines


def _value_axis(edges: np.ndarray, x: np.ndarray, unit: str) -> list[str]:
    step = _nice((edges[-1] - edges[0]) / 6)
    lines = [f'<line class="axis" x1="{LEFT}" x2="{RIGHT}" y1="{BOTTOM}" y2="{BOTTOM}"/>']
    for i in range(math.ceil(edges[0] / step - 1e-9), math.floor(edges[-1] / step + 1e-9) + 1):
        place, label = float(np.interp(i * step, edges, x)), number(round(i * step, 9))
        lines.append(f'<text x="{place:.1f}" y="{BOTTOM + 16}" text-anchor="middle">{label}</text>')
    return [*lines, f'<text x="{(LEFT + RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle" class="muted">'
                    f"{esc(unit)}</text>"]


def funnel(manifests: Sequence[Manifest]) -> str:
    """One block a stop: what went in, what was accepted, and each reason with its share."""
    blocks = []
    for manifest in manifests:
        rows, drops = manifest.header["rows"], manifest.header.get("drops") or {}
        accepted = rows - sum(drops.values())
        failed = sum(n for reason, n in drops.items() if reason.startswith(FAILED))
        rejected = rows - accepted - failed
        title = TITLES.get(manifest.stop.name, manifest.stop.name)
        blocks.append(
            f'<li class="stop"><h3>{esc(title)} <span class="mono">{esc(manifest.name)}</span></h3>'
            f'<p class="sum"><b>{count(rows)}</b> in = <b class="ok">{count(accepted)}</b> accepted + '
            f'<b class="no">{count(rejected)}</b> rejected + <b class="bad">{count(failed)}</b> failed</p>'
            f'{_stacked(rows, (("ok", accepted), ("no", rejected), ("bad", failed)))}{_reasons(drops, rows)}</li>')
    return f'<ol class="funnel">{"".join(blocks)}</ol>'


def _stacked(rows: int, parts: Sequence[tuple[str, int]]) -> str:
    pieces = "".join(f'<i class="{kind}" style="flex-grow:{n}"></i>' for kind, n in parts if n)
    return f'<div class="stack" aria-hidden="true">{pieces or "<i></i>"}</div>'


def _reasons(drops: dict[str, int], rows: int) -> str:
    """The most frequent reasons; the others as one line, so that the list adds up."""
    if not drops:
        return ""
    order = sorted(drops.items(), key=lambda item: (-item[1], item[0]))
    shown, others = order[:MAX_REASONS], order[MAX_REASONS:]
    if others:
        shown = [*shown, (f"{len(others)} more reasons", sum(n for _, n in others))]
    lines = [f'<tr><th scope="row">{esc(reason, 160)}</th><td class="num">{count(n)}</td>'
             f'<td class="num muted">{share(n, rows)}</td><td class="wide" aria-hidden="true">'
             f'<i class="{"bad" if reason.startswith(FAILED) else "no"}" style="width:{100 * n / rows:.2f}%"></i>'
             "</td></tr>" for reason, n in shown]
    return f'<table class="reasons"><caption class="unseen">Drop reasons</caption>{"".join(lines)}</table>'
