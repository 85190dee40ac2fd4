"""Loader, latent store, balance, padding and timestep draws: `python benchmarks/loader.py [--quick]`.

Writes benchmarks/results/loader.md. The length mix is that of stage II (paper, Table 1): tasks t2i .20,
t2v .30, i2i .40, i2v .035, v2v .033, iv2v .032; clips of 2 to 6 s at 16 fps, six shapes of 480p area.
Everything runs on one thread of the CPU; comparisons are interleaved, medians are given.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import platform
import random
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from bernini.flow import TRAINING_SHIFT, index_range
from bernini.train.cost import CostModel, ExampleTokens, VisualTokens
from bernini.train.dataset import Dataset, write_index
from bernini.train.draws import MASK_BETA, DrawSettings, logit_normal_cdf, mode_inverse, noise_level, quantile
from bernini.train.loader import Loader, LoaderConfig
from bernini.train.packing import Item, improve, longest_first, num_rounds, pack
from manifests.features import Feature, FeatureReader, write_features, write_text
from manifests.ids import make_id
from manifests.manifest import Manifest, ManifestWriter
from manifests.schema import LATENTS

SHAPES = ((480, 832), (832, 480), (624, 624), (544, 720), (720, 544), (464, 848))
MIX = {"t2i": 0.20, "t2v": 0.30, "i2i": 0.40, "i2v": 0.035, "v2v": 0.033, "iv2v": 0.032}
A14B, SMALL = CostModel(), CostModel(renderer_layers=30, renderer_width=1536, renderer_ffn=8960)
PLANNER = {"planner_layers": 28, "planner_words": 152_064, "decoder_depth": 16}  # Qwen2.5-VL-7B and its decoder
PLANNED, JOINT = CostModel(renderer_layers=0, **PLANNER), CostModel(**PLANNER)
LATENT = (16, 21, 60, 104)  # 81 frames of 480x832


def draw_tokens(rng: random.Random) -> int:
    """Renderer tokens of one example of the mix."""
    return draw_sample(rng)[1]


def draw_sample(rng: random.Random) -> tuple[str, int, int]:
    """`(task, renderer tokens, seconds of video)` of one example of the mix."""
    task = rng.choices(list(MIX), list(MIX.values()))[0]
    height, width = rng.choice(SHAPES)
    image = (height // 16) * (width // 16)
    frames = min(97, int(rng.uniform(2, 6) * 16) // 4 * 4 + 1)
    video = ((frames - 1) // 4 + 1) * image
    tokens = {"t2i": image, "i2i": 2 * image, "t2v": video, "i2v": video + image, "v2v": 2 * video,
            "iv2v": 2 * video + image}[task]
    return task, tokens, frames // 16


def joint_items(num: int, rng: random.Random, cost: CostModel, plain: bool = False) -> list[Item]:
    """Examples of stage IIIb (Table 2): 20 % understanding, 20 % reasoning, the rest the mix; `plain`: the mix alone.

    A picture has 60 tokens in the planner, a second of video (2 frames, a temporal patch) too; masks by Table 3.
    """
    found = []
    for i in range(num):
        task, latent, seconds = draw_sample(rng)
        kind = "mix" if plain else rng.choices(("understanding", "reasoning", "mix"), (20, 20, 60))[0]
        target = 60 if task in ("t2i", "i2i") else 60 * seconds
        sources = {"t2i": 0, "t2v": 0, "i2i": 60, "i2v": 60, "v2v": target, "iv2v": target + 60}[task]
        if kind == "understanding":  # of a picture or video that the renderer never sees
            tokens = ExampleTokens(visuals=(VisualTokens(kind="video", is_target=False, latent=latent, vit=target),),
                                   written=target + 150, learned=100)
        else:
            writing = {"written": sources + 200, "learned": 120} if kind == "reasoning" else {}
            ratio = rng.betavariate(*MASK_BETA[{"t2i": "T2I", "t2v": "T2V", "i2i": "I2I", "i2v": "I2V", "v2v": "V2V",
                                                "iv2v": "IV2V"}[task]])
            visuals = (VisualTokens(kind="video", is_target=False, latent=0, vit=sources),
                       VisualTokens(kind="video", is_target=True, latent=latent, vit=target))
            tokens = ExampleTokens(visuals=visuals, text=60, planner_text=60, **writing).hiding(ratio)
        found.append(Item(i, cost.num_tokens(tokens), cost.flops(tokens)))
    return found


def items(num: int, rng: random.Random, cost: CostModel) -> list[Item]:
    tokens = [draw_tokens(rng) for _ in range(num)]
    return [Item(i, n, cost.renderer_flops(n)) for i, n in enumerate(tokens)]


def spread(bins: list[list[Item]]) -> tuple[float, float]:
    """(max / min, mean / max) of the bins' FLOPs."""
    loads = [sum(i.flops for i in b) for b in bins]
    return max(loads) / min(loads), statistics.mean(loads) / max(loads)


