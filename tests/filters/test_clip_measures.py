"""Aesthetic score and text similarity on a tiny random CLIP of open_clip, loaded from a folder."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from filters.aesthetics import MeasureAesthetics
from filters.text_similarity import MeasureTextSimilarity
from manifests.errors import BackendError
from manifests.frames import ClipFrames

torch = pytest.importorskip("torch")
open_clip = pytest.importorskip("open_clip")
pytestmark = pytest.mark.filterwarnings("ignore")

CONFIG = {"embed_dim": 24, "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
          "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}}


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory):
    """open_clip_config.json and open_clip_model.safetensors, as the hub stores a model."""
    from safetensors.torch import save_file

    torch.manual_seed(0)
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("tiny-clip")
    model = open_clip.CLIP(**CONFIG)
    save_file(model.state_dict(), str(folder / "open_clip_model.safetensors"))
    preprocess = {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28], "interpolation": "bicubic", "resize_mode": "shortest"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": preprocess}))
    return folder


def clip(seed: int = 0, num: int = 6) -> ClipFrames:
    frames = list(np.random.default_rng(seed).integers(0, 256, (num, 48, 64, 3), np.uint8))
    times = np.arange(num) / 4
    return ClipFrames(start_s=0.0, end_s=num / 4, times_s=times, bgr=frames, details=[], frame_times_s=times,
                      frame_luma=np.ones(num), frame_change=np.zeros(num), frame_clean=np.ones(num, bool))


def direct(folder, frames) -> torch.Tensor:
    """Embeddings by open_clip called without our code."""
    from PIL import Image

    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    with torch.inference_mode():
        return model.eval().encode_image(torch.stack([preprocess(Image.fromarray(f[..., ::-1].copy())) for f in frames]),
                                         normalize=True)


def test_text_similarity_equals_open_clip_called_directly(tiny_clip):
    ours = MeasureTextSimilarity(str(tiny_clip))(clip(), "a dog runs")["text_similarity"]
    model, _ = open_clip.create_model_from_pretrained(f"local-dir:{tiny_clip}")
    with torch.inference_mode():
        text = model.eval().encode_text(open_clip.get_tokenizer(f"local-dir:{tiny_clip}")(["a dog runs"]), normalize=True)
    picks = [clip().bgr[i] for i in np.unique(clip().spread(4))]
    assert ours == pytest.approx(float((direct(tiny_clip, picks) @ text[0]).mean()), abs=1e-5)
    assert -1 <= ours <= 1 and ours != MeasureTextSimilarity(str(tiny_clip))(clip(), "night")["text_similarity"]


@pytest.mark.parametrize("form", ["safetensors", "pth"])
def test_aesthetic_head_of_layers(tiny_clip, tmp_path, form):
    torch.manual_seed(1)
    mlp = torch.nn.Sequential(torch.nn.Linear(24, 8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 1)).eval()
    state, path = {f"layers.{k}": v for k, v in mlp.state_dict().items()}, str(tmp_path / f"head.{form}")
    if form == "pth":
        torch.save(state, path)
    else:
        from safetensors.torch import save_file

        save_file(state, path)
    ours = MeasureAesthetics(str(tiny_clip), path)(clip())["aesthetic_score"]
    picks = [clip().bgr[i] for i in np.unique(clip().spread(4))]
    with torch.inference_mode():
        assert ours == pytest.approx(float(mlp(direct(tiny_clip, picks)).mean()), abs=1e-5)


def test_without_a_model_there_is_no_score_and_the_reason_is_told():
    with pytest.raises(BackendError, match="no model was given"):
        MeasureAesthetics()(clip())
    with pytest.raises(BackendError, match="no model was given"):
        MeasureTextSimilarity()(clip(), "text")


def test_heads_that_do_not_fit_or_want_to_run_code_are_refused(tiny_clip, tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(1, 768), "bias": torch.zeros(1)}, str(tmp_path / "big.safetensors"))
    with pytest.raises(BackendError, match="takes 768 numbers, .* gives 24"):
        MeasureAesthetics(str(tiny_clip), str(tmp_path / "big.safetensors"))
    torch.save({"weight": print}, tmp_path / "code.pth")
    with pytest.raises(BackendError, match="more than tensors"):
        MeasureAesthetics(str(tiny_clip), str(tmp_path / "code.pth"))
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"weight": 1}))
    with pytest.raises(BackendError):
        MeasureAesthetics(str(tiny_clip), str(tmp_path / "plain.pth"))
    with pytest.raises(BackendError, match="needs both"):
        MeasureAesthetics(str(tiny_clip))
    with pytest.raises(BackendError, match="cannot load an open_clip model"):
        MeasureTextSimilarity(str(tmp_path))
