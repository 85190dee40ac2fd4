"""Measures against pictures of which the truth is known: drawn subtitles, drawn bars, copies."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from datagen.samples_photos import photograph
from filters.duplicates import DEFAULTS
from filters.letterbox import MeasureLetterbox
from filters.overlay_text import MeasureOverlayText
from filters.picture_hash import HashPictures
from manifests.errors import MediaError
from manifests.frames import ClipFrames
from pipelines.measure import read_clip


@pytest.fixture(scope="module")
def shots(film):
    """Clips of three shots of the sample film: things, people, a moving camera."""
    chosen = [v for v in film.videos if not v.broken][:3]
    found = []
    for v in chosen:
        shot = max((s for s in v.shots if not s.black), key=lambda s: s.end_s - s.start_s)
        found.append(read_clip(str(film.path(v)), shot.start_s + 0.6, min(shot.end_s - 0.6, shot.start_s + 4.6)))
    return found


def subtitled(clip, text: str, *, height: float = 0.06, fill: int = 255, edge: int = 0, scroll: bool = False):
    """The clip with a line of text drawn into its detail frames."""
    details = []
    for n, luma in enumerate(clip.details):
        picture = Image.fromarray(luma.copy())
        font = ImageFont.load_default(size=int(luma.shape[0] * height))
        x = luma.shape[1] * (0.5 if not scroll else 0.2 + 0.15 * n)
        ImageDraw.Draw(picture).text((x, luma.shape[0] * 0.88), text, font=font, fill=fill, anchor="mm",
                                     stroke_width=2, stroke_fill=edge)
        details.append(np.asarray(picture))
    return dataclasses.replace(clip, details=details)


def area(text: str, shape: tuple[int, int], height: float) -> float:
    """Share of the picture inside the box of the drawn text."""
    left, top, right, bottom = ImageFont.load_default(size=int(shape[0] * height)).getbbox(text)
    return (right - left) * (bottom - top) / (shape[0] * shape[1])


@pytest.mark.parametrize("height, fill, edge", [(0.05, 255, 0), (0.07, 235, 20), (0.06, 20, 240)])
def test_burned_in_text_is_found_and_its_area_told(shots, height, fill, edge):
    text = "See you at home"
    for clip in shots:
        found = MeasureOverlayText()(subtitled(clip, text, height=height, fill=fill, edge=edge))
        drawn = area(text, clip.details[0].shape, height)
        assert found["overlay_text_time"] == 1.0
        assert 0.4 * drawn < found["overlay_text_area"] < 2.0 * drawn  # the box of a line against its letters


def test_clips_without_text_have_none(shots, media):
    without = ["dog_handheld.mp4", "squirrel_vp9.webm", "traffic_motorway.mp4", "portrait_plants_woman.mp4"]
    real = [read_clip(str(media / "clips" / name), 0.0, 4.0) for name in without]
    for clip in [*shots, *real]:
        assert MeasureOverlayText()(clip)["overlay_text_area"] < 0.002


def test_text_that_moves_on_is_not_burned_in(shots):
    assert MeasureOverlayText()(subtitled(shots[0], "scrolling words", scroll=True))["overlay_text_area"] < 0.002


@pytest.mark.parametrize("bars", [(0.125, 0.125, 0.0, 0.0), (0.0, 0.0, 0.2, 0.2), (0.1, 0.0, 0.0, 0.0)])
def test_black_borders_are_told_by_side(shots, bars):
    top, bottom, left, right = bars
    frames = []
    for bgr in shots[0].bgr:
        bgr = cv2.convertScaleAbs(bgr, alpha=0.8, beta=45)  # the scene itself is nowhere black
        height, width = bgr.shape[:2]
        bgr[: round(top * height)] = bgr[height - round(bottom * height) :] = 17
        bgr[:, : round(left * width)] = bgr[:, width - round(right * width) :] = 16
        frames.append(bgr)
    found = MeasureLetterbox()(dataclasses.replace(shots[0], bgr=frames))
    assert list(found.values()) == pytest.approx(bars, abs=0.01)


def test_a_dark_clip_has_no_borders(shots):
    dark = dataclasses.replace(shots[0], bgr=[np.full_like(b, 8) for b in shots[0].bgr])
    with pytest.raises(MediaError, match="too dark to tell borders"):  # null with an issue: nothing that a bar could frame
        MeasureLetterbox()(dark)
    night = [cv2.convertScaleAbs(b, alpha=0.3) for b in shots[0].bgr]
    assert max(MeasureLetterbox()(dataclasses.replace(shots[0], bgr=night)).values()) < 0.02


def test_a_hash_agrees_for_copies_and_not_for_others(shots):
    def bits(clip):
        return np.unpackbits(np.frombuffer(bytes.fromhex(HashPictures()(clip)["picture_hash"]), np.uint8))

    def changed(clip, change):
        return dataclasses.replace(clip, bgr=[change(b) for b in clip.bgr])

    for n, clip in enumerate(shots):
        noise = np.random.default_rng(n).normal(0, 5, clip.bgr[0].shape)
        for copy in (changed(clip, lambda b: cv2.resize(b, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)),
                     changed(clip, lambda b: cv2.convertScaleAbs(b, alpha=1.1, beta=6)),
                     changed(clip, lambda b: np.clip(b + noise, 0, 255).astype(np.uint8))):  # noqa: B023
            assert (bits(clip) == bits(copy)).mean() > 0.9
        assert (bits(clip) == bits(shots[(n + 1) % len(shots)])).mean() < 0.75
    one = dataclasses.replace(shots[0], bgr=shots[0].bgr[:1], times_s=shots[0].times_s[:1])
    assert len(HashPictures()(one)["picture_hash"]) == 128


def hash_bits(*bgr: np.ndarray) -> np.ndarray | None:
    """Bits of a clip of these pictures `(H, W, 3)` uint8; None where it has no hash."""
    num = len(bgr)
    clip = ClipFrames(start_s=0.0, end_s=float(num), times_s=np.arange(num) * 1.0, details=[], bgr=list(bgr),
                      frame_times_s=np.arange(num) * 1.0, frame_luma=np.zeros(num), frame_change=np.zeros(num),
                      frame_clean=np.ones(num, bool))
    digits = HashPictures()(clip).get("picture_hash")
    return None if digits is None else np.unpackbits(np.frombuffer(bytes.fromhex(digits), np.uint8))


def hue_turned(rgb: np.ndarray, degrees: float) -> np.ndarray:
    hsv = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + degrees) % 360
    return (cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255).round().astype(np.uint8)


@pytest.mark.parametrize("name", ["astronaut", "cat", "coffee", "rocket", "motorcycle", "retina"])
def test_a_recoloured_photograph_is_no_copy_and_an_encoded_or_cut_one_is(name):
    rgb = photograph(name)
    height, width = rgb.shape[:2]
    jpeg = cv2.imdecode(cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR)
    bits, limit = hash_bits(rgb[..., ::-1]), DEFAULTS["picture_hash"]
    y, x = round(0.02 * height), round(0.02 * width)
    for copy in (jpeg, cv2.resize(rgb, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)[..., ::-1],
                 cv2.convertScaleAbs(rgb, alpha=1.05)[..., ::-1], cv2.convertScaleAbs(rgb, alpha=0.95)[..., ::-1],
                 rgb[y : height - y, x : width - x, ::-1]):
        assert (bits == hash_bits(np.ascontiguousarray(copy))).mean() >= limit
    grey = np.repeat(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    for other in (*(hue_turned(rgb, degrees) for degrees in (60, 120, 180, 300)), grey):
        assert (bits == hash_bits(np.ascontiguousarray(other[..., ::-1]))).mean() < limit


def test_a_still_clip_has_the_hash_of_its_picture_and_one_colour_has_none():
    first, second = (np.ascontiguousarray(photograph(n)[:400, :400, ::-1]) for n in ("coffee", "astronaut"))
    assert np.array_equal(hash_bits(first), hash_bits(*[first] * 9))
    assert 0.5 < (hash_bits(first) == hash_bits(first, first, second, second)).mean() < DEFAULTS["picture_hash"]
    for colour in ((255, 255, 255), (0, 0, 0), (0, 0, 255)):
        flat = np.full((90, 160, 3), colour, np.uint8)
        assert hash_bits(flat) is None and hash_bits(flat, flat, flat, first[:90, :160]) is None
