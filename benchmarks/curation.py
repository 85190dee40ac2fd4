"""Curation of large tables in bounded memory: decide, mix, export, and near-duplicates.

    python benchmarks/curation.py [FOLDER] [--rows 200000] [--embeddings 1000000]

Every row of the result is one fresh process; `peak MB` is its largest resident memory, of which about
130 MB are Python, Arrow and NumPy. Tables are made first and are not measured. FOLDER is for
them (about 4 GB for a million embeddings); without it a temporary one is used. The last rows tell
what the cheap new measures would add to the first scan (`shared` machine: read the share).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pyarrow as pa

from benchmarks.measure import in_fresh_process, store
from manifests.ids import make_id
from manifests.manifest import HEADER, ManifestWriter
from manifests.messages import video_item
from manifests.schema import CLIPS, SAMPLES

DIM = 256
COPIES = 0.02    # of the embeddings are noisy copies of another row
LIMIT_MB = 1200  # what the largest of them may take
SETS = (("inhouse-t2v", "t2v"), ("video-pairs", "v2v"), ("pico-banana-400k", "i2i"), ("person-r2v", "r2v"),
        ("propagation-based-editing", "v2v"))
LICENCES = ("CC BY 4.0", "CC BY-NC-ND 4.0", "apache-2.0", None)


def make_samples(folder: str, num: int) -> str:
    path = os.path.join(folder, f"samples-{num}")
    if os.path.exists(os.path.join(path, HEADER)):
        return path
    with ManifestWriter(path, SAMPLES, SAMPLES.schema) as writer:
        for start in range(0, num, 10_000):
            rows = [sample(n) for n in range(start, min(num, start + 10_000))]
            writer.append(pa.Table.from_pylist(rows, SAMPLES.schema))
        writer.commit(name="made", owners={})
    return path


def sample(n: int) -> dict:
    name, task = SETS[n % len(SETS)]
    item = video_item(f"/data/media/{n:08d}.mp4", 0.0, 2.0 + n % 8)
    kinds = {"t2v": ["text", "video_gen"], "v2v": ["video", "text", "video_gen"], "i2i": ["image", "text", "image_gen"],
             "r2v": ["image", "text", "video_gen"]}[task]
    text = f"The camera pans to the left while a man number {n} crosses the yard and the light fades. " * 3
    return {"sample_id": make_id("sample", n), "task": task, "source_name": name, "split": "train", "weight": 1.0,
            "inputs": json.dumps([{"type": k, "has_loss": 0} | ({"text": text} if k == "text" else {}) for k in kinds]),
            "images": [f"/data/media/{n}.png"] * sum("image" in k for k in kinds),
            "videos": [item] * sum("video" in k for k in kinds), "licence": LICENCES[n % 4], "num_prompt_tokens": 60,
            "pair_id": make_id("pair", n), "video_id": make_id("video", n // 9), "issues": [], "num_attempts": 1}


def make_clips(folder: str, num: int) -> str:
    """Clips with embeddings: random ones, and COPIES of them again with noise (cosine about 0.98)."""
    path = os.path.join(folder, f"clips-{num}")
    if os.path.exists(os.path.join(path, HEADER)):
        return path
    schema = pa.schema([*CLIPS.schema, pa.field("sharpness", pa.float32()),
                        pa.field("video_embedding", pa.list_(pa.float32()))])
    copies = int(num * COPIES)
    with ManifestWriter(path, CLIPS, schema) as writer:
        for start in range(0, num, 10_000):
            size = min(10_000, num - start)
            source = start if start < num - copies else start - (num - copies)
            data = np.random.default_rng(source).standard_normal((10_000, DIM), np.float32)[:size]
            if source != start:
                data += 0.2 * np.random.default_rng(num + start).standard_normal(data.shape, np.float32)
            data /= np.linalg.norm(data, axis=1, keepdims=True)
            ids = pa.array([make_id("clip", n) for n in range(start, start + size)])
            side = pa.array(np.full(size, 720, np.int32))
            columns = {"clip_id": ids, "video_id": ids, "path": pa.array([f"/data/{n}.mp4" for n in range(size)]),
                       "width": side, "height": side,
                       "sharpness": pa.array(np.abs(data[:, 0]) * 1e3), "video_embedding": pa.ListArray.from_arrays(
                           pa.array(np.arange(0, size * DIM + 1, DIM, dtype=np.int32)), pa.array(data.ravel()))}
            writer.append(pa.table([columns[f.name] if f.name in columns else pa.nulls(size, f.type) for f in schema],
                                   schema=schema))
        writer.commit(name="made", owners={})
    return path


def measured(what: str, code: str) -> dict:
    done = in_fresh_process(code)
    print(f"{what}: {done['wall_s']:.1f} s, {done['peak_mb']:.0f} MB", flush=True)
    return {"what": what, "wall s": done["wall_s"], "CPU s": done["cpu_s"], "peak MB": done["peak_mb"],
            "found": done["out"] or ""}


def tables(folder: str, num: int) -> list[dict]:
    samples = make_samples(folder, num)
    out = tempfile.mkdtemp(dir=folder)
    setup = "import sys; from pipelines.__main__ import main\n# measure\n"
    decide = f"""
