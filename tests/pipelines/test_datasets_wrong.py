"""Data sets with something wrong: the message names file, row and column, and a row that cannot be used goes alone."""

from __future__ import annotations

import json
import tarfile

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
