"""One renderer forward against diffusers' `WanTransformer3DModel` on the same weights (CPU).

`python -m benchmarks.renderer_forward`: outputs agree first, then both are timed in one process.
"""

import torch

from benchmarks.model_timing import interleaved, machine, relative
from bernini.config import RendererConfig
from bernini.renderer.transformer import Renderer, SequenceInputs

WIDTHS = {
    "tiny (48 wide, 2 layers, 96 tokens)": (2, 24, 64, 2, (2, 16, 12)),
    "small (256 wide, 4 layers, 480 tokens)": (4, 64, 1024, 4, (5, 16, 24)),
    "medium (768 wide, 6 layers, 1440 tokens)": (6, 128, 2048, 6, (5, 24, 48)),
}


def pair(heads: int, head_dim: int, ffn: int, layers: int):
    """Ours and diffusers' with equal weights."""
    from diffusers import WanTransformer3DModel

    config = RendererConfig(
        num_attention_heads=heads, attention_head_dim=head_dim, ffn_dim=ffn, num_layers=layers, text_dim=512
    )
    theirs = WanTransformer3DModel.from_config(config.to_json()).eval()
    ours = Renderer(config).eval()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@torch.no_grad()
def compare(heads: int, head_dim: int, ffn: int, layers: int, thw: tuple[int, int, int], repeats: int):
    """(seconds of each way, largest relative difference)."""
    ours, theirs = pair(heads, head_dim, ffn, layers)
    latent, text, t = torch.randn(1, 16, *thw), torch.randn(1, 64, 512), torch.tensor([500])
    rope = ours.rope([(thw, 0.0)])
    context = ours.embed_context(text)
    constants = SequenceInputs(torch.zeros(0, heads * head_dim), rope, context, ours.keys_values(context))

    def whole():  # everything of one forward, as diffusers does it
        inputs = SequenceInputs(
            torch.zeros(0, heads * head_dim), ours.rope([(thw, 0.0)]), ours.embed_context(text)
        )
        return ours.unpatch(ours([ours.embed(latent)], t, [inputs])[0], thw)

    def step():  # what a denoising step costs, constants of the clip kept
        return ours.unpatch(ours([ours.embed(latent)], t, [constants])[0], thw)

    def peer():
        return theirs(latent, t, text, return_dict=False)[0]

    error = max(relative(whole(), peer()), relative(step(), peer()))
    return interleaved({"diffusers": peer, "ours": whole, "ours, in a loop": step}, repeats), error


def main(repeats: int = 5) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    print(f"renderer forward, float32, {machine()}, {2 * repeats} runs, medians")
    print("| size | diffusers ms | ours ms | ratio | ours in a loop ms | ratio | max error |")
    print("|---|---|---|---|---|---|---|")
    for name, (*sizes, thw) in WIDTHS.items():
        times, error = compare(*sizes, thw, repeats)
        peer, ours, step = (1000 * times[k] for k in ("diffusers", "ours", "ours, in a loop"))
        print(
            f"| {name} | {peer:.1f} | {ours:.1f} | {peer / ours:.2f} | {step:.1f} | {peer / step:.2f} "
            f"| {error:.1e} |"
        )


if __name__ == "__main__":
    main()
