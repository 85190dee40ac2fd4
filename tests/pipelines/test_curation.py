"""measure and filter, as a user calls them."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from filters.picture_hash import HashPictures
from manifests.manifest import Manifest, ManifestWriter, live
from manifests.schema import SAMPLES
from pipelines.local import build
from pipelines.measure import Config as MeasureConfig
from pipelines.measure import MeasureRows, measure, measure_stage
from pipelines.stage import Stage, check


def measured(path: str, out, *filters: str, **settings) -> pa.Table:
    return measure(MeasureConfig(input=path, output=str(out), filters=filters, engine="local", quiet=True,
                                 **settings)).table()


def test_measures_of_a_second_look_equal_those_of_the_scan(some_clips, tmp_path):
    clips = some_clips
    again = measured(clips.path, tmp_path, "sharpness", "exposure", "motion", "colors")
    first = clips.table()
    rows = live(first)["clip_id"]
    assert again["clip_id"].equals(first["clip_id"]) and again["drop_reason"].equals(first["drop_reason"])
    for name in ("sharpness", "brightness", "contrast", "camera_pan", "saturation", "black_ratio", "frozen_ratio"):
        old = first.filter(pc.is_in(first["clip_id"], rows))[name].to_numpy()
        new = again.filter(pc.is_in(first["clip_id"], rows))[name].to_numpy()
        # A seek lands on other frames at 4 per second, the damage of broken.mp4 is not looked for.
        assert np.nanmedian(np.abs(old - new) / (np.abs(old) + 1e-2)) < 0.05, name
    assert again.filter(pc.is_valid(again["drop_reason"]))["sharpness"].is_valid().to_pylist()  # as they were


@pytest.mark.parametrize("stage", [
    Stage(op="pipelines.measure:MeasureRows", kwargs={"filters": ("letterbox", "picture_hash"), "stop": "clips"}),
    Stage(op="filters.licence:ClassifyLicence"),
], ids=lambda stage: stage.name)
def test_the_new_ops_keep_the_contract(stage, some_clips):
    table = live(some_clips.table()).slice(0, 2)
    broken = pa.concat_tables([table, table.slice(0, 1).set_column(
        table.schema.get_field_index("path"), table.schema.field("path"), pa.array(["/nowhere.mp4"]))])
    before, op = broken.to_pylist(), build(pickle.loads(pickle.dumps(stage)))
    out = op(broken)
    assert broken.to_pylist() == before and out.schema.equals(check((stage,), broken.schema))
    assert out.equals(op(broken)) and op(broken.slice(0, 0)).schema.equals(out.schema)
    if "picture_hash" in out.column_names:
        assert out["picture_hash"].is_null().to_pylist() == [False, False, True]
        assert "cannot open /nowhere.mp4" in out["issues"].to_pylist()[2][-1]


def test_a_measure_that_changed_is_taken_again(some_clips, tmp_path):
    """Its version stands beside the column, and a finished manifest of the version before is not returned for it."""
    made = [measure_stage(MeasureConfig(input=some_clips.path, output=str(tmp_path), filters=(name,)), some_clips)
            for name in ("picture_hash", "letterbox")]
    assert [stage.kwargs.get("versions") for stage in made] == [{"picture_hash": HashPictures.version}, None]
    assert {"versions": made[0].kwargs["versions"]}.items() <= made[0].fingerprint()[1].items()
    owner = MeasureRows.owners(**made[0].kwargs)["picture_hash"]
    assert owner == {"op": "filters.picture_hash:HashPictures", "backend": "classical", "version": 2}


def first_rows(manifest: Manifest, num: int, tmp_path) -> str:
    folder = str(tmp_path / manifest.stop.name)
    with ManifestWriter(folder, manifest.stop, manifest.schema) as writer:
        writer.append(manifest.table().slice(0, num))
        return writer.commit(name="first").path


def test_pairs_and_samples_are_measured_on_the_side_named(film_run, tmp_path):
    pairs = measured(first_rows(film_run["pairs"], 8, tmp_path), tmp_path, "letterbox", side="source")
    assert "source_border_top" in pairs.column_names and live(pairs)["source_border_top"].null_count == 0
    assert set(pairs.filter(pc.is_valid(pairs["drop_reason"]))["source_border_top"].to_pylist()) == {None}
    by_name = "filters.text_similarity:MeasureTextSimilarity"  # without a model: what a measure cannot do is an issue
    samples = measured(first_rows(film_run["samples"], 4, tmp_path), tmp_path, "exposure", by_name)
    assert samples["target_brightness"].null_count == 0
    assert samples["target_text_similarity"].null_count == samples.num_rows
    assert all("MeasureTextSimilarity: no model was given" in i[0] for i in samples["issues"].to_pylist())


def test_measure_says_what_it_does_not_know_and_resumes(bernini, some_clips, film_run, tmp_path):
    clips = some_clips.path
    for words, message in ((("--filters", "magic"), "no filter 'magic'; known: damage"),
                           (("--filters", "text_similarity"), "is measured by a model: name --clip-model"),
                           (("--filters", "aesthetics"), "name --clip-model and --aesthetic-head"),
                           (("--filters", "aesthetics", "--clip-model", "M", "--aesthetic-head", "/nowhere.pth"),
                            "--aesthetic-head is /nowhere.pth, which does not exist: name a file"),
                           (("--filters", "letterbox", "--text-column", "x"), "no column 'x' for --text-column")):
        code, _, err = bernini("measure", clips, *words, "--output", tmp_path, "--engine", "local")
        assert code == 2 and message in err
    code, _, err = bernini("measure", film_run["videos"].path, "--filters", "letterbox", "--output", tmp_path)
    assert code == 2 and "is a videos table" in err
    call = ("measure", clips, "--filters", "letterbox", "--output", tmp_path, "--engine", "local", "--quiet")
    code, out, _ = bernini(*call)
    manifest = Manifest.open(out.split()[-1])
    assert code == 0 and manifest.validate() == [] and "border_left" in manifest.header["owners"]
    assert manifest.header["owners"]["sharpness"]["op"].startswith("filters.sharpness")  # kept from the scan
    assert bernini(*call)[1].split()[-1] == manifest.path


def test_filter_keeps_what_its_rules_say(bernini, samples, tmp_path):
    code, out, err = bernini("filter", samples, "--keep", "weight<=1.5", "task=v2v|i2i", "--rights", "research",
                             "--write", tmp_path / "f")
    assert code == 0, err
    manifest = Manifest.open(str(tmp_path / "f"))
    rows = manifest.table().to_pylist()
    assert manifest.validate() == [] and {r["source_name"] for r in rows if not r["drop_reason"]} == {"video-pairs"}
    reasons = {r["source_name"]: r["drop_reason"] for r in rows if r["weight"] == 1.0 and r["drop_reason"] != "because"}
    assert reasons == {"inhouse-t2v": "task is t2v", "video-pairs": None, "vace-hq": "rights is unknown",
                       "pico-banana-400k": "rights is non-commercial no-derivatives"}
    assert {r["drop_reason"] for r in rows if r["weight"] == 2.0} == {"weight>1.5"}
    for words, message in ((["x<=1"], "has no column x; it has sample_id"), (["weight~1"], "write COLUMN<=NUMBER"),
                           (["weight=1"], "holds double: numbers with <= and >="), (["weight<=a"], "'a' is no number"),
                           (["weight<=nan"], "the rule on weight has max nan, which is no limit: give a number")):
        code, _, err = bernini("filter", samples, "--keep", *words, "--write", tmp_path / "g")
        assert code == 2 and message in err
    assert bernini("filter", samples, "--write", tmp_path / "g")[0] == 2
    code, _, _ = bernini("filter", samples, "--keep", "num_prompt_tokens>=3", "--keep-unmeasured", "--write", tmp_path / "h")
    assert code == 0 and Manifest.open(str(tmp_path / "h")).header["drops"] == {"because": 4}


def test_true_and_false_are_words_of_a_rule(bernini, tmp_path):
    schema = pa.schema([*SAMPLES.schema, ("is_human", pa.bool_())])
    rows = [{"sample_id": f"s-{n}", "is_human": value, "issues": [], "num_attempts": 1}
            for n, value in enumerate((True, False, None))]
    with ManifestWriter(str(tmp_path / "s"), SAMPLES, schema) as writer:
        writer.append(pa.Table.from_pylist(rows, schema))
        writer.commit(name="made", owners={}, parents=[], versions={})
    for word, reasons in (("true", [None, "is_human is false", "is_human is unknown"]),
                          ("false", ["is_human is true", None, "is_human is unknown"])):
        code, _, err = bernini("filter", tmp_path / "s", "--keep", f"is_human={word}", "--write", tmp_path / word)
        assert code == 0 and Manifest.open(str(tmp_path / word)).table()["drop_reason"].to_pylist() == reasons, err
    assert "rule holds  one of true: true" in bernini("why", tmp_path / "true", "s-0")[1]
    for rule in ("is_human=yes", "is_human<=1"):
        code, _, err = bernini("filter", tmp_path / "s", "--keep", rule, "--write", tmp_path / "x")
        assert code == 2 and "holds true and false: write is_human=true or =false" in err
