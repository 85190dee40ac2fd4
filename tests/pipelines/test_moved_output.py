"""An output folder is moved as a whole: its rows, its report, its runs and its training go with it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from manifests.manifest import Manifest, find_manifests
from pipelines.pairs import transforms

from .small_clips import SMALL

EDITS = ("propagation", "inpainting-nomask-ref", "frame-to-video")


def run(small_clips, output: Path) -> dict:
    """All stops of `transforms` by name."""
    return dict(transforms.run_steps(transforms.Config(
        **SMALL, input=str(small_clips), output=str(output), transforms=EDITS, per_clip=len(EDITS), min_mask_score=0.0)))


def files(row: dict) -> list[str]:
    """Every file that a pair names."""
    paths = [row["source_path"], row["target_path"], row["mask_path"], *(c["path"] for c in row["conditions"] or ())]
    return [p for p in paths if p]


@pytest.fixture(scope="module")
def moved(small_clips, tmp_path_factory):
    """The folder after its move; the place where it was made is gone."""
    folder = tmp_path_factory.mktemp("moved")
    run(small_clips, folder / "made")
    (folder / "made").rename(folder / "elsewhere")
    return folder / "elsewhere"


def test_rows_name_media_where_they_lie_now(moved):
    (path,) = (p for p in find_manifests(str(moved)) if "/pairs/" in p)
    named = [f for row in Manifest.open(path).table().to_pylist() for f in files(row)]
    assert sum(f.startswith(f"{moved}/media/") for f in named) >= 6
    assert all(Path(f).exists() for f in named)


def test_the_same_command_finds_it_finished(moved, small_clips):
    before = {p: p.stat().st_mtime_ns for p in moved.rglob("*") if p.is_file()}
    stops = run(small_clips, moved)
    assert {p: p.stat().st_mtime_ns for p in moved.rglob("*") if p.is_file()} == before
    assert stops["samples"].path.startswith(str(moved))


def test_where_it_was_made_changes_no_byte_of_its_tables(moved, small_clips, tmp_path):
    run(small_clips, tmp_path / "again")
    tables = [{p.relative_to(root): p.read_bytes() for p in root.rglob("part-*.parquet")} for root in (moved, tmp_path / "again")]
    assert tables[0] == tables[1] and len(tables[0]) >= 4


def test_it_is_shown_and_trained_from_there(moved, small_clips, bernini, tmp_path):
    pytest.importorskip("torch", reason="needs the extra 'models': pip install 'bernini[models]'")
    from bernini.tiny import write_tiny

    samples = run(small_clips, moved)["samples"]
    code, out, _ = bernini("report", samples.path, "--output", tmp_path / "page.html")
    assert code == 0 and "could not" not in out
    model = write_tiny(tmp_path / "model")
    code, _, err = bernini("encode", samples.path, "--model", model, "--output", tmp_path / "encoded", "--engine", "local",
                           "--quiet", "--stage", "II", "--max-size", 48, "--min-size", 32, "--max-frames", 9)
    assert code == 0, err
    shutil.move(tmp_path / "encoded", tmp_path / "carried")  # features too
    (latents,) = (tmp_path / "carried" / "latents").iterdir()
    code, out, err = bernini("train", "--stage", "IIb", "--model", model, "--data", latents, "--mixture", "even",
                             "--output", tmp_path / "train", "--steps", 1, "--tokens", 600)
    assert code == 0, out + err