def greedy(found: list[Item], num: int, weight) -> list[list[Item]]:
    bins, _ = longest_first([Item(i.index, i.num_tokens, weight(i)) for i in found], num)
    return [[found[i.index] for i in b] for b in bins]


def balance(trials: int) -> list[str]:
    lines = ["| model, ranks × samples a rank | in order | tokens, longest first | length², longest first "
             "| **FLOPs, longest first** | **+ swaps** | efficiency in order → ours | ms a window |", "|" + "---|" * 8]
    for name, cost, ranks, per in (("A14B", A14B, 8, 16), ("A14B", A14B, 32, 16), ("A14B", A14B, 64, 16),
                                   ("1.3B", SMALL, 64, 16), ("A14B", A14B, 8, 8), ("A14B", A14B, 8, 4),
                                   ("planner (stage I)", PLANNED, 64, 16), ("both (stage IIIb)", JOINT, 64, 16)):
        found = {k: [] for k in ("order", "tokens", "length2", "flops", "swaps", "ms", "eff", "eff0")}
        for trial in range(trials):
            draw = partial(joint_items, plain=cost is PLANNED) if cost.planner_layers else items
            window = draw(ranks * per, random.Random(trial), cost)
            order = [window[r * per : (r + 1) * per] for r in range(ranks)]
            found["order"].append(spread(order)[0])
            found["eff0"].append(spread(order)[1])
            found["tokens"].append(spread(greedy(window, ranks, lambda i: i.num_tokens))[0])
            found["length2"].append(spread(greedy(window, ranks, lambda i: i.num_tokens**2))[0])
            started = time.perf_counter()
            bins, _ = longest_first(window, ranks)
            found["flops"].append(spread(bins)[0])
            bins = improve(bins)
            found["ms"].append(1000 * (time.perf_counter() - started))
            found["swaps"].append(spread(bins)[0])
            found["eff"].append(spread(bins)[1])
        m = {k: statistics.median(v) for k, v in found.items()}
        lines.append(f"| {name}, {ranks} × {per} | {m['order']:.2f} | {m['tokens']:.3f} | {m['length2']:.3f} | "
                     f"{m['flops']:.4f} | {m['swaps']:.4f} | {m['eff0']:.0%} → {m['eff']:.1%} | {m['ms']:.1f} |")
    return lines


def budgets(trials: int) -> list[str]:
    """What the loader itself does with a token budget: rounds of packs, largest against smallest of a round."""
    lines = ["| budget, ranks, samples a rank in view | packs a rank | tokens of the budget used "
             "| max / min of a round (median) | max / min over the window |", "|" + "---|" * 5]
    for budget, ranks, window in ((440_000, 8, 32), (440_000, 64, 32), (150_000, 8, 16), (150_000, 8, 64),
                                  (150_000, 64, 64)):
        rounds_, used, inside, over = [], [], [], []
        for trial in range(trials):
            rng = random.Random(trial)
            found = items(ranks * window, rng, A14B)
            rounds = num_rounds(sum(i.num_tokens for i in found), world=ranks, budget=budget, fill=0.9)
            room = ranks * rounds * budget * 0.9 - sum(i.num_tokens for i in found)
            while (n := draw_tokens(rng)) <= room:
                found.append(Item(len(found), n, A14B.renderer_flops(n)))
                room -= n
            packed = pack(found, world=ranks, rounds=rounds, budget=budget)
            loads = [[sum(found[i].flops for i in p) for p in packs] for packs in packed.rounds]
            inside += [max(row) / min(row) for row in loads]
            ranks_total = [sum(row[r] for row in loads) for r in range(ranks)]
            over.append(max(ranks_total) / min(ranks_total))
            placed = [i for packs in packed.rounds for p in packs for i in p]
            used.append(sum(found[i].num_tokens for i in placed) / (ranks * rounds * budget))
            rounds_.append(rounds)
        lines.append(f"| {budget:,}, {ranks}, {window} | {statistics.mean(rounds_):.1f} "
                     f"| {statistics.mean(used):.0%} | {statistics.median(inside):.4f} "
                     f"| {statistics.median(over):.4f} |")
    return lines


