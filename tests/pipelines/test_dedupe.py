"""dedupe, as a user calls it."""

from __future__ import annotations

import cv2
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from datagen.samples_photos import photograph
from manifests.ids import make_id
from manifests.manifest import Manifest, ManifestWriter, live
from manifests.schema import CLIPS, FRAMES, PAIRS, SAMPLES
from manifests.spans import read_span
from manifests.video_writer import write_video
from pipelines.measure import Config as MeasureConfig
from pipelines.measure import measure


def test_copies_of_film_clips_are_found_and_other_clips_are_not(some_clips, tmp_path, bernini, capsys):
    """Copies encoded again, halved, cropped and shifted in time, against all other clips of the film."""
    pytest.importorskip("faiss")
    rows = [r for r in live(some_clips.table()).to_pylist() if "broken" not in r["path"]][:5]
    made = []
    for row in rows:
        frames = list(read_span(row["path"], row["start_s"], row["end_s"], short_px=240))
        height, width = frames[0].shape[:2]
        y, x = round(height * 0.03), round(width * 0.03)
        kinds = {"encoded": frames, "halved": [cv2.resize(f, None, fx=0.5, fy=0.5) for f in frames],
                 "cropped": [f[y : height - y, x : width - x] for f in frames], "shifted": frames[round(row["fps"] * 0.3) :]}
        for kind, images in kinds.items():
            path = str(tmp_path / f"{row['clip_id']}-{kind}.mp4")
            write_video(path, images, fps=row["fps"], crf=32 if kind == "encoded" else 23)
            made.append(row | {"clip_id": f"c-{len(made):016x}", "path": path, "start_s": 0.0, "end_s": 100.0,
                               "width": images[0].shape[1], "height": images[0].shape[0], "extra": row["clip_id"],
                               "video_embedding": None, "issues": []})
    with ManifestWriter(str(tmp_path / "copies"), CLIPS, some_clips.schema) as writer:
        writer.append(pa.Table.from_pylist(made, some_clips.schema))
        writer.commit(name="copies", owners={})
    parts = [measure(MeasureConfig(input=p, output=str(tmp_path / "m"), filters=("picture_hash", "video_similarity"),
                                   engine="local", quiet=True)).path for p in (some_clips.path, str(tmp_path / "copies"))]
    code, out, err = bernini("dedupe", *parts, "--by", "picture_hash", "video_embedding", "--write", tmp_path / "d")
    assert code == 0, err
    table = Manifest.open(str(tmp_path / "d")).table().to_pylist()
    assert Manifest.open(str(tmp_path / "d")).validate() == []
    group = {r["clip_id"]: r["duplicate_group"] or r["clip_id"] for r in table}
    copies = [r for r in table if r["path"].startswith(str(tmp_path))]
    hits = [group[r["clip_id"]] == group[r["extra"]] for r in copies]
    film = [r for r in table if not r["path"].startswith(str(tmp_path))]
    others = [(a, b) for n, a in enumerate(film) for b in film[:n] if a["path"] != b["path"]]
    wrong = sum(group[a["clip_id"]] == group[b["clip_id"]] for a, b in others)
    with capsys.disabled():
        print(f"\n  near-duplicates: recall {np.mean(hits):.2f} of {len(hits)} copies, {wrong} of {len(others)} other pairs")
    assert np.mean(hits) >= 0.9 and wrong == 0
    kept = next(r for r in table if r["clip_id"] == rows[0]["clip_id"])
    assert kept["duplicate_of"] is None and kept["drop_reason"] is None  # the larger picture is kept
    assert {r["drop_reason"] for r in copies if r["duplicate_of"]} == {"duplicate_similarity>0"}
    again = bernini("dedupe", *parts, "--write", tmp_path / "d")
    assert again[0] == 2 and "which never changes" in again[2]


def test_dedupe_says_what_is_missing(bernini, film_run, tmp_path):
    pytest.importorskip("faiss")
    clips = film_run["clips"].path
    code, _, err = bernini("dedupe", clips, "--write", tmp_path / "x")
    assert code == 2 and "has no column picture_hash" in err and "bernini measure" in err
    code, _, err = bernini("dedupe", clips, clips, "--by", "video_embedding", "--write", tmp_path / "x")
    assert code == 2 and "share" in err and "name each one once" in err
    code, _, err = bernini("dedupe", clips, film_run["pairs"].path, "--by", "video_embedding", "--write", tmp_path / "x")
    assert code == 2 and "rows of one kind" in err
    for value in ("nan", "-0.1", "1.5"):
        code, _, err = bernini("dedupe", clips, "--by", "video_embedding", f"--drop-above={value}", "--write", tmp_path / "x")
        assert code == 2 and err == f"error: --drop-above is {value}; it is a similarity, 0 to 1\n"
    assert not (tmp_path / "x").exists()


