"""Training steps: packed against a padded batch and against sorted buckets (C2), and the time to resume (C7).

    python -m benchmarks.training [--repeats 5]

The same samples, the same weights, forward and backward. Peers: diffusers' `WanTransformer3DModel`,
whose forward takes one shape a batch, so samples are padded to the longest in time (its attention
has no mask over video tokens: the padding is computed and thrown away, as a bucket trainer does).
Padded: batches in the order drawn. Buckets: the same after sorting by length, the fair peer.
Loop: one sample at a time. Useful tokens count, never padding. Outputs are compared first.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.measure import store
from benchmarks.model_timing import interleaved, relative
from bernini.config import RendererConfig
from bernini.renderer.transformer import Renderer, patchify
from bernini.train.passes import PassOptions, RenderInput, velocities

SIZES = RendererConfig(
    num_attention_heads=4, attention_head_dim=32, text_dim=32, freq_dim=32, ffn_dim=256, num_layers=3
)
SIDE, CONTEXT, NUM, BATCH = 8, 16, 16, 4
# Latent frames of 16 samples drawn like the mix of performance.md B.3: 60 % pictures, the rest clips of 2 to 6 s.
FRAMES = (1, 1, 13, 1, 1, 20, 1, 9, 1, 1, 24, 1, 1, 16, 1, 11)


def samples(frames=FRAMES, side: int = SIDE, sizes: RendererConfig = SIZES, device: str = "cpu", dtype=torch.float32):
    """`(latent [1, 16, T, Y, X], text [L, W], timestep)` of each."""
    g = torch.Generator().manual_seed(0)
    return [(torch.randn(1, 16, t, side, side, generator=g).to(device, dtype),
             torch.randn(CONTEXT, sizes.text_dim, generator=g).to(device, dtype),
             torch.rand((), generator=g).to(device) * 1000) for t in frames]


def packed(model: Renderer, data, options: PassOptions | None = None) -> list[torch.Tensor]:
    """Predictions of ours, one pack."""
    inputs = [RenderInput([x], [], text, t) for x, text, t in data]
    return [v.values for v in velocities(model, inputs, options or PassOptions())]


def batched(peer, data) -> list[torch.Tensor]:
    """Predictions of the peer: one batch, padded with zero frames to the longest."""
    longest = max(x.shape[2] for x, _, _ in data)
    x = torch.cat([torch.nn.functional.pad(x, (0, 0, 0, 0, 0, longest - x.shape[2])) for x, _, _ in data])
    out = peer(x, torch.stack([t for _, _, t in data]), torch.stack([c for _, c, _ in data]), return_dict=False)[0]
    return [patchify(o[None, :, : x.shape[2]]) for o, (x, _, _) in zip(out, data, strict=True)]


def step(model, outputs_of, groups) -> None:
    """Forward and backward over groups of samples."""
    for group in groups:
        sum(o.float().square().mean() for o in outputs_of(model, group)).backward()
    model.zero_grad(set_to_none=True)


def groups_of(data, size: int) -> list:
    return [data[i : i + size] for i in range(0, len(data), size)]


def models(sizes: RendererConfig = SIZES, device: str = "cpu", dtype=torch.float32):
    """Ours and the peer with the same weights."""
    from diffusers import WanTransformer3DModel

    torch.manual_seed(0)
    ours = Renderer(sizes).to(device, dtype)
    peer = WanTransformer3DModel.from_config(sizes.to_json()).to(device, dtype)
    peer.load_state_dict(ours.state_dict())
    return ours, peer


def ways(ours, peer, data, options: PassOptions | None = None) -> dict:
    """Name → one training pass over all samples."""
    ordered = sorted(data, key=lambda s: s[0].shape[2])
    return {
        "packed (ours)": lambda: step(ours, lambda m, g: packed(m, g, options), groups_of(data, BATCH)),
        "one by one (ours)": lambda: step(ours, lambda m, g: packed(m, g, options), groups_of(data, 1)),
        "padded batches (diffusers)": lambda: step(peer, batched, groups_of(data, BATCH)),
        "sorted buckets (diffusers)": lambda: step(peer, batched, groups_of(ordered, BATCH)),
        "one by one (diffusers)": lambda: step(peer, batched, groups_of(data, 1)),
    }


def packing(repeats: int) -> None:
    """C2."""
    ours, peer = models()
    data = samples()
    with torch.no_grad():
        error = max(relative(packed(ours, [s])[0], batched(peer, [s])[0]) for s in data)
    tokens = sum(x.shape[2] * SIDE * SIDE // 4 for x, _, _ in data)
    times = interleaved(ways(ours, peer, data), repeats)
    first = times["packed (ours)"]
    rows = [{"way": name, "s": t, "useful tokens/s": round(tokens / t), "time / packed": t / first}
            for name, t in times.items()]  # fmt: skip
    store("training_packing", rows, f"{NUM} samples of 1 to 24 latent frames ({tokens} tokens) in batches of {BATCH}, "
          f"forward and backward, float32, one thread, medians of {2 * repeats} in ABBA order; single-sample outputs "
          f"agree to {error:.1e}. The fair peer is the one with sorted buckets. At these sizes part of the ratio is "
          "the peer's overhead, not its padding: see both ways of going one by one, where nothing is padded. "
          "Command: `python -m benchmarks.training`.")  # fmt: skip


def resume(repeats: int) -> None:
    """C7: seconds to write, verify and read a checkpoint of a run, against torch.save and torch.load of the same."""
    from tests.bernini.train.tiny_run import config_of, trainer_of

    folder = Path(tempfile.mkdtemp())
    try:
        trainer = trainer_of(config_of(folder / "a", 2))
        trainer.run()
        size = sum(t.numel() * t.element_size() for t in trainer.state().values())

        def restore() -> None:
            again = trainer_of(config_of(folder / "a", 2))
            began = time.perf_counter()
            again._resume()
            spent.append(time.perf_counter() - began)

        spent: list[float] = []
        for _ in range(repeats):
            restore()
        plain = folder / "plain.pt"
        times = interleaved({"save": trainer.save, "torch.save": lambda: torch.save(trainer.state(), plain),
                             "torch.load": lambda: torch.load(plain, weights_only=True)}, repeats)  # fmt: skip
        rows = [{"what": "write aside, sum, flush, rename", "s": times["save"]},
                {"what": "find newest, verify checksums, read, place the loader", "s": sorted(spent)[len(spent) // 2]},
                {"what": "torch.save alone, no checksum, no flush", "s": times["torch.save"]},
                {"what": "torch.load alone", "s": times["torch.load"]}]  # fmt: skip
        store("training_resume", rows, f"Tiny model, {size / 1e6:.1f} MB of state in {len(trainer.state())} tensors: "
              "fixed costs a tensor, not bandwidth. The resumed run is equal bit for bit (tests/bernini/train/"
              "test_resume.py, SIGKILL). Command: `python -m benchmarks.training`.")  # fmt: skip
    finally:
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    packing(args.repeats)
    resume(args.repeats)


if __name__ == "__main__":
    main()
