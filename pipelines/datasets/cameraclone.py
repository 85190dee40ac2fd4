"""Camera Clone Dataset of CamCloneMaster (arXiv 2506.03140): re-film a scene with another video's camera.

Layout after the training code of CamCloneMaster (class CamCloneDataset) and the dataset card of
KwaiVGI/CameraClone-Dataset: `CamCloneDataset.csv` with `video_path` (target), `ref_video_path` (its camera is to be
cloned), `content_video_path` (the scene to be filmed again) and `caption`. Paths count from the CSV's folder.
"""

from __future__ import annotations

from collections.abc import Iterator

from .entries import Condition, Entry, base_of, find_tables, inside, records

NAME = "cameraclone"
LICENCE = "Apache-2.0"  # dataset card
WHY = "rendered triples: a scene, a camera move to copy, and the result; one csv and videos"

COLUMNS = ("video_path", "ref_video_path", "content_video_path", "caption")


def entries(root: str, store=None) -> Iterator[Entry]:
    base = base_of(root)
    for file in find_tables(root, NAME, endings=(".csv",)):
        for row in records(file, COLUMNS):
            paths = [inside(base, row[name]) if row[name] else None for name in COLUMNS[:3]]
            camera = (Condition("reference", paths[1]),) if paths[1] else ()
            yield Entry(source=paths[2], target=paths[0], conditions=camera, task="mv2v", edit="camera",
                        text=row["caption"])
