"""The console command as a stranger meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from manifests.media import VideoReader
from pipelines.__main__ import COMMANDS

ROOT = Path(__file__).resolve().parents[2]


def test_help_names_every_command_and_where_to_start(bernini):
    code, out, _ = bernini("--help")
    assert code == 0 and all(name in out for name in COMMANDS) and "Start here" in out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name):
    done = subprocess.run([sys.executable, "-m", "pipelines", name, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower() and len(done.stdout) > 150


@pytest.mark.parametrize("argv, words", [
    (("frobnicate",), "no command 'frobnicate'; known: run"),
    (("run", "frobnicate"), "no recipe 'frobnicate'; known: video-pairs"),
    (("show", "/nowhere"), "/nowhere has no manifest.json"),
    (("run", "video-pairs", "--input", "/nowhere", "--output", "/tmp/x", "--engine", "local"), "/nowhere does not exist"),
    (("run", "video-pairs", "--input", "/tmp", "--output", "/tmp/x", "--engine", "spark"), "no engine 'spark'"),
    (("run", "transforms", "--transforms", "pose2video", "--pose", "dwpose", "--pose-model", "/nope.onnx", "--pose-detector",
      "/tmp", "--input", "/tmp", "--output", "/tmp/x"), "--pose-model is /nope.onnx, which does not exist: name a file"),
    (("run", "transforms", "--transforms", "pose2video", "--pose", "dwpose", "--pose-model", sys.executable, "--pose-detector",
      "/tmp", "--input", "/tmp", "--output", "/tmp/x"), "--pose-detector is /tmp, which is a folder: name a file"),
    (("run", "person-r2v", "--face", "arcface", "--face-model", "/nope.onnx", "--face-detector", "/no.onnx", "--input",
      "/tmp", "--output", "/tmp/x"), "--face-model is /nope.onnx, which does not exist: name a file"),
    (("run", "transforms", "--transforms", "inpainting-nomask", "--input", "/tmp", "--output", "/tmp/x", "--min-mask-area",
      "nan"), "the rule on mask_area has min nan, which is no limit: give a number"),
])
def test_errors_are_one_line_with_a_non_zero_exit(bernini, tmp_path, argv, words):
    code, _, err = bernini(*argv)
    assert code == 2 and words in err and len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("argv, option", [
    (("filter", "M", "--keep", "a<=1", "--keep", "b<=1", "--write", "W"), "--keep"),
    (("mix", "M", "--stage", "IIa", "--weight", "a=1", "--weight=b=2", "--output", "O"), "--weight"),
    (("dedupe", "M", "--by", "picture_hash", "--by", "video_embedding=0.9", "--write", "W"), "--by"),
    (("run", "transforms", "--transforms", "colorization", "--transforms=sketch-to-video"), "--transforms"),
    (("train", "--data", "a", "--data", "b"), "--data"),
    (("generate", "--model", "M", "--images", "a.png", "--images", "b.png"), "--images"),
])
def test_an_option_given_twice_is_refused(bernini, argv, option):
    code, _, err = bernini(*argv)
    assert code == 2 and err == f"error: {option} is given twice: give it once, and name all its values after it\n"


@pytest.mark.parametrize("where, words", [
    ("afile", "File exists: name an output folder where no file lies"),
    ("afile/x", "Not a directory: name a path of which no part is a file"),
    ("/proc/x", "No such file or directory: name a path that exists or can be made"),
])
@pytest.mark.parametrize("command", [("filter", "--keep", "num_attempts<=9", "--write"), ("export", "--form", "trainer", "--output"),
                                     ("dedupe", "--by", "video_embedding", "--write")], ids=lambda words: words[0])
def test_an_output_that_cannot_be_made_is_one_line(bernini, film_run, tmp_path, command, where, words):
    (tmp_path / "afile").touch()
    source = film_run["samples" if command[0] == "export" else "clips"].path
    if command[0] == "dedupe":
        pytest.importorskip("faiss")
    code, _, err = bernini(command[0], source, *command[1:], tmp_path / where)
    assert code == 2 and f"{words} and run the same command again; finished work is kept." in err
    assert len(err.strip().splitlines()) == 1


def test_a_file_to_write_that_is_a_folder_or_below_a_file_is_one_line(bernini, film_run, tmp_path):
    (tmp_path / "afile").touch()
    (tmp_path / "folder.csv").mkdir()
    for where, words in (("afile/x.csv", "name an output folder where no file lies"),
                         ("folder.csv", "name a file where no folder lies")):
        code, _, err = bernini("export", film_run["pairs"].path, "--output", tmp_path / where)
        assert code == 2 and words in err and len(err.strip().splitlines()) == 1


def test_of_a_single_value_the_last_one_counts(bernini, film_run, tmp_path):
    call = ("filter", film_run["pairs"].path, "--keep", "video_similarity>=0.7")
    assert bernini(*call, "--write", tmp_path / "a", "--write", tmp_path / "b")[0] == 0
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_a_wrong_flag_value_is_explained(bernini):
    code, out, err = bernini("run", "video-pairs", "--input", "a", "--output", "b", "--similarity-min", "high")
    assert code == 2 and "similarity-min" in out + err and "high" in out + err


def test_run_prints_funnel_manifest_and_report(bernini, film, tmp_path):
    code, out, _ = bernini("run", "video-pairs", "--input", film.videos_folder, "--output", tmp_path, "--engine", "local")
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines() if line and not line.startswith(" ")}
    assert {"videos", "clips", "candidates", "pairs", "samples", "manifest", "report"} <= set(lines)
    report, manifest = (Path(lines[k].split(maxsplit=1)[1]) for k in ("report", "manifest"))
    assert report.suffix == ".html" and report.stat().st_size > 10_000
    assert json.loads((manifest / "manifest.json").read_text())["stop"] == "pairs"


def test_show_tells_what_a_manifest_is(bernini, film_run):
    code, out, _ = bernini("show", film_run["pairs"].path)
    assert code == 0
    for words in ("a source and a target", "dropped", "parent", "similarity_min", "video_similarity", "pyarrow"):
        assert words in out
    code, out, _ = bernini("show", Path(film_run["pairs"].path).parents[1])
    assert all(f"/{stop}/" in out for stop in ("videos", "clips", "candidates", "pairs", "samples"))


def test_head_stats_drops_validate_and_account(bernini, film_run):
    path = film_run["pairs"].path
    code, out, _ = bernini("head", path, "--rows", "2", "--columns", "pair_id", "video_similarity", "--accepted")
    assert code == 0 and out.count("pair_id") == 2
    code, out, _ = bernini("stats", path, "--columns", "video_similarity")
    row = out.splitlines()[1].split()
    good = film_run["pairs"].table(["video_similarity", "drop_reason"]).to_pandas()[lambda t: t.drop_reason.isna()]
    assert row[0] == "video_similarity" and float(row[3]) == pytest.approx(good.video_similarity.min(), abs=1e-3)
    code, out, _ = bernini("drops", path, "--examples", "1")
    assert all(reason in out for reason in film_run["pairs"].header["drops"])
    code, out, _ = bernini("validate", path)
    assert code == 0 and "counts agree" in out
    code, out, _ = bernini("account", path)
    assert code == 0 and f"{film_run['pairs'].num_rows}  in all" in out


def test_why_tells_the_whole_story_of_a_pair(bernini, film_run):
    table = film_run["pairs"].table(["pair_id", "drop_reason", "source_path"]).to_pylist()
    pair = next(r for r in table if r["drop_reason"] and r["drop_reason"].startswith("video_similarity<"))
    code, out, _ = bernini("why", film_run["pairs"].path, pair["pair_id"])
    assert code == 0
    for words in (pair["source_path"], "rule BROKEN 0.65 <= video_similarity <= 0.95", "sha256", "pyav", "sharpness = ",
                  "[filters.sharpness:MeasureSharpness classical]", "verdict = good", "[filters.video_similarity:EmbedVideo classical]", "clip c-"):
        assert words in out, words


def test_why_of_an_unknown_row_says_how_to_list_rows(bernini, film_run):
    code, _, err = bernini("why", film_run["pairs"].path, "p-nothing")
    assert code == 2 and "no row has the pair_id 'p-nothing'" in err and "bernini head" in err


def test_decide_again_needs_no_media_and_writes_a_manifest(bernini, film_run, tmp_path):
    code, out, _ = bernini("decide", film_run["candidates"].path, "--similarity-min", "0.8", "--no-human-balance",
                           "--write", tmp_path / "again")
    assert code == 0 and "dropped: video_similarity<0.8" in out
    table = pd.read_parquet(tmp_path / "again" / "part-00000.parquet")
    assert (table.video_similarity[table.drop_reason.isna()] >= 0.8).all() and len(table) == film_run["candidates"].num_rows
    code, _, err = bernini("decide", film_run["candidates"].path, "--similarity-min", "0.94999")
    assert code == 3 and "accept no row" in err


def test_the_readmes_first_lines_read_a_manifest(film_run):
    code = (ROOT / "README.md").read_text().split("```python\n")[1].split("```")[0]
    names: dict = {}
    exec(code.replace("OUT/pairs/NAME", film_run["pairs"].path), names)  # noqa: S102 - our own page
    assert len(names["pairs"]) == film_run["pairs"].num_rows and f"# {names['pairs'].shape[1]} columns" in code


def test_export_csv_and_jsonl(bernini, film_run, tmp_path):
    accepted = film_run["pairs"].header["accepted"]
    assert bernini("export", film_run["pairs"].path, "--output", tmp_path / "p.csv")[0] == 0
    assert bernini("export", film_run["pairs"].path, "--output", tmp_path / "p.jsonl")[0] == 0
    table = pd.read_csv(tmp_path / "p.csv")
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert len(table) == len(lines) == accepted
    assert table.pair_id.tolist() == [line["pair_id"] for line in lines]
    code, _, err = bernini("export", film_run["pairs"].path, "--output", tmp_path / "p.xls")
    assert code == 2 and "known: csv, jsonl, trainer" in err


def test_export_in_the_trainers_form_cuts_clips_to_the_frame(bernini, film_run, tmp_path):
    code, out, _ = bernini("export", film_run["samples"].path, "--output", tmp_path / "t", "--form", "trainer")
    assert code == 0 and "0 left out" in out
    (shard,) = (tmp_path / "t").glob("*.parquet")
    rows = pq.read_table(shard).to_pylist()
    samples = film_run["samples"].table().to_pylist()
    assert len(rows) == len(samples) and set(rows[0]) == {"inputs", "images", "videos"}
    clips = {c["clip_id"]: c for c in film_run["clips"].table().to_pylist()}
    frames = {(c["path"], c["start_s"]): c["num_frames"] for c in clips.values()}
    for row, sample in zip(rows[:4], samples[:4], strict=True):
        for cut, item in zip(row["videos"], sample["videos"], strict=True):
            assert set(cut) == {"video_path", "duration", "crop_method"}
            with VideoReader(cut["video_path"]) as reader:
                assert sum(1 for _ in reader) == frames[item["video_path"], item["start_s"]]
            assert reader.probe.pixel_format == "yuv420p" and reader.probe.video_codec == "h264"
    config = json.loads((tmp_path / "t" / "data.yaml").read_text())
    assert config["names"] == ["v2v$video-pairs"] and config["sources"] == [str(shard)]


def test_control_characters_of_file_names_do_not_reach_the_terminal(bernini, make_video, tmp_path):
    make_video("evil\x1b[31m.mp4", num_frames=60, folder=tmp_path)
    bernini("run", "video-pairs", "--input", tmp_path, "--output", tmp_path / "out", "--engine", "local", "--no-report")
    for command in ("head", "drops"):
        (videos,) = (tmp_path / "out" / "videos").iterdir()
        _, out, _ = bernini(command, videos)
        assert "\x1b" not in out
