"""One guided denoising step (RV2V, one video and two images): released rule, deduplicated, packed (CPU).

`python -m benchmarks.model_guided_step`. The released rule evaluates six branches one by one and
makes source tokens, rotary factors, text projection and cross keys anew in each.
"""

import torch

from benchmarks.model_timing import interleaved, machine, relative
from bernini.conditions import Sources
from bernini.config import RendererConfig
from bernini.generate.guidance import PLANNER_MODES, Omegas, StepState, branches, guide
from bernini.renderer.experts import Clip
from bernini.renderer.transformer import Renderer

OMEGAS = Omegas(vid=0.75, img=3.0, txt=4.0, tgt=1.5)
MODE = PLANNER_MODES["rv2v_wapg"]


def setting(
    heads: int, head_dim: int, ffn: int, layers: int, thw, device="cpu", dtype=torch.float32, text_dim=512
):
    """A renderer, sources, contexts and a noisy latent."""
    torch.manual_seed(0)
    config = RendererConfig(
        num_attention_heads=heads,
        attention_head_dim=head_dim,
        ffn_dim=ffn,
        num_layers=layers,
        text_dim=text_dim,
    )
    with torch.device(device):
        model = Renderer(config).to(dtype).eval().requires_grad_(False)
        images = [torch.randn(1, 16, 1, *thw[1:]) for _ in range(2)]
        sources = Sources.of([torch.randn(1, 16, *thw)], images)
        contexts = {n: torch.randn(1, 512, text_dim) for n in ("negative", "prompt", "plan")}
        latent = torch.randn(1, 16, *thw)
    return model, sources, contexts, latent, thw


def ways(model, sources, contexts, latent, thw) -> dict:
    """The three ways as functions of nothing, each giving the guided velocity."""
    t, state = torch.tensor(900.0, device=latent.device), StepState(latent, 0.9)
    wanted = branches(MODE, OMEGAS)

    def released():
        predictions = {}
        for branch in (wanted[-1], *wanted):  # the full branch twice
            clip = Clip(model, sources, contexts, thw, pack=False)
            predictions |= clip.predict(latent, t, [branch])
        return guide(MODE, OMEGAS, predictions, state)

    kept = {pack: Clip(model, sources, contexts, thw, pack=pack) for pack in (False, True)}

    def step(pack: bool):
        return lambda: guide(MODE, OMEGAS, kept[pack].predict(latent, t, wanted), state)

    return {"released": released, "deduplicated": step(False), "packed": step(True)}


def main(repeats: int = 5) -> None:
    torch.set_num_threads(1)
    print(f"guided RV2V step, 6 against 5 forwards, float32, {machine()}, {2 * repeats} runs, medians")
    print("| size | released rule ms | deduplicated ms | ratio | packed ms | ratio | max error |")
    print("|---|---|---|---|---|---|---|")
    for name, sizes in {
        "48 wide, 2 layers, 12 target tokens": (2, 24, 64, 2, (2, 4, 6)),
        "256 wide, 4 layers, 320 target tokens": (4, 64, 1024, 4, (5, 16, 16)),
    }.items():
        todo = ways(*setting(*sizes))
        error = max(relative(todo[k](), todo["released"]()) for k in ("deduplicated", "packed"))
        times = {k: 1000 * v for k, v in interleaved(todo, repeats).items()}
        one, two, three = (times[k] for k in ("released", "deduplicated", "packed"))
        print(
            f"| {name} | {one:.1f} | {two:.1f} | {one / two:.2f} | {three:.1f} | {one / three:.2f} "
            f"| {error:.1e} |"
        )


if __name__ == "__main__":
    main()
