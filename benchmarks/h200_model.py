"""Rows G1 to G5, G8, G9 and G11 on an NVIDIA GPU, as one dated table.

    python -m benchmarks.h200_model --output benchmarks/h200_model.md [--rows G1 G4] [--tiny]

Random weights: timings of the architecture, not of anybody's quality. Outputs are compared before
anything is timed. `--tiny` runs every row in miniature on any machine, to see that the script works.
TFLOP/s count matrix products only (2·m·n·k), by torch's own counter.
"""

import argparse
import datetime
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.model_timing import interleaved, machine, relative
from bernini.config import RendererConfig
from bernini.renderer.attention import _has_varlen
from bernini.renderer.layers import gated, modulate
from bernini.renderer.rope import rotate
from bernini.renderer.transformer import Renderer, SequenceInputs

SMALL = RendererConfig(num_attention_heads=12, ffn_dim=8960, num_layers=30)
LARGE = RendererConfig()
MINI = RendererConfig(num_attention_heads=2, attention_head_dim=32, ffn_dim=64, num_layers=2, text_dim=64)
CLIP = (21, 60, 104)  # latent of 81 frames at 832 x 480


@dataclass
class Bench:
    """Where and how large."""

    device: str
    dtype: torch.dtype
    tiny: bool
    repeats: int

    def config(self, full: RendererConfig) -> RendererConfig:
        return MINI if self.tiny else full

    def latent(self, frames: int = CLIP[0]) -> tuple[int, int, int]:
        return (2, 4, 4) if self.tiny else (frames, *CLIP[1:])

    def renderer(self, full: RendererConfig, attention: str = "auto") -> Renderer:
        with torch.device(self.device):
            torch.set_default_dtype(self.dtype)
            try:
                return Renderer(self.config(full), attention).eval().requires_grad_(False)
            finally:
                torch.set_default_dtype(torch.float32)

    def randn(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=self.device, dtype=self.dtype)


