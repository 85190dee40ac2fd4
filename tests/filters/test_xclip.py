"""X-CLIP through its real classes: a tiny random model in the real layout, loaded by the real code."""

from __future__ import annotations

import json

import numpy as np
import pytest

from manifests.errors import BackendError, ConfigError
from manifests.media import VideoReader
from manifests.video_writer import write_video
from pipelines.scan import ScanVideos
from tests.conftest import moving_frames
from tests.pipelines.test_scan import videos

torch = pytest.importorskip("torch", reason="the X-CLIP backend needs the extra 'models'")


@pytest.fixture(scope="module")
def tiny_xclip(tmp_path_factory):
    """XCLIPModel with its image processor and a two-word tokenizer, as a hub folder holds them."""
    from transformers import CLIPTokenizerFast, VideoMAEImageProcessor, XCLIPConfig, XCLIPModel, XCLIPProcessor

    torch.manual_seed(0)
    config = XCLIPConfig(
        text_config={"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64,
                     "vocab_size": 100},
        vision_config={"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
                       "mit_hidden_size": 32, "mit_num_attention_heads": 2, "mit_intermediate_size": 64,
                       "image_size": 224, "patch_size": 32, "num_frames": 8},
        projection_dim=32, prompt_layers=1, prompt_num_attention_heads=2)
    folder = tmp_path_factory.mktemp("xclip")
    XCLIPModel(config).save_pretrained(folder)
    words = folder / "words"
    words.mkdir()
    (words / "vocab.json").write_text(json.dumps({"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2}))
    (words / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizerFast(vocab=str(words / "vocab.json"), merges=str(words / "merges.txt"))
    processor = VideoMAEImageProcessor(size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224})
    XCLIPProcessor(processor, tokenizer).save_pretrained(folder)
    return folder


def test_embeddings_equal_those_of_transformers_called_directly(tiny_xclip, tmp_path):
    from transformers import AutoProcessor, XCLIPModel

    path = str(tmp_path / "a.mp4")
    write_video(path, moving_frames(100, size=(400, 224)), fps=25)
    scan = ScanVideos(("video_similarity",), embedder="xclip", embedder_options={"model": str(tiny_xclip)})
    (row,) = scan(videos([path])).to_pylist()
    (clip,) = row["clips"]
    ours = np.array(clip["video_embedding"])
    assert ours.shape == (32,) and abs(np.linalg.norm(ours) - 1) < 1e-5

    with VideoReader(path) as reader:  # 4 frames a second are sampled, 8 of those evenly spread
        sampled = [f.rgb() for f in reader if abs(f.time_s * 4 - round(f.time_s * 4)) < 0.09][:16]
    frames = [sampled[int((i + 0.5) / 8 * len(sampled))] for i in range(8)]
    processor = AutoProcessor.from_pretrained(tiny_xclip)
    pixels = (getattr(processor, "video_processor", None) or processor.image_processor)(
        frames, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        features = XCLIPModel.from_pretrained(tiny_xclip).eval().get_video_features(pixel_values=pixels)
    features = getattr(features, "pooler_output", features)[0].numpy()
    cosine = float(ours @ features / np.linalg.norm(features))
    assert cosine > 0.999  # frames are read through two colour conversions, which differ by rounding


def test_a_folder_without_a_model_says_what_it_needs(tmp_path):
    with pytest.raises(BackendError, match="cannot load an X-CLIP model.*--embedder-model"):
        ScanVideos(("video_similarity",), embedder="xclip", embedder_options={"model": str(tmp_path)})


def test_an_unknown_embedder_lists_the_known_ones():
    with pytest.raises(ConfigError, match="no embedder 'magic'; known: classical, xclip"):
        ScanVideos(("video_similarity",), embedder="magic")
