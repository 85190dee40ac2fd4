"""D8 on the sample film: the same person in front of another background, found by face and never edited."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from datagen.build_samples import BuildSamples
from datagen.person_pairs import Identities, PairPeople, borders_of, grouped, match_group
from manifests.columns import DROP_REASON, set_column
from manifests.errors import ConfigError
from manifests.messages import condition
from manifests.schema import SAMPLES
from manifests.spans import read_frames, read_image
from pipelines.pairs.person_r2v import Config, kept_measures, over_cap, run_steps, with_group


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def test_the_reference_is_the_same_person_in_the_least_alike_clip():
    faces = unit(np.array([[1, 0, 0], [1, 0.2, 0], [1, 0, 0.3], [0, 1, 0]], float))
    looks = unit(np.array([[1, 0], [1, 0.1], [0.3, 1], [0, 1]], float))
    found = match_group(faces, looks, min_identity=0.8)
    assert found.reference[:3].tolist() == [2, 2, 0] and found.num_same.tolist() == [2, 2, 2, 0]
    assert found.identity[0] == pytest.approx(faces[0] @ faces[2]) and found.look[0] == pytest.approx(looks[0] @ looks[2])
    assert found.reference[3] == 1 and found.identity[3] < 0.8  # nobody else: the nearest face, for a rule to drop
    assert match_group(faces[:1], looks[:1], min_identity=0.8).reference.tolist() == [-1]


def test_a_large_group_is_compared_in_parts_as_it_would_be_at_once(monkeypatch):
    rng = np.random.default_rng(1)
    who, looks = rng.integers(0, 60, 300), unit(rng.standard_normal((300, 8)))
    faces = unit(unit(rng.standard_normal((60, 64)))[who] + 0.05 * rng.standard_normal((300, 64)))
    alike, look = faces @ faces.T, looks @ looks.T  # the rule in words, over the whole matrix
    np.fill_diagonal(alike, -2)
    same = alike >= 0.5
    wanted = [np.where(s, k, 3).argmin() if s.any() else a.argmax() for s, k, a in zip(same, look, alike, strict=True)]
    for name, value in (("BLOCK", 70), ("AGAINST", 41)):
        monkeypatch.setattr(f"datagen.person_pairs.{name}", value)
    found = match_group(faces, looks, min_identity=0.5)
    assert found.reference.tolist() == wanted and found.num_same.tolist() == same.sum(axis=1).tolist()
    assert (found.num_same == 0).any() and (found.num_same > 5).any()  # both ways of choosing were taken
    rows = np.arange(300)
    assert np.allclose(found.identity, alike[rows, wanted], atol=1e-6) and np.allclose(found.look, look[rows, wanted], atol=1e-6)


def test_persons_are_numbered_as_one_by_one_however_they_are_blocked(monkeypatch):
    rng = np.random.default_rng(0)
    persons = unit(rng.standard_normal((40, 64)))
    who = rng.integers(0, 40, 500)
    faces = unit(persons[who] + 0.05 * rng.standard_normal((500, 64)))
    leaders, expected = [], []
    for face in faces:  # the rule in words: the first known person that is like enough, else a new one
        like = [i for i, leader in enumerate(leaders) if face @ leader >= 0.5]
        expected.append(like[0] if like else len(leaders))
        leaders += [] if like else [face]
    monkeypatch.setattr("datagen.person_pairs.ROWS", 37)
    numbers = Identities(0.5, block=16).assign(faces)
    assert numbers.tolist() == expected and len(leaders) == 40
    assert all(len(set(numbers[who == w])) == 1 for w in range(40))


def test_groups_come_whole_however_their_rows_lie():
    names = [f"episode {i % 7}" for i in range(100)]
    table = pa.table({"group_id": names, "row": range(100)})
    parts = list(grouped((table.slice(i, 9) for i in range(0, 100, 9)), "group_id", buckets=3))
    runs = [part.slice(a, b - a) for part in parts for a, b in borders_of(part, "group_id")]
    assert len(parts) <= 3 and len(runs) == 7 and sum(r.num_rows for r in runs) == 100
    for run in runs:
        rows = run["row"].to_pylist()
        assert len(set(run["group_id"].to_pylist())) == 1 and rows == sorted(rows)


@pytest.fixture(scope="module")
def made(film, tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    (folder / "in").mkdir()
    shutil.copy(film.videos_folder / "interview_vertical.mp4", folder / "in")
    return settings(folder), dict(run_steps(settings(folder)))


def settings(folder, **more) -> Config:
    return Config(input=str(folder / "in"), output=str(folder / "out"), engine="local", quiet=True, **more)


def test_every_kept_pair_keeps_the_rules_computed_anew(made):
    config, stops = made
    pairs = [p for p in stops["pairs"].table().to_pylist() if p["drop_reason"] is None]
    faces = {c["clip_id"]: c for c in stops["faces"].table().to_pylist()}
    assert len(pairs) >= 3
    for pair in pairs:
        target, reference = faces[pair["target_clip_id"]], faces[pair["reference_clip_id"]]
        assert target["clip_id"] != reference["clip_id"] and target["video_id"] == reference["video_id"]
        cosine = np.dot(target["face_embedding"], reference["face_embedding"])
        assert cosine == pytest.approx(pair["identity_similarity"], abs=1e-5) and cosine >= config.identity_min
        assert reference["start_s"] <= pair["reference_time_s"] < reference["end_s"]
        assert pair["background_similarity"] <= config.background_max
        (reference_path,) = pair["reference_paths"]
        crop = read_image(reference_path)
        assert crop.shape[:2] == (pair["reference_height"], pair["reference_width"])
        assert min(crop.shape[:2]) >= config.reference_min_px
        # never through an editor: the crop's pixels are the frame's
        frame = read_frames(pair["reference_video_path"], [pair["reference_time_s"]], long_px=4096)[0]
        assert cv2.matchTemplate(frame, crop, cv2.TM_SQDIFF).min() == 0
        # and it shows the face that was matched
        x0, y0, x1, y1 = np.array(pair["reference_face_box"]) * np.tile(frame.shape[1::-1], 2)
        assert crop.shape[0] > 1.8 * (y1 - y0) and crop.shape[1] > 1.8 * (x1 - x0)


def test_samples_hold_a_picture_a_caption_and_a_video_but_nobody(made):
    _, stops = made
    samples = stops["samples"].table()
    assert samples.schema.names == SAMPLES.schema.names  # no embedding, no identity
    for sample in samples.to_pylist():
        assert (sample["task"], sample["source_name"], len(sample["images"])) == ("r2v", "person-r2v", 1)
        kinds = [m["type"] for m in json.loads(sample["inputs"])]
        assert kinds == ["image", "text", "video_gen"]
    assert "face_embedding" not in stops["candidates"].schema.names


def test_again_is_finished_and_another_threshold_decides_anew_without_new_faces(made):
    config, stops = made
    again = dict(run_steps(config))
    assert {k: m.path for k, m in again.items()} == {k: m.path for k, m in stops.items()}
    folder = stops["faces"].path
    strict = dict(run_steps(Config(**{**vars(config), "same_look_max": 0.6})))
    assert strict["faces"].path == folder and strict["candidates"].path == stops["candidates"].path
    looks = [p["video_similarity"] for p in strict["pairs"].table().to_pylist() if p["drop_reason"] is None]
    assert max(looks) <= 0.6 < max(stops["pairs"].table(["video_similarity"])["video_similarity"].to_pylist())


def test_a_cap_takes_from_every_episode_before_it_takes_a_second(made):
    class Found:
        def table(self, columns):
            return table.select(columns)

    class Decisions:
        accepted = np.ones(12, bool)

    ids = [f"p-{i:016x}" for i in range(12)]
    table = pa.table({"identity_id": ["a"] * 9 + ["b"] * 3, "pair_id": ids,
                      "group_id": ["e1"] * 6 + ["e2"] * 2 + ["e3"] + ["e1"] * 3})
    dropped = over_cap(Found(), Decisions(), 4, seed=0)
    kept = [table["group_id"][i].as_py() for i in range(9) if i not in dropped]
    assert sorted(kept) in (["e1", "e1", "e2", "e3"], ["e1", "e2", "e2", "e3"]) and set(dropped) <= set(range(9))


def test_an_episode_is_a_column_of_the_input_list_a_folder_or_the_video():
    clips = pa.table({"video_id": ["v-1", "v-2", "v-3"], "path": ["/x/a.mp4", "/y/b.mp4", "/x/c.mp4"],
                      "extra": [json.dumps({"episode": "S1E1"}), None, json.dumps({"episode": "S1E1", "year": 1990})]})
    for group_by, same in (("video", [0, 1, 2]), ("folder", [0, 1, 0]), ("episode", [0, 1, 0])):
        groups = with_group(clips, group_by)["group_id"].to_pylist()
        assert [groups.index(g) for g in groups] == same
        assert groups[1] == ("v-2" if group_by != "folder" else groups[1])  # names no episode: its own video


def test_who_an_episode_is_named_after_stands_neither_in_pairs_nor_in_samples(made):
    faces = made[1]["faces"].table()
    faces = faces.filter(pc.is_null(faces["drop_reason"]))
    named = [json.dumps({"actor": "Mary Roe", "year": "1990"})] * faces.num_rows
    faces = faces.set_column(faces.schema.get_field_index("extra"), faces.schema.field("extra"), pa.array(named))
    pairs = PairPeople(kept_measures(), recipe="person-r2v", min_identity=0.8)(with_group(faces, "actor"))
    pairs = pairs.append_column("reference_caption", pa.array(["Somebody."] * pairs.num_rows))
    pairs = set_column(pairs, DROP_REASON, pa.nulls(pairs.num_rows, pa.string()))
    pairs = set_column(pairs, pairs.schema.field("conditions"), [[condition("reference", "/a.png")]] * pairs.num_rows)
    samples = BuildSamples("person-r2v", text="reference_caption")(pairs)
    assert samples.num_rows >= 3 and {json.loads(e)["year"] for e in samples["extra"].to_pylist()} == {"1990"}
    for table in (pairs, samples):
        assert "Mary Roe" not in json.dumps(table.to_pylist(), default=str)


@pytest.mark.parametrize("wrong, words", [({"identity_min": 1.2}, "identity_min is 1.2"),
                                          ({"per_identity_max": 0}, "--per-identity-max is 0"),
                                          ({"face": "typo"}, "no face 'typo'; known: classical, arcface"),
                                          ({"face": "arcface"}, "arcface needs --face-model and --face-detector"),
                                          ({"face_model": "x.onnx"}, "--face-model belongs to a model"),
                                          ({"face_detector": "y.onnx"}, "--face-detector belongs to a model")])
def test_wrong_settings_are_refused(tmp_path, wrong, words):
    with pytest.raises(ConfigError, match=words):
        settings(tmp_path, **wrong)


def test_an_episode_that_no_row_names_is_told_before_anything_is_decoded(tmp_path):
    (tmp_path / "list.csv").write_text("path,show\na.mp4,News\n")
    config = Config(input=str(tmp_path / "list.csv"), output=str(tmp_path / "out"), group_by="episode", engine="local", quiet=True)
    with pytest.raises(ConfigError, match="--group-by is 'episode', and no row of the input has such a column; known: video, "
                                          "folder, show"):
        next(run_steps(config))
    assert not (tmp_path / "out").exists()