def flops(work) -> float:
    """Counted operations of one call."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def line(row: str, what: str, times: dict[str, float], work: float, error: float | None) -> list[str]:
    """Table lines: every way, its seconds, TFLOP/s and ratio to the first."""
    first = next(iter(times.values()))
    said = "" if error is None else f"{error:.1e}"
    return [
        f"| {row} | {what} | {name} | {t:.4f} | {work / t / 1e12:.0f} | {first / t:.2f} | {said} |"
        for name, t in times.items()
    ]


def peak() -> str:
    if not torch.cuda.is_available():
        return ""
    gb = torch.cuda.max_memory_allocated() / 2**30
    torch.cuda.reset_peak_memory_stats()
    return f" (peak {gb:.1f} GiB)"


def inputs(bench: Bench, model: Renderer, segments) -> SequenceInputs:
    """Constants of a clip with the given source segments before the target."""
    sources = [model.embed(bench.randn(1, 16, *thw)) for thw, _ in segments[:-1]]
    context = model.embed_context(bench.randn(1, 512, model.config.text_dim))
    empty = bench.randn(0, model.config.inner_dim)
    return SequenceInputs(
        torch.cat([empty, *sources]), model.rope(segments), context, model.keys_values(context)
    )


@torch.no_grad()
def forward(bench: Bench, row: str, full: RendererConfig) -> list[str]:
    """G1, G2: one forward of 81 frames at 480p against diffusers eager, cuDNN and compiled blocks."""
    from diffusers import WanTransformer3DModel

    thw, ours = bench.latent(), bench.renderer(full)
    with torch.device(bench.device):
        theirs = WanTransformer3DModel.from_config(ours.config.to_json()).to(bench.dtype).eval()
    theirs.load_state_dict(ours.state_dict())
    latent, text = bench.randn(1, 16, *thw), bench.randn(1, 512, ours.config.text_dim)
    t = torch.tensor([500], device=bench.device)

    def run():
        constants = SequenceInputs(
            bench.randn(0, ours.config.inner_dim), ours.rope([(thw, 0.0)]), ours.embed_context(text)
        )
        return ours.unpatch(ours([ours.embed(latent)], t, [constants])[0], thw)

    def peer():
        return theirs(latent, t, text, return_dict=False)[0]

    error, work = relative(run(), peer()), flops(peer)
    ways = {"diffusers eager": peer, "ours eager": run}
    times = interleaved(ways, bench.repeats)
    if bench.device == "cuda":
        theirs.set_attention_backend("_native_cudnn")
        times |= interleaved({"diffusers cuDNN": peer}, bench.repeats)
        for block in ours.blocks:
            block.compile()
        theirs.compile_repeated_blocks()
        times |= interleaved({"diffusers compiled": peer, "ours compiled": run}, bench.repeats)
    return line(row, f"forward {thw}{peak()}", times, work, error)


@torch.no_grad()
def with_source(bench: Bench, row: str) -> list[str]:
    """G3: target and one source video, 2N tokens, against a plain clip of twice the frames."""
    thw, model = bench.latent(), bench.renderer(SMALL)
    both = inputs(bench, model, [(thw, 1.0), (thw, 0.0)])
    double = (2 * thw[0], *thw[1:])
    alone = inputs(bench, model, [(double, 0.0)])
    t, small, large = (
        torch.tensor([500], device=bench.device),
        bench.randn(1, 16, *thw),
        bench.randn(1, 16, *double),
    )
    ways = {
        "plain clip, 2N tokens": lambda: model([model.embed(large)], t, [alone]),
        "source and target": lambda: model([model.embed(small)], t, [both]),
    }
    return line(
        row, f"V2V forward{peak()}", interleaved(ways, bench.repeats), flops(ways["source and target"]), None
    )


@torch.no_grad()
def guided_step(bench: Bench, row: str) -> list[str]:
    """G4: an RV2V step, 33 frames: six forwards, five with kept constants, five in one call."""
    from benchmarks.model_guided_step import setting, ways

    c, thw = bench.config(SMALL), bench.latent(9)
    case = setting(
        c.num_attention_heads,
        c.attention_head_dim,
        c.ffn_dim,
        c.num_layers,
        thw,
        bench.device,
        bench.dtype,
        c.text_dim,
    )
    todo = ways(*case)
    error = max(relative(todo[k](), todo["released"]()) for k in ("deduplicated", "packed"))
    what = "guided RV2V step" + (
        ", packed through varlen" if bench.device == "cuda" and _has_varlen() else ""
    )
    return line(row, what + peak(), interleaved(todo, bench.repeats), flops(todo["deduplicated"]), error)


class IsolatedSources:
    """A variant of the model, for its speed only: sources see themselves at t = 0, once a clip."""

    def __init__(self, model: Renderer, bench: Bench, thw: tuple[int, int, int]):
        self.model, self.thw = model, thw
        self.source = inputs(bench, model, [(thw, 1.0)])
        self.target = inputs(bench, model, [(thw, 0.0)])
        self.kept: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.run(
            model.embed(bench.randn(1, 16, *thw)), torch.zeros(1, device=bench.device), self.source, keep=True
        )

    def run(
        self, x: torch.Tensor, t: torch.Tensor, inputs: SequenceInputs, keep: bool = False
    ) -> torch.Tensor:
        """Hidden states of x; keeps its keys and values, or sees the kept ones."""
        model, n = self.model, [len(x)]
        time = model.condition_embedder.time(t, x.dtype)[1]
        for i, block in enumerate(model.blocks):
            shift1, scale1, gate1, shift2, scale2, gate2 = (block.scale_shift_table + time.float()).unbind(1)
            y = modulate(block.norm1(x), shift1, scale1, n).to(x.dtype)
            q, (k, v) = block.attn1.queries(y), block.attn1.keys_values(y)
            q, k = rotate(q, inputs.rope), rotate(k, inputs.rope)
            if keep:
                self.kept.append((k, v))
            else:
                k, v = torch.cat([self.kept[i][0], k]), torch.cat([self.kept[i][1], v])
            x = gated(x, block.attn1.merge(model.attend(q, k, v, n, [len(k)])), gate1, n)
            q = block.attn2.queries(block.norm2(x).to(x.dtype))
            x = x + block.attn2.merge(model.attend(q, *inputs.keys_values[i], n, [len(inputs.context)]))
            x = gated(x, block.ffn(modulate(block.norm3(x), shift2, scale2, n).to(x.dtype)).float(), gate2, n)
        return x


@torch.no_grad()
def isolated(bench: Bench, row: str) -> list[str]:
    """G5: full attention over source and target against kept keys and values of isolated sources."""
    thw, model = bench.latent(), bench.renderer(SMALL)
    both, variant = inputs(bench, model, [(thw, 1.0), (thw, 0.0)]), IsolatedSources(model, bench, thw)
    t, latent = torch.tensor([500.0], device=bench.device), bench.randn(1, 16, *thw)
    ways = {
        "full attention": lambda: model([model.embed(latent)], t, [both]),
        "isolated sources (another model function)": lambda: variant.run(
            model.embed(latent), t, variant.target
        ),
    }
    return line(
        row, f"V2V forward{peak()}", interleaved(ways, bench.repeats), flops(ways["full attention"]), None
    )


def planner_loop(bench: Bench, row: str) -> list[str]:
    """G8: 25 planning steps, 7B sizes, about 1200 tokens, against the released rule."""
    from benchmarks.planner_loop import noise, planner, released, request
    from bernini.planner.plan import Planning, PlanSettings

    width, layers = (64, 3) if bench.tiny else (3584, 28)
    with torch.device(bench.device):
        model = planner(width, layers).to(bench.dtype)
    grid = (2, 4, 4) if bench.tiny else (5, 12, 20)
    chats, features = request(model, grid, grid, 20 if bench.tiny else 400)
    features = [f.to(bench.device, bench.dtype) for f in features]
    settings = PlanSettings(num_steps=25, decoder_steps=5)
    target = chats["cond"].target
    order = torch.randperm(target.stop - target.start, generator=torch.Generator().manual_seed(0)).tolist()

    def device_noise():
        draw = noise(width)
        return lambda n: draw(n).to(bench.device, bench.dtype)

    ways = {
        "released rule": lambda: released(model, chats, features, order, settings, device_noise()),
        "kept prefix": lambda: (
            Planning(model, chats, features, settings).run(order, device_noise()).with_target
        ),
    }
    error = relative(ways["kept prefix"]().float(), ways["released rule"]().float())
    work = flops(ways["kept prefix"])
    return line(row, f"planner, {len(chats['cond'].ids)} tokens{peak()}", interleaved(ways, 1), work, error)


@torch.no_grad()
def decode(bench: Bench, row: str) -> list[str]:
    """G9: autoencoder decode of 81 frames 480 x 832: float32, bfloat16, channels-last."""
    from bernini.layouts import make_vae
    from bernini.tiny import tiny_vae

    t, y, x = (3, 8, 8) if bench.tiny else CLIP
    with torch.device(bench.device):
        model = (tiny_vae() if bench.tiny else make_vae({})).eval().requires_grad_(False)
    z = torch.randn(1, 16, t, y, x, device=bench.device)
    exact = model.decode(z, return_dict=False)[0]
    times = interleaved({"diffusers float32": lambda: model.decode(z, return_dict=False)}, 2)
    half, low = model.bfloat16(), z.bfloat16()
    error = relative(half.decode(low, return_dict=False)[0].float(), exact)
    times |= interleaved({"bfloat16": lambda: half.decode(low, return_dict=False)}, 2)
    for module in half.modules():
        if isinstance(module, torch.nn.Conv3d):
            module.to(memory_format=torch.channels_last_3d)
    low = low.contiguous(memory_format=torch.channels_last_3d)
    times |= interleaved({"bfloat16, channels last": lambda: half.decode(low, return_dict=False)}, 2)
    return line(row, f"autoencoder decode{peak()}; error is that of bfloat16", times, 0.0, error)


@torch.no_grad()
def end_to_end(bench: Bench, row: str) -> list[str]:
    """G11: T2V, 1.3B: 4 steps without guidance and 10 with, then decode, against diffusers' `WanPipeline`."""
    from diffusers import UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel

    from bernini.conditions import Sources
    from bernini.generate.guidance import RENDERER_MODES, Mode, Omegas, prompt
    from bernini.generate.sample import Denoiser, initial_noise
    from bernini.generate.solver import solver_named
    from bernini.layouts import make_vae
    from bernini.renderer.experts import Experts
    from bernini.tiny import tiny_vae
    from bernini.vae import Autoencoder

    thw, model = bench.latent(), bench.renderer(SMALL)
    with torch.device(bench.device):
        vae = (tiny_vae() if bench.tiny else make_vae({})).eval().requires_grad_(False)
        theirs = WanTransformer3DModel.from_config(model.config.to_json()).to(bench.dtype).eval()
    theirs.load_state_dict(model.state_dict())
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0
    )
    pipe = WanPipeline(tokenizer=None, text_encoder=None, vae=vae, scheduler=scheduler, transformer=theirs)
    pipe.set_progress_bar_config(disable=True)
    texts = {n: bench.randn(1, 512, model.config.text_dim) for n in ("prompt", "negative")}
    noise = initial_noise(thw, 0).to(bench.device)
    own = Autoencoder(vae)

    def ours(steps: int, scale: float):
        omegas = Omegas(txt=scale)
        mode = RENDERER_MODES["t2v"] if scale != 1 else Mode(base=prompt, chain=())
        denoiser = Denoiser(Experts(model), mode, omegas)
        return own.decode(denoiser(noise, Sources(), texts, solver_named("unipc", steps, 5.0)))

    def peer(steps: int, scale: float):
        return pipe(
            prompt_embeds=texts["prompt"],
            negative_prompt_embeds=texts["negative"],
            height=8 * thw[1],
            width=8 * thw[2],
            num_frames=4 * thw[0] - 3,
            num_inference_steps=steps,
            guidance_scale=scale,
            latents=noise.clone(),
            output_type="np",
        ).frames

    lines = []
    for steps, scale in ((4, 1.0), (10, 5.0)):
        ways = {
            "diffusers WanPipeline": lambda s=steps, g=scale: peer(s, g),
            "ours": lambda s=steps, g=scale: ours(s, g),
        }
        lines += line(row, f"T2V {steps} steps, guidance {scale:g}{peak()}", interleaved(ways, 1), 0.0, None)
    return lines


