"""Edits of single pictures: what changes, what must not, and that it is what was asked for."""

from __future__ import annotations

import numpy as np
import pytest

from datagen.backends import EditRequest, open_backend
from datagen.backends.classical_edit import KINDS
from datagen.compositing import as_cut_out, box_of, cut_out, fit_box, placed
from datagen.recolor import lab
from datagen.regions import changed, diffuse, grow, soft_matte
from datagen.samples_photos import photograph
from datagen.stylise import STYLES
from manifests.errors import BackendError
from tests.datagen.known_clips import astronaut, psnr_db, walk


@pytest.fixture(scope="module")
def scene():
    return walk(1)


@pytest.fixture(scope="module")
def editor():
    return open_backend("image-editor", "classical")


def request_for(scene, kind, **more):
    return EditRequest(instruction="", kind=kind, mask=scene.masks[0], **more)


def references(kind):
    return {"insert": (astronaut(),), "replace": (astronaut(),), "swap-background": (photograph("coffee"),),
            "scene": (photograph("rocket"),)}.get(kind, ())


@pytest.mark.parametrize("kind", KINDS)
def test_every_edit_changes_something_and_keeps_the_size_and_the_input(kind, editor, scene):
    image = scene.frames[0].copy()
    request = request_for(scene, kind, references=references(kind), seed=3)
    out = editor.edit(image, request)
    assert out.shape == image.shape and out.dtype == np.uint8
    assert np.array_equal(image, scene.frames[0])
    assert changed(image, out).mean() > 0.01
    assert np.array_equal(out, editor.edit(image, request))


@pytest.mark.parametrize("kind", ["recolour", "remove"])
def test_local_edits_leave_the_bytes_outside_the_grown_mask(kind, editor, scene):
    image = scene.frames[0]
    out = editor.edit(image, request_for(scene, kind, params={"color": "blue"} if kind == "recolour" else {}))
    touched = (out != image).any(axis=2)
    assert not touched[~grow(scene.masks[0], 12)].any()
    assert touched[scene.masks[0]].mean() > 0.9
    assert (changed(image, out) & scene.masks[0]).sum() > 0.85 * scene.masks[0].sum()  # the exact mask of the edit


@pytest.mark.parametrize("color, axis, sign", [("blue", 2, -1), ("red", 1, 1), ("green", 1, -1), ("yellow", 2, 1)])
def test_recolouring_goes_to_the_colour_and_keeps_the_shading(color, axis, sign, editor, scene):
    image, inside = scene.frames[0], grow(scene.masks[0], -4)
    out = editor.edit(image, request_for(scene, "recolour", params={"color": color}))
    assert sign * np.median(lab(out)[inside][:, axis]) > 20
    light = [lab(p)[..., 0][inside] for p in (image, out)]
    assert np.corrcoef(*light)[0, 1] > 0.97


def test_blurring_keeps_the_object_and_softens_the_rest(editor, scene):
    image, inside = scene.frames[0], grow(scene.masks[0], -4)
    out = editor.edit(image, request_for(scene, "blur-background"))
    far = ~grow(scene.masks[0], 25)
    detail = lambda p, m: np.abs(np.diff(p.astype(int).sum(axis=2), axis=1))[m[:, 1:]].mean()  # noqa: E731
    assert np.array_equal(out[inside], image[inside])
    assert detail(out, far) < 0.35 * detail(image, far)


def test_a_new_background_hides_the_old_one(editor, scene):
    image, inside = scene.frames[0], grow(scene.masks[0], -4)
    out = editor.edit(image, request_for(scene, "swap-background", references=(photograph("coffee"),)))
    far = ~grow(scene.masks[0], 10)
    assert psnr_db(out, image, far) < 13 and psnr_db(out, image, inside) > 22  # the light of the object moves a little


def test_an_insertion_lies_where_it_was_asked_for(editor, scene):
    out = editor.edit(scene.clean[0], EditRequest(instruction="", kind="insert", references=(astronaut(),),
                                                  params={"box": (200, 100, 280, 180)}))
    x0, y0, x1, y1 = box_of(changed(scene.clean[0], out))
    assert abs((x0 + x1) / 2 - 240) < 12 and 95 < y0 < 112 and 172 < y1 < 196  # a shadow lies below it


def test_the_moved_object_of_a_scene_is_the_object(editor, scene):
    request = request_for(scene, "scene", references=(photograph("rocket"),), seed=1)
    out = editor.edit(scene.frames[0], request)
    other = editor.edit(scene.frames[0], EditRequest(**{**vars(request), "seed": 2}))
    assert not np.array_equal(out, other)  # another seed, another place
    orange = lambda p: ((p[..., 0] > 150) & (p[..., 2] < 90) & (p[..., 1] < 140)).mean()  # noqa: E731
    assert orange(out) > 0.3 * orange(scene.frames[0])  # the suit is there


@pytest.mark.parametrize("style", STYLES)
def test_styles_differ_from_the_picture_and_from_each_other(style, editor, scene):
    out = editor.edit(scene.frames[0], request_for(scene, "stylise", params={"style": style}))
    assert psnr_db(out, scene.frames[0]) < 30
    colour = np.abs(out.astype(int) - out.mean(axis=2, keepdims=True)).mean()
    assert (colour < 1) == (style == "pencil")


def test_a_cut_out_comes_back_where_it_was(scene):
    cut = cut_out(scene.frames[0], scene.masks[0])
    x0, y0, x1, y1 = box_of(soft_matte(scene.frames[0], scene.masks[0], 1.5) > 0.02, 2)
    layer = placed(cut, (x0, y0, x1, y1), *scene.masks[0].shape)
    inside = grow(scene.masks[0], -3)
    assert psnr_db(np.rint(layer[..., :3]), scene.frames[0], inside) > 35
    assert fit_box(cut, 50, 100, 200)[1:] == (150, 100 + 25 * cut.shape[1] / cut.shape[0], 200)


def test_a_reference_without_alpha_is_cut_out_of_its_background():
    picture = np.full((120, 160, 3), (210, 210, 205), np.uint8)
    picture[35:90, 50:110] = photograph("coffee")[150:205, 200:260]
    alpha = as_cut_out(picture)[..., 3]
    assert alpha.shape[0] < 70 and alpha.shape[1] < 75 and (alpha > 128).mean() > 0.7


def test_diffusion_keeps_what_is_known_and_fills_smoothly():
    y, x = np.mgrid[:60, :80].astype(np.float32)
    known = np.ones((60, 80), bool)
    known[20:40, 30:50] = False
    out = diffuse(x + y, known)
    assert np.array_equal(out[known], (x + y)[known]) and np.abs(out - x - y).max() < 8


@pytest.mark.parametrize("kind, params, words", [
    ("recolour", {"color": "mauve"}, "no colour 'mauve'; known: red"), ("stylise", {"style": "cubist"}, "no style"),
    ("insert", {}, "needs a reference"), ("fly", {}, "no edit 'fly'; known: recolour"),
])
def test_what_cannot_be_done_is_named(kind, params, words, editor, scene):
    with pytest.raises(BackendError, match=words):
        editor.edit(scene.frames[0], request_for(scene, kind, params=params))


def test_masks_of_another_size_or_without_anything_are_refused(editor, scene):
    for mask, words in ((np.ones((10, 10), bool), "must agree"), (np.zeros((240, 320), bool), "is empty")):
        with pytest.raises(BackendError, match=words):
            editor.edit(scene.frames[0], EditRequest(instruction="", kind="remove", mask=mask))
