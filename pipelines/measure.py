"""`bernini measure`: further measures for the rows of a finished manifest.

The first scan takes what every recipe needs. All else in `filters.FILTERS` (burned-in text, black
borders, perceptual hashes, scores of models) is added here, to a copy of a CLIPS, FRAMES,
CANDIDATES, PAIRS or SAMPLES table: each row's span is decoded once for all measures named.
What earlier rules have dropped passes by unmeasured. The same command resumes.

    bernini measure OUT/clips/video-pairs-1a2b3c4d --filters overlay_text letterbox --output OUT
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import pyarrow as pa
import tyro

from datagen.shots import FindShots
from filters import FILTERS
from filters.video_similarity import EmbedVideo
from manifests.columns import add_issues, column, doc_of, require, set_column
from manifests.errors import BackendError, ConfigError, ManifestError, MediaError
from manifests.frames import DETAIL_SHORT_PX, SAMPLE_SHORT_PX, ClipBuffer, ClipFrames
from manifests.manifest import Manifest
from manifests.media import VideoReader
from manifests.planes import fit, shrink
from manifests.settings import flag, parse
from manifests.spans import EPSILON_S, read_picture

from .checks import existing_files
from .command import print_funnel
from .recipe import RunConfig, Steps
from .scan import measure_classes
from .stage import Stage

SIDES = ("source", "target")
MODELS = {"text_similarity": ("clip_model",), "aesthetics": ("clip_model", "aesthetic_head")}  # settings they need
TEXTS = ("caption", "instruction")  # columns that tell what is seen, the first that is there


@dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """Settings of `bernini measure`."""

    input: tyro.conf.Positional[str]
    """The manifest: clips, frames, candidates, pairs or samples."""
    filters: tuple[str, ...]
    """Names of measures, e.g. overlay_text letterbox, or module:Class."""
    side: str = "target"
    """Which side of pairs and samples is looked at; its name goes before the columns' names."""
    text_column: str = ""
    """Column whose text text_similarity compares; empty = caption or instruction, of samples the prompt."""
    clip_model: str = ""
    """open_clip model of aesthetics and text_similarity: a folder, or ARCHITECTURE/PRETRAINED."""
    aesthetic_head: str = ""
    """Weights of a LAION-style aesthetic predictor (.safetensors, or .pth with tensors only)."""
    embedder: str = "classical"
    """Backend of video_similarity: classical or xclip."""
    embedder_model: str = "microsoft/xclip-base-patch32"
    """Folder or hub id of the X-CLIP model."""
    gpus_per_worker: float = 0.0
    """Share of a GPU that one worker takes."""

    def __post_init__(self):
        super().__post_init__()
        measure_classes(self.filters)
        if not self.filters:
            raise ConfigError("name at least one measure with --filters, e.g. --filters overlay_text letterbox")
        if self.side not in SIDES:
            raise ConfigError(f"no side {self.side!r}; known: {', '.join(SIDES)}")
        for name, flags in MODELS.items():
            if name in self.filters and (missing := [f for f in flags if not getattr(self, f)]):
                raise ConfigError(f"{name} is measured by a model: name {' and '.join(map(flag, missing))}")
        existing_files(self, "aesthetic_head")


def main(argv: list[str]) -> int:
    """Decode the rows of a manifest once more and add the measures named, as a new manifest."""
    about = f"{__doc__}\nMeasures: {', '.join(FILTERS)}"
    config = parse(Config, argv, prog="bernini measure", description=about)
    manifest = measure(config)
    print_funnel([manifest])
    print(f"manifest  {manifest.path}")
    return 0


def measure(config: Config) -> Manifest:
    """The manifest below `config.output` with the columns added; a finished one is returned at once."""
    source = Manifest.open(config.input)
    stage = measure_stage(config, source)
    return Steps(config, "measure").run(source.stop.name, source, (stage,), rows_per_block=8, parents=[source],
                                        made_by=source.header.get("owners"))


