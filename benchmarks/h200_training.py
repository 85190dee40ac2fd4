"""Training on one NVIDIA GPU, each row below ten minutes: `python -m benchmarks.h200_training --output FILE.md`.

    G6   packed training step, 1.3B widths, 8 layers, recomputed, against padded batches, sorted
         buckets and one by one (diffusers' blocks): useful tokens/s
    G7   planner forward and backward, hybrid mask, 7B widths, 8 layers: FlexAttention's block mask
         against the dense mask of the released inference
    G10  the longest pack that fits with activations kept, recomputed, offloaded

`--tiny` runs every row in miniature on any machine, to see that the script works. Random weights.
"""

from __future__ import annotations

import sys

import torch

from benchmarks.h200_model import Bench, peak, table
from benchmarks.model_timing import interleaved, relative
from benchmarks.training import FRAMES, models, packed, samples, step, ways
from bernini.config import RendererConfig
from bernini.renderer.transformer import Renderer
from bernini.train.cost import CostModel
from bernini.train.passes import ACTIVATIONS, PassOptions, adopt, planner_states

G6 = RendererConfig(num_attention_heads=12, ffn_dim=8960, num_layers=8)
MINI = RendererConfig(num_attention_heads=2, attention_head_dim=32, ffn_dim=64, num_layers=2, text_dim=32)


def g6(bench: Bench) -> list[str]:
    """The same samples through all ways; FLOPs of the useful work only."""
    sizes, side = (MINI, 4) if bench.tiny else (G6, 64)
    frames = FRAMES[:8] if bench.tiny else FRAMES
    ours, peer = models(sizes, bench.device, bench.dtype)
    if not bench.tiny:
        peer.enable_gradient_checkpointing()
    data = samples(frames, side, sizes, bench.device, bench.dtype)
    tokens = sum(x.shape[2] * side * side // 4 for x, _, _ in data)
    cost = CostModel(renderer_layers=sizes.num_layers, renderer_width=sizes.inner_dim, renderer_ffn=sizes.ffn_dim,
                     context=len(data[0][1]))  # fmt: skip
    useful = 3 * sum(cost.renderer_flops(x.shape[2] * side * side // 4) for x, _, _ in data)
    options = PassOptions("keep" if bench.tiny else "recompute")
    times = interleaved(ways(ours, peer, data, options), bench.repeats)
    first = times["packed (ours)"]
    what = f"{tokens:,} useful tokens{peak()}"
    return [f"| G6 | {what} | {n} | {t:.3f} | {tokens / t:,.0f} tokens/s, {useful / t / 1e12:.3g} TFLOP/s | "
            f"{t / first:.2f} |" for n, t in times.items()]  # fmt: skip


def g7(bench: Bench) -> list[str]:
    """Several documents with half their tokens a bidirectional target; first step of Flex includes compilation."""
    from benchmarks.planner_loop import planner, request
    from bernini.train import passes

    width, layers, count = (64, 3, 2) if bench.tiny else (3584, 9, 16)
    with torch.device(bench.device):
        model = adopt(planner(width, layers).to(bench.dtype).requires_grad_(True))
    grid = (2, 4, 4) if bench.tiny else (8, 24, 24)
    chats, features = request(model, grid, grid, 20)
    chat, features = chats["cond"], [f.to(bench.device, bench.dtype) for f in features]
    embedded = [model.embed(chat, features).detach() for _ in range(count)]

    def run():
        states = planner_states(model, [chat] * count, embedded, PassOptions())
        states.penultimate.float().square().mean().backward()
        model.zero_grad(set_to_none=True)
        return states.penultimate.detach()

    def dense():
        usual = passes.hybrid_attention
        passes.hybrid_attention = dense_attention
        try:
            return run()
        finally:
            passes.hybrid_attention = usual

    error = relative(run().float(), dense().float())
    times = interleaved({"block mask" if bench.device == "cuda" else "loop": run, "dense mask": dense}, bench.repeats)
    first = next(iter(times.values()))
    what = f"planner, {count * len(chat.ids):,} tokens, error {error:.1e}{peak()}"
    return [f"| G7 | {what} | {n} | {t:.3f} | | {t / first:.2f} |" for n, t in times.items()]


def dense_attention(chats, device):
    """One additive mask over the whole pack, as the released pipeline has it for one document."""
    from bernini.planner.masks import attend, visible

    total = sum(len(c.ids) for c in chats)
    mask, at = torch.zeros(total, total, dtype=torch.bool), 0
    for chat in chats:
        n = len(chat.ids)
        mask[at : at + n, at : at + n] = visible(chat.token_type, chat.segment_id)
        at += n
    mask = mask.to(device)
    return lambda q, k, v: attend(q, k, v, mask)


def g10(bench: Bench) -> list[str]:
    """Doubles, then bisects, until it does not fit; the size in miniature is only tried once."""
    rows, first = [], None
    for activations in ACTIVATIONS:
        sizes = MINI if bench.tiny else RendererConfig(num_attention_heads=12, ffn_dim=8960, num_layers=30)
        model = Renderer(sizes).to(bench.device, bench.dtype)
        most = largest(lambda n, m=model, a=activations: fits(m, n, PassOptions(a), bench), 64 if bench.tiny else 2048,
                       bench.tiny)  # fmt: skip
        first = first or most
        rows.append(f"| G10 | longest pack, 1.3B{peak()} | {activations} | | {most:,} tokens | {most / first:.2f} |")
    return rows


def fits(model: Renderer, tokens: int, options: PassOptions, bench: Bench) -> bool:
    """One forward and backward over clips of 32,768 tokens, which make the pack."""
    side = 8 if bench.tiny else 64
    frames = [min(32, left) for left in range(tokens // (side * side // 4), 0, -32)] or [1]
    data = samples(frames, side, model.config, bench.device, bench.dtype)
    try:
        step(model, lambda m, g: packed(m, g, options), [data])
    except torch.cuda.OutOfMemoryError:
        return False
    finally:
        if bench.device == "cuda":
            torch.cuda.empty_cache()
    return True


def largest(ok, start: int, once: bool) -> int:
    """Largest number for which `ok` holds, to an eighth."""
    size = start
    while ok(size) and not once:
        size *= 2
    low, high = (size // 2, size) if not once else (size, size)
    while high - low > low // 8 and not once:
        middle = (low + high) // 2
        low, high = (middle, high) if ok(middle) else (low, middle)
    return low


ROWS = {"G6": g6, "G7": g7, "G10": g10}


def main(argv: list[str] | None = None) -> int:
    head = ("Random weights: the architecture's speed.", "", "| row | what | way | s | speed | time / first |",
            "|---|---|---|---|---|---|")
    return table(ROWS, "Training timings", head, __doc__.splitlines()[0], argv)


if __name__ == "__main__":
    sys.exit(main())
