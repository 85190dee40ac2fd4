"""measure, dedupe and mix, as a user calls them."""

from __future__ import annotations

import json
import pickle
import shutil

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from PIL import Image

from datagen.samples_photos import photograph
from filters.picture_hash import HashPictures
from manifests.ids import make_id
from manifests.manifest import Manifest, ManifestWriter, live
from manifests.messages import video_item
from manifests.schema import CLIPS, FRAMES, PAIRS, SAMPLES
from manifests.spans import read_span
from manifests.video_writer import write_video
from pipelines.local import build
from pipelines.measure import Config as MeasureConfig
from pipelines.measure import MeasureRows, measure, measure_stage
from pipelines.stage import Stage, check


def measured(path: str, out, *filters: str, **settings) -> pa.Table:
    return measure(MeasureConfig(input=path, output=str(out), filters=filters, engine="local", quiet=True,
                                 **settings)).table()


@pytest.fixture(scope="module")
def some_clips(film_run, tmp_path_factory) -> Manifest:
    """Every fourth clip of the film's scan, dropped ones too."""
    table, folder = film_run["clips"].table(), str(tmp_path_factory.mktemp("some") / "clips")
    dropped = pc.is_valid(table["drop_reason"]).to_numpy()
    rows = np.r_[np.flatnonzero(~dropped)[::5], np.flatnonzero(dropped)]
    with ManifestWriter(folder, CLIPS, table.schema) as writer:
        writer.append(table.take(pa.array(np.sort(rows))))
        return writer.commit(**{k: film_run["clips"].header[k] for k in ("name", "owners")})


def test_measures_of_a_second_look_equal_those_of_the_scan(some_clips, tmp_path):
    clips = some_clips
    again = measured(clips.path, tmp_path, "sharpness", "exposure", "motion", "colors")
    first = clips.table()
    rows = live(first)["clip_id"]
    assert again["clip_id"].equals(first["clip_id"]) and again["drop_reason"].equals(first["drop_reason"])
    for name in ("sharpness", "brightness", "contrast", "camera_pan", "saturation", "black_ratio", "frozen_ratio"):
        old = first.filter(pc.is_in(first["clip_id"], rows))[name].to_numpy()
        new = again.filter(pc.is_in(first["clip_id"], rows))[name].to_numpy()
        # A seek lands on other frames at 4 per second, the damage of broken.mp4 is not looked for.
        assert np.nanmedian(np.abs(old - new) / (np.abs(old) + 1e-2)) < 0.05, name
    assert again.filter(pc.is_valid(again["drop_reason"]))["sharpness"].is_valid().to_pylist()  # as they were


@pytest.mark.parametrize("stage", [
    Stage(op="pipelines.measure:MeasureRows", kwargs={"filters": ("letterbox", "picture_hash"), "stop": "clips"}),
    Stage(op="filters.licence:ClassifyLicence"),
], ids=lambda stage: stage.name)
def test_the_new_ops_keep_the_contract(stage, some_clips):
    table = live(some_clips.table()).slice(0, 2)
    broken = pa.concat_tables([table, table.slice(0, 1).set_column(
        table.schema.get_field_index("path"), table.schema.field("path"), pa.array(["/nowhere.mp4"]))])
    before, op = broken.to_pylist(), build(pickle.loads(pickle.dumps(stage)))
    out = op(broken)
    assert broken.to_pylist() == before and out.schema.equals(check((stage,), broken.schema))
    assert out.equals(op(broken)) and op(broken.slice(0, 0)).schema.equals(out.schema)
    if "picture_hash" in out.column_names:
        assert out["picture_hash"].is_null().to_pylist() == [False, False, True]
        assert "cannot open /nowhere.mp4" in out["issues"].to_pylist()[2][-1]


def test_a_measure_that_changed_is_taken_again(some_clips, tmp_path):
    """Its version stands beside the column, and a finished manifest of the version before is not returned for it."""
    made = [measure_stage(MeasureConfig(input=some_clips.path, output=str(tmp_path), filters=(name,)), some_clips)
            for name in ("picture_hash", "letterbox")]
    assert [stage.kwargs.get("versions") for stage in made] == [{"picture_hash": HashPictures.version}, None]
    assert {"versions": made[0].kwargs["versions"]}.items() <= made[0].fingerprint()[1].items()
    owner = MeasureRows.owners(**made[0].kwargs)["picture_hash"]
    assert owner == {"op": "filters.picture_hash:HashPictures", "backend": "classical", "version": 2}


