"""D9: from reference-to-video pairs of another recipe to triplets whose input lacks the object."""

from __future__ import annotations

import json

import av
import cv2
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from manifests.errors import ConfigError, RunStopped
from manifests.ids import make_id
from pipelines.pairs.rv2v import PRESETS, Config, plan, run_steps
from pipelines.pairs.transforms import Config as Transforms
from pipelines.pairs.transforms import run_steps as transform

from .chat_answers import FINE, answering, asking
from .small_clips import SMALL

SETTINGS = {name: SMALL[name] for name in ("engine", "quiet", "short_px", "max_frames")}


def frames(path: str) -> np.ndarray:
    with av.open(path) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


@pytest.fixture(scope="module")
def r2v(small_clips, tmp_path_factory):
    """Pairs of the task r2v: the film's subject, cut out and set before something else."""
    out = str(tmp_path_factory.mktemp("r2v"))
    config = Transforms(input=str(small_clips), output=out, transforms=("opens2v-affine", "video2mask"), per_clip=2,
                        **SMALL)
    return dict(transform(config))["pairs"]


@pytest.fixture(scope="module")
def made(r2v, tmp_path_factory):
    out = str(tmp_path_factory.mktemp("rv2v"))
    return out, dict(run_steps(Config(input=r2v.path, output=out, **SETTINGS)))


def test_only_reference_pairs_go_in_and_their_triplets_are_complete(r2v, made):
    given = [r for r in r2v.table().to_pylist() if r["drop_reason"] is None]
    wanted = {r["pair_id"]: r for r in given if r["task"] == "r2v"}
    pairs = made[1]["pairs"].table().to_pylist()
    assert len(given) > len(wanted) == 2 and {r["clip_id"] for r in pairs} == wanted.keys()
    samples = {s["pair_id"]: s for s in made[1]["samples"].table().to_pylist()}
    assert samples.keys() == {r["pair_id"] for r in pairs if r["drop_reason"] is None} and len(samples) == 2
    for row in pairs:
        sample, reference = samples[row["pair_id"]], wanted[row["clip_id"]]["conditions"][0]["path"]
        assert [m["type"] for m in json.loads(sample["inputs"])] == ["video", "image", "text", "video_gen"]
        assert sample["task"] == "vr2v" and sample["source_name"] == "person-rv2v" and sample["licence"] == "CC-BY-4.0"
        assert sample["images"] == [reference] == [c["path"] for c in row["conditions"]]
        assert row["instruction"].startswith("Add the moving ") and row["instruction"].endswith("reference picture shows it.")
        assert row["forward_instruction"].startswith("Remove the moving ")


def test_a_pair_of_several_references_becomes_a_row_a_reference(r2v):
    """Each with its own object, because one object is taken out; the ids of rows with one reference stay."""
    table = r2v.table()
    row = next(r for r in table.to_pylist() if r["task"] == "r2v")
    both = row["conditions"] + [row["conditions"][0] | {"path": "/b.png"}]
    schema = table.schema.append(pa.field("object_names", pa.list_(pa.string())))
    one, first, second = plan(pa.Table.from_pylist([row | {"object_names": ["the cup"]}, row | {
        "conditions": both, "object_names": ["the cup", "the dog"]}], schema), "person").to_pylist()
    assert one["pair_id"] == make_id("pair", "person-rv2v", row["pair_id"]) and one["other_references"] == []
    assert len({one["pair_id"], first["pair_id"], second["pair_id"]}) == 3
    for planned, name, mine, other in ((first, "the cup", *both), (second, "the dog", *both[::-1])):
        assert planned["object_name"] == planned["edited_thing"] == name and planned["clip_id"] == row["pair_id"]
        assert [c["path"] for c in planned["conditions"]] == [planned["reference_path"]] == [mine["path"]]
        assert planned["other_references"] == [other["path"]]
    unnamed = plan(pa.Table.from_pylist([row | {"conditions": both}], schema), "person").to_pylist()
    assert [r["edited_thing"] for r in unnamed] == [row.get("object_name") or "person", "person"]


