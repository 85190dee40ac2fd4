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
from PIL import Image

from manifests.errors import InputError
from manifests.manifest import Manifest
from manifests.media import probe
from manifests.mixtures import TABLE_1
from manifests.spans import read_image
from manifests.video_writer import write_video
from pipelines.datasets import DATASETS
from pipelines.datasets.command import Config, import_dataset
from pipelines.datasets.entries import records
from tests.conftest import moving_frames

OPEN = {"path": "a.mp4", "crop": [0, 1, 0, 1], "face_cut": [0, 9], "face_cap_qwen": "x", "fps": 10}
MARKS = {"ann_frame_data": {"ann_frame_idx": "1", "annotations": [{"bbox": [1, 2, 3, 4]}]}}


def picture(path: Path, seed: int = 0, size=(96, 64)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(next(iter(moving_frames(1, size=size, seed=seed)))).save(path)
    return path


def video(path: Path, seed: int = 0, num: int = 20, size=(160, 96)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(str(path), moving_frames(num, size=size, seed=seed), fps=10)
    return path


def lines(path: Path, *rows: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def run(name: str, root: Path, tmp_path: Path, **settings) -> tuple[list[dict], list[dict]]:
    """Rows of PAIRS and SAMPLES."""
    done = list(import_dataset(Config(dataset=name, input=str(root), output=str(tmp_path / "out"), engine="local",
                                      quiet=True, **settings)))
    assert not any(m.validate() for m in done)
    return done[1].table().to_pylist(), done[2].table().to_pylist()


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


@pytest.mark.parametrize("name, file, content, message", [
    ("pico-banana-400k", "sft.jsonl", '{"prompt": "x"}\n', "no column 'text'.*it has prompt"),
    ("pico-banana-400k", "other.csv", "a\n", "holds no .jsonl file"),
    ("uniredit-100k", "data.json", '[{"instruction": "x"}]', "no column 'reasoning'"),
    ("senorita-2m", "a.json", '[{"source_video_path": "x"}]', "no column 'target_video_path'"),
    ("cameraclone", "CamCloneDataset.csv", "video_path,caption\na,b\n", "no column 'ref_video_path'"),
    ("opens2v", "a.json", '{"k": {"metadata": {"path": "a"}, "annotation": {}}}', "metadata of 'k' has no 'crop'"),
    ("opens2v", "a.json", '{"k": {"metadata": {}}}', "no column 'annotation'"),
    ("opens2v", "a.json", '[{"metadata": {}, "annotation": {}}]', "no column 'key'"),
    ("syncamvideo", "readme.txt", "", "no folder train/videos/"),
    ("folder", "a.mp4", "", "none is a source or target by its name"),
    ("table", "a.csv", "x,y\n1,2\n", "no column for the target"),
    ("table", "a.jsonl", "{not json\n", "cannot read .*a.jsonl after row 0"),
    ("table", "a.jsonl", '{"target": "a.png", "prompt": "x"}\n{"target": 5, "prompt": "x"}\n', "row 2 .*target is '5', not a"),
    ("table", "a.json", '[{"target": "a.png", "prompt": 5}]', "row 1 of .*a.json: prompt is '5', not a text"),
    ("table", "a.json", '[{"target": "a.png", "prompt": "x", "licence": 5}]', "licence is '5', not a text"),
    ("table", "a.json", '[{"target": "a.png", "prompt": "x", "reference": 5}]', "reference is '5', not a list of texts"),
    ("table", "a.json", '[{"target": "a.png", "prompt": "x", "reference": [5]}]', "reference is '5', not a text"),
    ("table", "a.csv", 'target,prompt,reference\na.png,x,"[b"\n', "reference is '\\[b', not a JSON list of paths"),
    ("table", "a.json", '[{"target": "a.png", "prompt": "\\ud800"}]', "half a character"),
    ("table", "a.json", '[{"target": "a\\u0000.png", "prompt": "x"}]', "a zero byte"),
    ("pico-banana-400k", "a.jsonl", '{"text": "x", "output_image": 5}', "output_image is '5', not a text"),
    ("pico-banana-400k", "a.jsonl", '{"files": 5, "metadata_edit_turn_prompts": ["x"]}', "files is '5', not a list"),
    ("pico-banana-400k", "a.jsonl", '{"files": [5], "metadata_edit_turn_prompts": []}', "files is '5', not an object"),
    ("pico-banana-400k", "a.jsonl", '{"files": [null], "metadata_edit_turn_prompts": [5]}', "prompts is '5', not a text"),
    ("uniredit-100k", "a.json", '[{"instruction": 5, "reasoning": "", "original_image_path": "a", '
                                '"edited_image_path": "b"}]', "instruction is '5', not a text"),
    ("senorita-2m", "a.json", '[{"source_video_path": "x", "target_video_path": 5, "instruction": "y"}]',
     "target_video_path is '5', not a text"),
    ("opens2v", "a.json", '{"k": {"metadata": 5, "annotation": {}}}', "row 1 of .*: metadata is '5', not an object"),
    ("opens2v", "a.json", '{"k": {"metadata": null, "annotation": null}}', "metadata of 'k' has no 'path'"),
    *(("opens2v", "a.json", json.dumps({"k": {"metadata": OPEN | about, "annotation": MARKS | marks}}), message)
      for about, marks, message in (
          ({"fps": None}, {}, "metadata of row 1 of .*fps is 'None', not a number"), ({"fps": 0}, {}, "not above 0"),
          ({"crop": None}, {}, "crop is 'None', not 4 numbers"), ({"face_cut": [1]}, {}, "not 2 numbers"),
          ({}, {"mask_map": {"1": 5}}, "1 is '5', not an object"), ({}, {"mask_map": None, "ann_frame_data": None}, "no ann_"),
          ({}, {"ann_frame_data": {"ann_frame_idx": 1, "annotations": [{"bbox": [1, 2, 3, "x"]}]}}, "not 4 numbers"))),
    ("webdataset", "a.txt", "", "holds no .tar file"),
    ("webdataset", "a.tar", "no archive", "cannot read the shard"),
])
def test_a_wrong_layout_says_what_is_missing(tmp_path, name, file, content, message):
    root = tmp_path / "wrong"
    root.mkdir()
    (root / file).write_text(content)
    with pytest.raises(InputError, match=message):
        run(name, root, tmp_path)


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


def test_the_command_lists_its_data_sets_and_keeps_finished_work(bernini, tmp_path):
    code, out, _ = bernini("import", "--help")
    assert code == 0 and all(name in out for name in DATASETS)
    picture(tmp_path / "in/a_source.png"), picture(tmp_path / "in/a_target.png", 1)
    (tmp_path / "in/a.txt").write_text("Blue.")
    call = ("import", "folder", "--input", tmp_path / "in", "--output", tmp_path / "o", "--engine", "local", "--quiet")
    code, out, err = bernini(*call)
    assert code == 0 and "1 rows          1 accepted" in out, err
    written = {p: p.stat().st_mtime_ns for p in (tmp_path / "o").rglob("*.parquet")}
    assert bernini(*call)[0] == 0
    assert written == {p: p.stat().st_mtime_ns for p in (tmp_path / "o").rglob("*.parquet")}
    assert Manifest.open(out.split()[-1]).num_rows == 1
    code, _, err = bernini("import", "nothing", "--input", "x", "--output", "y")
    assert code == 2 and "no data set 'nothing'; known: folder" in err


def command(bernini, name: str, root, out, *words) -> tuple[list[dict], list[dict]]:
    """Rows of CANDIDATES and SAMPLES of the command, as a user gets them."""
    code, printed, err = bernini("import", name, "--input", root, "--output", out, "--engine", "local", "--quiet", *words)
    assert code == 0, err
    samples = Manifest.open(printed.split()[-1])
    pairs = Manifest.open(str(Path(samples.path, samples.header["parents"][0])))
    found = Manifest.open(str(Path(pairs.path, pairs.header["parents"][0])))
    return found.table().to_pylist(), samples.table().to_pylist()


def test_a_list_that_changed_without_its_size_is_read_again(bernini, tmp_path):
    root = tmp_path / "in"
    picture(root / "1.png"), picture(root / "2.png", 1)
    for text in ("Make it blue.", "Make it pink."):
        lines(root / "pairs.jsonl", {"source": "1.png", "target": "2.png", "prompt": text})
        for given in (root, root / "pairs.jsonl"):
            assert [r["instruction"] for r in command(bernini, "table", given, tmp_path / "o")[0]] == [text]


def test_an_output_inside_the_data_set_is_left_out_and_found_again(bernini, tmp_path):
    root = tmp_path / "in"
    picture(root / "a_source.png"), picture(root / "a_target.png", 1)
    (root / "a.txt").write_text("Blue.")
    out = root / "source"  # a name with a meaning, so that its files would be pairs
    picture(out / "lonely.png", 2)
    first = command(bernini, "folder", root, out)
    written = sorted(out.rglob("*"))
    assert command(bernini, "folder", root, out) == first and sorted(out.rglob("*")) == written
    assert len(first[0]) == 1


def test_one_shard_is_a_data_set(bernini, tmp_path):
    shard = tmp_path / "a.tar"
    with tarfile.open(shard, "w") as archive:
        archive.add(picture(tmp_path / "s.png"), "01.source.png")
        archive.add(picture(tmp_path / "t.png", 1), "01.target.png")
        (tmp_path / "01.txt").write_text("Make it blue.")
        archive.add(tmp_path / "01.txt", "01.txt")
    _, (sample,) = command(bernini, "webdataset", shard, tmp_path / "o")
    assert sample["task"] == "i2i" and Path(sample["images"][0]).read_bytes() == (tmp_path / "s.png").read_bytes()


def test_a_relative_input_gives_rows_that_open_from_everywhere(bernini, tmp_path, monkeypatch):
    picture(tmp_path / "in/1.png"), picture(tmp_path / "in/2.png", 1)
    lines(tmp_path / "in/pairs.jsonl", {"source": "1.png", "target": "2.png", "prompt": "Make it blue."})
    monkeypatch.chdir(tmp_path)
    for given in ("in", "in/pairs.jsonl"):
        (row,), (sample,) = command(bernini, "table", given, "o")
        assert row["source_path"] == str(tmp_path / "in/1.png") == sample["images"][0]


def test_ids_tell_data_sets_of_one_layout_apart_and_not_their_places(bernini, tmp_path):
    def ids(root: str, seed: int, *words: str) -> tuple[str, str]:
        picture(tmp_path / root / "1.png", seed), picture(tmp_path / root / "2.png", seed + 1)
        lines(tmp_path / root / "pairs.jsonl", {"source": "1.png", "target": "2.png", "prompt": "Make it blue."})
        _, (sample,) = command(bernini, "table", tmp_path / root, tmp_path / f"o-{root}", *words)
        return sample["sample_id"], sample["video_id"]

    first, other, copy = ids("a", 0), ids("b", 7), ids("c", 0)
    named = ids("d", 0, "--source-name", "mine")
    assert first == copy and all(len({first[n], other[n], named[n]}) == 3 for n in (0, 1))


def test_a_row_whose_media_are_not_those_of_its_task_is_dropped_alone(tmp_path):
    root = tmp_path / "table"
    picture(root / "1.png"), picture(root / "2.png", 1), video(root / "3.mp4", 2)
    rows = [{"source": "1.png", "target": target, "prompt": "Make it blue.", "task": task}
            for target, task in (("2.png", "i2i"), ("2.png", "v2v"), ("3.mp4", "i2i"), ("3.mp4", "i2v"))]
    lines(root / "pairs.jsonl", *rows)
    pairs, samples = run("table", root, tmp_path)
    assert [p["drop_reason"] for p in pairs] == [None, *["failed: not what its task takes"] * 2, None]
    assert "the task v2v makes a target of the kind video from ('video',)" in pairs[1]["issues"][0]
    assert [s["task"] for s in samples] == ["i2i", "i2v"]


@pytest.mark.parametrize("facts, words", [({"prompt": 5}, "01 of .*a.tar: prompt is '5', not a text"),
                                          ({"prompt": "x", "license": 5}, "license is '5', not a text")])
def test_a_wrong_value_in_a_shard_is_named(tmp_path, facts, words):
    (tmp_path / "01.json").write_text(json.dumps(facts))
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(picture(tmp_path / "t.png"), "01.png")
        archive.add(tmp_path / "01.json", "01.json")
    with pytest.raises(InputError, match=words):
        run("webdataset", tmp_path / "a.tar", tmp_path)


def test_rows_that_name_nothing_or_too_long_a_name_are_dropped_alone(tmp_path):
    root = tmp_path / "in"
    video(root / "a/1.mp4"), video(root / "a/2.mp4", 1)
    rows = [{"source_video_path": "a/1.mp4", "target_video_path": target, "instruction": "Make it blue."}
            for target in ("a/2.mp4", None, "x" * 300, "gone.mp4")]
    lines(root / "list.jsonl", *rows)
    pairs, _ = run("senorita-2m", root, tmp_path, max_failed_share=1.0)
    assert [p["drop_reason"] for p in pairs] == [None, "failed: no target", "failed: unreadable", "failed: missing"]