def test_clips_and_pictures_are_compared_with_each_other(bernini, tmp_path):
    """A still clip stands for its picture, and a picture that is larger for the clip cut out of it."""
    pytest.importorskip("faiss")
    looks = {name: np.ascontiguousarray(photograph(name)[:400, :400]) for name in ("coffee", "astronaut", "cat")}
    looks["cat"] = looks["cat"][:300]
    clips, frames = [], []
    for n, (name, rgb) in enumerate(looks.items()):
        write_video(str(tmp_path / f"{name}.mp4"), [rgb] * 10, fps=10)
        clips.append({"clip_id": f"c-{n:016x}", "path": str(tmp_path / f"{name}.mp4"), "start_s": 0.0, "end_s": 1.0,
                      "width": rgb.shape[1], "height": rgb.shape[0], "duration_s": 1.0})
    for n, (name, scale) in enumerate((("coffee", 0.5), ("astronaut", 2.0))):
        rgb = cv2.resize(looks[name], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        Image.fromarray(rgb).save(tmp_path / f"{name}.png")
        frames.append({"frame_id": f"f-{n:016x}", "path": str(tmp_path / f"{name}.png"), "width": rgb.shape[1],
                       "height": rgb.shape[0]})
    paths = []
    for stop, rows in ((CLIPS, clips), (FRAMES, frames)):
        folder = str(tmp_path / f"made-{stop.name}")
        with ManifestWriter(folder, stop, stop.schema) as writer:
            common = {"video_id": "v", "issues": [], "num_attempts": 1}
            writer.append(pa.Table.from_pylist([common | row for row in rows], stop.schema))
            writer.commit(name="made", owners={}, parents=[], versions={})
        paths.append(measure(MeasureConfig(input=folder, output=str(tmp_path / "m"), filters=("picture_hash",),
                                           engine="local", quiet=True)).path)
    code, out, err = bernini("dedupe", *paths, "--write", tmp_path / "d")
    assert code == 0 and "5 rows, 2 repeat another one, in 2 groups" in out, err
    assert "1 of clips dropped: duplicate_similarity>0" in out and "1 of frames dropped" in out
    kept = {}
    for stop in (CLIPS, FRAMES):
        found = Manifest.open(str(tmp_path / "d" / stop.name / "dedupe"))
        assert found.validate() == [] and found.stop == stop and found.path in out
        kept |= {r[stop.key]: r["duplicate_of"] for r in found.table().to_pylist()}
    coffee, astronaut = "f-" + "0" * 16, "c-" + "0" * 15 + "1"
    assert {k: v for k, v in kept.items() if v} == {coffee: "c-" + "0" * 16, astronaut: "f-" + "0" * 15 + "1"}
    code, _, err = bernini("dedupe", *paths, "--write", tmp_path / "d")
    assert code == 2 and "d/clips/dedupe holds a finished manifest" in err
    code, out, err = bernini("why", tmp_path / "d" / "clips" / "dedupe", astronaut)
    assert code == 0 and "duplicate_similarity" in out, err


def hashed(path, rows: list[dict], kind: pa.DataType) -> str:
    """Samples with further columns of the target."""
    schema = pa.schema([*SAMPLES.schema, ("target_picture_hash", kind), ("target_marks", pa.list_(pa.float64()))])
    common = {"task": "t2i", "source_name": "made", "issues": [], "num_attempts": 1, "weight": 1.0}
    with ManifestWriter(str(path), SAMPLES, schema) as writer:
        writer.append(pa.Table.from_pylist([common | row for row in rows], schema))
        return writer.commit(name="made", owners={}).path


def test_samples_are_compared_by_the_hashes_of_a_side(bernini, tmp_path):
    pytest.importorskip("faiss")
    rows = [{"sample_id": f"s-{n:016x}", "target_picture_hash": text * 64, "target_marks": [0.5] * n}
            for n, text in enumerate(("a", "a", "5", None)) if text] + [{"sample_id": "s-" + "f" * 16}]
    path = hashed(tmp_path / "s", rows, pa.string())
    for by in ("target_picture_hash=0.88", "target_picture_hash"):
        code, out, err = bernini("dedupe", path, "--by", by, "--write", tmp_path / by)
        assert code == 0 and "4 rows, 1 repeat another one, in 1 groups" in out, err
        found = Manifest.open(str(tmp_path / by)).table().to_pylist()
        assert [r["duplicate_group"] is not None for r in found] == [True, True, False, False]
        assert {r["duplicate_similarity"] for r in found} == {None, 1.0}
    other = hashed(tmp_path / "n", [{"sample_id": "s-" + "e" * 16, "target_picture_hash": 7}], pa.int64())
    for manifests, by, words in (([path], "weight=0.9", "the column holds double; compared are vectors of floats"),
                                 ([path], "images=0.9", "the column holds list<"),
                                 ([path], "target_marks=0.9", "lists of different lengths"),
                                 ([other], "target_picture_hash=0.9", "the column holds int64"),
                                 ([path, other], "target_picture_hash", "int64 in one manifest and string in another")):
        code, _, err = bernini("dedupe", *manifests, "--by", by, "--write", tmp_path / "x")
        assert code == 2 and words in err and not (tmp_path / "x").exists(), err


def test_filtered_and_compared_rows_can_be_asked_about_but_not_decided_again(bernini, tmp_path):
    pytest.importorskip("faiss")
    for name, stop, field in (("a", CLIPS, "video_embedding"), ("b", CLIPS, "video_embedding"), ("p", PAIRS, "mark")):
        schema = pa.schema([*stop.schema, (field, pa.list_(pa.float32()))])
        row = {stop.key: make_id("clip", name), "issues": [], "num_attempts": 1, "licence": "MIT", field: [1.0, 0.0]}
        with ManifestWriter(str(tmp_path / name), stop, schema) as writer:
            writer.append(pa.Table.from_pylist([row], schema))
            writer.commit(name="made", owners={}, parents=[], versions={})
    code, _, err = bernini("dedupe", tmp_path / "a", tmp_path / "b", "--by", "video_embedding", "--write", tmp_path / "u")
    assert code == 0, err
    for name in "ab":  # each lies in one of two parents
        code, out, err = bernini("why", tmp_path / "u", make_id("clip", name))
        assert code == 0 and "policy column = video_embedding" in out and "policy min_similarity = 0.96" in out, err
        assert out.count(f"clip {make_id('clip', name)}: accepted") >= 1
    assert bernini("filter", tmp_path / "p", "--rights", "known", "--write", tmp_path / "k")[0] == 0
    code, _, err = bernini("decide", tmp_path / "k")
    assert code == 2 and "was made by 'filter', which is no recipe" in err