def measure_stage(config: Config, source: Manifest) -> Stage:
    names, stop = source.schema.names, source.stop.name
    if stop not in READS:
        raise ManifestError(f"{source.path} is a {stop} table; measures are taken of {', '.join(READS)}")
    text = config.text_column
    if text and text not in names:
        raise ManifestError(f"{source.path} has no column {text!r} for --text-column; it has {', '.join(names)}")
    if not text and stop != "samples":
        text = next((name for name in TEXTS if name in names), "")
    clip = {"model": config.clip_model}
    options = {"aesthetics": clip | {"head": config.aesthetic_head}, "text_similarity": clip,
               "video_similarity": {"backend": config.embedder} | (
                   {"model": config.embedder_model} if config.embedder == "xclip" else {})}
    kwargs = {"filters": config.filters, "stop": stop, "side": config.side, "text_column": text,
              "options": {k: v for k, v in options.items() if k in config.filters}}
    return Stage(op="pipelines.measure:MeasureRows", batch_size=8, workers=config.workers,
                 num_gpus=config.gpus_per_worker, kwargs=kwargs | _versions(config.filters))


def _versions(filters: Sequence[str]) -> dict:
    """Versions of the measures that have changed: with them a finished manifest of the earlier ones is not the same."""
    changed = {n: c.version for n, c in zip(filters, measure_classes(filters), strict=True) if hasattr(c, "version")}
    return {"versions": changed} if changed else {}


READS = {
    "clips": ("path", "start_s", "end_s"),
    "frames": ("path", "time_s"),
    "candidates": ("{side}_path", "{side}_start_s", "{side}_end_s"),
    "pairs": ("{side}_path", "{side}_start_s", "{side}_end_s"),
    "samples": ("inputs", "images", "videos"),
}


class MeasureRows:
    """Rows of a stop → the same rows with the columns of the named measures.

    The columns of pairs and samples begin with the side that was looked at (`target_border_top`).
    A row that cannot be decoded gets nulls and one issue; a measure that fails alone leaves the
    others standing.
    """

    def __init__(self, filters: Sequence[str], stop: str, side: str = "target", text_column: str = "",
                 options: Mapping[str, dict] | None = None, versions: Mapping[str, int] | None = None):
        self.reads, self.adds = self.contract(filters, stop, side, text_column)
        self._stop, self._side, self._text, self._prefix = stop, side, text_column, _prefix(stop, side)
        self._measures = [cls(**(options or {}).get(name, {}))
                          for name, cls in zip(filters, measure_classes(filters), strict=True)]
        cv2.setNumThreads(1)

    @classmethod
    def contract(cls, filters: Sequence[str], stop: str, side: str = "target", text_column: str = "",
                 **_: object) -> tuple[tuple[str, ...], tuple[pa.Field, ...]]:
        reads = tuple(name.format(side=side) for name in READS[stop])
        fields = tuple(_renamed(field, _prefix(stop, side)) for c in measure_classes(filters) for field in c.adds)
        return (*reads, *([text_column] if text_column else ())), fields

    @classmethod
    def owners(cls, filters: Sequence[str], stop: str, side: str = "target", options: dict | None = None,
               **_: object) -> dict[str, dict]:
        return {_prefix(stop, side) + field.name: {"op": f"{c.__module__}:{c.__name__}", "backend": " ".join(
            [c.backend, *map(str, (options or {}).get(name, {}).values())]).strip()} | (
                {"version": c.version} if hasattr(c, "version") else {})
            for name, c in zip(filters, measure_classes(filters), strict=True) for field in c.adds}

    def __call__(self, table: pa.Table) -> pa.Table:
        require(table, self.reads, "MeasureRows")
        results, issues = [], []
        for row in table.select(list(self.reads)).to_pylist():
            found, wrong = self._row(row)
            results.append(found)
            issues.append(wrong)
        for field in self.adds:
            table = set_column(table, field, [r.get(field.name.removeprefix(self._prefix)) for r in results])
        return add_issues(table, issues)

    def _row(self, row: dict) -> tuple[dict, list[str]]:
        values, issues = {}, []
        try:
            clip = read_clip(*_span(row, self._stop, self._side))
        except MediaError as error:
            return {}, [f"MeasureRows: {error}"]
        text = row[self._text] if self._text else _prompt(row) if self._stop == "samples" else None
        for measure in self._measures:
            try:
                values |= _call(measure, clip, text)
            except (MediaError, BackendError) as error:
                issues.append(f"{type(measure).__name__}: {error}")
        return values, issues


