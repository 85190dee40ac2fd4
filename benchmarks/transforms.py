"""What each transform costs over the bare decode and encode of the same frames (issue 4: at most 1.25 times).

    python benchmarks/transforms.py VIDEO...

In one process, CPU seconds, interleaved (bare, transform, transform, bare), because the machine is shared:
read the ratio. "Bare" decodes the span once (`read_span`, RGB, same rate and size), and encodes with
`MediaStore.video` the very frames that the transform wrote, file by file, pictures included, so that both
sides compress the same content. The segmenter and the pose model are timed apart and left out of the
ratio; `with model` has them in. `planes` is the stricter floor: bare, without any conversion of colours.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import av
import cv2
import numpy as np

from benchmarks.measure import store
from datagen.backends import Poses
from datagen.backends.classical_segment import ClassicalSegmenter
from datagen.backends.dwpose import BODY
from datagen.transforms import TRANSFORMS, ApplyTransform
from manifests.ids import make_id
from manifests.media_store import MediaStore
from manifests.spans import read_image, read_span

FPS, SHORT_PX, SECONDS = 16.0, 480, 3.3


class Timed:
    """A backend whose CPU seconds are counted, and whose answer is kept: the model runs once a clip."""

    def __init__(self, inner):
        self._inner, self.seconds = inner, 0.0
        self.skeleton = getattr(inner, "skeleton", ())

    def segment(self, frames, phrases=()):
        begin = time.process_time()
        try:
            return self._inner.segment(frames, phrases)
        finally:
            self.seconds += time.process_time() - begin

    def estimate(self, frames):
        begin = time.process_time()
        try:
            return self._inner.estimate(frames)
        finally:
            self.seconds += time.process_time() - begin


class StandingPerson:
    """Poses that cost nothing: the ratio is about drawing them, not about the model."""

    skeleton = BODY

    def estimate(self, frames):
        points = np.random.default_rng(0).random((17, 2)) * frames.shape[2:0:-1]
        return [Poses(keypoints=points[None].astype(np.float32), scores=np.ones((1, 17), np.float32))] * len(frames)


def row_of(path: str, name: str, end_s: float) -> dict:
    return {"pair_id": make_id("pair", path, name), "edit": name, "clip_id": "c-0", "clip_path": path,
            "clip_start_s": 0.0, "clip_end_s": end_s}


def written(filled: dict) -> tuple[list[str], list[str]]:
    """Videos and pictures of a pair, each once."""
    paths = [filled["source_path"], filled["target_path"], filled["mask_path"]]
    paths += [c["path"] for c in filled["conditions"]]
    paths = list(dict.fromkeys(p for p in paths if p))
    return [p for p in paths if p.endswith("mp4")], [p for p in paths if not p.endswith("mp4")]


def bare(row: dict, num_frames: int, videos: list, pictures: list, *, planes: bool) -> float:
    """CPU seconds of decoding `num_frames` and encoding what the transform wrote."""
    with tempfile.TemporaryDirectory() as folder:
        media, begin = MediaStore(folder), time.process_time()
        for _ in read_span(row["clip_path"], row["clip_start_s"], row["clip_end_s"], short_px=SHORT_PX, fps=FPS,
                           max_frames=num_frames, planes=planes):
            pass
        for frames in videos:
            media.video(frames, fps=FPS)
        for kind, picture in pictures:
            media.image(picture, kind=kind, quality=95)
        return time.process_time() - begin


def transform(op: ApplyTransform, row: dict, root: str, timed: Timed) -> tuple[float, float]:
    """CPU seconds of the transform without and of the model."""
    shutil.rmtree(root, ignore_errors=True)
    timed.seconds, begin = 0.0, time.process_time()
    op.apply(row)
    return time.process_time() - begin - timed.seconds, timed.seconds


def main(paths: list[str], rounds: int = 1) -> None:
    cv2.setNumThreads(1)
    rows, root = [], tempfile.mkdtemp()
    op = ApplyTransform(root, fps=FPS, short_px=SHORT_PX)
    for name, kind in TRANSFORMS.items():
        timed = Timed(ClassicalSegmenter() if "segmenter" in kind.needs else StandingPerson())
        op._tools.segmenter = op._tools.pose = timed
        sums = dict.fromkeys(("bare", "planes", "own", "model"), 0.0)
        for path in paths:
            row = row_of(path, name, SECONDS)
            shutil.rmtree(root, ignore_errors=True)
            filled = op.apply(row)  # imports and first use
            files, images = written(filled)
            decoded = [decode(f) for f in files]
            raw = [[f.to_ndarray(format="yuv420p") for f in frames] for frames in decoded]
            rgb = [[f.to_ndarray(format="rgb24") for f in frames] for frames in decoded]
            pictures = [(p.rsplit(".", 1)[1], read_image(p)) for p in images]
            num = kind.parts * filled["num_frames"]
            for step in "BPTTPB" * rounds:
                if step == "T":
                    own, model = transform(op, row, root, timed)
                    sums["own"], sums["model"] = sums["own"] + own, sums["model"] + model
                elif step == "B":
                    sums["bare"] += bare(row, num, rgb, pictures, planes=False)
                else:
                    sums["planes"] += bare(row, num, raw, pictures, planes=True)
        rows.append({"transform": name, "ratio to bare": sums["own"] / sums["bare"],
                     "ratio to planes": sums["own"] / sums["planes"],
                     "with model": (sums["own"] + sums["model"]) / sums["bare"] if kind.needs else "",
                     "CPU s": sums["own"] / (2 * rounds * len(paths))})
        print(json.dumps(rows[-1]), flush=True)
    store("transforms", rows, f"{len(paths)} clips of {SECONDS:g} s at 16 fps, short side 480. Limit of the "
                              "issue: 1.25. Order bare, planes, transform, transform, planes, bare; the segmenter "
                              "is the classical one, the pose model is not run (its poses are given).")


def decode(path: str) -> list:
    with av.open(path) as container:
        return list(container.decode(video=0))


if __name__ == "__main__":
    main(sys.argv[1:])