ROWS = {
    "G1": lambda b: forward(b, "G1", SMALL),
    "G2": lambda b: forward(b, "G2", LARGE),
    "G3": lambda b: with_source(b, "G3"),
    "G4": lambda b: guided_step(b, "G4"),
    "G5": lambda b: isolated(b, "G5"),
    "G8": lambda b: planner_loop(b, "G8"),
    "G9": lambda b: decode(b, "G9"),
    "G11": lambda b: end_to_end(b, "G11"),
}


def table(rows: Mapping[str, Callable[[Bench], list[str]]], title: str, head: Sequence[str], about: str,
          argv: list[str] | None) -> int:
    """The command of a script of rows: `title` before the date, `head` below it (the last two lines begin the table);
    a row that does not fit into memory is a line of the table."""
    p = argparse.ArgumentParser(description=about)
    p.add_argument("--rows", nargs="*", default=list(rows), choices=rows)
    p.add_argument("--output", help="Markdown file for the table")
    p.add_argument("--tiny", action="store_true", help="miniature sizes, any machine")
    p.add_argument("--repeats", type=int, default=3)
    args = p.parse_args(argv)
    if not torch.cuda.is_available() and not args.tiny:
        print("error: no NVIDIA GPU here; --tiny runs the rows in miniature", file=sys.stderr)
        return 2
    device = "cuda" if torch.cuda.is_available() else "cpu"
    bench = Bench(device, torch.bfloat16 if device == "cuda" else torch.float32, args.tiny, args.repeats)
    sizes = "miniature sizes, " if args.tiny else ""
    lines = [f"# {title}, {datetime.date.today()}, {sizes}{machine()}, {bench.dtype}", "", *head]
    for row in args.rows:
        torch.manual_seed(0)
        try:
            lines += rows[row](bench)
        except torch.cuda.OutOfMemoryError:
            lines.append(f"| {row} | out of memory |{' |' * (head[-1].count('|') - 3)}")
        print(lines[-1], flush=True)
        if device == "cuda":
            torch.cuda.empty_cache()
    text = "\n".join(lines) + "\n"
    if args.output:
        Path(args.output).write_text(text)
    print(text)
    return 0


def main(argv: list[str] | None = None) -> int:
    head = ("Random weights: the architecture's speed. Ratio: first way of a row over this one.", "",
            "| row | what | way | s | TFLOP/s | ratio | max error |", "|---|---|---|---|---|---|---|")
    return table(ROWS, "Model timings", head, __doc__.splitlines()[0], argv)


if __name__ == "__main__":
    sys.exit(main())