def first_rows(manifest: Manifest, num: int, tmp_path) -> str:
    folder = str(tmp_path / manifest.stop.name)
    with ManifestWriter(folder, manifest.stop, manifest.schema) as writer:
        writer.append(manifest.table().slice(0, num))
        return writer.commit(name="first").path


def test_pairs_and_samples_are_measured_on_the_side_named(film_run, tmp_path):
    pairs = measured(first_rows(film_run["pairs"], 8, tmp_path), tmp_path, "letterbox", side="source")
    assert "source_border_top" in pairs.column_names and live(pairs)["source_border_top"].null_count == 0
    assert set(pairs.filter(pc.is_valid(pairs["drop_reason"]))["source_border_top"].to_pylist()) == {None}
    by_name = "filters.text_similarity:MeasureTextSimilarity"  # without a model: what a measure cannot do is an issue
    samples = measured(first_rows(film_run["samples"], 4, tmp_path), tmp_path, "exposure", by_name)
    assert samples["target_brightness"].null_count == 0
    assert samples["target_text_similarity"].null_count == samples.num_rows
    assert all("MeasureTextSimilarity: no model was given" in i[0] for i in samples["issues"].to_pylist())


def test_measure_says_what_it_does_not_know_and_resumes(bernini, some_clips, film_run, tmp_path):
    clips = some_clips.path
    for words, message in ((("--filters", "magic"), "no filter 'magic'; known: damage"),
                           (("--filters", "text_similarity"), "is measured by a model: name --clip-model"),
                           (("--filters", "aesthetics"), "name --clip-model and --aesthetic-head"),
                           (("--filters", "aesthetics", "--clip-model", "M", "--aesthetic-head", "/nowhere.pth"),
                            "--aesthetic-head is /nowhere.pth, which does not exist: name a file"),
                           (("--filters", "letterbox", "--text-column", "x"), "no column 'x' for --text-column")):
        code, _, err = bernini("measure", clips, *words, "--output", tmp_path, "--engine", "local")
        assert code == 2 and message in err
    code, _, err = bernini("measure", film_run["videos"].path, "--filters", "letterbox", "--output", tmp_path)
    assert code == 2 and "is a videos table" in err
    call = ("measure", clips, "--filters", "letterbox", "--output", tmp_path, "--engine", "local", "--quiet")
    code, out, _ = bernini(*call)
    manifest = Manifest.open(out.split()[-1])
    assert code == 0 and manifest.validate() == [] and "border_left" in manifest.header["owners"]
    assert manifest.header["owners"]["sharpness"]["op"].startswith("filters.sharpness")  # kept from the scan
    assert bernini(*call)[1].split()[-1] == manifest.path


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


SETS = {"inhouse-t2v": ("t2v", "MIT", 40, 5.0), "video-pairs": ("v2v", "CC BY 4.0", 60, 4.0),
        "pico-banana-400k": ("i2i", "CC BY-NC-ND 4.0", 20, 0.0), "vace-hq": ("v2v", None, 5, 6.1)}


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> str:
    rows = []
    for name, (task, licence, num, seconds) in SETS.items():
        for n in range(num):
            kinds = {"t2v": ["video_gen"], "v2v": ["video", "video_gen"], "i2i": ["image", "image_gen"]}[task]
            item = video_item("a.mp4", 0.0, seconds)
            rows.append({"sample_id": f"s-{len(rows):016x}", "task": task, "source_name": name, "licence": licence,
                         "inputs": json.dumps([{"type": k} for k in kinds]), "images": ["a.png"] * 2 if task == "i2i" else [],
                         "videos": [item] * len(kinds) if task != "i2i" else [], "split": "train", "weight": 1.0 + n % 2,
                         "issues": [], "num_attempts": 1, "drop_reason": "because" if n == 0 else None})
    folder = str(tmp_path_factory.mktemp("mix") / "samples")
    with ManifestWriter(folder, SAMPLES, SAMPLES.schema) as writer:
        writer.append(pa.Table.from_pylist(rows, SAMPLES.schema))
        writer.commit(name="made", owners={})
    return folder


