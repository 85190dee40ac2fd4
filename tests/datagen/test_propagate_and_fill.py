"""Clips with known truth: an edited first frame carried along, and background that other frames show."""

from __future__ import annotations

import numpy as np
import pytest

from datagen.backends import EditRequest, open_backend
from datagen.flow import DenseFlow, camera_motion, compose, visible
from datagen.patch_fill import fill
from datagen.propagate import keeps_structure, propagate
from datagen.recolor import Recolor
from datagen.regions import changed, grow
from manifests.errors import BackendError, ConfigError
from tests.datagen.known_clips import psnr_db, walk


@pytest.fixture(scope="module")
def clip():
    return walk(12)


@pytest.fixture(scope="module")
def recolored(clip):
    """The clip with its object recoloured on every frame, by its true masks."""
    recolor = Recolor.fit(clip.frames, clip.masks, (35, 80, 200))
    return np.stack([recolor(f, m) for f, m in zip(clip.frames, clip.masks, strict=True)])


def around(clip, margin_px=6):
    return np.stack([grow(m, margin_px) for m in clip.masks])


def test_flow_finds_a_known_pan_and_its_camera(clip):
    flow = DenseFlow()(clip.clean[0], clip.clean[3])
    assert np.abs(np.median(flow.reshape(-1, 2), axis=0) - [-6.0, -2.4]).max() < 0.3  # 3 frames of (-2, -0.8) px
    matrix = camera_motion(clip.frames[0], clip.frames[3], clip.masks[0])
    assert np.abs(matrix[:2, 2] - [-6.0, -2.4]).max() < 0.3 and np.abs(matrix[:2, :2] - np.eye(2)).max() < 0.01
    back = DenseFlow()(clip.clean[3], clip.clean[0])
    assert visible(flow, back)[40:-40, 40:-40].mean() > 0.9
    assert np.abs(compose(flow, back)[60:-60, 60:-60]).mean() < 0.5  # there and back is home


def test_a_recoloured_first_frame_is_carried_through_the_clip(clip, recolored):
    near = around(clip)
    carried = propagate(clip.frames, recolored[0])
    assert np.array_equal(carried[0], recolored[0])
    # The unedited clip has 13 dB against the truth; nothing carried would stay there.
    assert psnr_db(clip.frames, recolored, near) < 15
    assert psnr_db(carried, recolored, near) > 24
    assert psnr_db(carried[-1], recolored[-1], near[-1]) > 22  # and not only at the beginning
    far = ~around(clip, 30)
    assert (carried[far] == clip.frames[far]).mean() > 0.985  # elsewhere the bytes stay


def test_tracked_masks_sharpen_the_carried_edit(clip, recolored):
    near = around(clip)
    with_masks = propagate(clip.frames, recolored[0], masks=clip.masks)
    assert psnr_db(with_masks, recolored, near) > 28
    assert np.array_equal(with_masks, propagate(clip.frames, recolored[0], masks=clip.masks))  # deterministic


def test_an_inserted_thing_sticks_to_the_background(clip):
    picture = np.zeros((40, 40, 4), np.uint8)
    picture[..., :3], picture[..., 3] = (250, 220, 30), 255
    picture[10:30, 10:30, :3] = (20, 20, 160)
    request = EditRequest(instruction="add a sign", kind="insert", references=(picture,),
                          params={"box": (230, 60, 270, 100)})
    out = open_backend("video-editor", "classical").edit(clip.frames, request)
    for t in (5, 11):  # the camera moves by (-2, -0.8) px a frame, and the sign with it
        blue = out[t][..., 2].astype(int) - out[t][..., 0] > 60
        rows, columns = np.nonzero(changed(clip.frames[t], out[t]) & blue)
        assert abs(np.median(columns) - (249.5 - 2 * t)) < 2.5
        assert abs(np.median(rows) - (79.5 - 0.8 * t)) < 2.5


