"""The planning loop with kept prefixes against the released rule (whole passes) on the same weights (CPU).

`python -m benchmarks.planner_loop`
"""

import torch

from benchmarks.model_timing import interleaved, machine, relative
from bernini.config import HeadsConfig
from bernini.planner.chat import Visual, build, runs
from bernini.planner.model import Planner
from bernini.planner.plan import Planning, PlanSettings, leaving

STEPS = 25


def planner(width: int, layers: int) -> Planner:
    """Qwen2.5-VL of a chosen width, random weights."""
    from bernini.tiny import tiny_mllm_config

    config = tiny_mllm_config()
    heads = width // 16
    for name, value in dict(
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 4),
    ).items():
        setattr(config.text_config, name, value)
    config.text_config.layer_types = ["full_attention"] * layers
    config.vision_config.out_hidden_size = width
    sizes = HeadsConfig(
        hidden=width,
        context_dim=width,
        vit_dim=width,
        decoder_width=width,
        decoder_depth=2,
        num_mask_tokens=1,
    )
    return Planner(config, sizes).eval().requires_grad_(False)


def request(model: Planner, source_grid, target_grid, words: int):
    """Three chats and the features of the source."""
    source, target = Visual("video", "source", source_grid), Visual("video", "target", target_grid)

    def tokenize(text: str) -> list[int]:
        return [ord(c) % 250 for c in text]

    prompt = "x" * words
    chats = {
        name: build(runs("v2v", prompt, visuals, target), tokenize, model.special)
        for name, visuals in (("cond", [source]), ("nothing", []), ("prompt_only", []))
    }
    chats["nothing"] = build(runs("v2v", "y" * words, [], target), tokenize, model.special)
    torch.manual_seed(1)
    return chats, [torch.randn(source.num_tokens(2), model.mask_tokens.shape[-1])]


def noise(width: int):
    generator = torch.Generator().manual_seed(0)
    return lambda n: torch.randn(n, width, generator=generator)


@torch.no_grad()
def released(model: Planner, chats, features, order, settings, make_noise) -> torch.Tensor:
    """Whole sequences through all layers, three branches, every step; then the conditional pass."""
    inputs = {n: model.embed(c, features) for n, c in chats.items()}
    for indices in leaving(order, settings.num_steps):
        hidden = {n: model.hidden_states(chats[n], inputs[n])[-2] for n in chats}
        if not indices:
            continue
        conditions = {n: model.connector.for_decoder(h[chats[n].target][indices]) for n, h in hidden.items()}
        new = model.vit_decoder.sample(
            make_noise(len(indices)),
            conditions,
            num_steps=settings.decoder_steps,
            source_guidance=settings.source_guidance,
            prompt_guidance=settings.prompt_guidance,
        )
        for n, chat in chats.items():
            inputs[n][torch.arange(chat.target.start, chat.target.stop)[indices]] = new
    return model.connector.for_renderer(model.hidden_states(chats["cond"], inputs["cond"])[-2])


def compare(width: int, layers: int, source_grid, target_grid, words: int, repeats: int):
    """(seconds of each way, largest relative difference, tokens of the conditional branch)."""
    model = planner(width, layers)
    chats, features = request(model, source_grid, target_grid, words)
    settings = PlanSettings(num_steps=STEPS, decoder_steps=1)
    target = chats["cond"].target
    order = torch.randperm(target.stop - target.start, generator=torch.Generator().manual_seed(2)).tolist()

    def kept():
        return Planning(model, chats, features, settings).run(order, noise(width)).with_target

    def whole():
        return released(model, chats, features, order, settings, noise(width))

    return (
        interleaved({"released": whole, "ours": kept}, repeats),
        relative(kept(), whole()),
        len(chats["cond"].ids),
    )


def main(repeats: int = 2) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    print(f"planner loop, {STEPS} steps, three branches, float32, {machine()}, {2 * repeats} runs, medians")
    print("| size | tokens (target) | released rule s | ours s | ratio | max error |")
    print("|---|---|---|---|---|---|")
    for name, case in {
        "64 wide, 4 layers": (64, 4, (4, 8, 8), (4, 8, 8), 100),
        "256 wide, 8 layers": (256, 8, (4, 12, 20), (4, 12, 20), 150),
    }.items():
        times, error, tokens = compare(*case, repeats)
        target = case[3][0] * case[3][1] * case[3][2] // 4
        print(
            f"| {name} | {tokens} ({target}) | {times['released']:.3f} | {times['ours']:.3f} | "
            f"{times['released'] / times['ours']:.2f} | {error:.1e} |"
        )


if __name__ == "__main__":
    main()