def read_clip(path: str | None, start_s: float | None, end_s: float | None) -> ClipFrames:
    """The frames of a span as the measures take them; without `end_s` a picture (a frame at `start_s`, or a file)."""
    if path is None:
        raise MediaError("the row has no medium on this side")
    if end_s is None:
        return _picture(path, start_s)
    buffer = ClipBuffer()
    with VideoReader(path) as reader:
        shots = FindShots(reader.probe.fps)
        if start_s > 1.0:
            reader.seek(start_s)
        for frame in reader:
            if frame.time_s >= end_s - EPSILON_S:
                break
            if frame.time_s >= start_s - EPSILON_S:
                buffer.push(frame, *shots.push(frame))
    clip = buffer.take(start_s - EPSILON_S, end_s)
    if clip is None:
        raise MediaError(f"{path} has no frame between {start_s:.3f} and {end_s:.3f} s")
    return clip


def _picture(path: str, time_s: float | None) -> ClipFrames:
    bgr = np.ascontiguousarray(read_picture(path, time_s)[..., ::-1])
    size = bgr.shape[1::-1]
    luma = cv2.cvtColor(shrink(bgr, fit(size, short_px=DETAIL_SHORT_PX)), cv2.COLOR_BGR2GRAY)
    at = np.array([time_s or 0.0])
    return ClipFrames(start_s=float(at[0]), end_s=float(at[0]), times_s=at, details=[luma],
                      bgr=[shrink(bgr, fit(size, short_px=SAMPLE_SHORT_PX))], frame_times_s=at,
                      frame_luma=np.array([float(luma.mean())]), frame_change=np.zeros(1), frame_clean=np.ones(1, bool))


def _call(measure, clip: ClipFrames, text: str | None) -> dict:
    if isinstance(measure, EmbedVideo):
        return measure.finish([measure.prepare(clip)])[0]
    return measure(clip, text) if getattr(measure, "reads_text", False) else measure(clip)


def _span(row: dict, stop: str, side: str) -> tuple[str | None, float | None, float | None]:
    if stop == "clips":
        return row["path"], row["start_s"], row["end_s"]
    if stop == "frames":
        return row["path"], row["time_s"], None
    if stop != "samples":
        return row[f"{side}_path"], row[f"{side}_start_s"], row[f"{side}_end_s"]
    kinds = [m["type"] for m in json.loads(row["inputs"]) if m["type"] not in ("text", "cot_text", "special_token")]
    is_video = bool(kinds) and "video" in (kinds[-1] if side == "target" else kinds[0])
    media = row["videos"] if is_video else row["images"]
    if not media:
        return None, None, None
    medium = media[-1 if side == "target" else 0]
    return (medium["video_path"], medium["start_s"], medium["end_s"]) if is_video else (medium, None, None)


def _prompt(row: dict) -> str:
    return " ".join(m["text"] for m in json.loads(row["inputs"]) if m["type"] == "text")


def _prefix(stop: str, side: str) -> str:
    return f"{side}_" if stop in ("candidates", "pairs", "samples") else ""


def _renamed(field: pa.Field, prefix: str) -> pa.Field:
    doc, unit = doc_of(field)
    return column(prefix + field.name, field.type, f"{doc} ({prefix.rstrip('_')})" if prefix else doc, unit)
