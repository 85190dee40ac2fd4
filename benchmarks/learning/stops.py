"""Procedural edits through the stops of the house: media files → PAIRS → SAMPLES (`encode` makes LATENTS of them).

Training and tests read what stands in the manifests and the files they name, never the generator's arrays.
The facts that the judge needs lie in the column `extra`, as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from datagen.build_samples import BuildSamples
from datagen.sprite_edits import Cases, draw_cases
from datagen.sprites import SIDE_PX, Scenes, render
from manifests.columns import column
from manifests.ids import digest, make_id
from manifests.manifest import Manifest
from manifests.media_store import MediaStore
from manifests.messages import condition
from manifests.schema import PAIRS, RIGHTS, SAMPLES
from manifests.spans import read_image, read_span
from manifests.video_writer import write_video
from pipelines.place import Place
from pipelines.run import finish

FPS = 16
VIDEO_SCALE = 16  # H.264 halves the colour planes: a pixel of a scene is drawn as 16 x 16
INSTRUCTION = column("instruction", pa.string(), "what to change")
PAIR_SCHEMA = pa.schema([*PAIRS.fields, INSTRUCTION, *list(PAIRS.schema)[-3:]])
ROWS = 1024  # written at once


@dataclass(frozen=True, kw_only=True)
class SpriteConfig:
    """One set of procedural edits."""

    output: str
    """Folder below which the stops are written."""
    subset: str
    """edits, id, content, reasoning or motion."""
    count: int
    """Number of pairs."""
    seed: int = 0
    """The same seed gives the same pairs."""
    held_out: bool = False
    """Only combinations of shape, colour and edit that are never trained."""
    references: int = 2
    """Reference pictures of a pair, where the subset has any."""


def write_stops(config: SpriteConfig) -> Manifest:
    """The SAMPLES manifest of a set; a finished one is returned at once."""
    place = Place(config.output, f"sprites-{config.subset}", config)
    settings = [config.subset, config.count, config.seed, config.held_out, config.references]
    pairs = finish(place.target("pairs", (), settings=settings), PAIR_SCHEMA, _pairs(config))
    build = BuildSamples(f"sprites-{config.subset}")
    return finish(place.target("samples", (), parents=[pairs]), SAMPLES.schema, map(build, pairs.batches()))


def _pairs(config: SpriteConfig) -> Iterator[pa.Table]:
    cases = draw_cases(config.subset, config.count, config.seed, held_out=config.held_out,
                       references=config.references)
    store = MediaStore(f"{config.output}/media")
    for start in range(0, len(cases), ROWS):
        part = cases.take(np.arange(start, min(start + ROWS, len(cases))))
        rows = [_pair(config, start + i, row) for i, row in enumerate(_rows(part, store))]
        yield pa.Table.from_pylist(rows, PAIR_SCHEMA)


def _rows(cases: Cases, store: MediaStore) -> Iterator[dict]:
    """What each case shows, as files, and its facts."""
    sets = [*(render(v, cases.frames) for v in cases.visuals), cases.target_pictures()]
    scenes = [v.to_lists() for v in (*cases.visuals, cases.target)]
    for i in range(len(cases)):
        facts = {"edit": str(cases.edit[i]), "scenes": [s[i] for s in scenes], "style": int(cases.style[i]),
                 "wrong_background": int(cases.wrong_background[i]), "wrong_colour": int(cases.wrong_colour[i]),
                 "has_source": cases.has_source, "frames": cases.frames}
        yield {"files": [_store(store, s[i]) for s in sets], "instruction": str(cases.instruction[i]), "facts": facts}


def _store(store: MediaStore, frames: np.ndarray) -> tuple[str, float | None, float | None]:
    """`(path, start_s, end_s)` of uint8 `[T, S, S, 3]`; one frame is a picture."""
    if len(frames) == 1:
        return store.image(frames[0]), None, None
    large = frames.repeat(VIDEO_SCALE, axis=1).repeat(VIDEO_SCALE, axis=2)
    path = f"{store.root}/clips/{digest(frames.tobytes().hex())}.mp4"
    return path, 0.0, write_video(path, large, fps=FPS, crf=8) / FPS


def _pair(config: SpriteConfig, index: int, row: dict) -> dict:
    facts, (*shown, target) = row["facts"], row["files"]
    pair = dict.fromkeys(PAIR_SCHEMA.names) | {f.name: None for f in RIGHTS}
    name = [config.subset, config.held_out, config.references, config.seed, index]
    pair |= {"pair_id": make_id("pair", *name), "video_id": make_id("video", *name), "edit": facts["edit"],
             "recipe": f"sprites-{config.subset}", "task": _task(shown, facts), "instruction": row["instruction"],
             "extra": json.dumps(facts), "issues": [], "num_attempts": 1}
    if facts["has_source"] and len(shown) == 1:
        pair |= _side("source", shown.pop(0))
    pair["conditions"] = [condition("reference", *item) for item in shown]
    return pair | _side("target", target)


def _task(shown: list, facts: dict) -> str:
    """Several pictures in, one out: r2i; the first of them may be the one to edit."""
    if facts["frames"] > 1:
        return "v2v"
    return "i2i" if len(shown) == 1 else "r2i"


def _side(side: str, item: tuple[str, float | None, float | None]) -> dict:
    path, start_s, end_s = item
    return {f"{side}_path": path, f"{side}_start_s": start_s, f"{side}_end_s": end_s, f"{side}_duration_s": end_s}


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What a SAMPLES manifest holds: `sources` uint8 `[N, V, T, S, S, 3]` in the order of the messages,
    `targets` uint8 `[N, T, S, S, 3]`, the prompts, and the cases for the judge.
    """

    sources: np.ndarray
    targets: np.ndarray
    prompts: list[str]
    cases: Cases

    def __len__(self) -> int:
        return len(self.prompts)

    def take(self, index: np.ndarray) -> Loaded:
        """The samples at `index`."""
        return Loaded(sources=self.sources[index], targets=self.targets[index],
                      prompts=[self.prompts[i] for i in index], cases=self.cases.take(index))