def test_filter_keeps_what_its_rules_say(bernini, samples, tmp_path):
    code, out, err = bernini("filter", samples, "--keep", "weight<=1.5", "task=v2v|i2i", "--rights", "research",
                             "--write", tmp_path / "f")
    assert code == 0, err
    manifest = Manifest.open(str(tmp_path / "f"))
    rows = manifest.table().to_pylist()
    assert manifest.validate() == [] and {r["source_name"] for r in rows if not r["drop_reason"]} == {"video-pairs"}
    reasons = {r["source_name"]: r["drop_reason"] for r in rows if r["weight"] == 1.0 and r["drop_reason"] != "because"}
    assert reasons == {"inhouse-t2v": "task is t2v", "video-pairs": None, "vace-hq": "rights is unknown",
                       "pico-banana-400k": "rights is non-commercial no-derivatives"}
    assert {r["drop_reason"] for r in rows if r["weight"] == 2.0} == {"weight>1.5"}
    for words, message in ((["x<=1"], "has no column x; it has sample_id"), (["weight~1"], "write COLUMN<=NUMBER"),
                           (["weight=1"], "holds double: numbers with <= and >="), (["weight<=a"], "'a' is no number"),
                           (["weight<=nan"], "the rule on weight has max nan, which is no limit: give a number")):
        code, _, err = bernini("filter", samples, "--keep", *words, "--write", tmp_path / "g")
        assert code == 2 and message in err
    assert bernini("filter", samples, "--write", tmp_path / "g")[0] == 2
    code, _, _ = bernini("filter", samples, "--keep", "num_prompt_tokens>=3", "--keep-unmeasured", "--write", tmp_path / "h")
    assert code == 0 and Manifest.open(str(tmp_path / "h")).header["drops"] == {"because": 4}


def test_true_and_false_are_words_of_a_rule(bernini, tmp_path):
    schema = pa.schema([*SAMPLES.schema, ("is_human", pa.bool_())])
    rows = [{"sample_id": f"s-{n}", "is_human": value, "issues": [], "num_attempts": 1}
            for n, value in enumerate((True, False, None))]
    with ManifestWriter(str(tmp_path / "s"), SAMPLES, schema) as writer:
        writer.append(pa.Table.from_pylist(rows, schema))
        writer.commit(name="made", owners={}, parents=[], versions={})
    for word, reasons in (("true", [None, "is_human is false", "is_human is unknown"]),
                          ("false", ["is_human is true", None, "is_human is unknown"])):
        code, _, err = bernini("filter", tmp_path / "s", "--keep", f"is_human={word}", "--write", tmp_path / word)
        assert code == 0 and Manifest.open(str(tmp_path / word)).table()["drop_reason"].to_pylist() == reasons, err
    assert "rule holds  one of true: true" in bernini("why", tmp_path / "true", "s-0")[1]
    for rule in ("is_human=yes", "is_human<=1"):
        code, _, err = bernini("filter", tmp_path / "s", "--keep", rule, "--write", tmp_path / "x")
        assert code == 2 and "holds true and false: write is_human=true or =false" in err


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


def mixed(out: str) -> pa.Table:
    return Manifest.open(out.split()[-1]).table()


def test_weights_add_up_to_the_shares_and_stay_in_proportion(bernini, samples, tmp_path):
    code, out, err = bernini("mix", samples, "--stage", "IIa", "--output", tmp_path)
    assert code == 0, err
    table = mixed(out)
    total = {n: pc.sum(table.filter(pc.equal(table["source_name"], n))["weight"]).as_py() for n in SETS}
    shares = {"inhouse-t2v": 42, "video-pairs": 11, "pico-banana-400k": 4, "vace-hq": 0.4}
    assert total == pytest.approx({n: s / 57.4 for n, s in shares.items()})
    rows = [r for r in table.to_pylist() if r["source_name"] == "inhouse-t2v"]
    assert rows[0]["weight"] == 0.0 and rows[0]["drop_reason"] == "because"  # kept, not drawn
    assert rows[1]["weight"] == pytest.approx(2 * rows[2]["weight"])
    assert rows[1]["num_tokens"] == 17 * 1560 + 512 and rows[1]["licence_id"] == "MIT"  # 5 s: 65 of 80 frames
    assert "nothing is there of T2I 31, I2V 0.4, IV2V 0.3, I.P. 11" in out


def test_parents_of_one_name_are_told_apart(bernini, samples, tmp_path):
    """`--write` takes any name: two manifests of it are two mixtures, and one that was copied stays the same."""
    found = {}
    for rule in ("weight<=1.5", "weight>=1.5"):
        kept = tmp_path / rule[6] / "kept"
        assert bernini("filter", samples, "--keep", rule, "--write", kept)[0] == 0
        code, out, err = bernini("mix", kept, "--stage", "even", "--output", tmp_path / "m")
        assert code == 0, err
        found[rule] = out.split()[-1]
        assert pc.sum(pc.is_null(mixed(out)["drop_reason"])).as_py() == Manifest.open(str(kept)).header["accepted"]
    assert len(set(found.values())) == 2
    shutil.copytree(tmp_path / "<" / "kept", tmp_path / "copy" / "kept")
    assert bernini("mix", tmp_path / "copy/kept", "--stage", "even", "--output", tmp_path / "m")[1].split()[-1] == found[
        "weight<=1.5"]


