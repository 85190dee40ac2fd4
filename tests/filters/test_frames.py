"""Key-frame measures against known transforms of photographs, and embeddings through the real loading code."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pyarrow as pa
import pytest

from filters.frame_similarity import EmbedFrame
from filters.frame_transform import CompareFrames
from filters.frames import MeasureFrames
from filters.rules import ApplyRules, Rule
from manifests.columns import ISSUES, set_column
from manifests.errors import BackendError, ConfigError
from manifests.schema import FRAMES
from manifests.video_writer import write_video


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    data = pytest.importorskip("skimage.data", reason="the photographs come with the extra 'samples'")
    return cv2.resize(data.astronaut(), (900, 900), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="module")
def other() -> np.ndarray:
    data = pytest.importorskip("skimage.data", reason="the photographs come with the extra 'samples'")
    return cv2.resize(data.coffee(), (900, 900), interpolation=cv2.INTER_AREA)


def view(photo: np.ndarray, *, x: float = 0, y: float = 0, turn: float = 0, zoom: float = 1) -> np.ndarray:
    """640 x 384 px from the middle; content goes right by `x` px, turns clockwise by degrees, grows by `zoom`."""
    matrix = cv2.getRotationMatrix2D((450, 450), -turn, zoom)  # OpenCV's angle is counter-clockwise
    matrix[:, 2] += (x, y)
    return np.ascontiguousarray(cv2.warpAffine(photo, matrix, (900, 900))[258:642, 130:770])


@pytest.mark.parametrize("move", [{"x": 40}, {"x": -25, "y": 30}, {"turn": 6}, {"turn": -4, "x": 20}, {"zoom": 1.2},
                                  {"zoom": 0.85, "y": -12}])
def test_a_known_transform_is_found(photo, move):
    found = CompareFrames()(view(photo), view(photo, **move))
    shift = np.hypot(move.get("x", 0), move.get("y", 0)) / 640
    assert found["neighbour_shift"] == pytest.approx(shift, abs=0.004)  # two of the 480 px that are matched
    assert found["neighbour_rotation"] == pytest.approx(move.get("turn", 0), abs=0.4)
    assert found["neighbour_scale"] == pytest.approx(move.get("zoom", 1), abs=0.012)
    assert found["neighbour_inliers"] > 0.5
    assert (found["neighbour_scaling"] > 0.5) == ("zoom" in move)
    assert found["neighbour_motion"] > 0.01


def test_a_still_frame_and_another_scene(photo, other):
    still = CompareFrames()(view(photo), view(photo))
    assert still["neighbour_motion"] < 0.0005 and still["neighbour_inliers"] > 0.99
    cut = CompareFrames()(view(photo), view(other))
    assert "neighbour_scale" not in cut and cut["neighbour_inliers"] < 0.15 and cut["neighbour_motion"] > 0.02
    assert "neighbour_scale" not in CompareFrames()(np.zeros((384, 640, 3), np.uint8), view(photo))


def test_what_moves_before_a_still_camera_counts_as_motion(photo, other):
    before, after = view(photo), view(photo)
    before[100:280, 100:260] = other[300:480, 300:460]
    after[100:280, 160:320] = other[300:480, 300:460]
    found = CompareFrames()(before, after)
    assert found["neighbour_shift"] < 0.002 and found["neighbour_motion"] > 0.004 and found["neighbour_scaling"] < 0.3


def frames_table(rows: list[dict]) -> pa.Table:
    schema = pa.schema([*FRAMES.fields, pa.field("neighbour_s", pa.float64()), ISSUES])
    return pa.Table.from_pylist([{"frame_id": f"f-{i}", "issues": [], **row} for i, row in enumerate(rows)], schema)


@pytest.fixture(scope="module")
def table(photo, tmp_path_factory) -> pa.Table:
    """A film that pans to the right, a picture, a film that is none, and a moment behind the end."""
    folder = tmp_path_factory.mktemp("frames")
    film, picture, broken = (str(folder / n) for n in ("film.mp4", "picture.png", "broken.mp4"))
    write_video(film, (view(photo, x=-2 * i) for i in range(60)), fps=10)
    cv2.imwrite(picture, cv2.GaussianBlur(photo, (0, 0), 6)[..., ::-1])
    (folder / "broken.mp4").write_bytes(b"no film")
    return frames_table([{"path": film, "time_s": 1.0}, {"path": film, "time_s": 3.0, "neighbour_s": 1.0},
                         {"path": picture}, {"path": broken, "time_s": 0.5}, {"path": film, "time_s": 60.0}])


def test_measures_come_from_the_right_frames(table, photo):
    made = MeasureFrames()(table)
    first, second, picture, broken, late = made.to_pylist()
    assert second["neighbour_shift"] == pytest.approx(40 / 640, abs=0.004) and first["neighbour_shift"] is None
    own = cv2.Laplacian(cv2.cvtColor(view(photo, x=-20), cv2.COLOR_RGB2GRAY), cv2.CV_64F).var()
    # Luma has 219 steps where RGB has 255, and H.264 takes away the finest detail.
    assert first["sharpness"] == pytest.approx(own * (219 / 255) ** 2, rel=0.1)
    assert picture["sharpness"] < 20 < first["sharpness"] and picture["neighbour_motion"] is None
    assert np.linalg.norm(first["frame_embedding"]) == pytest.approx(1, abs=1e-5)
    assert broken["sharpness"] is None and "cannot open" in broken["issues"][0]
    assert late["frame_embedding"] is None and "ends before 60.000 s" in late["issues"][0]
    assert not first["issues"] and not picture["issues"]


def test_rows_do_not_depend_on_their_company(table):
    op = MeasureFrames()
    whole = op(table)
    assert whole.equals(op(table))
    alone = pa.concat_tables([op(table.slice(i, 1)) for i in range(table.num_rows)])
    assert whole.to_pylist() == alone.to_pylist()
    assert op(table.slice(0, 0)).schema.equals(whole.schema)


def test_an_optional_rule_lets_pass_what_does_not_apply():
    table = set_column(pa.table({"x": pa.array([None, 0.1, 0.9])}), pa.field("drop_reason", pa.string()), [None] * 3)
    reasons = {optional: ApplyRules((Rule(column="x", min=0.5, optional=optional),))(table)["drop_reason"].to_pylist()
               for optional in (True, False)}
    assert reasons == {True: [None, "x<0.5", None], False: ["failed: x was not measured", "x<0.5", None]}


def test_classical_embeddings_tell_copies_kin_and_strangers_apart(photo, other):
    embed = EmbedFrame()
    pictures = [view(photo), cv2.resize(cv2.resize(view(photo), (320, 192)), (640, 384)), view(photo, x=60), view(other)]
    vectors = np.stack(embed.finish([embed.prepare(p) for p in pictures]))
    copy, kin, stranger = (vectors[0] @ vectors[1:].T)
    assert copy > 0.95 and 0.75 < kin < 0.95 and stranger < 0.75


CONFIG = {"embed_dim": 24, "vision_cfg": {"image_size": 64, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
          "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1}}


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory):
    """open_clip's own model class with random weights, in the folder form that open_clip reads."""
    torch = pytest.importorskip("torch", reason="the open_clip backend needs the extra 'models'")
    from open_clip.model import CLIP
    from safetensors.torch import save_file

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("clip")
    model = CLIP(**{k: dict(v) if isinstance(v, dict) else v for k, v in CONFIG.items()})
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": {
        "size": 64, "mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28]}}))
    return folder


