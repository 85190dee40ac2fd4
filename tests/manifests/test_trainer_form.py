"""The released trainer's form: every row is readable by its documented rules, nothing leaves in silence."""

from __future__ import annotations

import base64
import io
import json
import math
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from manifests.manifest import Manifest, ManifestWriter
from manifests.messages import video_item
from manifests.schema import SAMPLES
from manifests.spans import read_span
from manifests.trainer_form import _Cuts
from manifests.video_writer import write_video

KNOWN_TASKS = "t2i t2v i2i r2i r2v v2v i2v vi2v vr2v vrc2v mv2v".split()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Three seconds and eight seconds of film at 25 fps, and a picture."""
    from manifests.video_writer import write_video
    from tests.conftest import moving_frames

    folder = tmp_path_factory.mktemp("trainer-media")
    for name, num in (("short", 75), ("long", 200)):
        write_video(str(folder / f"{name}.mp4"), moving_frames(num, size=(64, 48)), fps=25)
    Image.fromarray(next(moving_frames(1, size=(64, 48)))).save(folder / "picture.png")
    return folder


def sample(files: Path, number: int, task: str, messages: str, **changed) -> dict:
    """`messages` like "video text video_gen"; media are taken in order."""
    kinds = messages.split()
    made = [{"type": k, "has_loss": int(k.endswith("_gen")), **({"text": f"do {number}"} if k == "text" else {})}
            for k in kinds]
    videos = [video_item(str(files / "short.mp4"), 0.4, 2.4) for k in kinds if k.startswith("video")]
    images = [str(files / "picture.png") for k in kinds if k.startswith(("image", "frame"))]
    row = {"sample_id": f"s-{number:016x}", "task": task, "source_name": "films", "inputs": json.dumps(made),
           "images": images, "videos": videos, "split": "train", "weight": 1.0, "issues": [], "num_attempts": 1}
    return row | changed


def write(folder: Path, rows: list[dict]) -> Manifest:
    with ManifestWriter(str(folder / "samples" / "x"), SAMPLES, SAMPLES.schema) as writer:
        writer.append(pa.Table.from_pylist(rows, SAMPLES.schema))
        return writer.commit(name="x", row=SAMPLES.row, parents=[], config={}, versions={})


# An independent reader, after the rules that the released trainer documents


def read_as_the_trainer(folder: Path) -> list[tuple[str, dict]]:
    config = json.loads((folder / "data.yaml").read_text())
    assert config["level"] == "sample" and config["stopping_strategy"] == "never_exhausted"
    (schedule,) = config["schedule"]
    assert schedule["schedule_type"] == "const" and math.isclose(sum(schedule["weights"]), 1.0)
    assert len(schedule["weights"]) == len(config["sources"]) == len(config["names"])
    rows = []
    for source, name in zip(config["sources"], config["names"], strict=True):
        table = pq.read_table(source)
        assert table.column_names == ["inputs", "images", "videos"]
        task, dataset = name.split("$")
        assert task in KNOWN_TASKS and dataset
        table = table.to_pylist()
        assert len({(bool(r["images"]), bool(r["videos"])) for r in table}) == 1, "files are pure in modality"
        for row in table:
            read_row(row)
            rows.append((task, row))
    return rows


def read_row(row: dict) -> None:
    images, videos = list(row["images"]), list(row["videos"])
    for message in json.loads(row["inputs"]):
        assert message["has_loss"] in (0, 1)
        if message["type"] in ("image", "image_gen", "frame_gen"):
            with Image.open(images.pop(0)) as image:
                image.load()
        elif message["type"] in ("video", "video_gen"):
            item = videos.pop(0)
            assert item["crop_method"] in ("left", "right", "center")
            assert 17 <= frames_used(item["video_path"]) <= 97
        else:
            assert message["type"] in ("text", "cot_text", "special_token") and isinstance(message["text"], str)
    assert not images and not videos


def frames_used(path: str) -> int:
    """16k + 1 frames at 16 fps, at most 97."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        total, rate = sum(1 for _ in container.decode(stream)), stream.average_rate
    return min(int(Fraction(total) / rate * 16 / 16) * 16 + 1, 97)


GOOD = [("v2v", "video text video_gen"), ("t2i", "text image_gen"), ("i2i", "image text image_gen"),
        ("t2v", "text video_gen"), ("vr2v", "video image image text video_gen"), ("r2v", "image image text video_gen"),
        ("mv2v", "video video text video_gen"), ("v2v", "video text cot_text video_gen")]