def test_a_change_of_colour_is_told_from_new_matter(clip, recolored):
    assert keeps_structure(clip.frames[0], recolored[0], clip.masks[0])
    assert not keeps_structure(clip.frames[0], clip.clean[0], clip.masks[0])


def test_a_removed_object_gives_way_to_the_background_that_other_frames_show(clip):
    inpainter = open_backend("inpainter", "classical")
    out = inpainter.inpaint(clip.frames, clip.masks)
    near = around(clip)
    seen_elsewhere = np.zeros_like(near)
    for t in range(len(near)):  # true motion of the background: what some frame shows free of the object
        for s in range(len(near)):
            dx, dy = round(-2 * (s - t)), round(-0.8 * (s - t))
            free = np.roll(~around(clip, 12)[s], (-dy, -dx), axis=(0, 1))
            seen_elsewhere[t] |= free
    assert psnr_db(out, clip.clean, near & seen_elsewhere) > 27  # borrowed; the object itself is at 10 dB
    assert psnr_db(clip.frames, clip.clean, near & seen_elsewhere) < 16
    assert psnr_db(out, clip.clean, near) > 17  # with what no frame shows, and had to be invented
    assert np.array_equal(out[~around(clip, 20)], clip.frames[~around(clip, 20)])


def test_a_removed_first_frame_is_carried_by_the_background_and_not_by_the_object(clip):
    request = EditRequest(instruction="remove the person", kind="remove", mask=clip.masks)
    out = open_backend("video-editor", "classical").edit(clip.frames, request, first_frame=clip.clean[0])
    assert psnr_db(out, clip.clean, around(clip)) > 24


def test_a_still_object_in_a_still_clip_leaves_no_flicker():
    clip = walk(5, camera_px=0, object_px=0)
    still = clip.frames[:1].repeat(5, axis=0)
    out = open_backend("inpainter", "classical").inpaint(still, clip.masks[:1].repeat(5, axis=0))
    assert np.abs(out[1:].astype(int) - out[:1]).max() <= 2  # painted once, then carried


def test_patches_continue_a_texture_where_smearing_would_not():
    y, x = np.mgrid[:96, :128]
    stripes = np.repeat((127 + 100 * np.sin(x / 3.0))[..., None], 3, axis=2).astype(np.uint8)
    hole = np.zeros((96, 128), bool)
    hole[30:60, 45:80] = True
    broken = stripes.copy()
    broken[hole] = 0
    out = fill(broken, hole)
    assert np.array_equal(out[~hole], stripes[~hole])
    assert psnr_db(out, stripes, hole) > 20  # a flat fill has 11 dB
    assert np.array_equal(out, fill(broken, hole))


def test_wrong_input_is_named(clip, recolored):
    editor = open_backend("video-editor", "classical")
    with pytest.raises(BackendError, match="edited first frame is 100x100 and the clip 320x240"):
        editor.edit(clip.frames, EditRequest(instruction="", kind="recolour"), recolored[0][:100, :100])
    with pytest.raises(BackendError, match="needs a mask"):
        editor.edit(clip.frames, EditRequest(instruction="", kind="recolour"))
    with pytest.raises(BackendError, match="no edit 'fly' of a clip; known: recolour"):
        editor.edit(clip.frames, EditRequest(instruction="", kind="fly"))
    with pytest.raises(ConfigError, match="no video editor 'magic'; known: classical, wan-vace, bernini"):
        open_backend("video-editor", "magic")


def test_more_hidden_pixels_than_opencv_takes_in_a_row_are_sampled():
    """A real clip of a person near the camera had more than 32,766 read from one frame, and the run ended there."""
    from datagen.background_fill import _sampled

    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (60, 80, 3), np.uint8)
    at = np.stack([rng.integers(0, 80, 70_001), rng.integers(0, 60, 70_001)], axis=1).astype(np.float32)
    assert np.array_equal(_sampled(frame, at), frame[at[:, 1].astype(int), at[:, 0].astype(int)])
