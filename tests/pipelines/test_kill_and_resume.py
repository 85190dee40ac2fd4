"""A recipe that makes media, killed in the middle, ends as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from manifests.manifest import Manifest

ROOT = Path(__file__).resolve().parents[2]


def command(film, output: Path) -> list[str]:
    return [sys.executable, "-m", "pipelines", "run", "transforms", "--input", str(film.videos_folder), "--output",
            str(output), "--engine", "local", "--per-clip", "1", "--short-px", "96", "--max-frames", "17", "--transforms",
            "sketch-to-video", "colorization", "frame-to-video", "video-extension", "--no-report", "--quiet"]


def settled(output: Path) -> int:
    """Pairs that the unfinished run has stored so far."""
    return len([p for p in output.glob("pairs/*/work/*.parquet") if p.name != "source-keys.parquet"])


def rows(output: Path) -> pd.DataFrame:
    (folder,) = output.glob("pairs/*")
    assert Manifest.open(folder).validate() == []
    return pd.concat(pd.read_parquet(part) for part in sorted(folder.glob("part-*.parquet"))).astype(str)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_twice_over_the_clips_of_the_film_it_equals_an_uninterrupted_run(film, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    subprocess.run(command(film, whole), cwd=ROOT, check=True, capture_output=True)
    for stop_at in (2, 5):  # stored blocks at which the driver and all below it are killed
        child = subprocess.Popen(command(film, broken), cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
        while settled(broken) < stop_at:
            assert child.poll() is None, "the run ended before it could be killed"
            time.sleep(0.02)
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        assert not list(broken.glob("pairs/*/manifest.json"))
    subprocess.run(command(film, broken), cwd=ROOT, check=True, capture_output=True)
    assert len(rows(whole)) > 40
    pd.testing.assert_frame_equal(rows(broken), rows(whole))
    media = [sorted(p.relative_to(root).as_posix() for p in (root / "media").rglob("*.*")) for root in (whole, broken)]
    assert set(media[0]) <= set(media[1])  # a kill may leave a file that no row names, never lose one
