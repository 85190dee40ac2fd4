"""Data sets with something wrong: the message names file, row and column, and a row that cannot be used goes alone."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from manifests.errors import InputError

from .small_datasets import MARKS, OPEN, lines, picture, run, video


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
    ("table", "a.csv", "target,prompt\n", "laid out as table, but its lists hold no rows"),
    ("table", "a.csv", "", "laid out as table, but its lists hold no rows"),
    ("table", "a.json", '[{"target": "a.png", "prompt": "x"}]\n[{"target": "b.png", "prompt": "y"}]',
     "cannot read .*a.json after row 1: something follows the ] that ends it"),
    ("table", "a.json", '[{"target": "a.png", "prompt": "x"}}', "cannot read .*a.json after row 1"),
    ("webdataset", "a.txt", "", "holds no .tar file"),
    ("webdataset", "a.tar", "no archive", "cannot read the shard"),
])
def test_a_wrong_layout_says_what_is_missing(tmp_path, name, file, content, message):
    root = tmp_path / "wrong"
    root.mkdir()
    (root / file).write_text(content)
    with pytest.raises(InputError, match=message):
        run(name, root, tmp_path)


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


def test_a_subject_that_is_not_annotated_drops_its_row_alone(tmp_path):
    root = tmp_path / "s2v"
    video(root / "videos/a.mp4", size=(320, 240), num=30)
    marks = [{"ann_frame_idx": "1", "annotations": boxes} for boxes in ([], [{"bbox": [10, 10, 200, 200]}])]
    (root / "a.json").write_text(json.dumps({key: {
        "metadata": OPEN | {"crop": [0, 320, 0, 240]}, "annotation": {"ann_frame_data": mark}}
        for key, mark in zip("ab", marks, strict=True)}))
    (lost, kept), samples = run("opens2v", root, tmp_path)
    assert lost["drop_reason"] == "failed: not what its task takes" and lost["target_path"] == kept["target_path"]
    assert "no subject of" in lost["issues"][0] and "0 are annotated" in lost["issues"][0]
    assert kept["drop_reason"] is None and len(samples) == 1


def test_a_pair_is_not_made_of_a_blank_prompt(tmp_path):
    root = tmp_path / "table"
    picture(root / "1.png"), picture(root / "2.png", 1)
    lines(root / "pairs.jsonl", *({"source": "1.png", "target": "2.png", "prompt": p} for p in ("   ", " Make it red.\n")))
    (lost, kept), _ = run("table", root, tmp_path)
    assert lost["drop_reason"] == "failed: instruction was not measured" and kept["instruction"] == "Make it red."


def test_a_file_that_ends_as_neither_picture_nor_film_is_told_so(tmp_path):
    root = tmp_path / "table"
    picture(root / "1.avif"), picture(root / "2.jpg", 1), video(root / "film.mp4", 2)
    (root / "2.jpg").rename(root / "2.heic"), (root / "film.mp4").rename(root / "film")
    lines(root / "pairs.jsonl", *({"target": name, "prompt": "A drift."} for name in ("1.avif", "2.heic", "film")))
    pairs, samples = run("table", root, tmp_path)
    assert [p["drop_reason"] for p in pairs] == [None, "failed: unreadable", None]
    assert "2.heic ends neither as a picture (.jpg" in pairs[1]["issues"][0]
    assert [s["task"] for s in samples] == ["t2i", "t2v"]


def test_every_file_of_a_folder_comes_to_a_row(tmp_path):
    root = tmp_path / "own"
    for n, name in enumerate(("a_source.png", "a_target_1.png", "a_target_2.png", "a_target_10.png", "b_source_1.png",
                              "b_source_2.png", "b_target_1.png", "b_target_2.png", "c_source.png", "c_target.jpg",
                              "c_target.png", "d_mask.png", "e_source.png", "f_target.png", "f_reference_2.png",
                              "f_reference_10.png")):
        picture(root / name, n)
    for name in "abcdef":
        (root / f"{name}_prompt.txt").write_text(f"Change {name}.")
    (root / "readme.txt").write_text("About the pairs.")
    picture(root / "e_target.jpg", 99).rename(root / "e_target.heic")
    pairs, samples = run("folder", root, tmp_path, max_failed_share=1.0)
    names = [[p[side] and p[side].rsplit("/", 1)[-1] for side in ("source_path", "target_path")] for p in pairs]
    assert names == [["a_source.png", "a_target_1.png"], ["a_source.png", "a_target_2.png"],
                     ["a_source.png", "a_target_10.png"], ["b_source_1.png", "b_target_1.png"],
                     ["b_source_2.png", "b_target_2.png"], ["c_source.png", "c_target.jpg"],
                     ["c_source.png", "c_target.png"], [None, None], ["e_source.png", "e_target.heic"],
                     [None, "f_target.png"]]
    reasons = [p["drop_reason"] for p in pairs]
    assert reasons == [None] * 7 + ["failed: no target", "failed: unreadable", None] and len(samples) == 8
    assert "d has neither a source nor a target, only: mask, prompt" in pairs[7]["issues"][0]
    assert [c["path"].rsplit("_", 1)[-1] for c in pairs[9]["conditions"]] == ["2.png", "10.png"]
    picture(root / "a_source.webp", 50)
    with pytest.raises(InputError, match="a: which source belongs to which target .*a_source.png, .*a_source.webp"):
        run("folder", root, tmp_path)


def test_every_sample_of_a_shard_comes_to_a_row(tmp_path):
    shard = tmp_path / "a.tar"
    pictures = [picture(tmp_path / f"{n}.png", n) for n in range(9)]
    (tmp_path / "x.txt").write_text("Make it blue.")
    with tarfile.open(shard, "w") as archive:
        for n, name in enumerate(("1.avif", "1.txt", "2.txt", "3.jpg", "3.png", "3.txt", "4.reference_10.jpg",
                                  "4.reference_2.jpg", "4.target.jpg", "4.txt", "5.source.heic", "5.target.png", "5.txt",
                                  "6.heic", "6.txt")):
            archive.add(tmp_path / "x.txt" if name.endswith("txt") else pictures[n % 9], name)
    pairs, samples = run("webdataset", shard, tmp_path, max_failed_share=1.0)
    assert [json.loads(p["extra"])["key"] for p in pairs] == ["1", "2", "3", "3", "4", "5", "6"]
    reasons = [p["drop_reason"] for p in pairs]
    assert reasons == [None, "failed: no target", None, None, None, "failed: unreadable", "failed: no target"]
    assert "2 of " in pairs[1]["issues"][0] and "only: txt" in pairs[1]["issues"][0]
    assert "only: heic, txt" in pairs[6]["issues"][0] and ".heic ends neither as" in pairs[5]["issues"][0]
    assert [Path(c["path"]).read_bytes() for c in pairs[4]["conditions"]] == [pictures[n].read_bytes() for n in (7, 6)]
    with tarfile.open(shard, "a") as archive:
        archive.add(pictures[0], "6.heic")
    with pytest.raises(InputError, match="a.tar holds 6.heic twice"):
        run("webdataset", shard, tmp_path)


def test_turns_without_prompts_are_a_dropped_row(tmp_path):
    root = tmp_path / "pico"
    for n, name in enumerate(("openimage_source_images/9.jpg", "1.png", "2.png")):
        picture(root / name, n)
    files = [{"id": "original_input_image", "url": "https://x.org/9.jpg"}, {"id": "edit_turn1", "url": "1.png"},
             {"id": "final_image", "url": "2.png"}]
    lines(root / "a.jsonl", *({"files": files, "metadata_edit_turn_prompts": p} for p in (None, ["Warmer.", "Darker."])))
    pairs, samples = run("pico-banana-400k", root, tmp_path)
    assert [p["drop_reason"] for p in pairs] == ["failed: instruction was not measured", None, None] and len(samples) == 2


def test_absolute_paths_and_addresses_of_a_list_stay(tmp_path):
    root = tmp_path / "in"
    video(root / "style_transfer_upload/1.mp4"), video(root / "style_transfer_upload/2.mp4", 1)
    video(tmp_path / "else/controllable/2.mp4", 2)
    paths = [str(root / "style_transfer_upload/2.mp4"), f"file://{root}/style_transfer_upload/2.mp4",
             str(tmp_path / "else/controllable/2.mp4")]
    lines(root / "list.jsonl", *({"source_video_path": str(root / "style_transfer_upload/1.mp4"),
                                  "target_video_path": path, "instruction": "Make it blue."} for path in paths))
    pairs, samples = run("senorita-2m", root, tmp_path)
    assert [p["target_path"] for p in pairs] == paths and not any(p["drop_reason"] for p in pairs)
    assert [p["edit"] for p in pairs] == ["style_transfer_upload", "style_transfer_upload", "controllable"]
    assert sorted(s["source_name"] for s in samples) == ["senorita-controllable", "senorita-editing", "senorita-editing"]
