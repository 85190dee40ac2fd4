"""D7 on composed clips: what stands out, before another scene, with the clip that shows it."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import cv2
import numpy as np
import pyarrow as pa
import pytest

from datagen.backends import Track
from datagen.compositing import paste, placed
from datagen.find_objects import FindObjects, cut_off
from datagen.place_object import around, least_alike
from datagen.samples_photos import cutout, photograph
from filters.background_similarity import MeasureBackgroundSimilarity
from filters.object_shown import object_shown
from filters.rules import ApplyRules
from manifests.errors import BackendError, ConfigError, RunStopped
from manifests.ids import make_id
from manifests.messages import condition
from manifests.schema import CLIPS
from manifests.spans import read_image
from manifests.video_writer import write_video
from pipelines.pairs import general_r2v
from pipelines.pairs.general_r2v import GROUPED, OBJECTS, PLANNED, PRESETS, Config, explode, regroup, run_steps
from pipelines.recipe import MEASURES
from pipelines.scan import measure_fields
from pipelines.scenes import Scenes
from pipelines.stage import check
from tests.annotators.chat_server import chat_server

HERE = "tests.pipelines.test_general_r2v"
SIZE = (320, 240)
SCENES = (("coffee", "ball"), ("motorcycle", "planet"), ("bricks", "coin"))  # a photograph, and what moves before it


def shown(photo: str, thing: str, num: int):
    """`num` frames of a still camera; the thing rolls from the left to the right."""
    ground = cv2.resize(np.ascontiguousarray(photograph(photo)[..., :3]), SIZE, interpolation=cv2.INTER_AREA)
    cut = cutout(thing)
    for i in range(num):
        x = 40 + 170 * i / num
        yield paste(ground, placed(cut, (x, 120, x + 80, 200), SIZE[1], SIZE[0]), shadow=0.0)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for photo, thing in SCENES:
        write_video(str(folder / f"{thing}.mp4"), shown(photo, thing, 40), fps=16)
    return folder


def settings(clips, out, **more) -> Config:
    return Config(**{"input": str(clips), "output": str(out), "engine": "local", "quiet": True, **PRESETS["laptop"],
                     **more})


@pytest.fixture(scope="module")
def made(clips, tmp_path_factory):
    config = settings(clips, tmp_path_factory.mktemp("out"))
    return config, dict(run_steps(config))


def kept(manifest) -> list[dict]:
    return [row for row in manifest.table().to_pylist() if row["drop_reason"] is None]


def test_no_kept_reference_shows_the_background_of_its_target(made):
    """Computed anew with other features (ORB) and one homography; the key frame itself is the control."""
    references = kept(made[1]["references"])
    assert len(references) >= 3
    for row in references:
        frame, reference = read_image(row["target_path"]), read_image(row["reference_path"])
        outside = (read_image(row["mask_path"])[..., 0] <= 127).astype(np.uint8) * 255
        outside = cv2.erode(outside, np.ones((15, 15), np.uint8))
        assert found_again(frame, outside, frame) > 0.8
        for picture in (reference, np.ascontiguousarray(reference[:, ::-1])):
            assert found_again(frame, outside, picture) < 0.1


def found_again(frame: np.ndarray, where: np.ndarray, picture: np.ndarray) -> float:
    orb = cv2.ORB_create(1000)
    points, here = orb.detectAndCompute(frame, where)
    others, there = orb.detectAndCompute(picture, None)
    if there is None or len(others) < 2:
        return 0.0
    good = [a for a, b in (m for m in cv2.BFMatcher(cv2.NORM_HAMMING).knnMatch(here, there, k=2) if len(m) == 2)
            if a.distance < 0.8 * b.distance or a.distance == 0]
    if len(good) < 8:
        return 0.0
    matrix, agreed = cv2.findHomography(np.float32([points[m.queryIdx].pt for m in good]),
                                        np.float32([others[m.trainIdx].pt for m in good]), cv2.RANSAC, 3.0)
    return 0.0 if matrix is None or agreed.sum() < 12 else float(agreed.sum()) / len(points)


def test_a_reference_that_is_the_key_frame_or_lost_its_object_is_dropped_with_its_reason(made):
    config, stops = made
    rows = kept(stops["references"])
    copies = [row | {"conditions": [condition("reference", row["target_path"])], "background_similarity": None}
              for row in rows]
    table = MeasureBackgroundSimilarity()(pa.Table.from_pylist(copies, stops["references"].schema))
    reasons = ApplyRules(config.reference_rules())(table)["drop_reason"].to_pylist()
    assert reasons == ["background_similarity>0.2"] * len(rows)


def test_the_things_that_move_are_found_and_the_references_show_them(made):
    rows = {row["path"].rsplit("/", 1)[-1]: row for row in reversed(kept(made[1]["references"]))}
    assert set(rows) == {"ball.mp4", "planet.mp4", "coin.mp4"}
    for row in rows.values():
        assert row["object_index"] == 0 and 0.04 < row["object_share"] < 0.09  # a disc of 80 px: 6.5 %
        frame, mask = read_image(row["target_path"]), read_image(row["mask_path"])[..., 0] > 127
        assert best_match(frame, mask, read_image(row["reference_path"])) > 0.7


def best_match(frame: np.ndarray, mask: np.ndarray, reference: np.ndarray) -> float:
    """Highest masked correlation of the object with a place of the reference, over sizes and mirroring."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box, best = np.s_[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1], 0.0
    for scale in np.arange(0.7, 1.6, 0.05):
        size = tuple(round(scale * side) for side in (np.ptp(columns) + 1, np.ptp(rows) + 1))
        if size[0] > reference.shape[1] or size[1] > reference.shape[0]:
            continue
        part, inside = cv2.resize(frame[box], size), cv2.resize(mask[box].astype(np.uint8), size)
        for flip in (1, -1):
            found = cv2.matchTemplate(reference, np.ascontiguousarray(part[:, ::flip]), cv2.TM_CCOEFF_NORMED,
                                      mask=np.ascontiguousarray(inside[:, ::flip]))
            best = max(best, float(found[np.isfinite(found)].max()))
    return best


