"""Runs that several test files of this folder read."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from manifests.manifest import Manifest, ManifestWriter
from manifests.schema import CLIPS

from .small_clips import SMALL, write_clips
from .small_samples import write_samples


@pytest.fixture(scope="session")
def small_clips(tmp_path_factory):
    """A list of two short films with one object each."""
    return write_clips(tmp_path_factory.mktemp("small-clips"))


@pytest.fixture(scope="session")
def slow_clips(tmp_path_factory):
    """The same films, 60 frames long: in the 17 frames that are taken the object does not reach the middle, where it
    would hide a part of what an edit adds there."""
    return write_clips(tmp_path_factory.mktemp("slow-clips"), num=60)


@pytest.fixture(scope="session")
def propagated(small_clips, tmp_path_factory):
    """`(settings, stops)` of D5 with every kind of edit over the small films, run in process."""
    from pipelines.pairs.propagation_edits import Config, run_steps

    settings = {"input": str(small_clips), "output": str(tmp_path_factory.mktemp("propagated")), "per_clip": 5, **SMALL}
    return settings, dict(run_steps(Config(**settings)))


@pytest.fixture(scope="session")
def image_run(film, film_run, tmp_path_factory):
    """Image pairs of the sample film: name -> Manifest. The films were scanned by the video-pair recipe before."""
    from pipelines.pairs.image_pairs import Config, run_steps

    out = tmp_path_factory.mktemp("image-out")
    shutil.copytree(Path(film_run["videos"].path).parent, out / "videos")
    return dict(run_steps(Config(input=str(film.videos_folder), output=str(out), engine="local", quiet=True,
                                 max_pairs_per_video=5)))


@pytest.fixture(scope="session")
def some_clips(film_run, tmp_path_factory) -> Manifest:
    """Every fourth clip of the film's scan, dropped ones too."""
    table, folder = film_run["clips"].table(), str(tmp_path_factory.mktemp("some") / "clips")
    dropped = pc.is_valid(table["drop_reason"]).to_numpy()
    rows = np.r_[np.flatnonzero(~dropped)[::5], np.flatnonzero(dropped)]
    with ManifestWriter(folder, CLIPS, table.schema) as writer:
        writer.append(table.take(pa.array(np.sort(rows))))
        return writer.commit(**{k: film_run["clips"].header[k] for k in ("name", "owners")})


@pytest.fixture(scope="session")
def samples(tmp_path_factory) -> str:
    """Folder of SAMPLES of four data sets (`SETS`)."""
    return write_samples(str(tmp_path_factory.mktemp("mix") / "samples"))
