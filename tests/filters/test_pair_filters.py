"""Measures of a made pair on clips with known truth, recomputed apart, and the rules on them."""

from __future__ import annotations

import cv2
import numpy as np
import pyarrow as pa
import pytest

from datagen.recolor import Recolor
from datagen.samples_photos import photograph
from filters import PAIR_FILTERS
from filters.consistency_rules import RULE_SETS, rule_set
from filters.rules import ApplyRules
from manifests.errors import ConfigError
from manifests.schema import PAIRS
from manifests.spans import read_span
from manifests.video_writer import write_video
from pipelines.local import build
from pipelines.pairs.rv2v import Config
from pipelines.stage import Stage, check
from tests.datagen.known_clips import astronaut, walk

FPS = 10


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Files of a clip, of an honest edit of it, and of several dishonest ones."""
    folder, clip = tmp_path_factory.mktemp("pairs"), walk(12)
    recolor = Recolor.fit(clip.frames, clip.masks, (35, 80, 200))
    edited = np.stack([recolor(f, m) for f, m in zip(clip.frames, clip.masks, strict=True)])
    rng = np.random.default_rng(0)
    flicker = np.stack([np.clip(e + (m[..., None] * rng.integers(-60, 61)), 0, 255).astype(np.uint8)
                        for e, m in zip(edited, clip.masks, strict=True)])
    shaken = edited.copy()
    shaken[1::2, :100] = np.clip(shaken[1::2, :100].astype(int) + 25, 0, 255)
    films = {"source": clip.frames, "edited": edited, "flicker": flicker, "shaken": shaken,
             "late": np.concatenate([edited[:1], edited[:1], edited[:-2]]), "short": edited[:9]}
    films["mask"] = [np.repeat(m[..., None] * np.uint8(255), 3, axis=2) for m in clip.masks]
    paths = {name: str(folder / f"{name}.mp4") for name in (*films, "broken")}
    for name, frames in films.items():
        write_video(paths[name], frames, fps=FPS)
    (folder / "broken.mp4").write_bytes(b"no video")
    return paths, clip


def table(made, *targets, **more) -> pa.Table:
    paths, _ = made
    rows = [{"pair_id": f"p{i}", "source_path": paths["source"], "source_start_s": 0.0, "source_end_s": 1.2,
             "target_path": paths[t], "target_start_s": 0.0, "target_end_s": 0.9 if t == "short" else 1.2,
             "mask_path": paths["mask"], "conditions": [], "issues": []} | more for i, t in enumerate(targets)]
    return pa.Table.from_pylist(rows, PAIRS.schema)


def measure(name, rows):
    return build(Stage(op=PAIR_FILTERS[name]))(rows).to_pylist()


@pytest.mark.parametrize("name", PAIR_FILTERS)
def test_a_measure_keeps_the_contract(name, made):
    rows = table(made, "edited", "broken", "edited")
    stage = Stage(op=PAIR_FILTERS[name])
    if name in ("background_similarity", "object_shown"):
        path = made[0]["broken"] + ".png"
        cv2.imwrite(path, photograph("coffee")[..., ::-1])
        reference = {"role": "reference", "kind": "image", "path": path}
        rows = rows.set_column(rows.schema.get_field_index("conditions"), PAIRS.schema.field("conditions"),
                               pa.array([[reference]] * 3, PAIRS.schema.field("conditions").type))
    before = rows.to_pylist()
    out = build(stage)(rows)
    assert rows.to_pylist() == before and out.schema.equals(check((stage,), rows.schema))
    assert out["pair_id"].to_pylist() == ["p0", "p1", "p2"]
    columns = [f.name for f in build(stage).adds]
    bad = out.to_pylist()[1]
    assert all(bad[c] is None for c in columns) and "cannot open" in bad["issues"][0]
    good = [out.to_pylist()[i] for i in (0, 2)]
    assert all(r[c] is not None for r in good for c in columns) and good[0]["issues"] == []
    assert {c: good[0][c] for c in columns} == {c: good[1][c] for c in columns}
    assert build(stage)(rows.slice(0, 0)).schema.equals(out.schema)


def test_region_measures_equal_those_recomputed_with_numpy(made):
    paths, clip = made
    (row,) = measure("edit_region", table(made, "edited"))
    sides = [np.stack(list(read_span(paths[k], 0, 1.2))) for k in ("source", "edited", "mask")]
    mask = sides[2].mean(axis=3) > 127
    kernel = np.ones((11, 11), np.uint8)
    outside = np.stack([cv2.dilate(m.astype(np.uint8), kernel) == 0 for m in mask])
    error = np.square(sides[0][outside].astype(np.float64) - sides[1][outside]).mean()
    assert row["psnr_outside_mask_db"] == pytest.approx(10 * np.log10(255**2 / error), abs=0.01)
    labs = [np.stack([cv2.cvtColor(f.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for f in s]) for s in sides[:2]]
    assert row["edit_strength_inside"] == pytest.approx(
        np.linalg.norm(labs[0] - labs[1], axis=3)[mask].mean(), rel=1e-4)
    assert row["mask_area"] == pytest.approx(mask.mean(), rel=1e-4)
    assert (row["source_num_frames"], row["target_num_frames"], row["frame_offset"]) == (12, 12, 0)
    assert row["frames_aligned"] is True


def test_an_honest_edit_lies_clear_of_the_thresholds_and_the_others_do_not(made):
    rows = table(made, "edited", "source", "late", "short", "flicker", "shaken")
    for name in ("edit_region", "edit_motion", "faces_kept"):
        rows = build(Stage(op=PAIR_FILTERS[name]))(rows)
    edited, same, late, short, flicker, shaken = rows.to_pylist()
    assert edited["psnr_outside_mask_db"] > 36 and edited["edit_strength_inside"] > 20
    assert abs(edited["warp_error_outside"]) < 1.5 and edited["warp_error_inside"] < 3
    assert edited["mask_stability"] > 0.8
    assert same["edit_strength_inside"] < 0.01 and same["psnr_outside_mask_db"] == 100
    assert late["frame_offset"] == 2 and late["frames_aligned"] is False
    assert (short["target_num_frames"], short["num_frames_gap"]) == (9, 3) and short["frames_aligned"] is False
    assert flicker["warp_error_inside"] > 2 * max(edited["warp_error_inside"], 4)
    assert shaken["warp_error_outside"] > 5
    reasons = ApplyRules(rule_set("local-edit"))(rows)["drop_reason"].to_pylist()
    assert reasons[0] is None
    assert reasons[1] == "edit_strength_inside<4"
    assert all(reasons[2:])


def test_an_edit_that_changed_nothing_is_a_reject_and_no_failure(made, tmp_path):
    empty = str(tmp_path / "empty.mp4")
    write_video(empty, np.zeros_like(made[1].frames), fps=FPS)
    rows = table(made, "source", mask_path=empty)
    for name in ("edit_region", "edit_motion", "faces_kept"):
        rows = build(Stage(op=PAIR_FILTERS[name]))(rows)
    (row,) = ApplyRules(rule_set("local-edit"))(rows).to_pylist()
    assert (row["mask_area"], row["edit_strength_inside"], row["psnr_outside_mask_db"]) == (0, 0, 100)
    assert row["drop_reason"] == "mask_area<0.002" and row["issues"] == []


def test_what_cannot_be_measured_says_why(made):
    (row,) = measure("edit_region", table(made, "edited", mask_path=None))
    assert row["psnr_outside_mask_db"] is None and "no mask_path" in row["issues"][0]
    (row,) = measure("edit_motion", table(made, "edited", target_start_s=None))
    assert row["warp_error_inside"] is None and "a picture has no motion" in row["issues"][0]
    (row,) = measure("background_similarity", table(made, "edited"))
    assert row["background_similarity"] is None and "no reference image" in row["issues"][0]


def test_a_face_outside_the_edit_must_be_found_again(tmp_path):
    face = np.ascontiguousarray(photograph("astronaut")[:360, 60:420])
    lost = face.copy()
    lost[30:170, 90:240] = cv2.blur(lost[30:170, 90:240], (61, 61))
    paths = {}
    for name, picture in (("source", face), ("same", face), ("lost", lost)):
        paths[name] = str(tmp_path / f"{name}.mp4")
        write_video(paths[name], [picture] * 6, fps=FPS)
    under = np.zeros((*face.shape[:2], 3), np.uint8)
    under[20:180, 80:250] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), under)
    sides = {"source_path": paths["source"], "source_start_s": 0.0, "source_end_s": 0.6, "target_start_s": 0.0,
             "target_end_s": 0.6, "issues": []}
    rows = pa.Table.from_pylist([sides | {"target_path": paths["same"]}, sides | {"target_path": paths["lost"]},
                                 sides | {"target_path": paths["lost"], "mask_path": str(tmp_path / "mask.png")}],
                                PAIRS.schema)
    kept, lost_, meant = measure("faces_kept", rows)
    assert kept["num_faces_to_keep"] >= 1 and kept["faces_kept"] == 1
    assert lost_["faces_kept"] == 0
    assert (meant["num_faces_to_keep"], meant["faces_kept"]) == (0, 1)  # it was meant to change


def test_a_reference_before_the_targets_own_background_is_told_from_one_in_another_scene(made, tmp_path):
    paths, clip = made
    pasted = cv2.warpAffine(clip.frames[4], np.float32([[1.1, 0, -10], [0, 1.1, -8]]), (320, 240))
    moved = cv2.resize(photograph("coffee"), (320, 240))
    inside = clip.masks[4]
    moved[inside] = clip.frames[4][inside]
    rows = []
    for name, picture in (("pasted", pasted), ("moved", moved)):
        path = str(tmp_path / f"{name}.png")
        cv2.imwrite(path, picture[..., ::-1])
        rows.append({"role": "reference", "kind": "image", "path": path})
    tables = [table(made, "source", conditions=[r]) for r in rows]
    copied, changed = (measure("background_similarity", t)[0]["background_similarity"] for t in tables)
    assert copied > 0.4 and changed < 0.05  # the object itself is in both
    both = measure("background_similarity", table(made, "source", conditions=rows))[0]["background_similarity"]
    assert both == pytest.approx(copied)  # the worst reference counts


@pytest.mark.parametrize("blurred", [0.005, 0.01, 0.02])
@pytest.mark.parametrize("name, other", [("coffee", "rocket"), ("astronaut", "motorcycle"), ("rocket", "cat")])
def test_the_targets_own_background_is_recognised_out_of_focus(name, other, blurred, tmp_path):
    """The object sharp before the target's own background, whole or cut out around it, or before another scene."""
    target, scene = (cv2.resize(photograph(n), (480, 360), interpolation=cv2.INTER_AREA) for n in (name, other))
    inside = cv2.ellipse(np.zeros((360, 480), np.uint8), (240, 190), (80, 90), 0, 0, 360, 1, -1)
    pictures = {"target": target, "mask": np.repeat(inside[..., None] * np.uint8(255), 3, axis=2)}
    for label, ground in (("own", target), ("other", scene)):
        ground = cv2.GaussianBlur(ground, (0, 0), blurred * 360)
        pictures[label] = np.where(inside[..., None] > 0, target, ground)
        pictures[f"part of {label}"] = pictures[label][30:350, 60:420]
    paths = {label: str(tmp_path / f"{label}.png") for label in pictures}
    for label, picture in pictures.items():
        cv2.imwrite(paths[label], picture[..., ::-1])
    row = {"target_path": paths["target"], "mask_path": paths["mask"], "issues": []}
    rows = pa.Table.from_pylist([row | {"conditions": [{"role": "reference", "kind": "image", "path": paths[label]}]}
                                 for label in ("own", "part of own", "other", "part of other")], PAIRS.schema)
    own, part, *others = (r["background_similarity"] for r in measure("background_similarity", rows))
    assert own > 0.4 and part > 0.3 and max(others) < 0.15