def with_texts(row: dict) -> dict:
    messages = [m | ({"text": "because"} if m["type"] == "cot_text" else {}) for m in json.loads(row["inputs"])]
    return row | {"inputs": json.dumps(messages)}


@pytest.fixture(scope="module")
def exported(files, tmp_path_factory):
    from manifests.trainer_form import export_trainer

    folder = tmp_path_factory.mktemp("exported")
    rows = [with_texts(sample(files, i, task, messages)) for i, (task, messages) in enumerate(GOOD)]
    m = write(folder, rows)
    assert export_trainer(m, str(folder / "out"), quiet=True) == 0
    return folder / "out", rows


def test_every_exported_row_is_readable_by_the_trainers_rules(exported):
    folder, rows = exported
    read = read_as_the_trainer(folder)
    assert sorted((task, r["inputs"]) for task, r in read) == sorted((r["task"], r["inputs"]) for r in rows)


def test_the_account_says_where_each_sample_went(exported):
    folder, rows = exported
    lines = {line["sample_id"]: line for line in map(json.loads, (folder / "account.jsonl").read_text().splitlines())}
    assert set(lines) == {r["sample_id"] for r in rows}
    for row in rows:
        line = lines[row["sample_id"]]
        found = pq.read_table(folder / line["file"]).slice(line["row"], 1).to_pylist()[0]
        assert found["inputs"] == row["inputs"] and line["used_s"] == pytest.approx([2.0] * len(row["videos"]), abs=0.05)


def test_a_second_export_gives_the_same_bytes(exported, tmp_path):
    from manifests.trainer_form import export_trainer

    folder, rows = exported
    before = {p.name: p.read_bytes() for p in folder.glob("*.parquet")}
    export_trainer(write(tmp_path, rows), str(folder), quiet=True)
    assert {p.name: p.read_bytes() for p in folder.glob("*.parquet")} == before