def test_open_clip_embeddings_equal_those_of_open_clip_called_directly(tiny_clip, photo, other):
    import open_clip
    import torch
    from PIL import Image

    embed = EmbedFrame("open_clip", batch_size=2, model=str(tiny_clip), device="cpu")
    pictures = [view(photo), view(other), view(photo, x=30)]
    ours = np.stack(embed.finish([embed.prepare(p) for p in pictures]))
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{tiny_clip}")
    with torch.inference_mode():
        theirs = model.eval().encode_image(torch.stack([preprocess(Image.fromarray(p)) for p in pictures]),
                                           normalize=True).numpy()
    assert ours.shape == (3, 24) and np.allclose(ours, theirs, atol=1e-5)
    assert "open_clip" in embed.backend and str(tiny_clip) in embed.backend


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code of a checkpoint was run')",))


def test_weights_that_run_code_are_refused(tiny_clip, tmp_path):
    import torch

    (tmp_path / "open_clip_config.json").write_bytes((tiny_clip / "open_clip_config.json").read_bytes())
    torch.save({"weights": Evil()}, tmp_path / "open_clip_pytorch_model.bin")
    with pytest.raises(BackendError, match="cannot load an open_clip model"):
        EmbedFrame("open_clip", model=str(tmp_path))


@pytest.mark.parametrize("options, words", [
    ({"model": "ViT-B-32"}, "needs weights.*--frame-embedder-weights"),
    ({"model": "no-such", "weights": "nowhere.pt"}, "cannot load an open_clip model.*ARCHITECTURE/WEIGHTS"),
])
def test_a_model_that_is_not_there_says_what_to_give(options, words):
    pytest.importorskip("open_clip")
    with pytest.raises(BackendError, match=words):
        EmbedFrame("open_clip", **options)


def test_an_unknown_embedder_lists_the_known_ones():
    with pytest.raises(ConfigError, match="no frame embedder 'magic'; known: classical, open_clip"):
        EmbedFrame("magic")