def load(samples: Manifest, limit: int | None = None) -> Loaded:
    """Reads the files that the first `limit` samples name."""
    rows = samples.table(["inputs", "images", "videos", "extra"]).slice(0, limit).to_pylist()
    pictures = [[read_media(path, None, None) for path in r["images"]]
                + [read_media(v["video_path"], v["start_s"], v["end_s"]) for v in r["videos"]] for r in rows]
    pictures = np.stack([np.stack(p) for p in pictures])
    texts = [[m["text"] for m in json.loads(r["inputs"]) if m["type"] == "text"] for r in rows]
    prompts = [" ".join(t) for t in texts]
    return Loaded(sources=pictures[:, :-1], targets=pictures[:, -1], prompts=prompts,
                  cases=_cases([json.loads(r["extra"]) for r in rows], prompts))


def _cases(facts: list[dict], prompts: list[str]) -> Cases:
    def column_of(name: str) -> np.ndarray:
        return np.array([f[name] for f in facts])

    scenes = [Scenes.from_lists([f["scenes"][i] for f in facts]) for i in range(len(facts[0]["scenes"]))]
    return Cases(instruction=np.array(prompts), edit=column_of("edit"), visuals=tuple(scenes[:-1]), target=scenes[-1],
                 style=column_of("style"), wrong_background=column_of("wrong_background"),
                 wrong_colour=column_of("wrong_colour"), has_source=facts[0]["has_source"], frames=facts[0]["frames"])


def read_media(path: str, start_s: float | None, end_s: float | None) -> np.ndarray:
    """uint8 `[T, S, S, 3]` of a picture, or of a clip with each block of pixels averaged back to the one it shows."""
    if start_s is None:
        return read_image(path, long_px=SIDE_PX)[None].copy()  # torch wants it writable
    large = np.stack(list(read_span(path, start_s, end_s)))
    blocks = large.reshape(len(large), SIDE_PX, VIDEO_SCALE, SIDE_PX, VIDEO_SCALE, 3)
    return np.round(blocks.mean((2, 4))).astype(np.uint8)