from filters.licence import ClassifyLicence, rights_rule
from filters.rules import ApplyRules, Rule
from manifests.manifest import Manifest
# measure
m = Manifest.open({samples!r})
ops = ClassifyLicence(), ApplyRules((Rule(column="num_prompt_tokens", min=10, max=400), rights_rule("research")))
out = sum(ops[1](ops[0](b))["drop_reason"].null_count for b in m.batches())
"""
    mix = ["mix", samples, "--stage", "IIa", "--output", out, "--rights", "research", "--steps", "1000",
           "--samples-per-step", "64"]
    rows = [measured(f"rules and rights over {num:,} samples (out: kept)", decide),
            measured(f"bernini mix, {num:,} samples: count, weigh, write", f"{setup}out = main({mix!r})")]
    for form in ("csv", "jsonl"):
        words = ["export", samples, "--output", os.path.join(out, f"rows.{form}")]
        rows.append(measured(f"bernini export, {num:,} samples to {form}", f"{setup}out = main({words!r})"))
    return rows


def duplicates(folder: str, num: int) -> list[dict]:
    clips = make_clips(folder, num)
    target = os.path.join(tempfile.mkdtemp(dir=folder), "deduped")
    words = ["dedupe", clips, "--by", "video_embedding=0.95", "--write", target]
    code = f"""
import faiss
from pipelines.__main__ import main
# measure
main({words!r})
import json
from manifests.manifest import Manifest
drops = Manifest.open({target!r}).header["drops"]
out = f"{{sum(drops.values()):,}} of {int(num * COPIES):,} copies"
"""
    return [measured(f"bernini dedupe, {num:,} embeddings of {DIM}", code)]


def scan_share(film: str) -> list[dict]:
    """CPU of the new measures against that of the whole first scan of the sample film."""
    code = f"""
import glob, time
import pyarrow as pa
from manifests.schema import VIDEOS
from pipelines.ingest import list_videos
from pipelines.recipe import MEASURES
from pipelines.scan import ScanVideos
videos = list_videos({film!r}, quiet=True)
spent = {{}}
def timed(name, cls):
    call = cls.__call__
    def run(self, clip):
        since = time.process_time()
        try:
            return call(self, clip)
        finally:
            spent[name] = spent.get(name, 0.0) + time.process_time() - since
    cls.__call__ = run
from filters.letterbox import MeasureLetterbox
from filters.overlay_text import MeasureOverlayText
from filters.picture_hash import HashPictures
timed("letterbox", MeasureLetterbox)
timed("overlay_text", MeasureOverlayText)
timed("picture_hash", HashPictures)
scan = ScanVideos((*MEASURES, "letterbox", "overlay_text", "picture_hash"))
# measure
since = time.process_time()
scan(videos)
total = time.process_time() - since
rest = total - sum(spent.values())
out = ", ".join(f"{{k}} {{v / rest:.2%}}" for k, v in spent.items())
"""
    return [measured("new measures inside the first scan of the sample film: CPU against the scan without them", code)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", default="")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--embeddings", type=int, default=1_000_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or temporary
        os.makedirs(folder, exist_ok=True)
        from datagen.samples import write_sample_film

        film = write_sample_film(Path(folder) / "film", quiet=True)
        rows = scan_share(str(film.videos_folder)) + tables(folder, given.rows) + duplicates(folder, given.embeddings)
    over = [r["what"] for r in rows if r["peak MB"] > LIMIT_MB]
    load = "/".join(f"{value:.1f}" for value in os.getloadavg())
    store("curation", rows, f"Fresh process each; load average {load} (shared machine). Limit: {LIMIT_MB:,} MB "
                            f"resident ({'kept' if not over else 'broken by ' + ', '.join(over)}). The trainer's form "
                            "(`export --form trainer`) holds all rows and is not part of this.")


if __name__ == "__main__":
    main()
