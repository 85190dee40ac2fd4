"""Runs that several test files of this folder read."""

from __future__ import annotations

import pytest

from .small_clips import SMALL, write_clips


@pytest.fixture(scope="session")
def small_clips(tmp_path_factory):
    """A list of two short films with one object each."""
    return write_clips(tmp_path_factory.mktemp("small-clips"))


@pytest.fixture(scope="session")
def propagated(small_clips, tmp_path_factory):
    """`(settings, stops)` of D5 with every kind of edit over the small films, run in process."""
    from pipelines.pairs.propagation_edits import Config, run_steps

    settings = {"input": str(small_clips), "output": str(tmp_path_factory.mktemp("propagated")), "per_clip": 5, **SMALL}
    return settings, dict(run_steps(Config(**settings)))