def test_pairs_hold_their_references_in_the_order_of_the_objects_and_the_caption_names_each(made):
    config, stops = made
    references = kept(stops["references"])
    pairs = kept(stops["pairs"])
    assert {(p["task"], p["source_name"]) for p in pairs} == {("r2v", "general-r2v"), ("r2i", "general-r2i")}
    for pair in pairs:
        mine = [r for r in references if r["clip_id"] == pair["clip_id"]]
        assert [r["object_index"] for r in mine] == sorted(r["object_index"] for r in mine)
        if pair["task"] == "r2i":
            assert pair["target_path"] in {r["target_path"] for r in mine} and pair["target_start_s"] is None
            mine = [r for r in mine if r["target_path"] == pair["target_path"]]
        else:
            assert (pair["target_path"], pair["target_start_s"]) == (pair["path"], pair["start_s"])
        assert [c["path"] for c in pair["conditions"]] == [r["reference_path"] for r in mine] == pair["reference_paths"]
        assert {c["role"] for c in pair["conditions"]} == {"reference"} and len(mine) == pair["num_references"]
        assert config.min_objects <= len(mine) <= config.max_objects
        named = [int(n) for n in re.findall(r"of picture (\d)", pair["reference_caption"])]
        assert named == list(range(1, len(mine) + 1)) and mine[0]["object_name"][4:] in pair["reference_caption"]
        assert ("camera" in pair["reference_caption"]) <= (pair["task"] == "r2v")  # a picture has no camera move


