"""SynCamVideo (arXiv 2412.07760): scenes rendered from 36 cameras at once.

Layout after the README of github.com/KwaiVGI/SynCamMaster, section File Structure: `train/videos/scene1/*.mp4`
(synchronised, 100 frames, 480 x 720) and `train/cameras/scene1/*.json` (extrinsics). The set holds no
texts and no pairs: each camera is paired with the next one of its scene, and the instruction is a
fixed sentence. The camera file is named in `extra`; its format is not documented, so nothing is said
about where the second camera stands.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from manifests import storage
from manifests.errors import InputError

from .entries import Entry

NAME = "syncamvideo"
LICENCE = "Apache-2.0"  # dataset card of KwaiVGI/SynCamVideo-Dataset
DEEP = True  # the layout is the files themselves, not a list of them
WHY = "rendered scenes seen by 36 cameras; one folder of videos a scene"

INSTRUCTION = "Show the same scene at the same moments, filmed by a camera that stands somewhere else."


def entries(root: str, store=None, *, leave_out: str = "") -> Iterator[Entry]:
    """`leave_out` is an output folder that may lie inside the data set."""
    tops = (storage.join(root, "train"), root)
    top = next((p for p in tops if storage.list_folders(storage.join(p, "videos"))), None)
    if top is None:
        raise InputError(f"{root} has no folder train/videos/ with scenes in it, so it is not laid out as {NAME}")
    scenes: dict[str, list[str]] = defaultdict(list)
    for file, _ in storage.files_below(storage.join(top, "videos"), leave_out):
        if file.endswith(".mp4") and "/" in file:
            scenes[file.rsplit("/", 1)[0]].append(file)
    if not scenes:
        raise InputError(f"the scenes below {top}/videos hold no .mp4 file, so it is not laid out as {NAME}")
    for scene, files in sorted(scenes.items()):
        cameras = [f for f, _ in storage.list_files(storage.join(top, "cameras", scene)) if f.endswith(".json")]
        for before, after in zip(files, [*files[1:], *files[:1]], strict=True):
            if before != after:
                yield Entry(source=storage.join(top, "videos", before), target=storage.join(top, "videos", after),
                            text=INSTRUCTION, task="v2v", edit="camera",
                            extra={"scene": scene, "cameras": cameras[:1] and f"cameras/{scene}/{cameras[0]}"})
