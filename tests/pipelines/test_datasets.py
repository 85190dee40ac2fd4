"""Open data sets: fixtures of a few rows, written as their documentation describes the layout."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.errors import InputError
from manifests.media import probe
from manifests.mixtures import TABLE_1
from manifests.spans import read_image
from pipelines.datasets.entries import records
from tests.conftest import moving_frames

from .small_datasets import MARKS, OPEN, lines, picture, run, video


def kinds(sample: dict) -> list[str]:
    return [m["type"] for m in json.loads(sample["inputs"])]


def test_pico_banana_single_and_multi_turn(tmp_path):
    root = tmp_path / "pico"
    picture(root / "openimages/images/train_0/0000e2205e460318.jpg")
    picture(root / "images/positive-edit/1.png", 1)
    lines(root / "sft_with_local_source_image_path.jsonl",
          {"open_image_input_url": "https://c1.staticflickr.com/8/7404/1_o.jpg", "text": "Remove the red flag.",
           "output_image": "images/positive-edit/1.png", "edit_type": "Remove an existing object",
           "summarized_text": "Flag removed", "local_input_image": "openimages/images/train_0/0000e2205e460318.jpg"},
          {"open_image_input_url": "https://c1.staticflickr.com/8/7404/2_o.jpg", "text": "Make it night.",
           "output_image": "images/positive-edit/2.png", "edit_type": "Change the light"})
    picture(root / "openimage_source_images/9_o.jpg", 2)
    for n in (1, 2):
        picture(root / f"images/multi-turn/7_turn{n}.png", 2 + n)
    lines(root / "multi_turn.jsonl",
          {"files": [{"id": "edit_turn1", "url": "images/multi-turn/7_turn1.png"},
                     {"id": "final_image", "url": "images/multi-turn/7_turn2.png"},
                     {"id": "original_input_image", "url": "https://farm8.staticflickr.com/9_o.jpg"}],
           "metadata_edit_turn_prompts": ["Warmer colours", "Zoom in on the car"]})
    pairs, samples = run("pico-banana-400k", root, tmp_path)
    assert [p["drop_reason"] for p in pairs] == [None, None, None, "failed: missing"]
    assert "there is no file" in pairs[3]["issues"][0] and pairs[3]["target_path"].endswith("positive-edit/2.png")
    turns = pairs[:2]
    assert turns[0]["target_path"] == turns[1]["source_path"] and turns[1]["instruction"] == "Zoom in on the car"
    assert {s["source_name"] for s in samples} == {"pico-banana-400k"} <= set(TABLE_1)
    assert {s["licence"] for s in samples} == {"CC BY-NC-ND 4.0"}
    assert kinds(samples[0]) == ["image", "text", "image_gen"] and samples[0]["task"] == "i2i"


def test_uniredit_keeps_its_reasoning_and_prepends_the_rules(tmp_path):
    root = tmp_path / "uni"
    picture(root / "original_images/maze/1.png")
    picture(root / "edited_images/maze/1.png", 1)
    (root / "data.json").write_text(json.dumps([
        {"instruction": "Draw the shortest way.", "reasoning": "Start at the left …", "rules": "Walls are black.",
         "original_image_path": "original_images/maze/1.png", "edited_image_path": "edited_images/maze/1.png"}]))
    (pair,), (sample,) = run("uniredit-100k", root, tmp_path)
    assert pair["reasoning"].startswith("Start") and pair["instruction"] == "Walls are black. Draw the shortest way."
    assert sample["source_name"] == "uniredit-100k" and sample["source_name"] in TABLE_1


def test_senorita_finds_uploaded_folders_and_tells_controllable_videos_apart(tmp_path):
    root = tmp_path / "senorita"
    for folder in ("style_transfer_upload/a", "controllable_videos/b"):
        video(root / folder / "1_org.mp4")
        video(root / folder / "1.mp4", 1)
    rows = [[{"source_video_path": f"./{folder}/1_org.mp4", "target_video_path": f"./{folder}/1.mp4",
              "instruction": "oil", "enhanced_instruction": "Turn it into an oil painting."}]
            for folder in ("style_transfer/a", "controllable_videos/b")]
    (root / "list.json").write_text(json.dumps(rows))  # nested lists
    pairs, samples = run("senorita-2m", root, tmp_path)
    assert [p["drop_reason"] for p in pairs] == [None, None]
    assert sorted(s["source_name"] for s in samples) == ["senorita-controllable", "senorita-editing"]
    assert pairs[0]["source_end_s"] == pytest.approx(2.0, abs=0.01) and pairs[0]["instruction"].startswith("Turn")
    assert samples[0]["videos"][-1]["duration"] == pytest.approx(2.0, abs=0.01)


def test_syncamvideo_pairs_each_camera_with_the_next(tmp_path):
    root = tmp_path / "SynCamVideo"
    for n in range(3):
        video(root / f"train/videos/scene1/cam{n:02d}.mp4", n)
    (root / "train/cameras/scene1").mkdir(parents=True)
    (root / "train/cameras/scene1/scene1.json").write_text("{}")
    pairs, samples = run("syncamvideo", root, tmp_path)
    assert [(Path(p["source_path"]).stem, Path(p["target_path"]).stem) for p in pairs] == [
        ("cam00", "cam01"), ("cam01", "cam02"), ("cam02", "cam00")]
    assert samples[0]["licence"] == "Apache-2.0" and samples[0]["source_name"] in TABLE_1
    assert json.loads(pairs[0]["extra"])["cameras"] == "cameras/scene1/scene1.json"


def test_cameraclone_gives_scene_and_camera(tmp_path):
    root = tmp_path / "cc"
    for name in ("t", "r", "c"):
        video(root / f"videos/{name}.mp4", ord(name))
    with open(root / "CamCloneDataset.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["video_path", "caption", "ref_video_path", "content_video_path"])
        writer.writerow(["videos/t.mp4", "A man walks, and stops", "videos/r.mp4", "videos/c.mp4"])
    (pair,), (sample,) = run("cameraclone", root, tmp_path)
    assert pair["task"] == "mv2v" and Path(pair["source_path"]).stem == "c"
    assert pair["conditions"][0]["end_s"] == pytest.approx(2.0, abs=0.01)
    assert kinds(sample) == ["video", "video", "text", "video_gen"] and sample["source_name"] == "cameraclone"


def test_opens2v_cuts_subjects_and_the_watermark(tmp_path):
    root = tmp_path / "s2v"
    video(root / "videos/a/1.mp4", size=(320, 240), num=30)
    mark = {"ann_frame_idx": "12", "annotations": [{"bbox": [10, 20, 110, 140], "gme_score": 0.5, "aes_score": 5.1},
                                                   {"bbox": [0, 0, 8, 8], "gme_score": 0.5, "aes_score": 5.1}]}
    (root / "Top200K.json").write_text(json.dumps({"b": {"metadata": OPEN | {"path": None}, "annotation": MARKS}, "a_1": {
        "metadata": {"path": "a/1.mp4", "crop": [0, 320, 0, 200], "face_cut": [10, 28], "fps": 10.0,
                     "face_cap_qwen": "A woman reads."},
        "annotation": {"mask_map": {"1": {"class_name": "woman"}, "2": {"class_name": "ring"}}, "ann_frame_data": mark,
                       "mask_annotation": {"12": {}}}}}))
    (lost, pair), (sample,) = run("opens2v", root, tmp_path)
    assert lost["drop_reason"] == "failed: no target"
    assert pair["drop_reason"] is None and pair["target_duration_s"] == pytest.approx(1.8, abs=0.02)
    assert (probe(pair["target_path"]).width, probe(pair["target_path"]).height) == (320, 200)  # below it the mark
    (reference,) = pair["conditions"]  # 8 px of a ring are no subject
    frame = list(moving_frames(13, size=(320, 240)))[12]
    assert read_image(reference["path"]).shape == (121, 101, 3)
    assert np.abs(read_image(reference["path"]).astype(int) - frame[20:141, 10:111]).mean() < 12  # codec noise
    assert kinds(sample) == ["image", "text", "video_gen"] and sample["task"] == "r2v"
    assert sample["source_name"] in TABLE_1 and sample["licence"] == "CC-BY-4.0"


def test_a_folder_of_pairs_in_both_namings(tmp_path):
    root = tmp_path / "own"
    picture(root / "source/a.png")
    picture(root / "target/a.png", 1)
    (root / "prompt").mkdir()
    (root / "prompt/a.txt").write_text("Make it blue.\n")
    video(root / "b_source.mp4")
    video(root / "b_target.mp4", 1)
    picture(root / "b_reference_1.png", 2)
    (root / "b_prompt.txt").write_text("Add the hat.")
    picture(root / "source/lonely.png", 3)
    (root / "LICENSE").write_text("CC BY 4.0\n")
    pairs, samples = run("folder", root, tmp_path, source_name="own-edits")
    assert sorted((s["task"], s["source_name"], s["licence"]) for s in samples) == [
        ("i2i", "own-edits", "CC BY 4.0"), ("vr2v", "own-edits", "CC BY 4.0")]
    (lost,) = [p for p in pairs if p["drop_reason"]]
    assert lost["drop_reason"] == "failed: no target" and lost["source_path"].endswith("lonely.png")
    assert kinds(next(s for s in samples if s["task"] == "vr2v")) == ["video", "image", "text", "video_gen"]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "json", "parquet"])
def test_a_table_of_pairs(tmp_path, ending):
    root = tmp_path / "table"
    picture(root / "1.png"), picture(root / "2.png", 1)
    rows = [{"source": "1.png", "target": "2.png", "prompt": "Make it blue.", "license": "CC BY 4.0", "rating": "4"},
            {"source": "1.png", "target": "gone.png", "prompt": "Make it red.", "license": "", "rating": "1"}]
    file = root / f"pairs.{ending}"
    if ending == "csv":
        with open(file, "w", newline="") as stream:
            writer = csv.DictWriter(stream, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    elif ending == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    else:
        file.write_text(json.dumps(rows) if ending == "json" else "".join(json.dumps(r) + "\n" for r in rows))
    pairs, (sample,) = run("table", file, tmp_path, licence="MIT")
    assert [p["drop_reason"] for p in pairs] == [None, "failed: missing"]
    assert [p["licence"] for p in pairs] == ["CC BY 4.0", "MIT"]
    assert json.loads(sample["extra"]) == {"rating": "4"} and sample["task"] == "i2i"


def test_nan_in_a_column_of_texts_is_nothing(tmp_path):
    picture(tmp_path / "t/2.png")
    rows = [{"target": "2.png", "prompt": "A picture.", "licence": float("nan")}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t/pairs.parquet")
    assert run("table", tmp_path / "t", tmp_path)[1][0]["licence"] is None


def test_webdataset_shards_keep_media_under_their_content(tmp_path):
    root = tmp_path / "shards"
    root.mkdir()
    one, two = picture(tmp_path / "s.jpg").read_bytes(), picture(tmp_path / "t.jpg", 1).read_bytes()
    with tarfile.open(root / "00000.tar", "w") as archive:
        for name, data in (("../../evil/01.source.jpg", one), ("../../evil/01.target.jpg", two),
                           ("../../evil/01.txt", b"Make it blue."), ("02.source.jpg", one),
                           ("02.json", b'{"prompt": "No target here.", "license": "CC0"}'), ("03.jpg", two),
                           ("03.json", b'{"caption": "A picture."}')):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    pairs, samples = run("webdataset", root, tmp_path)
    assert [p["drop_reason"] for p in pairs] == [None, "failed: no target", None]
    assert [s["task"] for s in samples] == ["i2i", "t2i"] and pairs[1]["licence"] == "CC0"
    assert not (tmp_path.parent / "evil").exists() and not (tmp_path / "evil").exists()
    assert all(str(tmp_path / "out" / "media") in p["source_path"] for p in pairs if p["source_path"])


def test_a_long_json_list_is_read_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.datasets.entries.PIECE", 16)
    rows = [{"n": n, "text": "ä]}{[,:\"" * n} for n in range(40)]
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=1))
    assert list(records(str(tmp_path / "a.json"))) == rows
    (tmp_path / "b.json").write_text(json.dumps({str(r["n"]): r for r in rows}))
    assert list(records(str(tmp_path / "b.json"))) == [r | {"key": str(r["n"])} for r in rows]
    (tmp_path / "c.json").write_text(json.dumps(rows)[:-5])
    with pytest.raises(InputError, match="cannot read"):
        list(records(str(tmp_path / "c.json")))
