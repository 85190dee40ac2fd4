"""D11 over the pairs of another recipe: reasoning that rests on the instruction, as text to be learned."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pyarrow as pa
import pytest

from filters.rules import Rule
from manifests.errors import ConfigError, ManifestError, RunStopped
from manifests.manifest import Manifest, ManifestWriter
from manifests.schema import STOPS
from pipelines.pairs.reasoning_text import EDITS, Config, run_steps

ROOT = Path(__file__).parents[2]


def settings(pairs: Manifest, out, **more) -> Config:
    return Config(input=pairs.path, output=str(out), engine="local", quiet=True, **more)


@pytest.fixture(scope="module")
def made(film_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("reasoning")
    return out, dict(run_steps(settings(film_run["pairs"], out)))


def test_every_accepted_edit_becomes_a_sample_that_learns_its_reasoning(film_run, made):
    pairs, samples = (made[1][stop].table().to_pylist() for stop in ("pairs", "samples"))
    accepted = {p["pair_id"]: p for p in film_run["pairs"].table().to_pylist() if p["drop_reason"] is None}
    assert accepted and {s["pair_id"] for s in samples} == accepted.keys()
    assert {p["pair_id"] for p in pairs} == set(film_run["pairs"].table(["pair_id"])["pair_id"].to_pylist())
    for sample in samples:
        messages = json.loads(sample["inputs"])
        assert [m["type"] for m in messages] == ["video", "text", "cot_text", "video_gen"]
        assert [m["has_loss"] for m in messages] == [0, 0, 1, 1]
        instruction = accepted[sample["pair_id"]]["instruction"]
        assert messages[1]["text"] == instruction
        assert messages[2]["text"].startswith(f"Goal: {' '.join(instruction.split())}\nChange: ")
        assert sample["source_name"] == "reasoning-text"


def test_without_a_model_an_edit_of_a_part_is_told_with_its_place_and_share(propagated, tmp_path):
    pairs = dict(run_steps(settings(propagated[1]["pairs"], tmp_path)))["pairs"].table().to_pylist()
    local = [p for p in pairs if p["drop_reason"] is None and p["edit"] in ("removal", "addition", "recolour")]
    assert len(local) >= 4
    for row in local:
        change = row["reasoning"].split("\nChange: ")[1]
        found = re.match(r"The largest part that changed covers (\d+)% of the frame( on the left| on the right| around the middle): "
                         r"(.+ before, .+ now|.+, as before, in another form)\.", change)
        assert found, change
        assert 0 < int(found[1]) <= 100 * row["mask_area"] * 1.5 + 1  # the mask is grown a little, soft edges less


def test_its_samples_have_other_ids_than_those_without_reasoning(film_run, made):
    ids = [set(m.table(["sample_id"])["sample_id"].to_pylist()) for m in (film_run["samples"], made[1]["samples"])]
    assert not ids[0] & ids[1]


def test_again_is_finished_and_columns_keep_their_owners(film_run, made):
    out, first = made
    again = dict(run_steps(settings(film_run["pairs"], out)))
    assert {k: m.path for k, m in again.items()} == {k: m.path for k, m in first.items()}
    owners = first["pairs"].header["owners"]
    assert owners["reasoning"]["op"] == "annotators.reasoning:WriteReasoning"
    assert owners["instruction"] == film_run["pairs"].header["owners"]["instruction"]


def rewritten(pairs: Manifest, folder, **columns) -> Manifest:
    table = pairs.table()
    for name, value in columns.items():
        index = table.schema.get_field_index(name)
        table = table.set_column(index, table.schema.field(index), pa.array([value] * table.num_rows, pa.string()))
    with ManifestWriter(str(folder), STOPS["pairs"], table.schema) as writer:
        writer.append(table)
        return writer.commit(**{k: pairs.header[k] for k in ("name", "row", "versions", "owners")})


def test_other_tasks_are_rejected_by_name_and_not_called_failures(film_run, tmp_path):
    images = rewritten(film_run["pairs"], tmp_path / "given", task="i2i")
    with pytest.raises(RunStopped, match=r"task is i2i .*Tasks that edit a video are v2v"):
        list(run_steps(settings(images, tmp_path / "out")))
    assert Rule(column="task", allowed=EDITS).reasons(pa.chunked_array([["v2v", "vr2v", "t2v"]])).to_pylist() == [
        None, None, "task is t2v"]


def test_an_input_that_is_no_pairs_manifest_is_refused(film_run, tmp_path):
    with pytest.raises(ConfigError, match="holds samples; reasoning needs --input OUT/pairs/NAME"):
        list(run_steps(settings(film_run["samples"], tmp_path)))


def test_a_folder_with_videos_is_refused_with_what_is_needed(tmp_path):
    with pytest.raises(ManifestError, match="has no manifest.json.*reasoning needs --input OUT/pairs/NAME"):
        list(run_steps(Config(input=str(tmp_path), output=str(tmp_path / "out"), engine="local")))


@pytest.mark.parametrize("recipe", ["rv2v", "reasoning_text", "reasoning_vision_text"])
def test_help_says_that_pairs_go_in(recipe):
    found = import_module(f"pipelines.pairs.{recipe}")
    done = subprocess.run([sys.executable, "-m", "pipelines", "run", found.RECIPE, "--help"], cwd=ROOT, text=True,
                          capture_output=True, check=True)
    said = " ".join(done.stdout.split("--input STR")[1].split("--output")[0].replace("│", " ").split())
    assert said.startswith("Folder OUT/pairs/NAME with the finished pairs of a recipe that")