def test_an_object_that_was_removed_in_part_is_told_from_one_that_is_gone(tmp_path):
    clip = walk(12)
    half, upper = clip.clean.copy(), clip.masks.copy()
    for t, mask in enumerate(clip.masks):
        waist = int(np.median(np.nonzero(mask)[0]))
        upper[t, waist:] = False
        half[t, waist:] = clip.frames[t, waist:]
    person, scene = astronaut(), cv2.GaussianBlur(cv2.resize(photograph("coffee"), (320, 320)), (0, 0), 6)
    alpha = person[..., 3:] / 255
    scene[32:288, 32:288] = scene[32:288, 32:288] * (1 - alpha) + person[..., :3] * alpha
    for name, picture in (("reference", scene), ("other", photograph("rocket"))):
        cv2.imwrite(str(tmp_path / f"{name}.png"), picture[..., ::-1])
    films = {"target": clip.frames, "whole": clip.clean, "half": half, "same": clip.frames,
             **{f"mask of {n}": np.repeat(m[..., None] * np.uint8(255), 3, axis=3)
                for n, m in (("whole", clip.masks), ("half", upper), ("same", clip.masks))}}
    for name, frames in films.items():
        write_video(str(tmp_path / f"{name}.mp4"), frames, fps=FPS)
    times = {f"{side}_{name}": value for side in ("source", "target") for name, value in (("start_s", 0.0), ("end_s", 1.2))}

    def row(name: str, shown: str, other: str) -> dict:
        return times | {"source_path": str(tmp_path / f"{name}.mp4"), "target_path": str(tmp_path / "target.mp4"),
                        "mask_path": str(tmp_path / f"mask of {name}.mp4"), "instruction": "Add it.", "issues": [],
                        "conditions": [{"role": "reference", "kind": "image", "path": str(tmp_path / f"{shown}.png")}],
                        "other_references": [str(tmp_path / f"{other}.png")]}

    schema = PAIRS.schema.append(pa.field("other_references", pa.list_(pa.string())))
    rows = [row("whole", "reference", "other"), row("half", "reference", "other"), row("same", "reference", "other"),
            row("whole", "other", "reference")]
    table = build(Stage(op="filters.reference_presence:MeasureReferencePresence"))(pa.Table.from_pylist(rows, schema))
    whole, part, same, wrong = table.to_pylist()
    assert whole["reference_lost_share"] > 0.6 and whole["reference_remains"] < 0.6 and whole["reference_lead"] > 0.3
    assert part["reference_remains"] > 0.85  # it loses as much where it is gone, and is still seen beside that
    assert abs(same["reference_lost_share"]) < 0.05 and wrong["reference_lead"] < -0.3
    rules = [r for r in Config(input="x", output="y").pair_rules() if r.column.startswith("reference_")]
    assert ApplyRules(rules)(table)["drop_reason"].to_pylist() == [
        None, "reference_remains>0.8", "reference_lost_share<0.5", "reference_in_target<0.15"]


def test_every_rule_has_a_reason_and_reads_a_measure():
    known = {f.name for path in PAIR_FILTERS.values() for f in build(Stage(op=path)).adds}
    for rules in RULE_SETS.values():
        assert all(rule.column in known and len(rule.why) > 20 for rule in rules)
    with pytest.raises(ConfigError, match="no rule set 'x'; known: local-edit"):
        rule_set("x")
