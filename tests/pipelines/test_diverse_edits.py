"""D4 on photographs: two prompt mechanisms, exact edits, videos that start with them, and a bank that can be resumed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from annotators.prompt_bank import PromptBank
from datagen.backends.classical_video import ClassicalVideoEditor
from datagen.film_picture import MOVES, camera_move
from datagen.samples_photos import photograph
from manifests.errors import ConfigError, RunStopped
from manifests.media import probe
from manifests.spans import read_image, read_span
from pipelines.pairs.diverse_edits import REPEATED, Config, once, run_steps
from tests.annotators.chat_server import chat_server, completion, fill

PHOTOS = ("coffee", "motorcycle", "astronaut")


def settings(folder, out="out", **more) -> Config:
    small = {"image_px": 360, "seconds": 1.0, "video_short_px": 240, "rounds": 2}
    return Config(input=str(folder / "in"), output=str(folder / out), engine="local", quiet=True, **(small | more))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    (folder / "in").mkdir()
    for name in PHOTOS:
        picture = Image.fromarray(np.ascontiguousarray(photograph(name)[..., :3]))
        picture.thumbnail((400, 400))
        picture.save(folder / "in" / f"{name}.png")
    return folder, dict(run_steps(settings(folder)))


def rows(stops, name="pairs") -> list[dict]:
    return stops[name].table().to_pylist()


def test_each_picture_is_edited_by_both_mechanisms_and_becomes_two_kinds_of_samples(made):
    pairs = [p for p in rows(made[1]) if p["drop_reason"] is None]
    assert {p["mechanism"] for p in pairs} == {"pool", "bank"} and len({p["frame_id"] for p in pairs}) >= 2
    for pair in pairs:
        assert pair["source_name"] == {"i2i": "diverse-i2i", "i2v": "diverse-i2v"}[pair["task"]]
    samples = {s["pair_id"]: s for s in rows(made[1], "samples")}
    assert samples.keys() == {p["pair_id"] for p in pairs}
    for pair in pairs:
        sample = samples[pair["pair_id"]]
        kinds = [m["type"] for m in json.loads(sample["inputs"])]
        assert kinds == (["image", "text", "image_gen"] if pair["task"] == "i2i" else ["image", "text", "video_gen"])
        assert sample["images"][0] == pair["source_path"]


def test_the_two_kinds_belong_together_and_the_video_shows_the_edited_picture(made):
    by_picture: dict = {}
    for pair in rows(made[1]):
        if pair["drop_reason"] is None:
            by_picture.setdefault((pair["mechanism"], pair["frame_id"]), {})[pair["task"]] = pair
    for both in by_picture.values():
        image, video = both["i2i"], both["i2v"]
        assert image["source_path"] == video["source_path"]
        assert image["instruction"] == image["edit_prompt"]
        assert video["instruction"] == f"{image['edit_prompt']} {image['motion_prompt']}"
        frames = list(read_span(video["target_path"], 0.0, video["target_end_s"]))
        assert len(frames) == 17 and min(frames[0].shape[:2]) == 240 and probe(video["target_path"]).fps == 16
        whole = frames[-1] if video["camera_move"] == "zoom out" else frames[0]
        edited, source = (np.asarray(Image.fromarray(read_image(p)).resize(whole.shape[1::-1])).astype(float)
                          for p in (image["target_path"], image["source_path"]))
        if "zoom" in video["camera_move"]:  # whose whole view is the picture itself
            assert np.abs(edited - whole).mean() < np.abs(source - whole).mean() + 1
            assert np.abs(edited - whole).mean() < 8  # H.264 at crf 18 and resampling


def test_rules_computed_anew_agree(made):
    config = settings(made[0])
    for pair in rows(made[1]):
        if pair["drop_reason"] is not None or pair["task"] != "i2i":
            continue
        source, edited = (read_image(pair[f"{side}_path"]).astype(int) for side in ("source", "target"))
        meant = read_image(pair["mask_path"])[..., 0] > 127
        assert pair["edited_share"] >= config.edited_min
        assert np.abs(source - edited)[meant].mean() > 2  # something happened where it was meant
        if pair["edit_kind"] in ("recolour", "remove"):  # and, beside soft edges, nowhere else
            assert (np.abs(source - edited)[~meant].max(axis=-1) > 8).mean() < 0.1


def test_an_edit_that_both_mechanisms_ask_for_is_learned_once(made):
    pairs = [p for p in rows(made[1]) if p["task"] == "i2i"]
    accepted = [(p["frame_id"], p["edit_prompt"]) for p in pairs if p["drop_reason"] is None]
    assert len(accepted) == len(set(accepted))
    twice = {(p["frame_id"], p["edit_prompt"]) for p in pairs if p["drop_reason"] == REPEATED}
    assert twice <= {(p["frame_id"], p["edit_prompt"]) for p in pairs if p["mechanism"] == "pool"}
    table = pa.table({"frame_id": ["a", "a", "b", "a"], "edit_prompt": ["x", "x", "x", None],
                      "drop_reason": pa.nulls(4, pa.string())})
    seen: set = set()
    assert once(table, seen)["drop_reason"].to_pylist() == [None, REPEATED, None, None]
    assert once(table, seen)["drop_reason"].to_pylist() == [REPEATED, REPEATED, REPEATED, None]


def test_other_instructions_in_the_same_file_are_another_run(made, tmp_path):
    pool = tmp_path / "pool.txt"
    found = []
    for line in ("make it a pencil sketch", "give it an old sepia look"):
        pool.write_text(line)
        stops = dict(run_steps(settings(made[0], out="pooled", mechanisms=("pool",), instructions=str(pool))))
        found.append({row["candidates"][0] for row in rows(stops, "pool")})
    assert found == [{"make it a pencil sketch"}, {"give it an old sepia look"}]


@contextmanager
def asked(marks: int) -> Iterator[str]:
    """Address of a server that asks for teal cups and gives every edit these marks."""
    told = {"index": 0, "prompt": "Make the cup teal.", "executed": True, "overall": marks, "instruction": marks}

    def behave(handler, body):
        schema = body["response_format"]["json_schema"]["schema"]
        return handler.reply(200, completion(json.dumps(fill(schema) | {k: v for k, v in told.items()
                                                                        if k in schema["properties"]}))) or True

    with chat_server(behave=behave) as server:
        yield server.url


class Teal:
    """An image editor that paints the middle of a picture."""

    def edit(self, image, request):
        made = image.copy()
        y, x = (n // 3 for n in image.shape[:2])
        made[y:2 * y, x:2 * x] = (0, 128, 128)
        return made


class Still(ClassicalVideoEditor):
    """An image-to-video model with a fault: the picture stands."""

    def edit(self, frames, request, first_frame=None):
        return frames


class Elsewhere(ClassicalVideoEditor):
    """An image-to-video model with a fault: it films something else."""

    def edit(self, frames, request, first_frame=None):
        return np.random.default_rng(0).integers(0, 255, frames.shape, np.uint8)


class Turning(ClassicalVideoEditor):
    """An image-to-video model that films the picture: a slow pan."""

    def edit(self, frames, request, first_frame=None):
        return np.stack([np.roll(f, n, axis=1) for n, f in enumerate(frames)])


@pytest.mark.parametrize("editor, video", [(Still, "video_moved<1"), (Elsewhere, "video_start_db<18"), (Turning, None)])
def test_with_models_edits_are_judged_and_videos_must_begin_with_the_picture_and_move(made, editor, video):
    with asked(4) as url:
        stops = dict(run_steps(settings(
            made[0], out=f"{editor.__name__}", annotator="openai", url=(url,), annotator_model="m", mechanisms=("pool",),
            image_editor=f"{__name__}:Teal", animate=f"{__name__}:{editor.__name__}", num_candidates=1)))
    pairs = rows(stops)
    assert {p["drop_reason"] for p in pairs if p["task"] == "i2i"} == {None}
    assert {p["drop_reason"] for p in pairs if p["task"] == "i2v"} == {video}
    assert {(p["judge_overall"], p["faces_kept"]) for p in pairs} == {(4, 1.0)}


def test_an_edit_that_the_judge_finds_wrong_is_dropped(made):
    with asked(2) as url, pytest.raises(RunStopped, match="judge_overall<3"):
        list(run_steps(settings(
            made[0], out="judged", annotator="openai", url=(url,), annotator_model="m", mechanisms=("pool",),
            image_editor=f"{__name__}:Teal", animate=f"{__name__}:Turning", num_candidates=1)))


def test_prompts_of_a_round_enter_the_bank_before_the_next(made):
    folder, stops = made
    (bank,) = (folder / "out" / "prompt-bank").iterdir()
    for number in range(2):
        before = PromptBank(str(bank), round=number)
        for row in rows(stops, f"bank {number + 1}/2"):
            assert row["edit_prompt_novelty"] == pytest.approx(before.novelty(row["edit_prompt"])[0], abs=1e-6)
        offered = {row["edit_prompt"] for row in rows(stops, f"bank {number + 1}/2")}
        assert set(PromptBank(str(bank), round=number + 1).prompts) <= set(before.prompts) | offered
    assert PromptBank(str(bank)).round == 2 and len(PromptBank(str(bank))) > 0


def test_again_is_finished_and_the_bank_stays_where_it_was(made):
    folder, stops = made
    again = dict(run_steps(settings(folder)))
    assert {k: m.path for k, m in again.items()} == {k: m.path for k, m in stops.items()}
    (bank,) = (folder / "out" / "prompt-bank").iterdir()
    assert PromptBank(str(bank)).round == 2


def test_a_shared_bank_is_begun_with_and_given_what_was_found(made, tmp_path):
    folder, shared = made[0], str(tmp_path / "shared")
    known = "Reduce the scene to a poster with few flat colours."
    PromptBank(shared, begin=[known])
    alone = dict(run_steps(settings(folder, out="out2", mechanisms=("bank",), rounds=1)))  # must not stand in for it
    stops = dict(run_steps(settings(folder, out="out2", bank=shared, mechanisms=("bank",), rounds=1)))
    assert stops["samples"].path != alone["samples"].path
    assert known not in {row["edit_prompt"] for row in rows(stops, "bank 1/1")}  # other edits are farther from it
    grown = PromptBank(shared)
    assert grown.round == 1 and known in grown.prompts and len(grown) > 1
    again = dict(run_steps(settings(folder, out="out2", bank=shared, mechanisms=("bank",), rounds=1)))
    assert again["samples"].path == stops["samples"].path and PromptBank(shared).round == 1


@pytest.mark.parametrize("move", MOVES)
def test_a_camera_move_goes_where_it_says_at_its_speed(move):
    import cv2

    picture = np.ascontiguousarray(photograph("coffee")[..., :3])
    frames = list(camera_move(picture, move, 0.05, num_frames=17, fps=16, size=(360, 240)))
    greys = [cv2.cvtColor(frames[i], cv2.COLOR_RGB2GRAY) for i in (0, 16)]
    points = cv2.goodFeaturesToTrack(greys[0], 200, 0.01, 7)
    moved, found, _ = cv2.calcOpticalFlowPyrLK(*greys, points, None)
    matrix, _ = cv2.estimateAffinePartial2D(points[found[:, 0] == 1], moved[found[:, 0] == 1])
    grown = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    centre = matrix @ [180, 120, 1] - [180, 120]
    x, y, zoom = MOVES[move]
    assert grown == pytest.approx(1.05 ** zoom, abs=0.006)
    assert centre == pytest.approx([-0.05 * 360 * x, -0.05 * 240 * y], abs=1.5)  # the picture goes against the camera


ASKED = {"annotator": "openai", "url": ("http://127.0.0.1:1/v1",), "image_editor": "qwen-image-edit"}


@pytest.mark.parametrize("wrong, words", [
    ({"mechanisms": ("guess",)}, "--mechanisms is 'guess'; known: pool, bank"), ({"rounds": 0}, "--rounds is 0; .*1 or more"),
    ({"seconds": 0.9}, "--seconds is 0.9, which gives 13 frames at 16 a second; a video has at least 17"),
    ({"seconds": float("inf")}, "--seconds is inf; it is a finite number above 0"),
    ({"image_px": 0}, "--image-px is 0; it is a whole number, 16 or more"),
    ({"instructions": "nowhere.txt"}, "--instructions nowhere.txt cannot be read .*one instruction a line"),
    ({"instructions": __file__ + "/.jsonl"}, "cannot be read .*one instruction a line, or .jsonl with `prompt`"),
    ({"image_editor": "flux-kontext"}, "annotator classical does not go with image editor flux-kontext"),
    ({"animate": "bernini"}, "annotator classical does not go with animate bernini"),
    ({"mechanisms": ()}, "--mechanisms is empty; known: pool, bank"),
    ({"mechanisms": ("pool",), "bank": "bank"}, "--bank belongs to the mechanism bank, and --mechanisms is pool"),
    ({"mechanisms": ("bank",), "instructions": __file__}, "--instructions belongs to the mechanism pool"),
    ({**ASKED, "animate": "classical"}, "the classical video editor moves nothing"),
])
def test_settings_that_do_not_go_together_are_refused(tmp_path, wrong, words):
    with pytest.raises(ConfigError, match=words):
        settings(tmp_path, **wrong)
