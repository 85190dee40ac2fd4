"""Every transform against the film itself, read by PyAV directly: what was written must give the film back."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path

import av
import cv2
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from skimage import data

from datagen.fonts import BUILT_IN, fonts_for
from datagen.subtitles import Subtitles, render, scripts_here
from datagen.transform_job import frames_of_part
from datagen.transforms import PLANNED, TRANSFORMS, ApplyTransform, PlanTransforms
from manifests.columns import ACCOUNT
from manifests.errors import ConfigError
from manifests.ids import make_id
from manifests.schema import PAIRS
from manifests.video_writer import write_video
from pipelines.stage import Stage, check
from tests.conftest import moving_frames
from tests.datagen.moving_object import crossing, overlap

# H.264 at CRF 18 quantises by about 18: 38 dB and more on photographs. Grain costs the most bits and is what
# the codec drops first, so a single noisy frame may lie lower; neighbouring frames are 10 dB further away.
MEAN_DB, FRAME_DB = 38.0, 36.0
EXACT = ("sketch-to-video", "colorization", "movie-with-subtitles", "frame-to-video", "inpainting-nomask",
         "inpainting-nomask-ref", "opens2v-affine")


def decode(path: str) -> np.ndarray:
    """`(T, H * 3 / 2, W)` planes of a written video, and it is what players play."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 16
        frames = list(container.decode(stream))
        assert [f.time for f in frames] == pytest.approx([i / 16 for i in range(len(frames))], abs=1e-3)
        assert stream.frames == len(frames) and len(frames) % 4 == 1 and 17 <= len(frames) <= 97
    return np.stack([f.to_ndarray(format="yuv420p") for f in frames])


def shown_at_16_fps(path: Path, num: int) -> np.ndarray:
    """The frame of the film that is on screen at n / 16 s, found without our reader."""
    with av.open(str(path)) as container:
        frames = [(f.time, f.to_ndarray(format="yuv420p")) for f in container.decode(video=0)]
    return np.stack([[p for t, p in frames if t <= n / 16 + 1e-4][-1] for n in range(num)])


