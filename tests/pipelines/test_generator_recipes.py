"""Both presets of the recipes with generators: columns fit from stage to stage before anything is loaded."""

from __future__ import annotations

import pytest

from manifests.schema import PAIRS
from pipelines.pairs import diverse_edits, motion_aware, person_r2v, reasoning_text
from pipelines.recipe import MEASURES
from pipelines.scan import measure_fields
from pipelines.stage import check

from .preset_configs import config_of


@pytest.mark.parametrize("preset", ["laptop", "cluster"])
def test_columns_of_diverse_edits_fit(preset):
    config = config_of(diverse_edits.RECIPE, preset)
    stages = diverse_edits.build(config)
    pool = check(stages["pool"], diverse_edits.PLANNED)
    bank = check((*stages["bank"], diverse_edits.invent(config, "bank", 0)), diverse_edits.PLANNED)
    both = diverse_edits.PLANNED
    for schema in (pool, bank):
        for field in schema:
            both = both if field.name in both.names else both.append(field)
    made = check(stages["edited"], both.append(diverse_edits.INSTRUCTION))
    assert {"edited_path", "video_path", "motion_prompt", "mask_path", "psnr_outside_mask_db"} <= set(made.names)


@pytest.mark.parametrize("preset", ["laptop", "cluster"])
def test_columns_of_motion_aware_editing_fit(preset):
    config = config_of(motion_aware.RECIPE, preset)
    made = check(motion_aware.build(config, "model")["candidates"], motion_aware.PLANNED)
    assert {"target_path", "reference_path", "instruction", "motion_prompt"} <= set(made.names)
    assert ("judge_overall" in made.names) == (preset == "cluster")
    judged = check(motion_aware.build(config, "model")["references"], made)
    assert ("judge_reference" in judged.names) == (preset == "cluster")


@pytest.mark.parametrize("preset", ["laptop", "cluster"])
def test_columns_of_person_references_fit(preset):
    config = config_of(person_r2v.RECIPE, preset)
    clips = person_r2v.measure_fields(MEASURES)
    from manifests.schema import CLIPS

    faces = check(person_r2v.build(config)["faces"], CLIPS.schema.append(clips[0]))
    assert "face_embedding" in faces.names
    pair = person_r2v.PairPeople(person_r2v.kept_measures(), recipe="person-r2v", min_identity=config.identity_min)
    made = check(person_r2v.build(config)["pairs"], pair.makes)
    assert {"background_similarity", "reference_caption"} <= set(made.names) and "face_embedding" not in made.names


@pytest.mark.parametrize("preset", ["laptop", "cluster"])
def test_columns_of_reasoning_fit_the_pairs_of_any_recipe(preset):
    import pyarrow as pa

    schema = PAIRS.schema.append(pa.field("instruction", pa.string()))
    assert "reasoning" in check(reasoning_text.build(config_of(reasoning_text.RECIPE, preset))["pairs"], schema).names


def test_scan_measures_are_there_for_prompts_of_clips():
    assert {f"camera_{name}" for name in ("pan", "tilt", "zoom", "roll", "fit")} <= {
        f.name for f in measure_fields(MEASURES)} and set(motion_aware.CAMERA) <= {f.name for f in measure_fields(MEASURES)}


@pytest.mark.parametrize("recipe", [diverse_edits, motion_aware, person_r2v, reasoning_text])
def test_a_recipe_says_what_it_needs(recipe):
    assert all(len(getattr(recipe.NEEDS, name)) > 10 for name in ("makes", "laptop", "cluster", "cost"))
    assert set(recipe.PRESETS) == {"laptop", "cluster"} and recipe.RECIPE and recipe.WHY