def test_cuts_are_named_by_content(files, tmp_path):
    """A file that was replaced under its name is cut again; a folder that moved is not."""
    from manifests.trainer_form import export_trainer

    def cuts(video: Path) -> dict[str, int]:
        row = sample(files, 0, "t2v", "text video_gen", videos=[video_item(str(video), 0.4, 2.4)])
        assert export_trainer(write(tmp_path, [row]), str(tmp_path / "out"), quiet=True) == 0
        return {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out" / "media").iterdir()}

    video, moved = tmp_path / "in" / "a.mp4", tmp_path / "moved" / "a.mp4"
    video.parent.mkdir()
    shutil.copy(files / "short.mp4", video)
    first = cuts(video)
    video.parent.rename(moved.parent)
    assert len(first) == 1 and cuts(moved) == first
    shutil.copy(files / "long.mp4", moved)
    assert first.items() < cuts(moved).items()
    moved.unlink()
    row = sample(files, 0, "t2v", "text video_gen", videos=[video_item(str(moved), 0.4, 2.4)])
    assert export_trainer(write(tmp_path, [row]), str(tmp_path / "out"), quiet=True) == 1
    assert f"cannot open {moved}: " in json.loads((tmp_path / "out/account.jsonl").read_text())["left_out"]


def test_the_weight_of_a_file_is_that_of_its_samples(files, tmp_path):
    from manifests.trainer_form import export_trainer

    rows = [sample(files, 0, "t2i", "text image_gen", weight=3.0), sample(files, 1, "t2i", "text image_gen"),
            sample(files, 2, "v2v", "video text video_gen", weight=4.0)]
    export_trainer(write(tmp_path, rows), str(tmp_path / "out"), quiet=True)
    config = json.loads((tmp_path / "out" / "data.yaml").read_text())
    assert dict(zip(config["names"], config["schedule"][0]["weights"], strict=True)) == {
        "t2i$films": 0.5, "v2v$films": 0.5}


def test_a_long_clip_is_exported_and_told(files, tmp_path, capsys):
    from manifests.trainer_form import export_trainer

    row = sample(files, 0, "t2v", "text video_gen", videos=[video_item(str(files / "long.mp4"), 0.0, 8.0)])
    assert export_trainer(write(tmp_path, [row]), str(tmp_path / "out"), quiet=True) == 0
    assert "reads only the first 97 frames" in capsys.readouterr().out
    (line,) = map(json.loads, (tmp_path / "out" / "account.jsonl").read_text().splitlines())
    assert line["used_s"] == [97 / 16] and line["cut_short"]
    read_as_the_trainer(tmp_path / "out")


BAD = {
    "interleaved": ({"task": "interleaved"}, "does not know the task interleaved"),
    "understanding": ({"task": "understanding"}, "does not know the task understanding"),
    "unknown task": ({"task": "x2y"}, "no task 'x2y'"),
    "wrong inputs": ({"task": "vi2v"}, "do not fit the task vi2v"),
    "wrong target": ({"task": "i2i"}, "the task i2i makes a target of the kind image"),
    "has_loss": ({"inputs": '[{"type": "video"}, {"type": "text", "text": "a"}, {"type": "video_gen", "has_loss": 1}]'},
                 "no has_loss"),
    "no text": ({"inputs": '[{"type": "video", "has_loss": 0}, {"type": "video_gen", "has_loss": 1}]'}, "there is no text"),
    "no loss": ({"inputs": '[{"type": "video", "has_loss": 0}, {"type": "text", "text": "a", "has_loss": 0}, '
                           '{"type": "video_gen", "has_loss": 0}]'}, "nothing would be learned"),
    "order": ({"inputs": '[{"type": "video_gen", "has_loss": 1}, {"type": "text", "text": "a", "has_loss": 0}, '
                         '{"type": "video", "has_loss": 0}]'}, "not the one last message"),
    "count": ({"videos": []}, "more video messages than videos"),
    "spare": ({"images": ["x.png"]}, "have no message"),
    "kind": ({"inputs": '[{"type": "smell", "has_loss": 0}]'}, "the type 'smell'"),
    "json": ({"inputs": "{"}, "not JSON"),
    "short": ({"videos": [video_item("a.mp4", 0.0, 1.0)] * 2}, "fewer than 17 frames"),
    "crop": ({"videos": None}, "crop_method"),
    "missing": ({"videos": [video_item("/nowhere.mp4", 0.0, 2.0)] * 2}, "cannot open /nowhere.mp4"),
    "past the end": ({"videos": None, "end": True}, "fewer than 17 frames"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_the_trainer_could_not_read_is_left_out_by_name(name, files, tmp_path, capsys):
    from manifests.trainer_form import export_trainer

    changed, why = dict(BAD[name][0]), BAD[name][1]
    if name == "crop":
        changed["videos"] = [video_item(str(files / "short.mp4"), 0, 2) | {"crop_method": "up"}] * 2
    if name == "past the end":
        changed = {"videos": [video_item(str(files / "short.mp4"), 2.0, 4.0)] * 2}
    rows = [sample(files, 0, "v2v", "video text video_gen") | changed, sample(files, 1, "v2v", "video text video_gen")]
    assert export_trainer(write(tmp_path, rows), str(tmp_path / "out"), quiet=True) == 1
    assert why in capsys.readouterr().out
    lines = [json.loads(line) for line in (tmp_path / "out" / "account.jsonl").read_text().splitlines()]
    assert why in lines[0]["left_out"] and lines[1]["row"] == 0
    assert len(read_as_the_trainer(tmp_path / "out")) == 1


def test_an_unreadable_picture_is_left_out(files, tmp_path):
    from manifests.trainer_form import export_trainer

    (tmp_path / "bad.png").write_bytes(b"no picture")
    rows = [sample(files, i, "t2i", "text image_gen", images=[str(p)]) for i, p in
            enumerate((tmp_path / "bad.png", files / "picture.png"))]
    assert export_trainer(write(tmp_path, rows), str(tmp_path / "out"), quiet=True) == 1
    assert len(read_as_the_trainer(tmp_path / "out")) == 1


# Import


def test_what_was_exported_comes_back(bernini, exported, tmp_path):
    folder, rows = exported
    code, out, _ = bernini("import-trainer", folder, "--output", tmp_path)
    assert code == 0 and f"{len(rows)} rows, {len(rows)} accepted" in out
    m = Manifest.open(str(next((tmp_path / "samples").iterdir())))
    assert m.validate() == []
    back = m.table().to_pylist()
    assert sorted((r["task"], r["source_name"], r["inputs"]) for r in back) == sorted(
        (r["task"], r["source_name"], r["inputs"]) for r in rows)
    for row in back:
        assert all(v["start_s"] == 0 and v["end_s"] == pytest.approx(2.0, abs=0.05) for v in row["videos"])


def foreign(folder: Path, rows: list[dict]) -> Path:
    folder.mkdir()
    videos = pa.list_(pa.struct([("video_path", pa.string())]))  # duration and crop_method are optional there
    pq.write_table(pa.Table.from_pylist(rows, pa.schema([("inputs", pa.string()), ("images", pa.list_(pa.string())),
                                                         ("videos", videos)])), folder / "a.parquet")
    return folder


def test_foreign_rows_are_taken_with_the_trainers_defaults(bernini, files, tmp_path):
    stream = io.BytesIO()
    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(stream, "PNG")
    inline = "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
    folder = foreign(tmp_path / "in", [
        {"inputs": json.dumps([{"type": "image"}, {"type": "text", "text": "go"}, {"type": "video_gen"}]),
         "images": [inline], "videos": [{"video_path": str(files / "short.mp4")}]},
        {"inputs": json.dumps([{"type": "text", "text": "go"}, {"type": "video_gen"}]), "images": None,
         "videos": [{"video_path": "https://example.org/a.mp4"}]},
        {"inputs": "nonsense", "images": None, "videos": None}])
    (folder / "data.yaml").write_text(f"sources:\n  - {folder / 'a.parquet'}\nnames: ['r2v$theirs']\n")
    code, out, _ = bernini("import-trainer", folder, "--output", tmp_path / "out")
    assert code == 0 and "3 rows, 1 accepted" in out and "2 dropped" in out
    rows = Manifest.open(str(next((tmp_path / "out" / "samples").iterdir()))).table().to_pylist()
    assert [m["has_loss"] for m in json.loads(rows[0]["inputs"])] == [0, 0, 1]
    assert rows[0]["source_name"] == "theirs" and rows[0]["videos"][0]["end_s"] == pytest.approx(3.0)
    with Image.open(rows[0]["images"][0]) as image:
        assert image.size == (30, 20)
    assert "address on the web" in rows[1]["issues"][0] and "not JSON" in rows[2]["issues"][0]


@pytest.mark.parametrize(("argv", "why"), [((), "does not name its task"), (("--task", "x2y"), "no task 'x2y'")])
def test_a_folder_without_task_names_says_what_to_give(bernini, tmp_path, argv, why):
    folder = foreign(tmp_path / "in", [{"inputs": "[]", "images": None, "videos": None}])
    code, _, err = bernini("import-trainer", folder, "--output", tmp_path / "out", *argv)
    assert code == 2 and why in err and "Give --task" in err


def brightness(number: int) -> int:
    """Grey of a frame, far from that of its neighbours."""
    return 20 + number * 61 % 200


def film_at(path: Path, times_ms: list[int], rate: int = 25) -> Path:
    """A film whose n-th frame has a brightness of its own and is shown at the n-th of these times."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "4", "g": "25"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for n, at in enumerate(times_ms):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), brightness(n), np.uint8), format="rgb24")
            frame.pts, frame.time_base = at, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_a_film_of_variable_rate_keeps_its_time(tmp_path):
    """Two seconds of 50 frames a second, then six of 10; the header says 25."""
    times = [*range(0, 2000, 20), *range(2000, 8000, 100)]
    item = video_item(str(film_at(tmp_path / "a.mkv", times)), 1.0, 7.0)
    found = _Cuts(str(tmp_path / "out")).cut(item)
    assert found["duration"] == pytest.approx(6.0, abs=0.05)
    with av.open(found["video_path"]) as container:
        frames = [(f.time, f.to_ndarray(format="gray").mean()) for f in container.decode(video=0)]
    for time_s, shown in frames:
        number = max(n for n, at in enumerate(times) if at <= (1.0 + time_s) * 1000 + 1)
        assert abs(brightness(number) - shown) < 5, time_s  # the frame that is on screen then
    past = _Cuts(str(tmp_path / "out")).cut(item | {"end_s": 20.0})
    assert past["duration"] == pytest.approx(7.0, abs=0.15)  # the last frame is not held for what the film has not


@pytest.mark.parametrize("ending, rate", [("mkv", 30), ("mp4", 60), ("avi", 24), ("ts", 25), ("mpg", 25)])
def test_a_film_of_constant_rate_is_cut_frame_by_frame(tmp_path, ending, rate):
    path = tmp_path / f"a.{ending}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg2video" if ending == "mpg" else "libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for n in range(rate * 4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), n % 250, np.uint8))))
        container.mux(stream.encode())
    write_video(str(tmp_path / "wanted.mp4"), read_span(str(path), 0.5, 3.0), fps=rate)  # each frame once
    found = _Cuts(str(tmp_path / "out")).cut(video_item(str(path), 0.5, 3.0))
    assert Path(found["video_path"]).read_bytes() == (tmp_path / "wanted.mp4").read_bytes()
