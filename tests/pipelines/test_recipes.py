"""Every recipe keeps the form of the house: alone in its file, presets that hold, needs that are told."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path
from pkgutil import resolve_name

import pytest

from manifests.manifest import Manifest
from pipelines.pairs import PIPELINES

FOLDER = Path(__file__).resolve().parents[2] / "pipelines" / "pairs"


@pytest.mark.parametrize("name", PIPELINES)
def test_a_recipe_knows_no_other(name):
    """What recipes share are ops; one that imports another cannot be read alone."""
    tree = ast.parse((FOLDER / f"{PIPELINES[name].rsplit('.', 1)[1]}.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert not (node.level == 1 or (node.module or "").startswith("pipelines.pairs")), ast.unparse(node)


@pytest.mark.parametrize("name", PIPELINES)
def test_presets_are_settings_and_needs_are_told(name):
    recipe = resolve_name(PIPELINES[name])
    fields = {f.name for f in dataclasses.fields(recipe.Config)}
    assert recipe.RECIPE == name and {"laptop", "cluster"} <= set(recipe.PRESETS)
    assert all(set(values) <= fields for values in recipe.PRESETS.values())
    for title in ("makes", "laptop", "cluster", "cost"):
        assert len(getattr(recipe.NEEDS, title)) > 10, title


def test_recipes_are_listed_with_their_needs(bernini):
    code, out, _ = bernini("recipes")
    assert code == 0 and all(f"\n{name}\n" in f"\n{out}" for name in PIPELINES)
    assert out.count("  cluster  ") == out.count("  cost     ") == len(PIPELINES)
    code, out, _ = bernini("recipes", "video-pairs")
    assert code == 0 and "Paper section 3.1" in out
    assert bernini("recipes", "nothing")[0] == 2


def test_media_that_a_run_makes_are_found_from_anywhere(small_clips, bernini, tmp_path, monkeypatch):
    """`--output out` in one folder, the report and the next command from another."""
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    args = ["run", "transforms", "--input", small_clips, "--engine", "local", "--quiet", "--clip-min-s", 1, "--min-side-px", 144,
            "--min-sharpness", 1, "--max-frozen", 1, "--short-px", 144, "--max-frames", 17, "--per-clip", 1,
            "--transforms", "sketch-to-video", "--output"]
    monkeypatch.chdir(tmp_path / "here")
    code, out, err = bernini(*args, "out")
    assert code == 0, err
    page = next(Path("out").glob("report-pairs-*.html")).read_text()
    assert page.count("<img") >= 4 and "could not be read" not in page
    monkeypatch.chdir(tmp_path / "there")
    pairs, = (tmp_path / "here" / "out" / "pairs").iterdir()
    assert all(Path(path).is_file() for path in Manifest.open(pairs).table()["source_path"].to_pylist())
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "here" / "out").rglob("*.parquet")}
    assert bernini(*args, tmp_path / "here" / "out")[0] == 0
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "here" / "out").rglob("*.parquet")} == before
