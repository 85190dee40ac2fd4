"""`bernini estimate RECIPE --input …`: what a run will yield and cost, before it is started.

The recipe itself runs over a sample of the input, in this process, with the classical prompt, in a
folder that is thrown away. What came of each sampled file is scaled by bytes to all listed files; the
intervals (5 to 95 %) come from drawing the sampled files again with replacement. Balancing works
on the whole set, so a sample of few files tends to show fewer pairs than the run will have.

Requests are counted from the stages that ask a model: pictures as the question says, tokens of a
picture as Qwen3-VL cuts it (32 x 32 pixels each), words at four letters a token. How many tokens a GPU
reads and writes a second depends on model and machine: give your own, the defaults are a guess.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pkgutil import resolve_name

import numpy as np
import pyarrow as pa
import tyro

from manifests import storage
from manifests.errors import ConfigError, RunStopped
from manifests.ids import order_key
from manifests.manifest import Manifest
from manifests.settings import lists_of, refuse_repeated

from .ingest import list_videos
from .pairs import PIPELINES
from .stage import Stage

PIXELS_PER_TOKEN = 32 * 32     # Qwen3-VL: patches of 16, merged two by two
LETTERS_PER_TOKEN = 4.0
SCHEMA_FILLED = 0.4            # share of a schema's longest text that answers take
NUM_DRAWS = 1000
FILE = "estimate.json"


@dataclass(frozen=True, kw_only=True)
class Assumed:
    """What the sample cannot tell."""

    sample: int = 12
    """Files that are really worked on; more give narrower intervals."""
    read_per_s: float = 20_000.0
    """Tokens that one GPU reads a second."""
    written_per_s: float = 1_500.0
    """Tokens that one GPU writes a second."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """An amount for the whole input, and the interval that the sample leaves open."""

    value: float
    low: float
    high: float


def estimate(argv: list[str]) -> int:
    """Print the estimate of a recipe and keep it as estimate.json below the output folder."""
    if not argv or argv[0] in ("-h", "--help"):
        print(f"usage: bernini estimate RECIPE [settings of bernini run RECIPE] [--sample N]\n\n"
              f"Recipes: {', '.join(PIPELINES)}\n\n{__doc__}")
        return 0 if argv else 2
    if argv[0] not in PIPELINES:
        raise ConfigError(f"no recipe {argv[0]!r}; known: {', '.join(PIPELINES)}")
    recipe = resolve_name(PIPELINES[argv[0]])
    refuse_repeated(argv, lists_of(recipe.Config))
    assumed, config = tyro.cli(tuple[tyro.conf.OmitArgPrefixes[Assumed], tyro.conf.OmitArgPrefixes[recipe.Config]],
                               args=argv[1:], prog=f"bernini estimate {argv[0]}", description=estimate.__doc__)
    found = measure(recipe, config, assumed)
    show(found)
    storage.write_bytes(storage.join(config.output, FILE), json.dumps({argv[0]: found}, indent=1).encode())
    return 0


def read_estimate(root: str, recipe: str) -> dict:
    """What was estimated for the runs below `root`; empty where nothing was. For the header of a manifest."""
    path = storage.join(root, FILE)
    return json.loads(storage.read_bytes(path)).get(recipe, {}) if storage.exists(path) else {}


def measure(recipe, config, assumed: Assumed) -> dict:
    listed = list_videos(config.input, leave_out=config.output, quiet=True)
    chosen = listed.take(pa.array(np.argsort(order_key(listed["video_id"]))[: assumed.sample]))
    sizes = np.array([size or 0 for size in chosen["num_bytes"].to_pylist()], float) + 1
    total = float(sum(size or 0 for size in listed["num_bytes"].to_pylist()) + listed.num_rows)
    with tempfile.TemporaryDirectory() as folder:
        manifests, seconds = run_sample(recipe, config, chosen, folder)
        files = {row["video_id"]: row["path"] for row in manifests["videos"].table(["video_id", "path"]).to_pylist()}
        per_file = {name: accepted_per_file(m, chosen, files) for name, m in manifests.items() if name != "samples"}
        stored = {name: folder_bytes(m.path) for name, m in manifests.items()}
        pixels = picture_pixels(manifests)
    draws = np.random.default_rng(0).integers(0, len(sizes), (NUM_DRAWS, len(sizes)))
    by_bytes, by_files = (total / sizes[draws].sum(axis=1), total / sizes.sum()), (
        np.full(NUM_DRAWS, listed.num_rows / chosen.num_rows), listed.num_rows / chosen.num_rows)
    accepted = {name: to_range(counts, draws, *(by_files if name == "videos" else by_bytes))
                for name, counts in per_file.items()}
    pairs = accepted.get("pairs", Range(value=0.0, low=0.0, high=0.0))
    return {
        "files": listed.num_rows, "sampled": chosen.num_rows, "bytes_in": int(total),
        "accepted": {name: dataclasses.asdict(r) for name, r in accepted.items()},
        "cpu_hours": seconds / 3600 * total / sizes.sum(),
        "bytes_out": {name: int(size * total / sizes.sum()) for name, size in stored.items()},
        "requests": requests(recipe.build(config).get("pairs", ()) if hasattr(recipe, "build") else (), pairs, pixels,
                             assumed),
    }


def run_sample(recipe, config, chosen: pa.Table, folder: str) -> tuple[dict[str, Manifest], float]:
    """The recipe over the chosen files; its manifests as far as it came, and the seconds it took."""
    source = os.path.join(folder, "sample.jsonl")
    with open(source, "w") as file:
        file.writelines(json.dumps({"path": path}) + "\n" for path in chosen["path"].to_pylist())
    classical = {"annotator": "classical"} if hasattr(config, "annotator") else {}
    small = dataclasses.replace(config, input=source, output=os.path.join(folder, "out"), engine="local", quiet=True,
                                **classical)
    started, manifests = time.monotonic(), {}
    try:
        for name, manifest in recipe.run_steps(small):
            manifests[name] = manifest
    except RunStopped:
        pass  # nothing came through: that is the estimate
    return manifests, time.monotonic() - started


def accepted_per_file(manifest: Manifest, chosen: pa.Table, files: dict[str, str]) -> np.ndarray:
    """`(files,)` accepted rows that each chosen file led to; `files` is the path of each `video_id` of the sample."""
    rows = manifest.table(["video_id", "drop_reason"]).to_pylist()
    counts = Counter(files[row["video_id"]] for row in rows if row["drop_reason"] is None)
    return np.array([counts[p] for p in chosen["path"].to_pylist()], float)


def to_range(counts: np.ndarray, draws: np.ndarray, scale: np.ndarray, factor: float) -> Range:
    low, high = np.percentile(counts[draws].sum(axis=1) * scale, (5, 95))
    return Range(value=float(counts.sum() * factor), low=float(low), high=float(high))


def requests(stages: Sequence[Stage], pairs: Range, pixels: float, assumed: Assumed) -> dict[str, dict]:
    """For each stage that asks a model: requests, pictures, tokens and GPU hours."""
    found = {}
    for stage in stages:
        question = getattr(resolve_name(stage.op), "question", None)
        if question is None or stage.kwargs.get("backend", "classical") == "classical":
            continue
        num = stage.kwargs.get("num_frames") or 0
        pictures = sum((num or view.num_frames) if view.end else 1 for view in question.views)
        tokens_in = len(question.prompt) / LETTERS_PER_TOKEN + pictures * (pixels / PIXELS_PER_TOKEN + 12)
        tokens_out = longest_text(question.schema) / LETTERS_PER_TOKEN * SCHEMA_FILLED
        hours = (tokens_in / assumed.read_per_s + tokens_out / assumed.written_per_s) / 3600
        found[stage.name] = {"requests": dataclasses.asdict(pairs), "pictures": pairs.value * pictures,
                             "tokens_in": pairs.value * tokens_in, "tokens_out": pairs.value * tokens_out,
                             "gpu_hours": {k: v * hours for k, v in dataclasses.asdict(pairs).items()}}
    return found


def longest_text(schema: dict) -> float:
    """Letters of the longest answer that a schema allows."""
    inner = sum(longest_text(s) + len(name) + 6 for name, s in schema.get("properties", {}).items())
    items = longest_text(schema["items"]) * schema.get("maxItems", 1) if "items" in schema else 0
    return inner + items + schema.get("maxLength", 4)


def picture_pixels(manifests: dict[str, Manifest], long_px: int = 448) -> float:
    """Mean pixels of a picture as annotators send it."""
    sizes = manifests["clips"].table(["width", "height"]).to_pylist() if "clips" in manifests else []
    areas = [r["width"] * r["height"] * min(1.0, long_px / max(r["width"], r["height"])) ** 2 for r in sizes]
    return float(np.mean(areas)) if areas else long_px * long_px * 9 / 16


def folder_bytes(path: str) -> int:
    return sum(size for _, size in storage.list_files(path, recursive=True))


def show(found: dict) -> None:
    print(f"{found['files']:,} files, {found['bytes_in'] / 1e9:.3g} GB; {found['sampled']} of them were worked on")
    for name, r in found["accepted"].items():
        print(f"  {name:<12}{r['value']:>14,.0f} accepted   ({r['low']:,.0f} to {r['high']:,.0f})"
              f"   {found['bytes_out'][name] / 1e6:,.1f} MB")  # samples are as many as pairs
    print(f"  decoding    {found['cpu_hours']:>14,.2f} CPU hours")
    for name, r in found["requests"].items():
        hours = r["gpu_hours"]
        print(f"  {name}: {r['requests']['value']:,.0f} requests, {r['pictures']:,.0f} pictures, "
              f"{r['tokens_in'] / 1e6:,.2f} M tokens read, {r['tokens_out'] / 1e6:,.2f} M written, "
              f"{hours['value']:,.2f} GPU hours ({hours['low']:,.2f} to {hours['high']:,.2f})")
