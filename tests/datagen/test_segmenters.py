"""Masks against objects whose outline is known, and the model backends on tiny models of the real architecture."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from datagen.backends import open_backend
from datagen.backends.classical_segment import ClassicalSegmenter
from datagen.transforms import ApplyTransform
from manifests.errors import BackendError, ConfigError
from manifests.video_writer import write_video
from tests.conftest import moving_frames
from tests.datagen.moving_object import crossing, overlap
from tests.datagen.test_transforms import decode, planned
from tests.datagen.tiny_models import body_places, write_dwpose, write_grounding_dino, write_sam2


def colour(picture: np.ndarray) -> np.ndarray:
    return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, 2)


# A border that is wrong by one pixel all round costs an ellipse of 62 x 84 px 5 %; 0.9 leaves room for two.
@pytest.mark.parametrize("background, texture, pan", [("coffee", "chelsea", 0.0), ("coffee", "chelsea", 1.5),
                                                      ("brick", "rocket", 0.7), ("chelsea", "moon", 1.0)])
def test_masks_follow_a_moving_object_over_a_photograph(background, texture, pan):
    pictures = [colour(getattr(data, name)()) for name in (background, texture)]
    frames, truth = crossing(pictures[0], cv2.resize(pictures[1], (160, 120)), pan=pan, num=33)
    (track,) = ClassicalSegmenter().segment(frames)
    iou = overlap(track.masks, truth)
    assert iou.mean() > 0.9 and iou.min() > 0.75
    assert track.phrase == "moving object" and track.score > 0.6
    (again,) = ClassicalSegmenter().segment(frames)
    assert np.array_equal(again.masks, track.masks)


def test_a_hidden_object_has_a_low_score():
    """Grey coins over grey gravel: the mask is bad, and the score says so."""
    frames, truth = crossing(colour(data.gravel()), cv2.resize(colour(data.coins()), (160, 120)), num=33)
    clear, _ = crossing(data.coffee(), cv2.resize(data.chelsea(), (160, 120)), num=33)
    assert ClassicalSegmenter().segment(frames)[0].score < 0.75 * ClassicalSegmenter().segment(clear)[0].score


def test_a_still_portrait_gives_the_person():
    face = cv2.resize(data.astronaut()[:400, 60:460], (240, 240), interpolation=cv2.INTER_AREA)
    (track,) = ClassicalSegmenter().segment(np.stack([face] * 9))
    assert track.phrase == "person" and 0.2 < track.masks.mean() < 0.6
    assert track.masks[:, 60:90, 90:120].mean() > 0.9  # the face itself
    assert track.masks[:, :60, :20].mean() < 0.1       # the flag behind


def test_nothing_to_see_is_an_error_of_the_row():
    with pytest.raises(BackendError, match="nothing stands out"):
        ClassicalSegmenter().segment(np.full((9, 96, 128, 3), 120, np.uint8))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> tuple[Path, Path]:
    import torch

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("tiny")
    return write_grounding_dino(folder / "grounding-dino"), write_sam2(folder / "sam2")


def test_grounding_dino_and_sam2_find_and_follow_what_is_named(tiny):
    backend = open_backend("segmenter", "grounded-sam2", model=str(tiny[0]), sam_model=str(tiny[1]), device="cpu",
                           box_threshold=0.0, text_threshold=0.0, max_objects=2)  # random weights are sure of nothing
    frames = np.stack(list(moving_frames(7, size=(160, 96))))
    tracks = backend.segment(frames, ("red ball", "person"))
    assert 1 <= len(tracks) <= 2 and tracks[0].score >= tracks[-1].score
    for track in tracks:
        assert track.phrase in ("red ball", "person") and 0 <= track.score <= 1
        assert track.masks.shape == (7, 96, 160) and track.masks.dtype == bool
    again = backend.segment(frames, ("red ball", "person"))
    assert all(np.array_equal(a.masks, b.masks) for a, b in zip(again, tracks, strict=True))
    sure = open_backend("segmenter", "grounded-sam2", model=str(tiny[0]), sam_model=str(tiny[1]), device="cpu",
                        box_threshold=1.0)
    assert sure.segment(frames, ("person",)) == []


def test_a_folder_without_a_model_is_told_with_the_flag(tmp_path):
    with pytest.raises(BackendError, match="--segmenter-model"):
        open_backend("segmenter", "grounded-sam2", model=str(tmp_path), sam_model=str(tmp_path), device="cpu")
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(BackendError, match="--pose-detector"):
        open_backend("pose", "dwpose", model=str(tmp_path / "bad.onnx"), detector=str(tmp_path / "bad.onnx"))
    with pytest.raises(ConfigError, match="known: classical, grounded-sam2"):
        open_backend("segmenter", "magic")


@pytest.fixture(scope="module")
def dwpose(tmp_path_factory) -> dict:
    pose, people = write_dwpose(tmp_path_factory.mktemp("dwpose"))
    return {"model": str(pose), "detector": str(people), "device": "cpu"}


def test_poses_come_back_in_pixels_of_the_frame(dwpose):
    backend = open_backend("pose", "dwpose", **dwpose)
    frame = np.zeros((240, 320, 3), np.uint8)
    frame[60:180, 100:160] = 255
    assert backend.people(frame) == pytest.approx(np.array([[100, 60, 160, 180]]), abs=5)  # one pixel of 64 is 5 of 320
    (poses,) = backend.estimate(frame[None])
    # The box of 60 x 120 grows by a quarter to 150 high and takes the model's aspect: 112.5 x 150 around (130, 120).
    wanted = (body_places().numpy() - 0.5) * (112.5, 150) + (130, 120)
    assert poses.keypoints.shape == (1, 133, 2) and poses.scores[0] == pytest.approx(np.full(133, 0.9), abs=1e-5)
    assert np.abs(poses.keypoints[0] - wanted).max() < 2.0  # half a bin of 72 px is 0.8 px here, and the box's own pixel
    (nobody,) = backend.estimate(np.zeros((1, 240, 320, 3), np.uint8))
    assert nobody.keypoints.shape == (0, 133, 2)


def test_a_pose_video_is_drawn_frame_for_frame(dwpose, tmp_path):
    def frames():
        for i in range(20):
            frame = np.full((192, 160, 3), 40, np.uint8)
            frame[40:160, 20 + 3 * i : 80 + 3 * i] = 230
            yield frame

    write_video(str(tmp_path / "walk.mp4"), frames(), fps=16)
    op = ApplyTransform(str(tmp_path / "media"), pose="dwpose", pose_options=dwpose)
    row = op.apply(planned(tmp_path / "walk.mp4", "pose2video", end_s=20 / 16))
    source, target = decode(row["source_path"])[:, :192], decode(row["target_path"])[:, :192]
    assert len(source) == len(target) == 17 and row["pose_presence"] == 1.0
    centres = [np.argwhere(f > 60).mean(0)[1] for f in source]
    walked = np.polyfit(range(17), centres, 1)[0]
    assert walked == pytest.approx(3.0, abs=0.3)  # pixels a frame
    assert json.loads(row["transform_params"]) == {}
