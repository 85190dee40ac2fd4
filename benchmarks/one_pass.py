"""How much the whole run costs over its floor: one bare decode, shot detection and embedding alone.

    python benchmarks/one_pass.py VIDEO_FOLDER

The floor is measured in the same process and interleaved with the run (floor, run, run,
floor), because the machine is shared: read the ratio, not the seconds. CPU seconds throughout.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import av
import cv2

from benchmarks.measure import command, store
from datagen.cut import CutClips
from datagen.shots import FindShots
from filters.video_similarity import EmbedVideo
from manifests.errors import MediaError
from manifests.frames import ClipBuffer
from manifests.media import VideoReader
from pipelines.pairs.video_pairs import Config, run_steps


def bare_decode(paths: list[str]) -> float:
    """Nothing but PyAV: demux and decode every packet, one thread."""
    begin = time.process_time()
    for path in paths:
        try:
            with av.open(path) as container:
                if not container.streams.video:
                    continue
                stream = container.streams.video[0]
                stream.codec_context.thread_count = 1
                for packet in container.demux(stream):
                    try:
                        packet.decode()
                    except av.FFmpegError:
                        pass
        except av.FFmpegError:
            pass
    return time.process_time() - begin


def calls_alone(paths: list[str]) -> tuple[float, float]:
    """CPU seconds inside shot detection and inside embedding, frames given."""
    shots_s = embed_s = 0.0
    embed = EmbedVideo()
    for path in paths:
        try:
            with VideoReader(path) as reader:
                finder, buffer, cutter, last = FindShots(reader.probe.fps), ClipBuffer(), CutClips(), None
                prepared = []
                for frame in reader:
                    if last is None:
                        cutter.begin(frame.time_s)
                    begin = time.process_time()
                    scalars = finder.push(frame)
                    shots_s += time.process_time() - begin
                    buffer.push(frame, *scalars)
                    last = frame.time_s
                    spans = list(cutter.push(finder.take_final(), frame.time_s)) if frame.index % 8 == 0 else []
                    clips = [c for s in spans if (c := buffer.take(s.start_s, s.end_s))]
                    begin = time.process_time()
                    prepared += [embed.prepare(c) for c in clips]
                    embed_s += time.process_time() - begin
                if last is not None:
                    clips = [c for s in cutter.finish(finder.take_final(at_end=True), last + 0.04)
                             if (c := buffer.take(s.start_s, s.end_s))]
                    begin = time.process_time()
                    embed.finish(prepared + [embed.prepare(c) for c in clips])
                    embed_s += time.process_time() - begin
        except MediaError:
            pass
    return shots_s, embed_s


def whole_run(folder: str) -> float:
    with tempfile.TemporaryDirectory() as out:
        begin = time.process_time()
        dict(run_steps(Config(input=folder, output=out, engine="local", quiet=True, human_balance=False)))
        return time.process_time() - begin


def main(folder: str) -> None:
    cv2.setNumThreads(1)
    paths = sorted(str(p) for p in Path(folder).rglob("*") if p.is_file())
    whole_run(folder)  # imports and first-use costs
    floors, runs, parts = [], [], []
    for step in "FRRF":
        if step == "R":
            runs.append(whole_run(folder))
        else:
            decode, (shots, embed) = bare_decode(paths), calls_alone(paths)
            floors.append(decode + shots + embed)
            parts.append((decode, shots, embed))
    decode, shots, embed = (sum(p[i] for p in parts) / len(parts) for i in range(3))
    rows = [{"what": f"{len(paths)} files, whole in-process run", "CPU s": sum(runs) / 2,
             "ratio": sum(runs) / sum(floors)},
            {"what": "floor: bare decode + shot detection + embedding", "CPU s": sum(floors) / 2, "ratio": 1.0},
            {"what": "of it bare decode (PyAV, one thread)", "CPU s": decode},
            {"what": "of it shot detection calls", "CPU s": shots},
            {"what": "of it embedding calls (classical)", "CPU s": embed}]
    for engine in ("local", "ray"):
        with tempfile.TemporaryDirectory() as out:
            done = command([sys.executable, "-m", "pipelines", "run", "video-pairs", "--input", folder, "--output", out,
                            "--engine", engine, "--no-report", "--quiet", "--no-human-balance"])
        rows.append({"what": f"the command, --engine {engine}: CPU s of all processes", "CPU s": done["cpu_s"]})
        rows.append({"what": f"the command, --engine {engine}: wall s, start included", "CPU s": done["wall_s"]})
    store("one_pass", rows, "Order floor, run, run, floor in one process. Ray's own processes are not children of the "
                            "command, so their CPU seconds are missing from its row; wall seconds are whole.")


if __name__ == "__main__":
    main(os.path.abspath(sys.argv[1]))
