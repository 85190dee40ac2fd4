"""The command `bernini import`: what is read again, what is found finished, and what rows are called."""

from __future__ import annotations

import tarfile
from pathlib import Path

from manifests.manifest import Manifest
from pipelines.datasets import DATASETS

from .small_datasets import lines, picture


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
    code, _, err = bernini("import", "folder", "--input", tmp_path / "gone", "--output", tmp_path / "x")
    assert code == 2 and f"--input {tmp_path / 'gone'} does not exist" in err and not (tmp_path / "x").exists()
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