def psnr(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """dB of each frame, over all three planes."""
    error = ((a.astype(float) - b) ** 2).reshape(len(a), -1).mean(1)
    return 10 * np.log10(255**2 / np.maximum(error, 1e-9))


def assert_same_film(found: np.ndarray, film: np.ndarray) -> None:
    """Frame for frame and in time: each frame is nearer to its own than to the neighbours."""
    own = psnr(found, film)
    assert own.mean() >= MEAN_DB and own.min() >= FRAME_DB, (own.mean(), own.min())
    moves = psnr(film[1:], film[:-1]) < 45  # where two frames of the film differ at all
    assert (own[:-1] > psnr(found[:-1], film[1:]) + 3)[moves].all()


@pytest.fixture(scope="module")
def object_film(tmp_path_factory) -> tuple[Path, np.ndarray]:
    """A photographed background that an object crosses for 3.3 s, and the object's masks at 16 fps."""
    frames, masks = crossing(data.coffee(), cv2.resize(data.chelsea(), (160, 120)), num=80)
    path = tmp_path_factory.mktemp("object") / "object.mp4"
    write_video(str(path), frames, fps=24, crf=12)
    return path, np.stack([masks[int(n / 16 * 24 + 1e-6)] for n in range(53)])


@pytest.fixture(scope="module")
def op(tmp_path_factory) -> ApplyTransform:
    return ApplyTransform(str(tmp_path_factory.mktemp("media")), segmenter="classical")


def planned(path: Path, name: str, *, end_s: float = 80 / 24, number: int = 0) -> dict:
    return {"pair_id": make_id("pair", name, number), "edit": name, "clip_id": "c-1", "clip_path": str(path),
            "clip_start_s": 0.0, "clip_end_s": end_s}


@pytest.fixture(scope="module")
def made(op, object_film) -> dict[str, dict]:
    """Every transform that needs no weights, once: name -> filled columns."""
    return {name: op.apply(planned(object_film[0], name)) for name in TRANSFORMS if name != "pose2video"}


@pytest.fixture(scope="module")
def film(object_film) -> np.ndarray:
    return shown_at_16_fps(object_film[0], 53)


@pytest.mark.parametrize("name", EXACT)
def test_the_target_decoded_again_is_the_film(name, made, film):
    target = decode(made[name]["target_path"])
    assert len(target) == made[name]["num_frames"] == 53
    assert_same_film(target, film)
    assert made[name]["target_end_s"] == made[name]["target_duration_s"] == pytest.approx(53 / 16, abs=1e-6)


def test_an_extension_begins_one_frame_after_its_source_ends(made, film):
    source, target = decode(made["video-extension"]["source_path"]), decode(made["video-extension"]["target_path"])
    assert len(source) == len(target) == 25
    assert_same_film(np.concatenate([source, target]), film[:50])


def test_a_completion_lies_between_its_two_parts(made, film):
    row = made["video-completion"]
    (last,) = row["conditions"]
    assert (last["role"], last["kind"], last["start_s"]) == ("part", "video", 0.0)
    parts = [decode(p) for p in (row["source_path"], row["target_path"], last["path"])]
    assert [len(p) for p in parts] == [17, 17, 17]
    assert_same_film(np.concatenate(parts), film[:51])


def test_frames_to_video_has_three_forms_of_exact_pictures(op, object_film, film):
    forms = {}
    for number in (0, 1, 3):  # their ids draw the three forms
        row = op.apply(planned(object_film[0], "frame-to-video", number=number))
        forms[json.loads(row["transform_params"])["form"]] = row
    assert set(forms) == {"first", "first-last", "first-middle-last"}
    places = {"first_frame": 0, "middle_frame": 26, "last_frame": 52}
    for form, row in forms.items():
        assert row["source_path"] is None and [c["role"] for c in row["conditions"]] == [
            f"{word}_frame" for word in form.split("-")]
        for c in row["conditions"]:
            picture = np.asarray(Image.open(c["path"]))
            exact = cv2.cvtColor(film[places[c["role"]]], cv2.COLOR_YUV2RGB_I420)
            assert np.array_equal(picture, exact)  # PNG: not a level may differ


def test_a_sketch_has_the_edges_of_its_film_and_nothing_else(made, film):
    sketch = decode(made["sketch-to-video"]["source_path"])[:, :192]
    lines = sketch > 128
    assert 0.005 < lines.mean() < 0.25
    assert ((sketch < 60) | (sketch > 190)).mean() > 0.93  # two levels; the rest is the codec's softening
    steep = [np.hypot(cv2.Sobel(y, cv2.CV_32F, 1, 0), cv2.Sobel(y, cv2.CV_32F, 0, 1))
             for y in (cv2.GaussianBlur(f[:192], (5, 5), 0) for f in film)]
    on, off = (np.mean([s[m].mean() for s, m in zip(steep, masks, strict=True)]) for masks in (lines, ~lines))
    assert on > 3 * off  # lines lie where brightness changes; 3.9 measured


def test_colorization_takes_the_colour_and_leaves_the_brightness(made, film):
    source, target = (decode(made["colorization"][f"{s}_path"]) for s in ("source", "target"))
    assert np.abs(source[:, 192:].astype(int) - 128).max() <= 1
    assert psnr(source[:, :192], film[:, :192]).min() >= FRAME_DB
    assert np.abs(target[:, 192:].astype(int) - 128).mean() > 5  # the film is colourful


def test_subtitles_are_timed_and_touch_only_their_place(made, film):
    row = made["movie-with-subtitles"]
    params, source, target = json.loads(row["transform_params"]), *(decode(row[f"{s}_path"]) for s in ("source", "target"))
    on_screen = np.zeros(53, bool)
    for cue in params["cues"]:
        on_screen[cue["first"] : cue["end"]] = True
        x0, y0, x1, y1 = cue["box"]
        inside = source[cue["first"] : cue["end"], y0:y1, x0:x1].astype(int) - film[cue["first"] : cue["end"], y0:y1, x0:x1]
        assert (np.abs(inside) > 40).mean((1, 2)).min() > 0.02  # there is writing in every frame of the cue
        rest = np.ones((192, 320), bool)
        rest[y0 - 8 : y1 + 8, x0 - 8 : x1 + 8] = False  # the codec rings a few pixels beyond
        outside = source[cue["first"] : cue["end"], :192][:, rest].astype(int) - film[cue["first"] : cue["end"], :192][:, rest]
        assert np.abs(outside).mean() < 2.5
    assert params["cues"] and on_screen.any() and not on_screen[0] and not on_screen[-1]
    assert psnr(source[~on_screen], film[~on_screen]).min() >= FRAME_DB - 2  # clean before, between and after
    assert psnr(source[on_screen], target[on_screen]).max() < 30


def test_inpainting_takes_away_the_object_and_nothing_else(op, object_film, film):
    fills = {}
    for number in (0, 1, 3, 5):  # their ids draw the four fills
        row = op.apply(planned(object_film[0], "inpainting-nomask", number=number))
        fills[json.loads(row["transform_params"])["fill"]] = row
    assert set(fills) == {"black", "grey", "noise", "blur"}
    for fill, row in fills.items():
        source, mask = decode(row["source_path"])[:, :192].astype(int), decode(row["mask_path"])[:, :192] > 128
        covered = (mask & object_film[1]).sum() / object_film[1].sum()
        assert covered > 0.97, fill
        far = ~np.stack([cv2.dilate(m.astype(np.uint8), np.ones((17, 17))) > 0 for m in mask])
        assert np.abs(source - film[:, :192])[far].mean() < 3
        inner = np.stack([cv2.erode(m.astype(np.uint8), np.ones((9, 9))) > 0 for m in mask])
        if fill in ("black", "grey"):
            assert np.abs(source[inner] - {"black": 16, "grey": 126}[fill]).mean() < 3
        assert psnr(source, film[:, :192]).max() < 32


def test_a_mask_video_follows_the_object(made, object_film):
    row = made["video2mask"]
    mask = decode(row["target_path"])[:, :192]
    assert ((mask < 40) | (mask > 210)).mean() > 0.97 and row["mask_path"] == row["target_path"]
    iou = overlap(mask > 128, object_film[1])
    # An outline that is a pixel off all round loses 5 % of an object of 62 x 84 px.
    assert iou.mean() > 0.93 and iou.min() > 0.8
    assert row["mask_area"] == pytest.approx(object_film[1].mean(), rel=0.1) and row["mask_score"] > 0.6
    assert row["mask_stability"] > 0.9 and "moving object" in row["instruction"] + json.loads(row["transform_params"])["phrase"]


def test_propagation_shows_the_first_frame_of_its_target(op, object_film, film):
    bases = set()
    for number in (0, 1, 5):  # their ids draw the three
        row = op.apply(planned(object_film[0], "propagation", number=number))
        base = json.loads(row["transform_params"])["base"]
        bases.add(base)
        (edited,) = row["conditions"]
        target = cv2.cvtColor(decode(row["target_path"])[0], cv2.COLOR_YUV2RGB_I420)
        assert psnr(np.asarray(Image.open(edited["path"]))[None], target[None])[0] > 34 and edited["role"] == "edited_frame"
        side = "source" if base == "greyscale" else "target"
        assert_same_film(decode(row[f"{side}_path"]), film)
    assert bases == {"colorization", "sketch-to-video", "greyscale"}


def test_a_subject_is_cut_out_and_moved(op, made, object_film):
    row = made["opens2v-affine"]
    params, (reference,) = json.loads(row["transform_params"]), row["conditions"]
    picture = np.asarray(Image.open(reference["path"])).astype(int)
    assert params["rotation_deg"] or params["shear"]
    assert picture.shape[0] < 192 and picture.shape[1] < 320 and row["source_path"] is None
    row = made["inpainting-nomask-ref"]
    picture = np.asarray(Image.open(row["conditions"][0]["path"])).astype(int)
    solid = (picture.min(-1) < 250).mean()  # an ellipse fills 0.785 of its box; there is 12 % of room around it
    assert 0.35 < solid < 0.7 and (picture[[0, -1]] == 255).all()


def test_media_are_named_by_content_and_nothing_lies_there_twice(op, made, object_film):
    root = Path(op._tools.store.root)
    files = [f for f in root.rglob("*") if f.is_file()]
    digests = [hashlib.blake2b(f.read_bytes(), digest_size=16).hexdigest() for f in files]
    assert [f.stem for f in files] == digests and len(set(digests)) == len(files)
    assert made["colorization"]["target_path"] == made["sketch-to-video"]["target_path"]  # one film, one file
    for name in ("movie-with-subtitles", "inpainting-nomask", "propagation"):
        assert op.apply(planned(object_film[0], name)) == made[name]  # two runs are equal
    assert sorted(f for f in root.rglob("*") if f.is_file()) == sorted(files)


def table(rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist([{"issues": [], "conditions": [], **r} for r in rows],
                                pa.schema([*PAIRS.fields, *PLANNED, *ACCOUNT]))


def test_an_unreadable_film_is_null_with_an_issue_and_leaves_its_neighbours_alone(tmp_path, object_film):
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    rows = table([planned(object_film[0], "colorization"), planned(tmp_path / "broken.mp4", "colorization"),
                  planned(object_film[0], "frame-to-video"), planned(object_film[0], "video-completion", end_s=2.0)])
    before, stage = rows.to_pylist(), Stage(op="datagen.transforms:ApplyTransform", kwargs={"media": str(tmp_path / "m")})
    out = ApplyTransform(**pickle.loads(pickle.dumps(stage)).kwargs)(rows)
    assert rows.to_pylist() == before and out.schema.equals(check((stage,), rows.schema))
    found = out.to_pylist()
    assert found[1]["target_path"] is None and "cannot open" in found[1]["issues"][0]
    assert "too short for 3 x 17 frames" in found[3]["issues"][0]
    assert found[0]["issues"] == found[2]["issues"] == [] and found[0]["target_path"] and found[2]["target_path"]
    assert ApplyTransform(**stage.kwargs)(rows.slice(0, 0)).schema.equals(out.schema)
    with pytest.raises(ConfigError, match="video2mask needs a segmenter"):
        ApplyTransform(**stage.kwargs)(table([planned(object_film[0], "video2mask")]))


def test_nothing_is_enlarged_and_large_films_become_480p(tmp_path):
    write_video(str(tmp_path / "large.mp4"), moving_frames(20, size=(1280, 720)), fps=16)
    row = ApplyTransform(str(tmp_path / "m")).apply(planned(tmp_path / "large.mp4", "colorization", end_s=20 / 16))
    with av.open(row["target_path"]) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.frames) == (854, 480, 17)


@pytest.mark.parametrize("seconds, parts, num", [(2.0, 1, 29), (10.0, 1, 97), (2.0, 2, 0), (2.125, 2, 17), (3.19, 3, 17),
                                                 (10.0, 3, 53), (1.0, 1, 0), (1.0625, 1, 17)])
def test_parts_have_4n_plus_1_frames(seconds, parts, num):
    assert frames_of_part(seconds, fps=16, parts=parts, max_frames=97) == num


def test_clips_get_their_transforms_evenly_and_only_what_they_bear():
    rights = {"licence": "CC0", "source_url": None, "consent": None, "extra": None}
    clips = [{"clip_id": make_id("clip", i), "video_id": "v-1", "path": "a.mp4", "start_s": 0.0, "end_s": [2.0, 6.0][i % 2],
              "saturation": [5.0, 80.0][i // 2 % 2], **rights} for i in range(1200)]
    plan = PlanTransforms(tuple(TRANSFORMS), per_clip=2)
    rows = plan(pa.Table.from_pylist(clips)).to_pylist()
    by_id = {c["clip_id"]: c for c in clips}
    assert len(rows) == 2400 and len({r["pair_id"] for r in rows}) == 2400
    counts = {}
    for r in rows:
        clip = by_id[r["clip_id"]]
        counts.setdefault((clip["end_s"], clip["saturation"]), []).append(r["edit"])
        assert r["licence"] == "CC0" and r["task"] == TRANSFORMS[r["edit"]].task
    assert not set(counts[2.0, 5.0]) & {"video-extension", "video-completion", "colorization", "propagation"}
    full = counts[6.0, 80.0]  # 600 draws among 12: 50 each, standard deviation 6
    assert set(full) == set(TRANSFORMS) and all(26 < full.count(name) < 74 for name in TRANSFORMS)
    shuffled = plan(pa.Table.from_pylist(clips[::-1])).to_pylist()
    assert sorted(r["pair_id"] for r in shuffled) == sorted(r["pair_id"] for r in rows)


def test_no_font_writes_empty_boxes():
    assert fonts_for("tibetan", "\U000fabcd") == ()  # a private character that no font has
    assert fonts_for("latin", "\U000fabcd") == (BUILT_IN,)
    assert len(fonts_for("latin", "abc")) >= 1


@pytest.mark.parametrize("pixels, space", [("yuvj420p", None), ("yuv420p", 1), ("yuv420p", 6)])
def test_colours_stay_what_players_show(tmp_path, pixels, space):
    """Full range and BT.709: the same numbers would mean other colours if they were not told, or not made limited."""
    with av.open(str(tmp_path / "film.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=16, options={"crf": "8"})
        stream.width, stream.height, stream.pix_fmt = 160, 96, pixels
        if space:
            stream.codec_context.colorspace, stream.codec_context.color_range = space, 1
        for x in range(20):
            planes = np.full((144, 160), 90, np.uint8)
            planes[:96] = np.linspace(0 if pixels == "yuvj420p" else 16, 250, 160) - x
            planes[96:120], planes[120:] = 70, 200  # a strong red
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format=pixels)))
        container.mux(stream.encode(None))
    row = ApplyTransform(str(tmp_path / "m")).apply(planned(tmp_path / "film.mp4", "frame-to-video", end_s=20 / 16))

    def shown(path) -> np.ndarray:
        with av.open(str(path)) as container:
            return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)][:17])

    film = shown(tmp_path / "film.mp4")
    # 38 dB is 3 levels; read as BT.601 this red is 15 levels off, and full range as limited 16.
    assert psnr(shown(row["target_path"]), film).min() > MEAN_DB
    first = np.asarray(Image.open(row["conditions"][0]["path"]))
    assert psnr(first[None], film[:1])[0] > MEAN_DB


@pytest.mark.parametrize("width", [60, 90, 240])
def test_subtitles_stand_in_the_middle_of_an_upright_film(width):
    look = Subtitles(script="latin", style="outline", font=scripts_here()["latin"][0], size=0.08, at_top=False)
    cue = render("Do you remember the summer by the lake?", look, size=(width, 480), first=0, end=1)
    columns = cue.x + np.flatnonzero((cue.keep_y < 128).any(axis=0))
    assert cue.x + cue.keep_y.shape[1] <= width and abs((columns[0] + columns[-1]) / 2 - (width - 1) / 2) <= 1
