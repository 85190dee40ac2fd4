"""D6 with a miniature of the real renderer: edited first frame, two prompts, a target frame for frame, -Ref variants."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("torch", reason="needs the extra 'models': pip install 'bernini[models]'")

from bernini.generate import dual_branch
from datagen.backends import EditRequest
from datagen.cut_reference import CutReference
from datagen.samples_photos import photograph
from manifests.errors import BackendError, ConfigError
from manifests.media_store import MediaStore
from manifests.schema import PAIRS
from manifests.spans import read_image, read_span
from manifests.video_writer import write_video
from pipelines.editors_motion import MotionAwareEditor
from pipelines.pairs.motion_aware import SCHEDULES, WEIGHTS, Config, explode, run_steps, tiny_model

from .chat_answers import FINE, answering, asking

SMALL = {"num_steps": 1, "max_frames": 10, "short_px": 64, "people_only": False, "min_sharpness": 0.0}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    import torch

    torch.set_num_threads(1)


def settings(folder, **more) -> Config:
    return Config(input=str(folder / "in"), output=str(folder / "out"), engine="local", quiet=True, **(SMALL | more))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("motion")
    (folder / "in").mkdir()
    photo = np.ascontiguousarray(photograph("coffee")[40:360, 60:540, :3])
    for name, step in (("a", 1), ("b", -1)):
        frames = (photo[20:260, 80 + step * i : 400 + step * i] for i in range(30))
        write_video(str(folder / "in" / f"{name}.mp4"), frames, fps=12)
    return folder, dict(run_steps(settings(folder)))


def pairs_of(made) -> list[dict]:
    return [p for p in made[1]["pairs"].table().to_pylist() if p["drop_reason"] is None]


def test_targets_are_sampled_frame_for_frame_with_their_sources(made):
    pairs = pairs_of(made)
    assert len([p for p in pairs if p["task"] == "v2v"]) == 2
    for pair in pairs:
        source, target = (list(read_span(pair[f"{s}_path"], 0.0, pair[f"{s}_end_s"])) for s in ("source", "target"))
        assert len(source) == len(target) == pair["pair_num_frames"] == 9  # 4k + 1 of the 10 asked for
        assert source[0].shape == target[0].shape and min(source[0].shape[:2]) == 64
        assert pair["instruction"] and pair["motion_prompt"] and pair["instruction"] != pair["motion_prompt"]
        assert pair["source_num_frames"] == pair["target_num_frames"] == 9 and pair["num_frames_gap"] == 0
        assert pair["frame_offset"] is not None and 0 <= pair["faces_kept"] <= 1
        assert pair["target_change"] > 20  # noise of a model with random weights, as the recipe says


def test_a_ref_variant_shows_the_edited_object_and_none_is_made_of_a_removal(made):
    refs = [p for p in pairs_of(made) if p["task"] == "vr2v"]
    assert {p["clip_id"] for p in refs} == {
        p["clip_id"] for p in pairs_of(made) if p["task"] == "v2v" and p["edit_kind"] != "remove"}
    kinds = {"remove": "removal", "recolour": "recolour", "swap-background": "background"}
    assert all(p["motion_edit_kind"] == kinds[p["edit_kind"]] for p in pairs_of(made))
    for pair in refs:
        (condition,) = pair["conditions"]
        assert condition["role"] == "reference" and pair["source_name"] == "motion-aware-editing-ref"
        picture = read_image(condition["path"])
        assert (picture.min(axis=2) == 255).mean() > 0.1  # it stands on white, not in the scene
        assert 0.005 < pair["reference_share"] < 0.7


class Painter:
    """An image editor that paints a green square."""

    def __init__(self, **options):
        pass

    def edit(self, image, request):
        edited = image.copy()
        edited[60:120, 80:160] = (20, 200, 40)
        return edited


def edits_of_a_model(folder, *kinds: str, **marks: int) -> dict:
    """Stops over the first film where a model thinks up an edit of each kind in turn, and its judge gives `marks`."""
    left = list(kinds)

    def say(fields: set[str], texts: str) -> dict:
        if "kind" in fields:
            kind = left.pop(0)
            return {"kind": kind, "object": "the green cube", "instruction": f"A {kind}.", "frame_edit": f"A {kind}."}
        return FINE | (marks if "reference" in fields else {})

    with answering(say) as server:
        return dict(run_steps(settings(folder, **asking(server), image_editor=f"{__name__}:Painter")))


@pytest.fixture
def films(made, tmp_path):
    shutil.copytree(made[0] / "in", tmp_path / "in")
    return tmp_path


def test_no_ref_variant_is_made_of_a_removal_that_a_model_thought_up(films):
    stops = edits_of_a_model(films, "removal", "replacement")
    rows = stops["pairs"].table().to_pylist()
    kinds = sorted((r["task"], r["motion_edit_kind"], r["drop_reason"], r["edit_kind"]) for r in rows)
    assert kinds == [("v2v", "removal", None, None), ("v2v", "replacement", None, None), ("vr2v", "replacement", None, None)]
    ref = next(r for r in rows if r["task"] == "vr2v")
    assert ref["instruction"] == "A replacement, as the reference picture shows it."
    assert [ref[f"judge_{m}"] for m in ("instruction", "consistency", "reference", "quality", "overall")] == [5, 4, 4, 4, 4]
    assert {r["judge_reference"] for r in rows if r["task"] == "v2v"} == {None}
    assert {s["pair_id"] for s in stops["samples"].table().to_pylist()} == {r["pair_id"] for r in rows}


def test_without_anything_to_refer_to_the_pairs_are_made(films):
    stops = edits_of_a_model(films, "removal", "other")
    assert stops["references"].num_rows == 0 and [r["task"] for r in pairs_of((films, stops))] == ["v2v", "v2v"]


def test_a_ref_variant_that_does_not_show_its_reference_is_dropped(films):
    stops = edits_of_a_model(films, "addition", "recolour", reference=2)
    rows = stops["pairs"].table().to_pylist()
    assert sorted((r["task"], r["drop_reason"]) for r in rows) == 2 * [("v2v", None)] + 2 * [("vr2v", "judge_reference<3")]
    assert {r["column"]: (r["min"], r["why"] != "") for r in stops["references"].header["rules"]} == {
        "judge_overall": (3, True), "judge_reference": (3, True)}


def test_samples_say_which_data_set_they_count_as(made):
    samples = made[1]["samples"].table().to_pylist()
    assert {s["pair_id"] for s in samples} == {p["pair_id"] for p in pairs_of(made)}
    for sample in samples:
        kinds = [m["type"] for m in json.loads(sample["inputs"])]
        names = {"v2v": (["video", "text", "video_gen"], "motion-aware-editing"),
                 "vr2v": (["video", "image", "text", "video_gen"], "motion-aware-editing-ref")}
        assert (kinds, sample["source_name"]) == names[sample["task"]]


def test_again_is_finished(made):
    folder, stops = made
    again = dict(run_steps(settings(folder)))
    assert {k: m.path for k, m in again.items()} == {k: m.path for k, m in stops.items()}


def test_a_moved_output_is_finished_too(made, tmp_path):
    folder, stops = made
    shutil.copytree(folder / "out", tmp_path / "moved")
    again = dict(run_steps(replace(settings(folder), output=str(tmp_path / "moved"))))
    assert {k: Path(m.path).name for k, m in again.items()} == {k: Path(m.path).name for k, m in stops.items()}
    assert len(list((tmp_path / "moved" / "candidates").iterdir())) == 2  # planned, and made: nothing began again


def test_a_model_is_asked_for_the_faces_and_noise_is_not(tmp_path):
    rules = {model: {r.column: r for r in settings(tmp_path, model=model).pair_rules()} for model in ("", "DIR")}
    assert "faces_kept" not in rules[""] and rules["DIR"]["faces_kept"].min == 0.6
    assert all(r["num_frames_gap"].max == 0 and all(rule.why for rule in r.values()) for r in rules.values())


def test_dropped_pairs_stay_and_have_no_variant():
    row = {"pair_id": "p-1", "drop_reason": "edited_share>0.9", "reference_path": "x.png", "motion_edit_kind": "recolour",
           "clip_id": "c-1", "instruction": "Make it red.", "task": "v2v", "conditions": [], "source_name": "s"}
    rows = [row, row | {"pair_id": "p-2", "drop_reason": None}]
    schema = pa.schema([PAIRS.schema.field("conditions"), *((n, pa.string()) for n in row if n != "conditions")])
    table = pa.Table.from_pylist(rows, schema)
    assert explode(table, refs=True)["task"].to_pylist() == ["v2v", "v2v", "vr2v"]
    assert explode(table, refs=False)["task"].to_pylist() == ["v2v", "v2v"]


@pytest.fixture(scope="module")
def editor(tmp_path_factory):
    return MotionAwareEditor(tiny_model(str(tmp_path_factory.mktemp("tiny"))), num_steps=1, max_px=64, device="cpu")


def test_the_editor_keeps_any_size_and_length_and_its_seed(editor):
    rng = np.random.default_rng(0)
    frames, first = rng.integers(0, 255, (7, 50, 66, 3), np.uint8), rng.integers(0, 255, (50, 66, 3), np.uint8)
    request = EditRequest(instruction="Swap the cup.", kind="motion", params={"motion_prompt": "She drinks."}, seed=3)
    out = editor.edit(frames, request, first)
    assert out.shape == frames.shape and out.dtype == np.uint8
    assert np.array_equal(out, editor.edit(frames, request, first))
    other = EditRequest(instruction="Swap the cup.", kind="motion", params={"motion_prompt": "She sleeps."}, seed=3)
    assert not np.array_equal(out, editor.edit(frames, other, first))
    with pytest.raises(BackendError, match="needs the edited first frame"):
        editor.edit(frames, request)


class Nothing:
    def segment(self, frames, phrases=()):
        raise BackendError("nothing stands out")


def test_without_a_segmented_object_what_changed_is_cut_out(tmp_path):
    store, changed = MediaStore(str(tmp_path)), np.zeros((100, 120), np.uint8)
    changed[30:60, 40:70], changed[5:8, 5:8] = 255, 255  # the object, and a speck
    picture = np.full((100, 120, 3), 90, np.uint8)
    table = pa.table({"edited_path": [store.image(picture)], "changed_path": [store.image(changed)],
                      "edited_thing": ["the cup"], "edit_kind": ["recolour"], "issues": pa.nulls(1, pa.list_(pa.string()))})
    row = CutReference(str(tmp_path), segmenter=f"{__name__}:Nothing")(table).to_pylist()[0]
    assert row["reference_found_by"] == "difference" and row["reference_share"] == pytest.approx(900 / 12000)
    cut = read_image(row["reference_path"])
    assert cut.shape[0] in range(32, 40) and cut[cut.shape[0] // 2, cut.shape[1] // 2].tolist() == [90] * 3


def test_the_names_of_the_settings_are_those_of_the_sampler():
    assert WEIGHTS == tuple(dual_branch.WEIGHTS) and SCHEDULES == tuple(dual_branch.SCHEDULES)


@pytest.mark.parametrize("wrong, words", [
    ({"alpha": 1.5}, "alpha is 1.5"), ({"image_editor": "flux-kontext"}, "does not go with image editor"),
    ({"num_steps": 0}, "--num-steps is 0; it is a whole number, 1 or more"),
    ({"weights": "table6"}, "--weights is 'table6'; known: table5, text-only, firm-frame, unguided"),
    ({"alpha_schedule": "waving"}, "--alpha-schedule is 'waving'; known: constant, falling, rising"),
    ({"max_frames": 4}, "--max-frames is 4; it is a whole number, 5 or more"),
    ({"fps": -1.0}, "--fps is -1; it is a finite number above 0"), ({"short_px": 0}, "--short-px is 0"),
])
def test_wrong_settings_are_refused(tmp_path, wrong, words):
    with pytest.raises(ConfigError, match=words):
        settings(tmp_path, **wrong)
