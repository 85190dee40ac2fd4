"""Editors on real diffusers pipelines, tiny and random, loaded through `from_pretrained` on the CPU."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from datagen.backends import EditRequest, open_backend
from datagen.backends.sizes import WorkSize, whole_clip
from datagen.regions import grow
from datagen.samples_photos import photograph
from manifests.errors import BackendError, ConfigError

torch = pytest.importorskip("torch", reason="model editors need the extra 'models'")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # diffusers' own, about settings of tiny models

REQUEST = EditRequest(instruction="make the cup blue", kind="recolour", seed=3)
SHORT = {"steps": 2, "device": "cpu"}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    from tests.datagen import tiny_editors as tiny

    root = tmp_path_factory.mktemp("tiny")
    return {"qwen-image-edit": tiny.qwen_image_edit(root / "qwen"), "flux-kontext": tiny.flux_kontext(root / "flux"),
            "wan-vace": tiny.wan_vace(root / "vace"), "diffusers": tiny.stable_inpainting(root / "sd")}


@pytest.fixture(scope="module")
def photo():
    return np.ascontiguousarray(photograph("coffee")[100:145, 150:220])  # odd sizes: 70 x 45


@pytest.fixture(scope="module")
def vace(folders):
    return open_backend("video-editor", "wan-vace", model=str(folders["wan-vace"]), max_tokens=32, **SHORT)


@pytest.fixture(scope="module")
def clip(photo):
    return np.stack([np.roll(photo, t, axis=1) for t in range(6)])  # no 4k + 1 length


@pytest.mark.parametrize("name, more", [("qwen-image-edit", {}), ("flux-kontext", {"max_tokens": 32})])
def test_an_image_editor_gives_a_picture_of_equal_size_that_depends_on_seed_and_words(name, more, folders, photo):
    editor = open_backend("image-editor", name, model=str(folders[name]), **SHORT, **more)
    out = editor.edit(photo, REQUEST)
    assert out.shape == photo.shape and out.dtype == np.uint8
    assert np.array_equal(out, editor.edit(photo, REQUEST))
    assert not np.array_equal(out, editor.edit(photo, EditRequest(**{**vars(REQUEST), "seed": 4})))
    with pytest.raises(BackendError, match="needs an instruction"):
        editor.edit(photo, EditRequest(instruction=" ", kind="recolour"))


def test_vace_changes_only_what_lies_under_the_mask(vace, clip):
    masks = np.zeros(clip.shape[:3], bool)
    masks[:, 10:30, 20:45] = True
    out = vace.edit(clip, EditRequest(instruction="a red bowl", kind="replace", mask=masks, seed=1))
    assert out.shape == clip.shape and out.dtype == np.uint8
    near = np.stack([grow(m, 6) for m in masks])
    assert np.array_equal(out[~near], clip[~near]) and (out[masks] != clip[masks]).mean() > 0.5
    inpainted = vace.inpaint(clip, masks)
    assert inpainted.shape == clip.shape and np.array_equal(inpainted, vace.inpaint(clip, masks))


def poses(x: int, step: int) -> tuple[np.ndarray, EditRequest]:
    """A drawn limb that starts at column `x` and goes on by `step` pixels a frame; and what is asked for."""
    drawn = np.zeros((5, 48, 64, 3), np.uint8)
    for t in range(5):
        drawn[t, 5:40, x + step * t : x + step * t + 4] = (255, 0, 0)
    return drawn, EditRequest(instruction="a dancer, moving as the skeleton does", kind="pose", seed=1)


def test_vace_makes_another_video_of_other_poses(vace):
    """By how much says nothing: random weights follow no control."""
    made = [vace.edit(*poses(20, 5)), vace.edit(*poses(50, -5))]
    assert made[0].shape == made[1].shape == (5, 48, 64, 3)
    assert not np.array_equal(*made) and np.array_equal(made[0], vace.edit(*poses(20, 5)))


def test_vace_keeps_the_clip_around_what_an_edited_first_frame_adds(vace):
    """The camera goes three pixels a frame to the left, and the place of the addition with the scene to the right."""
    scene = np.ascontiguousarray(photograph("motorcycle"))[60:156, 40:240]
    clip = np.stack([scene[:, 20 - 3 * t : 148 - 3 * t] for t in range(5)])
    first, added = clip[0].copy(), np.zeros(clip.shape[1:3], bool)
    added[40:60, 40:60] = True
    first[added] = (230, 30, 200)
    request = EditRequest(instruction="Add a pink box.", kind="insert", seed=1)
    out = vace.edit(clip, request, first)
    assert np.array_equal(out[0], first)
    for t in range(1, len(clip)):
        moved = np.roll(added, 3 * t, axis=1)
        assert (out[t][moved] != clip[t][moved]).mean() > 0.5
        far = ~grow(moved, 14)  # 5 % and 2 % of 96 lines, a soft edge, and two pixels of the camera's estimate
        assert np.array_equal(out[t][far], clip[t][far])
    with pytest.raises(BackendError, match="does not differ from the clip's: nothing says where"):
        vace.edit(clip, request, clip[0])
    with pytest.raises(BackendError, match="a mask or an edited first frame"):
        vace.edit(clip, request)


def test_what_vace_would_make_of_nothing_is_refused(vace, clip):
    with pytest.raises(BackendError, match="needs a mask for the edit 'replace', or it keeps nothing of the clip"):
        vace.edit(clip, EditRequest(instruction="a red bowl", kind="replace"), 255 - clip[0])
    with pytest.raises(BackendError, match="animates a first frame; this request has none"):
        vace.edit(clip, EditRequest(instruction="it turns", kind="animate"))


@pytest.mark.parametrize("kind, mask", [("stylise", None), ("recolour", np.ones((45, 70), bool))])
def test_vace_sees_the_shapes_of_what_it_restyles_and_not_its_colours(kind, mask, vace, clip):
    request = EditRequest(instruction="a drawing", kind=kind, seed=1, mask=mask)
    grey = np.repeat(np.stack([cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in clip])[..., None], 3, axis=3)
    first = clip[0]
    made = vace.edit(clip, request, first)
    assert not np.array_equal(made[1:], vace.edit(clip[:, ::-1].copy(), request, first)[1:])
    assert np.array_equal(made[1:], vace.edit(grey, request, first)[1:])


def test_vace_follows_a_first_frame_and_takes_references(vace, clip, photo):
    first = 255 - clip[0]
    request = EditRequest(instruction="a negative", kind="stylise", seed=1, references=(photo,))
    out = vace.edit(clip, request, first_frame=first)
    assert np.array_equal(out[0], first) and out.shape == clip.shape
    other = vace.edit(clip, request, first_frame=clip[0])
    assert not np.array_equal(out[1:], other[1:])  # what follows depends on it


def test_what_vace_cannot_take_is_refused_with_the_number(folders, clip):
    small = open_backend("inpainter", "wan-vace", model=str(folders["wan-vace"]), max_frames=5, **SHORT)
    with pytest.raises(BackendError, match="6 frames; .* takes at most 5"):
        small.inpaint(clip, np.ones(clip.shape[:3], bool))


def test_the_inpainter_keeps_bytes_outside_the_mask_and_frames_without_one(folders, clip):
    masks = np.zeros((2, *clip.shape[1:3]), bool)
    masks[1, 10:30, 20:45] = True
    out = open_backend("inpainter", "diffusers", model=str(folders["diffusers"]), **SHORT).inpaint(clip[:2], masks)
    assert np.array_equal(out[0], clip[0])
    assert np.array_equal(out[1][~grow(masks[1], 6)], clip[1][~grow(masks[1], 6)])
    assert (out[1][masks[1]] != clip[1][masks[1]]).mean() > 0.5


@pytest.mark.parametrize("role, name", [("image-editor", "qwen-image-edit"), ("image-editor", "flux-kontext"),
                                        ("video-editor", "wan-vace"), ("inpainter", "diffusers")])
def test_a_folder_without_the_model_says_what_it_needs(role, name, tmp_path):
    with pytest.raises(BackendError, match="cannot load .*Give the folder or id of a diffusers pipeline"):
        open_backend(role, name, model=str(tmp_path), device="cpu")


def test_wrong_options_are_named(folders):
    with pytest.raises(ConfigError, match="no dtype 'int3'; known: bfloat16"):
        open_backend("image-editor", "flux-kontext", model=str(folders["flux-kontext"]), dtype="int3")
    with pytest.raises(ConfigError, match="no inpainting pipeline 'X'; known: Stable"):
        open_backend("inpainter", "diffusers", model=str(folders["diffusers"]), pipeline="X")


def test_working_sizes_keep_the_aspect_and_the_limits():
    size = WorkSize.of(1080, 1920, multiple=16, max_pixels=480 * 832)
    assert size.work_height % 16 == size.work_width % 16 == 0
    assert size.work_height * size.work_width <= 480 * 832
    assert abs(size.work_width / size.work_height - 16 / 9) < 0.08
    assert WorkSize.of(45, 70, multiple=16, max_pixels=10**6).work_width == 64  # never enlarged but to the multiple
    assert [len(whole_clip(np.zeros((n, 2, 2, 3)))) for n in (1, 2, 5, 6, 81)] == [1, 5, 5, 9, 81]
