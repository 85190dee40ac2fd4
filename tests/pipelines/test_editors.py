"""Our renderer as an editor of clips: a tiny model in a released layout, loaded from its folder."""

from __future__ import annotations

import numpy as np
import pytest

from datagen.backends import EditRequest, open_backend
from manifests.errors import BackendError, BerniniError, ConfigError
from tests.conftest import moving_frames

torch = pytest.importorskip("torch", reason="the renderer needs the extra 'models'")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from bernini.tiny import write_tiny

    torch.set_num_threads(1)
    return str(write_tiny(tmp_path_factory.mktemp("model"), "one_expert"))


@pytest.fixture(scope="module")
def editor(folder):
    return open_backend("video-editor", "bernini", model=folder, device="cpu", max_px=64,
                        settings={"num_inference_steps": 2})


@pytest.fixture(scope="module")
def clip():
    return np.stack(list(moving_frames(6, size=(70, 46))))  # neither 4k + 1 nor multiples of 16


@pytest.mark.parametrize("task, needs", [("v2v", {}), ("vi2v", {"first": True}), ("vr2v", {"references": True}),
                                         ("i2v", {"first": True}), ("r2v", {"references": True})])
def test_every_task_gives_a_clip_of_equal_size_and_length(task, needs, editor, clip):
    editor.task = task
    request = EditRequest(instruction="paint it red", kind="recolour", seed=5,
                          references=(clip[0],) if "references" in needs else ())
    first = 255 - clip[0] if "first" in needs else None
    out = editor.edit(clip, request, first_frame=first)
    assert out.shape == clip.shape and out.dtype == np.uint8
    assert np.array_equal(out, editor.edit(clip, request, first_frame=first))
    other = editor.edit(clip, EditRequest(**{**vars(request), "seed": 6}), first_frame=first)
    assert not np.array_equal(out, other)


def test_a_propagated_first_frame_is_asked_for_in_the_words_it_was_trained_with(editor, clip, monkeypatch):
    from bernini.generate import planning
    from bernini.text import positive_text as trained

    asked = []
    monkeypatch.setattr(planning, "positive_text", lambda *args: asked.append(trained(*args)) or asked[-1])
    editor.task = "vi2v"
    editor.edit(clip, EditRequest(instruction="paint it red", kind="recolour", seed=5), first_frame=clip[0])
    assert trained("vi2v", "paint it red") in asked and "content propagation" in asked[0]


def test_the_task_follows_from_what_is_given(editor, clip):
    request = EditRequest(instruction="x", kind="recolour")
    editor.task = "auto"
    assert editor._task_of(request, None) == "v2v" and editor._task_of(request, clip[0]) == "vi2v"
    assert editor._task_of(EditRequest(**{**vars(request), "references": (clip[0],)}), None) == "vr2v"
    editor.task = "vi2v"
    with pytest.raises(BackendError, match="vi2v needs an edited first frame"):
        editor.edit(clip, request)
    editor.task = "auto"


def test_what_cannot_be_done_is_said(editor, clip, folder, tmp_path):
    with pytest.raises(BackendError, match="needs an instruction"):
        editor.edit(clip, EditRequest(instruction="", kind="recolour"))
    with pytest.raises(BackendError, match="has 130 frames; the renderer makes at most 121"):
        editor.edit(np.zeros((130, 32, 32, 3), np.uint8), EditRequest(instruction="x", kind="recolour"))
    with pytest.raises(ConfigError, match="no task 'x2y' of the renderer; known: auto, v2v"):
        open_backend("video-editor", "bernini", model=folder, task="x2y")
    with pytest.raises(BerniniError, match=str(tmp_path)):
        open_backend("video-editor", "bernini", model=str(tmp_path), device="cpu")
