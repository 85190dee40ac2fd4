"""Every recipe keeps the form of the house: alone in its file, presets that hold, needs that are told."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path
from pkgutil import resolve_name

import pytest

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
