from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def image_run(film, film_run, tmp_path_factory):
    """Image pairs of the sample film: name -> Manifest. The films were scanned by the video-pair recipe before."""
    from pipelines.pairs.image_pairs import Config, run

    out = tmp_path_factory.mktemp("image-out")
    shutil.copytree(Path(film_run["videos"].path).parent, out / "videos")
    return run(Config(input=str(film.videos_folder), output=str(out), engine="local", quiet=True,
                      max_pairs_per_video=5))
