"""Paths and URIs through one layer; files appear whole or not at all."""

from __future__ import annotations

import pytest

from manifests import storage
from manifests.errors import InputError
from manifests.media import probe
from manifests.video_writer import write_video
from pipelines.ingest import list_videos
from tests.conftest import moving_frames


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    with pytest.raises(RuntimeError), storage.atomic_output(tmp_path / "a" / "x") as stream:
        stream.write(b"half")
        raise RuntimeError
    assert storage.list_files(tmp_path, recursive=True) == []
    storage.write_bytes(tmp_path / "a" / "x", b"whole")
    assert storage.list_files(tmp_path, recursive=True) == [("a/x", 5)]
    assert storage.read_bytes(f"file://{tmp_path}/a/x") == b"whole"


def test_an_unusable_address_is_explained():
    with pytest.raises(InputError, match="cannot use 'ftp2://x/y' as a storage address"):
        storage.resolve("ftp2://x/y")


def test_a_video_behind_a_uri_is_read_like_a_file(tmp_path):
    write_video(str(tmp_path / "a.mp4"), moving_frames(10), fps=10)
    assert probe(f"file://{tmp_path}/a.mp4") == probe(str(tmp_path / "a.mp4"))


def test_a_folder_and_its_uri_list_the_same_videos(tmp_path):
    for name in ("b.mp4", "a.mp4", "sub/c.mp4"):
        write_video(str(tmp_path / name), moving_frames(5), fps=10)
    here, there = list_videos(str(tmp_path)), list_videos(f"file://{tmp_path}")
    assert here["relative_path"].to_pylist() == ["a.mp4", "b.mp4", "sub/c.mp4"]
    assert here["video_id"].equals(there["video_id"]) and here["num_bytes"].equals(there["num_bytes"])


def test_a_file_listed_twice_stays_two_rows(tmp_path):
    write_video(str(tmp_path / "a.mp4"), moving_frames(5), fps=10)
    (tmp_path / "list.jsonl").write_text('{"path": "a.mp4", "license": "CC0"}\n{"uri": "a.mp4", "mood": "blue"}\n')
    table = list_videos(str(tmp_path / "list.jsonl"))
    assert table.num_rows == 2 and len(set(table["video_id"].to_pylist())) == 2
    assert sorted(str(v) for v in table["licence"].to_pylist()) == ["CC0", "None"]
    assert '{"mood": "blue"}' in table["extra"].to_pylist()


def test_changed_content_changes_the_id_and_a_copied_tree_does_not(tmp_path):
    import shutil

    write_video(str(tmp_path / "one" / "a.mp4"), moving_frames(5), fps=10)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    first, copy = (list_videos(str(tmp_path / n))["video_id"] for n in ("one", "two"))
    assert first.equals(copy)
    with open(tmp_path / "two" / "a.mp4", "r+b") as file:
        file.seek(-3, 2)
        file.write(b"!")
    assert not first.equals(list_videos(str(tmp_path / "two"))["video_id"])
