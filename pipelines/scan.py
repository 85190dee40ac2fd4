"""Decode a film once: probe, damage, shots, clips, measures and embeddings in one pass.

This is the stage group of the first measures. It lives here because it composes `datagen`
(where shots end) and `filters` (what a clip measures), which do not know each other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pkgutil import resolve_name

import cv2
import numpy as np
import pyarrow as pa

from datagen.cut import CutClips, Span
from datagen.shots import FindShots
from filters import FILTERS
from filters.video_similarity import EmbedVideo
from manifests import storage
from manifests.columns import add_issues, column, require, set_column
from manifests.errors import BackendError, ConfigError, MediaError
from manifests.frames import ClipBuffer, ClipFrames
from manifests.media import DECODER, Probe, VideoReader

S, F, I64 = pa.string(), pa.float64(), pa.int64()

GOOD = ("good", "damaged", "truncated")  # verdicts of files of which at least a part can be used

VIDEO_COLUMNS = (
    column("verdict", S, "good, damaged (good parts are used), truncated, or why nothing is: "
                         "missing, empty, unreadable, no_video, no_frames"),
    column("container", S, "container format"),
    column("video_codec", S, "codec of the video stream"),
    column("pixel_format", S, "stored pixel format"),
    column("width", pa.int32(), "as shown, after rotation", "px"),
    column("height", pa.int32(), "as shown, after rotation", "px"),
    column("rotation_deg", pa.int32(), "rotation that the file asks for, counter-clockwise", "degrees"),
    column("fps", F, "average frame rate", "1/s"),
    column("is_variable_rate", pa.bool_(), "more than 1 % of the frame steps are off the median by over 20 %"),
    column("duration_s", F, "as the header says", "s"),
    column("decoded_s", F, "from the first to after the last decoded frame", "s"),
    column("num_frames_header", I64, "frames the container announces"),
    column("num_frames_expected", I64, "duration times average rate"),
    column("num_frames_decoded", I64, "frames that really decode"),
    column("num_frames_corrupt", I64, "frames the decoder flags as damaged"),
    column("num_decode_errors", I64, "packets that could not be decoded"),
    column("longest_gap_s", F, "longest time between two frames", "s"),
    column("has_audio", pa.bool_(), "an audio stream is there"),
    column("sha256", S, "of the whole file"),
    column("decoder", S, "library and version that decoded it"),
)
SPAN_FIELDS = (
    pa.field("start_s", F), pa.field("end_s", F), pa.field("num_frames", pa.int32()), pa.field("transition_in", S),
)
TRUNCATED_EXACT_S, TRUNCATED_S = 0.25, 1.5  # missing end that is more than rounding; a container's length counts audio


def measure_classes(names: Sequence[str]) -> list[type]:
    unknown = [n for n in names if n not in FILTERS and ":" not in n]
    if unknown:
        raise ConfigError(f"no filter {unknown[0]!r}; known: {', '.join(FILTERS)}, or 'module:Class'")
    return [resolve_name(FILTERS.get(n, n)) for n in names]


def measure_fields(names: Sequence[str]) -> tuple[pa.Field, ...]:
    """Columns that these measures add to a clip."""
    return tuple(field for cls in measure_classes(names) for field in cls.adds)


class ScanVideos:
    """VIDEOS → the same rows with what the file holds, and the `clips` in it with their measures.

    `measures` are names of `filters.FILTERS`; "video_similarity" takes its backend from
    `embedder` and `embedder_options`. A file that cannot be read keeps its row, with a
    verdict and the reason in `issues`. Clips shorter than `min_clip_s` keep their row without
    measures.
    """

    reads = ("video_id", "path", "num_bytes")
    neutral = ("decode_threads",)  # arguments that change no result

    def __init__(self, measures: Sequence[str], *, embedder: str = "classical", embedder_options: dict | None = None,
                 min_clip_s: float = 2.0, max_clip_s: float = 10.0, decode_threads: int = 1):
        self.adds = self.contract(measures=measures)[1]
        self._span = {"min_s": min_clip_s, "max_s": max_clip_s}
        self._threads = decode_threads
        options = {"video_similarity": {"backend": embedder, **(embedder_options or {})}}
        built = [cls(**options.get(n, {})) for n, cls in zip(measures, measure_classes(measures), strict=True)]
        self._embedders = [m for m in built if isinstance(m, EmbedVideo)]
        self._measures = [m for m in built if not isinstance(m, EmbedVideo)]
        cv2.setNumThreads(1)  # the pictures are small, and Ray gives each worker one core

    @classmethod
    def contract(cls, measures: Sequence[str], **_: object) -> tuple[tuple[str, ...], tuple[pa.Field, ...]]:
        clip = pa.struct([*SPAN_FIELDS, *(pa.field(f.name, f.type) for f in measure_fields(measures)),
                          pa.field("issues", pa.list_(S))])
        transition = pa.struct([pa.field("kind", S), pa.field("start_s", F), pa.field("end_s", F)])
        return cls.reads, (*VIDEO_COLUMNS,
                           column("transitions", pa.list_(transition), "cuts, dissolves, fades and damage found"),
                           column("clips", pa.list_(clip), "the clips and their measures"))

    @classmethod
    def owners(cls, measures: Sequence[str], embedder: str = "classical", embedder_options: dict | None = None,
               **_: object) -> dict[str, dict]:
        """Which measure made which column of `clips`, and with what backend."""
        backends = {"video_similarity": " ".join([embedder, *map(str, (embedder_options or {}).values())])}
        return {field.name: {"op": f"{c.__module__}:{c.__name__}", "backend": backends.get(n, c.backend)}
                for n, c in zip(measures, measure_classes(measures), strict=True) for field in c.adds}

    def __call__(self, table: pa.Table) -> pa.Table:
        require(table, self.reads, "ScanVideos")
        results = [self._scan(row) for row in table.select(list(self.reads)).to_pylist()]
        for field in self.adds:
            table = set_column(table, field, [r.get(field.name) for r in results])
        return add_issues(table, [r["issues"] for r in results])

    def _scan(self, row: dict) -> dict:
        if row["num_bytes"] is None:
            return {"verdict": "missing", "decoder": DECODER, "issues": [f"there is no file {row['path']}"]}
        if row["num_bytes"] == 0:
            return {"verdict": "empty", "decoder": DECODER, "issues": ["the file has 0 bytes"]}
        found = {"decoder": DECODER, "issues": []}
        try:
            found["sha256"] = _sha256(row["path"])
            with VideoReader(row["path"], threads=self._threads) as reader:
                found |= _header(reader.probe)
                found |= self._read(reader)
        except MediaError as error:
            verdict = "no_video" if "no video stream" in str(error) else "unreadable"
            return found | {"verdict": verdict, "issues": [str(error)]}
        return found

    def _read(self, reader: VideoReader) -> dict:
        film = _Film(reader, CutClips(**self._span))
        clips, short, prepared = [], [], []
        for span, clip in film.clips():
            found = {"start_s": span.start_s, "end_s": span.end_s, "transition_in": span.transition_in,
                     "num_frames": len(clip.frame_times_s)}
            if span.end_s - span.start_s < self._span["min_s"] - 1e-6:  # its length drops it: nothing else is measured
                short.append(found | {"issues": []})
                continue
            clips.append(found | self._measure(clip))
            prepared.append([e.prepare(clip) for e in self._embedders])
        for i, embedder in enumerate(self._embedders):
            for clip, values in zip(clips, embedder.finish([p[i] for p in prepared]), strict=True):
                clip.update(values)
        return film.account() | {"clips": sorted(clips + short, key=lambda c: c["start_s"]),
                                 "transitions": film.transitions}

    def _measure(self, clip: ClipFrames) -> dict:
        values: dict = {"issues": []}
        for measure in self._measures:
            try:
                values |= measure(clip)
            except (MediaError, BackendError) as error:
                values["issues"].append(f"{type(measure).__name__}: {error}")
        return values


class _Film:
    """One pass over a reader: yields each clip when it is final, then gives the account."""

    def __init__(self, reader: VideoReader, cutter: CutClips):
        self.reader, self.transitions = reader, []
        self._cutter, self._shots, self._buffer = cutter, FindShots(reader.probe.fps), ClipBuffer()
        self._first_s = self._last_s = None
        self._steps: list[float] = []
        self._size, self._rotation = None, 0

    def clips(self) -> Iterator[tuple[Span, ClipFrames]]:
        for frame in self.reader:
            if self._first_s is None:
                self._first_s, self._size = frame.time_s, frame.shown_size
                self._rotation = round(frame.image.rotation)
                self._cutter.begin(frame.time_s)
            else:
                if frame.clean:
                    self._steps.append(frame.time_s - self._last_s)
            self._last_s = frame.time_s
            self._buffer.push(frame, *self._shots.push(frame))
            if frame.index % 8 == 0:
                yield from self._take(self._cutter.push(self._final(), frame.time_s))
        if self._first_s is not None:
            yield from self._take(self._cutter.finish(self._final(at_end=True), self.end_s))

    @property
    def end_s(self) -> float:
        """The last frame stays as long as the median one."""
        step = float(np.median(self._steps)) if self._steps else 1.0 / (self.reader.probe.fps or 25.0)
        return self._last_s + step

    def _final(self, *, at_end: bool = False) -> list:
        final = self._shots.take_final(at_end=at_end)
        self.transitions += [{"kind": t.kind, "start_s": t.start_s, "end_s": t.end_s} for t in final]
        return final

    def _take(self, spans: Iterator[Span]) -> Iterator[tuple[Span, ClipFrames]]:
        for span in spans:
            clip = self._buffer.take(span.start_s, span.end_s)
            if clip is not None:
                yield span, clip

    def account(self) -> dict:
        reader, p = self.reader, self.reader.probe
        counts = {"num_frames_decoded": reader.num_decoded, "num_frames_corrupt": reader.num_corrupt,
                  "num_decode_errors": reader.num_errors}
        if self._first_s is None:
            reason = f": {reader.first_error}" if reader.first_error else ""
            return counts | {"verdict": "no_frames", "issues": [f"not one frame of {reader.path} decodes{reason}"]}
        issues, verdict = [], "good"
        missing = (p.duration_s or 0.0) - self.end_s
        if missing > (TRUNCATED_EXACT_S if p.duration_is_exact else TRUNCATED_S):
            verdict = "truncated"
            issues.append(f"ends at {self.end_s:.2f} s, the header says {p.duration_s:.2f} s")
        if reader.num_corrupt or reader.num_errors:
            verdict = "damaged" if verdict == "good" else verdict
            issues.append(f"{reader.num_corrupt} damaged frames and {reader.num_errors} undecodable packets; "
                          "the spans around them are left out")
        width, height = self._size
        return counts | {
            "verdict": verdict, "issues": issues, "width": width, "height": height, "rotation_deg": self._rotation,
            "decoded_s": self.end_s - self._first_s, "longest_gap_s": max(self._steps, default=0.0),
            "is_variable_rate": _is_variable(self._steps),
        }


def _header(p: Probe) -> dict:
    return {"container": p.container, "video_codec": p.video_codec, "pixel_format": p.pixel_format,
            "width": p.width, "height": p.height, "fps": p.fps, "duration_s": p.duration_s,
            "num_frames_header": p.num_frames_header, "num_frames_expected": p.num_frames_expected,
            "has_audio": p.has_audio}


def _is_variable(steps: list[float]) -> bool:
    """2 ms are allowed for containers that round times to a millisecond."""
    if len(steps) < 2:
        return False
    typical = float(np.median(steps))
    return float((np.abs(np.array(steps) - typical) > 0.2 * typical + 0.002).mean()) > 0.01


def _sha256(path: str) -> str:
    filesystem, inner = storage.resolve(path)
    digest = hashlib.sha256()
    try:
        with filesystem.open_input_stream(inner) as stream:
            while piece := stream.read(1 << 20):
                digest.update(piece)
    except OSError as error:
        raise MediaError(f"cannot read {path}: {error.strerror or error}") from None
    return digest.hexdigest()