def test_rows_that_come_twice_are_refused_and_mixtures_are_left_out(bernini, samples, tmp_path):
    for words in (("mix", samples, samples, "--stage", "even", "--output", tmp_path / "x"),
                  ("filter", samples, samples, "--keep", "weight<=1.5", "--write", tmp_path / "x")):
        code, _, err = bernini(*words)
        assert code == 2 and "share 125 rows (equal sample_id): name each one once" in err
    assert not (tmp_path / "x").exists()
    shutil.copytree(samples, tmp_path / "samples" / "own")
    first = bernini("mix", tmp_path / "samples/own", "--stage", "even", "--output", tmp_path)[1].split()[-1]
    code, out, err = bernini("mix", *sorted((tmp_path / "samples").iterdir()), "--stage", "even", "--output", tmp_path)
    assert code == 0 and f"left out: {first} is a mixture itself" in out and out.split()[-1] == first, err
    code, _, err = bernini("mix", first, "--stage", "even", "--output", tmp_path)
    assert code == 2 and "name the samples that it was made of" in err


def test_rights_leave_out_what_may_not_be_used(bernini, samples, tmp_path):
    code, out, _ = bernini("mix", samples, "--stage", "IIa", "--output", tmp_path, "--rights", "commercial")
    table = mixed(out)
    assert code == 0 and set(live(table)["source_name"].to_pylist()) == {"inhouse-t2v", "video-pairs"}
    reasons = dict(zip(table["source_name"].to_pylist(), table["drop_reason"].to_pylist(), strict=True))
    assert reasons["pico-banana-400k"] == "rights is non-commercial no-derivatives"
    assert reasons["vace-hq"] == "rights is unknown" and "left out: 19 rights is non-commercial" in out
    code, _, err = bernini("mix", samples, "--stage", "IIa", "--output", tmp_path, "--rights", "all")
    assert code == 2 and "no policy 'all' for --rights; known: any, known, research, commercial" in err


def test_sets_that_repeat_too_often_are_told(bernini, samples, tmp_path):
    call = ("mix", samples, "--stage", "even", "--output", tmp_path, "--weight", "vace-hq=100", "--samples-per-step", "2")
    code, out, _ = bernini(*call, "--steps", "30", "--max-repeat", "5")
    # 60 draws; 39 + 59 + 19 + 100 weights; vace-hq has 4 live samples
    assert code == 0 and f"vace-hq (v2v) would be drawn {60 * 100 / 217 / 4:.1f} times, more than 5" in out
    assert out.count("warning: each sample of") == 1
    assert "warning: each" not in bernini(*call, "--steps", "10", "--max-repeat", "5")[1]
    code, _, err = bernini("mix", samples, "--stage", "even", "--output", tmp_path, "--weight", "nobody=1")
    assert code == 2 and "a weight is given for 'nobody', but no samples are of it" in err
    code, _, err = bernini("mix", samples, "--stage", "even", "--output", tmp_path, "--steps", "5")
    assert code == 2 and "--steps needs --samples-per-step or --tokens-per-step" in err


@pytest.mark.parametrize("words, message", [
    (("--steps=-5",), "--steps is -5; it is a whole number, 0 or more"),
    (("--steps=5", "--samples-per-step=-4"), "--samples-per-step is -4; it is a finite number, 0 or more"),
    (("--steps=5", "--samples-per-step=nan"), "--samples-per-step is nan; it is a finite number, 0 or more"),
    (("--steps=5", "--tokens-per-step=inf"), "--tokens-per-step is inf; it is a finite number, 0 or more"),
    (("--max-repeat=-1",), "--max-repeat is -1; it is a finite number above 0"),
    (("--progress=nan",), "--progress is nan; it is the finished share of a stage, 0 to 1"),
    (("--weight=vace-hq=nan",), "--weight vace-hq=nan: a weight is a finite number, 0 or more"),
    (("--weight=vace-hq=inf",), "--weight vace-hq=inf: a weight is a finite number, 0 or more"),
])
def test_numbers_that_no_mixture_can_have_are_refused(bernini, samples, tmp_path, words, message):
    code, _, err = bernini("mix", samples, "--stage", "IIa", "--output", tmp_path, *words)
    assert code == 2 and message in err and not list(tmp_path.iterdir())