def test_samples_give_the_references_then_the_caption_then_the_target(made):
    samples = {s["pair_id"]: s for s in made[1]["samples"].table().to_pylist()}
    pairs = kept(made[1]["pairs"])
    assert len(samples) == len(pairs) >= 6
    for pair in pairs:
        sample, num = samples[pair["pair_id"]], pair["num_references"]
        kinds = [m["type"] for m in json.loads(sample["inputs"])]
        clip = pair["task"] == "r2v"
        assert kinds == ["image"] * num + ["text", "video_gen" if clip else "image_gen"]
        assert sample["images"] == pair["reference_paths"] + ([] if clip else [pair["target_path"]])
        assert (sample["task"], sample["source_name"]) == (pair["task"], pair["source_name"])


def test_a_run_that_was_stopped_and_resumed_gives_the_same_and_makes_nothing_twice(made, clips, tmp_path, monkeypatch):
    config = settings(clips, tmp_path)
    calls = []
    from datagen.place_object import PlaceObject

    place = PlaceObject._place

    def breaks(self, row):
        calls.append(row["pair_id"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return place(self, row)

    monkeypatch.setattr(PlaceObject, "_place", breaks)
    monkeypatch.setattr(general_r2v, "ROWS", 1)
    with pytest.raises(KeyboardInterrupt):
        dict(run_steps(config))
    again = dict(run_steps(config))
    assert calls.count(calls[0]) == 1  # what was settled before the stop is not made again
    for name in ("references", "pairs", "samples"):
        ids = "sample_id" if name == "samples" else "pair_id"
        assert again[name].table()[ids].to_pylist() == made[1][name].table()[ids].to_pylist()
    names = [[c["path"].rsplit("/", 1)[-1] for c in row["conditions"]] for row in kept(again["pairs"])]
    assert names == [[c["path"].rsplit("/", 1)[-1] for c in row["conditions"]] for row in kept(made[1]["pairs"])]
    once = {k: m.path for k, m in again.items()}
    assert {k: m.path for k, m in run_steps(config)} == once and not [c for c in calls if calls.count(c) > 2]


def test_a_copy_of_a_film_lends_it_no_scene(made):
    """The same film encoded again is another file; its scenes are the film's own background."""
    rows = made[1]["clips"].table().to_pylist()
    film, look = rows[0], np.array(rows[0]["video_embedding"], np.float32)
    noise = np.random.default_rng(0).normal(0, 0.2 / len(look) ** 0.5, len(look))
    again = film | {"video_id": "v-again", "path": "/again.mp4", "clip_id": make_id("clip", "again"),
                    "video_embedding": (look + noise) / np.linalg.norm(look + noise)}
    later = again | {"clip_id": make_id("clip", "later"), "start_s": 9.0, "end_s": 12.0,
                     "video_embedding": np.eye(1, len(look), 5)[0]}  # another shot of the copy looks like nothing else
    unknown = film | {"video_id": "v-unknown", "path": "/unknown.mp4", "clip_id": make_id("clip", "unknown"),
                      "video_embedding": None}  # nothing says that it is another film
    table = pa.Table.from_pylist([*rows, again, later, unknown], made[1]["clips"].schema)
    scenes = Scenes(SimpleNamespace(batches=lambda: [table]), seed=0)
    paths = {path for path, _ in scenes.of(film, look, 99)}
    assert paths == {row["path"] for row in rows} - {film["path"]}
    assert {path for path, _ in scenes.of(unknown, None, 99)} == {row["path"] for row in rows} | {"/again.mp4"}
    assert "/again.mp4" in {path for path, _ in scenes.of(rows[1], np.array(rows[1]["video_embedding"]), 99)}


def rows_of(clip: str, frames: str, video: str = "v") -> list[dict]:
    return [{"pair_id": f"{clip}{i}", "clip_id": clip, "video_id": video, "path": "/a.mp4", "start_s": 0.0, "end_s": 4.0,
             "target_path": frame, "reference_path": f"/{clip}{i}.png", "object_name": "the red object",
             "object_place": " on the left", "object_index": i, "issues": [], "target_camera_pan": 0.1}
            for i, frame in enumerate(frames)]


def test_references_of_two_key_frames_make_one_video_pair_and_a_picture_pair_of_the_commoner_frame():
    schema = OBJECTS.append(pa.field("reference_path", pa.string()))
    table = pa.Table.from_pylist(rows_of("a", "xyy") + rows_of("b", "z"), schema)
    pairs = regroup(table, True).to_pylist()
    assert [(p["clip_id"], p["task"], p["reference_paths"]) for p in pairs] == [
        ("a", "r2v", ["/a0.png", "/a1.png", "/a2.png"]), ("a", "r2i", ["/a1.png", "/a2.png"]),
        ("b", "r2v", ["/b0.png"]), ("b", "r2i", ["/b0.png"])]
    assert [p["target_path"] for p in pairs] == ["/a.mp4", "y", "/a.mp4", "z"]
    assert pairs[0]["target_camera_pan"] == pytest.approx(0.1) and pairs[1]["target_camera_pan"] is None
    assert len({p["pair_id"] for p in pairs}) == 4 and regroup(table, False).num_rows == 2


def test_each_object_of_a_clip_is_offered_scenes_of_its_own():
    clip = {"clip_id": "c", "scene_paths": list("abcdefg"), "scene_times_s": [float(i) for i in range(7)],
            "found_objects": [{"name": str(i)} | dict.fromkeys(
                ("frame_path", "mask_path", "place", "instruction", "time_s", "score", "share", "cut", "solid", "contrast"))
                for i in range(4)]}
    found = pa.Table.from_pylist([clip], check(general_r2v.build(settings("in", "out"))["found"], PLANNED))
    assert ["".join(r["scene_paths"]) for r in explode(found).to_pylist()] == ["abc", "def", "g", "abc"]


def test_an_object_is_known_again_mirrored_darker_and_elsewhere_and_missed_where_it_is_not():
    frame = next(shown("coffee", "planet", 1))
    mask = placed(cutout("planet"), (40, 120, 120, 200), 240, 320)[..., 3] > 127
    other = cv2.resize(np.ascontiguousarray(photograph("bricks")[..., :3]), SIZE)
    moved = paste(other, placed(np.ascontiguousarray(cutout("planet")[:, ::-1]), (150, 40, 270, 160), 240, 320))
    assert object_shown(frame, mask, cv2.convertScaleAbs(moved, alpha=0.85)) > 0.6
    assert object_shown(frame, mask, moved) > 0.7
    assert object_shown(frame, mask, other) < 0.3


def test_the_scene_that_is_least_alike_is_taken_and_the_crop_holds_the_object():
    frame, mask = photograph("bricks")[:200, :300, :3], np.zeros((200, 300), bool)
    mask[150:200, 10:50] = True
    night, wall = photograph("galaxies")[..., :3], photograph("bricks")[200:, :, :3]
    assert least_alike(frame[~mask], [np.ascontiguousarray(wall), np.ascontiguousarray(night)]).shape == night.shape
    part, inside = around(np.ascontiguousarray(frame), mask)
    assert part.shape == (100, 80, 3) and inside.sum() == mask.sum() and inside[-1].any()  # it stands on the border
    assert cut_off(mask) == 0.0 and cut_off(mask.T) > 0.2  # the lower border is the ground


class NamedThings:
    """A segmenter with words that knows the lower half as "half", and nothing else."""

    def segment(self, frames, phrases=()):
        if "half" not in phrases[0]:
            raise BackendError(f"{phrases[0]!r} was not found")
        masks = np.zeros(frames.shape[:3], bool)
        masks[:, 120:200, 60:140] = True
        return [Track(phrase=phrases[0], score=0.9, masks=masks)]


class OtherScene:
    """An image editor that shows the lower half on a plain ground, as a model would: it is given neither a scene nor a
    mask, which would say that the object is to be painted anew and the scene to be kept."""

    def edit(self, image, request):
        assert request.mask is None and not request.references and "half" in request.instruction
        out = np.full_like(image, 200)
        out[100:180, 200:280] = image[120:200, 60:140]
        return out


def answer(handler, body):
    """Three objects, one of which is nowhere; then a caption, in which the second clip's reference is missed."""
    from tests.annotators.chat_server import completion

    text = json.dumps(body["messages"])
    if "stand out most" in text:
        told = "Show the half alone on a beach at noon."
        made = {"objects": [{"name": n, "frame": i + 1, "instruction": told}
                            for i, n in enumerate(("the half", "a unicorn", "the other half"))]}
    else:
        num = len(re.findall(r"picture \d+:", text))
        made = {"shown": [True] * num, "caption": "Both halves of picture 1 and of picture 2 are there."}
    data = completion(json.dumps(made))
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)
    return True


def test_a_model_names_the_objects_a_segmenter_outlines_them_and_what_it_does_not_find_is_told(clips, tmp_path):
    with chat_server(behave=answer) as server:
        config = settings(clips, tmp_path, min_objects=2, annotator="openai", annotator_model="m", url=(server.url,),
                          object_contrast_min=0.0, segmenter=f"{HERE}:NamedThings", image_editor=f"{HERE}:OtherScene")
        stops = dict(run_steps(config))
    rows = stops["references"].table().to_pylist()
    assert [(r["object_name"], r["drop_reason"]) for r in rows[:3]] == [
        ("the half", None), ("a unicorn", "object_score<0.4"), ("the other half", None)]
    assert rows[0]["object_time_s"] < rows[2]["object_time_s"]  # the frame that the model chose
    pairs = kept(stops["pairs"])
    assert [p["num_references"] for p in pairs if p["task"] == "r2v"] == [2, 2, 2]
    assert pairs[0]["num_references_missed"] == 0 and "picture 2" in pairs[0]["reference_caption"]
    # Each key frame shows one of the two: too few for a picture pair, which stays with its reason.
    assert {p["drop_reason"] for p in stops["pairs"].table().to_pylist() if p["task"] == "r2i"} == {"num_references<2"}


@pytest.mark.parametrize("preset", ["laptop", "cluster"])
def test_columns_fit_in_both_presets(preset):
    more = {"annotator": "openai", "url": ("http://127.0.0.1:9/v1",)} if preset == "cluster" else {}
    stages = general_r2v.build(Config(**PRESETS[preset] | more | {"input": "in", "output": "out"}))
    assert {*general_r2v.MEASURED} <= {f.name for f in (*measure_fields(MEASURES), *CLIPS.fields)}
    assert "found_objects" in check(stages["found"], PLANNED).names
    assert {"background_similarity", "object_shown", "reference_path"} <= set(check(stages["references"], OBJECTS).names)
    assert "reference_caption" in check(stages["pairs"], GROUPED).names


@pytest.mark.parametrize("wrong, words", [({"min_objects": 4, "max_objects": 3}, "min_objects is 4"),
                                          ({"num_key_frames": 9}, "num_key_frames is 9"),
                                          ({"image_editor": "qwen-image-edit"}, "does not go with")])
def test_wrong_settings_are_refused(wrong, words):
    with pytest.raises(ConfigError, match=words):
        settings("in", "out", **wrong)


def test_too_few_objects_end_the_run_with_the_reason(made):
    with pytest.raises(RunStopped, match="num_found<5"):
        dict(run_steps(Config(**{**vars(made[0]), "min_objects": 5})))


def test_nothing_stands_out_in_a_plain_clip(tmp_path):
    write_video(str(tmp_path / "plain.mp4"), (np.full((240, 320, 3), 120, np.uint8) for _ in range(40)), fps=16)
    row = {"path": str(tmp_path / "plain.mp4"), "start_s": 0.0, "end_s": 2.5, "issues": []}
    table = FindObjects(str(tmp_path / "media"))(pa.Table.from_pylist([row], pa.schema([
        ("path", pa.string()), ("start_s", pa.float64()), ("end_s", pa.float64()),
        ("issues", pa.list_(pa.string()))])))
    assert table.to_pylist()[0]["num_found"] == 0 and table.to_pylist()[0]["issues"] == []