def padding(num: int) -> list[str]:
    """FLOPs for the useful tokens against all that are computed. A packed sequence computes no padding."""
    lines = ["| batch | padded, as they come | sorted in a buffer of 100 | sorted over all |", "|---|---|---|---|"]
    rng = random.Random(0)
    tokens = [draw_tokens(rng) for _ in range(num)]
    useful = sum(map(A14B.renderer_flops, tokens))
    for size in (2, 4, 8):
        shapes = []
        buffers = [sorted(tokens[i : i + 100]) for i in range(0, num, 100)]
        for ordered in (tokens, [n for b in buffers for n in b], sorted(tokens)):
            batches = [ordered[i : i + size] for i in range(0, len(ordered), size)]
            shapes.append(sum(len(b) * A14B.renderer_flops(max(b)) for b in batches) / useful)
        lines.append(f"| {size} | {shapes[0]:.2f} | {shapes[1]:.3f} | {shapes[2]:.3f} |")
    return lines


# The latent store


def stores(folder: Path, clips: int, reads: int) -> list[str]:
    rng = np.random.default_rng(0)
    means = [torch.from_numpy(rng.standard_normal(LATENT, np.float32)) for _ in range(4)]
    readers = {name: make(folder, means, clips) for name, make in STORES.items()}
    order = [int(i) for i in rng.integers(0, clips, reads)]
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    for read, _ in readers.values():  # once through, so that all files are in the page cache
        for i in range(clips):
            read(i)
    for _ in range(5):
        for name, (read, _) in readers.items():
            started = time.perf_counter()
            for i in order:
                read(i)
            seconds[name].append((time.perf_counter() - started) / reads)
    ours = statistics.median(seconds["mapped bf16 (ours)"])
    lines = ["| store | bytes a clip (81 frames, 480p) | samples/s, random access, cache warm | time : ours |",
             "|---|---|---|---|"]
    for name, (_, size) in readers.items():
        s = statistics.median(seconds[name])
        lines.append(f"| {name} | {size / 1e6:.2f} MB | {1 / s:,.0f} | {s / ours:.1f} × |")
    return lines


def _ours(verify: bool):
    def make(folder: Path, means: list[torch.Tensor], clips: int):
        root = str(folder / f"ours-{verify}")
        bits = [mean.bfloat16().view(torch.int16).numpy().view("uint16") for mean in means]
        rows = [[Feature(name="latent", visual=0, data=bits[i % 4].copy())] for i in range(clips)]
        for i in range(clips):  # equal clips would be one file: the first value says which it is
            rows[i][0].data.flat[0] = i
        entries = [e for start in range(0, clips, 8) for (e,) in write_features(root, rows[start : start + 8])]
        reader = FeatureReader(root, verify=verify)
        return (lambda i: torch.from_numpy(reader.read(entries[i]).view(np.int16)).view(torch.bfloat16),
                entries[0]["num_bytes"])
    return make