def test_what_a_mixture_does_not_draw_and_what_has_no_effect_is_told(bernini, samples, tmp_path):
    call = ("mix", samples, "--output", tmp_path)
    code, out, err = bernini(*call, "--stage", "IIa", "--progress", "1", "--steps", "100", "--samples-per-step", "64")
    assert code == 0 and "note: video-pairs (v2v) has no weight at this progress (1), only earlier in the stage" in out, err
    assert "will not be drawn" not in out and "warning: each sample of video-pairs (v2v) would be drawn" in out
    code, out, err = bernini(*call, "--stage", "IIb", "--weight", "video-pairs=3")
    assert code == 0 and "warning: --weight video-pairs has no effect: stage IIb draws nothing of V.P." in out, err
    assert "note: video-pairs (v2v) has no weight in this stage and will not be drawn" in out
    code, out, err = bernini(*call, "--stage", "IIa", "--weight", "video-pairs=3", "vace-hq=1")
    assert code == 0 and "--weight video-pairs has no effect: it is all there is of V.P., whose share the stage sets" in out
    assert "--weight vace-hq has no effect: it is all there is of V2V" in out
    assert "no effect" not in bernini(*call, "--stage", "even", "--weight", "video-pairs=3")[1]
    code, _, err = bernini(*call, "--stage", "propagation")  # none of the samples is a task of it
    assert code == 2 and "mixture propagation gives no weight to any of the data sets" in err


def test_the_steps_that_are_advised_do_not_repeat_too_often(bernini, samples, tmp_path):
    """Of 4 samples with a share of 100 / 217: 400 / 217 / 4 = 0.46 repeats a step of four samples."""
    call = ("mix", samples, "--stage", "even", "--output", tmp_path, "--weight", "vace-hq=100", "--steps", "100")
    for size, advice in (("4", "or at most 8 steps"), ("20", "or at most 1 step\n"), ("400", "or a lower --weight\n")):
        code, out, err = bernini(*call, "--samples-per-step", size)
        warning = next(line + "\n" for line in out.splitlines() if line.startswith("warning: each sample of vace-hq"))
        assert code == 0 and advice in warning and "0 steps" not in warning, err


def test_snapshots_decay_and_are_what_the_trainer_reads(bernini, samples, tmp_path):
    import pyarrow.parquet as pq

    names, data = ["t2v$inhouse-t2v", "v2v$video-pairs", "v2v$video-pairs"], tmp_path / "data"
    data.mkdir()
    sources = [str(data / f"{n}.parquet") for n in range(3)]
    for path, num in zip(sources, (40, 45, 15), strict=True):
        pq.write_table(pa.table({"inputs": ["[]"] * num}), path)
    base = {"sources": sources, "names": names, "level": "sample", "stopping_strategy": "never_exhausted",
            "upstream_sharded": False, "schedule": [{"schedule_type": "const", "weights": [0.5, 0.25, 0.25]}]}
    (data / "data.yaml").write_text(json.dumps(base))
    code, out, err = bernini("mix", samples, "--stage", "IIa", "--output", tmp_path / "o", "--steps", "1000",
                             "--samples-per-step", "16", "--snapshots", "4", "--trainer-data", data, "--simulate")
    assert code == 0, err
    odds = []
    for n in range(4):
        config = json.loads((data / f"snapshot-{n:02d}" / "data.yaml").read_text())
        (schedule,) = config["schedule"]
        assert schedule["schedule_type"] == "const" and config["sources"] == sources and config["names"] == names
        t2v, first, second = schedule["weights"]
        assert t2v + first + second == pytest.approx(1) and first == pytest.approx(3 * second)  # by rows of the files
        odds.append((first + second) / t2v)
    assert odds == pytest.approx([11 / 42 * left for left in (0.875, 0.625, 0.375, 0.125)])
    plan = json.loads((data / "snapshots.json").read_text())
    assert [(p["first_step"], p["end_step"]) for p in plan] == [(0, 250), (250, 500), (500, 750), (750, 1000)]
    drawn = [int(line.split()[2].replace(",", "")) for line in out.splitlines() if line.startswith("  video-pairs")]
    assert len(drawn) == 4 and drawn == sorted(drawn, reverse=True) and sum(drawn) < 4000  # of 16,000 draws
    assert abs(drawn[0] - 4000 * 11 * 0.875 / (46.4 + 11 * 0.875)) < 150  # five standard deviations
    for steps in ((), ("--steps", "3", "--samples-per-step", "16")):
        code, _, err = bernini("mix", samples, "--stage", "IIa", "--output", tmp_path, "--snapshots", "4", *steps)
        assert code == 2 and "--snapshots 4 cuts the stage into parts of steps" in err
    code, _, err = bernini("mix", samples, "--stage", "IIa", "--output", tmp_path, "--trainer-data", tmp_path)
    assert code == 2 and "has no data.yaml" in err
