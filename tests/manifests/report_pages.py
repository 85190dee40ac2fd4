"""Manifests to be shown, and their pages as a reader sees them."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from manifests.columns import ACCOUNT, column
from manifests.manifest import Manifest, ManifestWriter
from manifests.schema import STOPS
from manifests.video_writer import write_video

HOSTILE_FILE = "<img src=x onerror=alert(1)>.mp4"
HOSTILE_PROMPT = "</script><script>alert(1)</script>"
S, F = pa.string(), pa.float64()
PAIR_COLUMNS = (column("video_similarity", pa.float32(), "cosine"), column("is_human", pa.bool_(), "people"),
                column("transition", S, "coarse"), column("instruction", S, "prompt"))
ADDED = {"videos": (column("verdict", S, "good or why not"), column("decoded_s", F, "length", "s")),
         "clips": (column("sharpness", F, "variance of the Laplacian"),),
         "frames": (), "documents": (), "candidates": PAIR_COLUMNS[:2], "pairs": PAIR_COLUMNS, "samples": ()}


def film(path: Path, seconds: float = 8.0, size: tuple[int, int] = (96, 64), seed: int = 0) -> str:
    """A bright square on noise that moves to the right with time."""
    noise = np.random.default_rng(seed).integers(0, 90, (size[1], size[0], 3), dtype=np.uint8)
    frames = []
    for i in range(round(seconds * 10)):
        frames.append(noise.copy())
        x = round(i / (seconds * 10) * (size[0] - 12))
        frames[-1][20:32, x : x + 12] = 255
    write_video(str(path), frames, fps=10)
    return str(path)


def write(root: Path, stop: str, rows: list[dict], parents: list[str] | None = None, **header) -> Manifest:
    schema = pa.schema([*STOPS[stop].fields, *ADDED[stop], *ACCOUNT])
    with ManifestWriter(f"{root}/{stop}/demo-0123abcd", STOPS[stop], schema) as writer:
        writer.append(pa.Table.from_pylist(rows, schema))
        return writer.commit(name="demo", parents=parents or [], config={"seed": 7}, versions={"av": "x"}, **header)


def pair(path: str, i: int, reason: str | None = None, **more) -> dict:
    """Pair `i`: clips of 2 s that start at `i % 5` tenths and a second later."""
    start = 0.1 * (i % 5)
    row = {"pair_id": f"p-{i:016x}", "video_id": "v-1", "recipe": "video-pairs", "licence": "CC-BY-4.0",
           "video_similarity": 0.66 + 0.001 * i, "is_human": i % 2 == 0, "transition": f"Coarse {i}.",
           "instruction": f"Fine, {i}.", "drop_reason": reason, "num_attempts": 1}
    for side, at in (("source", start), ("target", start + 1.0)):
        row |= {f"{side}_path": path, f"{side}_start_s": at, f"{side}_end_s": at + 2.0, f"{side}_duration_s": 2.0}
    return row | more


class Page(HTMLParser):
    """The elements of a page, and its text as a reader sees it."""

    def __init__(self, path: str):
        super().__init__()
        self.source = Path(path).read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(self.source)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag: str, name: str = "") -> list[dict]:
        return [a for t, a in self.tags if t == tag and name in (a.get("class") or "").split() + [""]]


def is_animated(uri: str) -> bool:
    with Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))) as image:
        return image.format == "WEBP" and image.n_frames > 1


def picture(path: Path, value: int, size: tuple[int, int] = (80, 60)) -> str:
    Image.fromarray(np.full((size[1], size[0], 3), value, np.uint8)).save(path)
    return str(path)


def shown(img: dict) -> np.ndarray:
    """The first frame of an `<img>` as RGB."""
    with Image.open(io.BytesIO(base64.b64decode(img["src"].split(",", 1)[1]))) as image:
        return np.asarray(image.convert("RGB")).astype(int)