def _pickles(folder: Path, means: list[torch.Tensor], clips: int):
    """The released form: torch.save of fp32 mean and logvar in a Parquet list column, row groups of 64 MB."""
    blobs = []
    for mean in means:
        stream = io.BytesIO()
        torch.save(torch.cat([mean, mean], 0)[None], stream)
        blobs.append(stream.getvalue())
    file = folder / "released.parquet"
    table = pa.table({"video_vae_latents": pa.array([[blobs[i % 4]] for i in range(clips)], pa.list_(pa.binary()))})
    per_group = max(1, 64_000_000 // len(blobs[0]))
    pq.write_table(table, file, row_group_size=per_group)
    stored = pq.ParquetFile(file)

    def read(i: int):
        group = stored.read_row_group(i // per_group)
        return torch.load(io.BytesIO(group["video_vae_latents"][i % per_group][0].as_py()), weights_only=True)
    return read, len(blobs[0])


def _safetensors(folder: Path, means: list[torch.Tensor], clips: int):
    from safetensors.torch import load_file, save_file

    (folder / "safetensors").mkdir()
    for i in range(clips):
        save_file({"latent": means[i % 4].bfloat16()}, folder / "safetensors" / f"{i}.safetensors")
    size = (folder / "safetensors" / "0.safetensors").stat().st_size
    # The loader's tensors are copies; load_file's are maps that are read when they are used.
    return (lambda i: load_file(folder / "safetensors" / f"{i}.safetensors")["latent"].clone()), size


def _pth(folder: Path, means: list[torch.Tensor], clips: int):
    (folder / "pth").mkdir()
    for i in range(clips):
        torch.save(means[i % 4], folder / "pth" / f"{i}.pth")
    size = (folder / "pth" / "0.pth").stat().st_size
    return (lambda i: torch.load(folder / "pth" / f"{i}.pth", weights_only=True)), size


STORES = {"mapped bf16 (ours)": _ours(True), "ours without checksums": _ours(False),
          "Parquet of torch pickles, fp32 mean + logvar (released)": _pickles,
          "a safetensors file each, bf16": _safetensors, "a .pth file each, fp32": _pth}


# The whole loader


def loader(num: int) -> list[str]:
    """Packs of small random latents through the real store: what planning and reading cost besides the bytes."""
    lines = ["| workers | samples/s | MB/s |", "|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        m = small_latents(Path(folder), num)
        write_index(m)
        dataset = Dataset([m], needs=("latent", "vit", "text"))
        for workers in (0, 1, 2):
            stream = iter(Loader(dataset, LoaderConfig(token_budget=20_000), A14B, num_workers=workers))
            next(stream)
            started, samples, size = time.perf_counter(), 0, 0
            while samples < 4 * num:
                pack_ = next(stream)
                samples += len(pack_.examples)
                size += sum(v.latent.nbytes + v.vit.nbytes for e in pack_.examples for v in e.visuals)
            seconds = time.perf_counter() - started
            stream.close()
            lines.append(f"| {workers} | {samples / seconds:,.0f} | {size / seconds / 1e6:,.0f} |")
    return lines


def small_latents(folder: Path, num: int) -> Manifest:
    """`num` edits of 10 to 30 latent frames of 4 x 4, with all features."""
    rng, rows = np.random.default_rng(0), []
    inputs = json.dumps([{"type": "video"}, {"type": "text", "text": "go"}, {"type": "video_gen", "has_loss": 1}])
    blank = Feature(name="text", visual=None, data=np.zeros((60, 64), "<u2"))
    text = write_text(str(folder / "features"), "0" * 32, blank)
    for i in range(num):
        t = int(rng.integers(10, 30))
        sizes = {"latent": (16, t, 4, 4), "vit": (4 * t, 64)}
        tensors = [Feature(name=name, visual=n, data=rng.integers(0, 1 << 14, size).astype("<u2"))
                   for n in (0, 1) for name, size in sizes.items()]
        (entries,) = write_features(str(folder / "features"), [tensors])
        visuals = [{"kind": "video", "is_target": bool(n), "num_latent_tokens": 4 * t, "num_vit_tokens": 4 * t,
                    "grid": [t, 4, 4]} for n in (0, 1)]
        rows.append({"sample_id": make_id("sample", i), "task": "v2v", "source_name": "edits", "inputs": inputs,
                     "split": "train", "weight": 1.0, "visuals": visuals, "num_text_tokens": 60,
                     "num_empty_text_tokens": 60, "num_planner_text_tokens": 60,
                     "features": [*entries, text, {**text, "name": "empty_text"}]})
    with ManifestWriter(str(folder / "latents" / "x"), LATENTS, LATENTS.schema) as writer:
        writer.append(pa.Table.from_pylist(rows, LATENTS.schema))
        return writer.commit(name="x", row="", parents=[], config={"stage": "III"}, versions={},
                             feature_folder="../../features", encoders={"vae": "a", "vision": "b", "text": "c"})


# Timesteps

EXPERTS = {"high": (0.875, 1.0), "low": (0.0, 0.875)}  # sigmas, of the released weights


def timesteps(num: int) -> list[str]:
    lines = ["| task, expert | KS, inverse CDF | KS, rejection | limit (99.9 %) | µs a draw, inverse "
             "| µs a draw, rejection |", "|" + "---|" * 6]
    for task, expert in (("t2i", "high"), ("t2i", "low"), ("v2v", "high"), ("v2v", "low")):
        settings = DrawSettings(recipe="released", interval=EXPERTS[expert])
        noise_level(settings, task, 0.5)
        started = time.perf_counter()
        p = np.random.default_rng(0).random(num)
        levels = [noise_level(settings, task, x) for x in p]
        inverse = (time.perf_counter() - started) / num
        low, high = _interval(task, expert)
        ours = np.sort([quantile(task, x, low, high) for x in p])
        started = time.perf_counter()
        theirs = np.sort(_rejection(task, low, high, num))
        rejection = (time.perf_counter() - started) / num
        below = np.vectorize(logit_normal_cdf if task == "t2i" else lambda u: 1 - mode_inverse(float(u)))
        a, b = below(low), below(high)
        ks = [np.abs((below(u) - a) / (b - a) - (np.arange(num) + 0.5) / num).max() for u in (ours, theirs)]
        assert len(levels) == num
        lines.append(f"| {task}, {expert} | {ks[0]:.4f} | {ks[1]:.4f} | {1.95 / math.sqrt(num):.4f} "
                     f"| {1e6 * inverse:.1f} | {1e6 * rejection:.1f} |")
    return lines


def _interval(task: str, expert: str) -> tuple[float, float]:
    begin, end = index_range(TRAINING_SHIFT.get(task, 5.0), *EXPERTS[expert])
    return begin / 1000, end / 1000


def _rejection(task: str, low: float, high: float, num: int) -> list[float]:
    """The released trainer's rule, a sample at a time: draw until it lies in the interval."""
    generator, out = torch.Generator().manual_seed(0), []
    while len(out) < num:
        if task == "t2i":
            u = float(torch.sigmoid(torch.randn((), generator=generator, dtype=torch.float64) + 0.5))
        else:
            r = float(torch.rand((), generator=generator, dtype=torch.float64))
            u = 1 - r - 1.29 * (math.cos(math.pi / 2 * r) ** 2 - 1 + r)
        if low <= u <= high:
            out.append(u)
    return out


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="small numbers, for a look")
    parser.add_argument("--output", default=str(Path(__file__).parent / "results" / "loader.md"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    quick = args.quick
    rng = random.Random(0)
    mix = sorted(draw_tokens(rng) for _ in range(20_000))
    with tempfile.TemporaryDirectory() as folder:
        parts = [
            ("Balance over ranks", f"Largest against smallest rank by FLOPs, median of windows. Tokens of the mix: "
             f"mean {statistics.mean(mix):,.0f}, median {mix[10_000]:,}, 95 % {mix[19_000]:,}, most {mix[-1]:,}. "
             "In the last two rows a sample costs what planner and ViT decoder (16 noises of each masked token) work "
             "on it, or these and the renderer; its length are the tokens of all that runs. Stage IIIb: 20 % "
             "understanding, 20 % reasoning.",
             balance(5 if quick else 11)),
            ("Packs of the loader under a token budget", "Fill 0.9; a round is what the ranks do at the same time.",
             budgets(2 if quick else 5)),
            ("Padding, by FLOPs (A14B)", "How many times the FLOPs of the packed form a padded batch computes for the "
             "same useful tokens. The batch sorted in a buffer is the fair comparison.",
             padding(2000 if quick else 6000)),
            ("Latent store", "One thread, page cache warm, interleaved, median of 5.",
             stores(Path(folder), 8 if quick else 16, 12 if quick else 40)),
            ("Loader", "Small clips (some 0.01 MB), so that the cost a sample shows, not the copying of bytes.",
             loader(50 if quick else 150)),
            ("Timesteps: inverse CDF against drawing until it fits", "One draw at a time, as a loader does it. The "
             "point is that a draw is a function of its key; the time does not matter.",
             timesteps(2000 if quick else 8000)),
        ]
    head = (f"# Loader and latent store\n\n`python benchmarks/loader.py`, {time.strftime('%Y-%m-%d')}, CPU "
            f"({platform.machine()}, 2 cores shared, load {os.getloadavg()[0]:.0f}), "
            f"Python {platform.python_version()}, torch {torch.__version__}, pyarrow {pa.__version__}.\n")
    text = head + "".join(f"\n## {title}\n\n{note}\n\n" + "\n".join(lines) + "\n" for title, note, lines in parts)
    Path(args.output).write_text(text)
    print(text)


if __name__ == "__main__":
    main()