def test_the_target_is_the_film_and_the_input_is_it_without_the_object(r2v, made):
    """Likeness to the reference by hue, measured here with other code; the rest equal to the film."""
    films = {r["pair_id"]: r["target_path"] for r in r2v.table().to_pylist()}
    for row in made[1]["pairs"].table().to_pylist():
        target, source = frames(row["target_path"]), frames(row["source_path"])
        film = frames(films[row["clip_id"]])[: len(target)]
        assert target.shape == source.shape and len(target) == 17
        assert np.abs(target.astype(int) - film).mean() < 3
        with av.open(row["mask_path"]) as container:
            mask = np.stack([f.to_ndarray(format="gray") for f in container.decode(video=0)]) > 127
        reference = np.asarray(Image.open(row["reference_path"]).convert("RGB"))
        blue = "blue object" in row["instruction"]
        held = [np.array([(c[..., 2].astype(int) - c[..., 0] > 60) if blue else (c[..., 0].astype(int) - c[..., 2] > 90)
                          for c in clip])[mask].mean() for clip in (target, source)]
        assert held[0] > 0.5 and held[1] < held[0] / 3  # the motorcycle has some yellow of its own
        middle = reference[reference.shape[0] // 3 : -reference.shape[0] // 3].reshape(-1, 3).astype(int)
        assert ((middle[:, 2] - middle[:, 0] > 60) if blue else (middle[:, 0] - middle[:, 2] > 90)).any()
        assert row["reference_in_target"] >= 0.15 and row["reference_lost_share"] >= 0.5
        assert row["reference_remains"] <= 0.8 and row["reference_lead"] == row["reference_in_target"]
        away = ~np.stack([cv2.dilate(m.astype(np.uint8), np.ones((7, 7))) > 0 for m in mask])
        gap = np.square(target[away].astype(float) - source[away]).mean()
        assert 10 * np.log10(255**2 / gap) >= 30


def test_a_model_judges_a_triplet_beside_its_reference(r2v, tmp_path):
    """The first one well, the second one not; the words of the model are those that are judged."""
    marks = iter((4, 2))

    def say(fields: set[str], texts: str) -> dict:
        if "executed" in fields:
            return FINE | {"overall": next(marks)}
        return {"kind": "removal", "instruction": "Remove the thing." if "kind" in fields else "Add the thing."}

    with answering(say) as server:
        config = Config(input=r2v.path, output=str(tmp_path), **SETTINGS, **asking(server))
        stops = dict(run_steps(config))
    judged = [json.dumps(body) for body in server.asked if "You judge edited videos" in json.dumps(body)]
    assert len(judged) == 2 and all("Add the thing." in body and body.count('"reference:"') == 1 for body in judged)
    rows = stops["pairs"].table().to_pylist()
    assert sorted((str(r["drop_reason"]), r["judge_overall"]) for r in rows) == [("None", 4), ("judge_overall<3", 2)]
    assert {r["judge_reference"] for r in rows} == {4} and all(r["judge_reason"] and r["judge_model"] == "m" for r in rows)
    assert [s["pair_id"] for s in stops["samples"].table().to_pylist()] == [
        r["pair_id"] for r in rows if r["drop_reason"] is None]
    rules = {r["column"]: r for r in stops["pairs"].header["rules"] if r["column"].startswith("judge_")}
    assert {c: r["min"] for c, r in rules.items()} == {"judge_overall": 3, "judge_reference": 3}
    assert all(r["why"] for r in rules.values())
    assert stops["pairs"].header["owners"]["judge_overall"]["op"] == "annotators.judge:JudgeReferenceEdit"


def test_what_is_measured_has_no_judge(made):
    assert "judge_overall" not in made[1]["pairs"].schema.names
    assert not [r for r in Config(input="x", output="y").pair_rules() if r.column.startswith("judge_")]


def test_no_preset_asks_for_less_loss_than_the_default():
    wanted = [r for r in Config(input="x", output="y").pair_rules() if r.column.startswith("reference_")]
    assert {r.column for r in wanted} >= {"reference_lead", "reference_lost_share", "reference_remains"}
    names = ("shown_min", "lost_share_min", "remains_max")
    assert not [n for preset in PRESETS.values() for n in names if n in preset]


def test_again_is_finished(r2v, made):
    again = dict(run_steps(Config(input=r2v.path, output=made[0], **SETTINGS)))
    assert {n: m.path for n, m in again.items()} == {n: m.path for n, m in made[1].items()}


def test_other_inputs_are_refused_by_name(r2v, made, propagated, tmp_path):
    with pytest.raises(ConfigError, match="holds samples; person-rv2v needs --input OUT/pairs/NAME"):
        list(run_steps(Config(input=made[1]["samples"].path, output=str(tmp_path), **SETTINGS)))
    with pytest.raises(RunStopped, match="Only pairs of the task r2v can be used"):
        list(run_steps(Config(input=propagated[1]["pairs"].path, output=str(tmp_path), **SETTINGS)))


def test_our_renderer_edits_the_target_where_it_is_named(r2v, tmp_path):
    """A tiny model of the real classes, loaded through the real loading code; its pixels are noise, so rules drop them."""
    torch = pytest.importorskip("torch", reason="the renderer needs the extra 'models'")
    from bernini.tiny import write_tiny

    torch.set_num_threads(1)
    model = str(write_tiny(tmp_path / "model", "one_expert"))
    config = Config(input=r2v.path, output=str(tmp_path / "out"), video_editor="bernini", video_editor_model=model,
                    num_steps=2, inpainter="", score_min=0.3, **SETTINGS | {"short_px": 80})
    with pytest.raises(RunStopped, match="psnr_outside_mask_db<30"):
        stops = {}
        for name, manifest in run_steps(config):
            stops[name] = manifest
    rows = stops["triplets"].table().to_pylist()
    assert len(rows) == 2 and stops["candidates"].header["accepted"] == 2
    for row in rows:
        assert frames(row["source_path"]).shape == frames(row["target_path"]).shape and row["pair_num_frames"] == 17
        assert row["psnr_outside_mask_db"] < 30
    assert stops["candidates"].header["owners"]["target_path"]["backend"] == "bernini"
