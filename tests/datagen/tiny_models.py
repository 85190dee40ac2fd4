"""Small models of the real architectures with random or hand-set weights, written in the real layouts.

They are loaded through the code that loads the published ones; nothing here is a stand-in class.
"""

from __future__ import annotations

from pathlib import Path

import torch


def write_grounding_dino(folder: Path, sure: bool = False) -> Path:
    """`sure`: features so long that some query is above any threshold, as with trained weights where something is there."""
    from transformers import (
        BertConfig,
        BertTokenizer,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
        SwinConfig,
    )

    folder.mkdir(parents=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", "a", "red", "ball", "person", "animal", "vehicle", "object"]
    (folder / "vocab.txt").write_text("\n".join(words))
    torch.manual_seed(0)
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(image_size=64, embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 2], window_size=4,
                                   out_features=["stage2", "stage3", "stage4"]),
        text_config=BertConfig(vocab_size=len(words), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                               intermediate_size=32, max_position_embeddings=64),
        num_queries=12, encoder_layers=1, decoder_layers=2, encoder_ffn_dim=32, decoder_ffn_dim=32, d_model=32,
        encoder_attention_heads=2, decoder_attention_heads=2, max_text_len=32)
    model = GroundingDinoForObjectDetection(config)
    if sure:
        torch.nn.init.constant_(model.model.decoder.layer_norm.weight, 30.0)
    model.save_pretrained(folder)
    images = GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 128})
    GroundingDinoProcessor(images, BertTokenizer(str(folder / "vocab.txt"))).save_pretrained(folder)
    return folder


def write_sam2(folder: Path, side: int = 128) -> Path:
    from transformers import Sam2HieraDetConfig, Sam2VideoConfig, Sam2VideoModel, Sam2VideoProcessor, Sam2VisionConfig
    from transformers.models.sam2.image_processing_sam2 import Sam2ImageProcessor
    from transformers.models.sam2_video.video_processing_sam2_video import Sam2VideoVideoProcessor

    torch.manual_seed(0)
    widths = [8, 16, 32, 64]
    backbone = Sam2HieraDetConfig(hidden_size=8, image_size=[side, side], blocks_per_stage=[1, 1, 2, 1],
                                  embed_dim_per_stage=widths, num_attention_heads_per_stage=[1, 1, 2, 4],
                                  window_size_per_stage=[8, 4, 4, 2], global_attention_blocks=[3],
                                  window_positional_embedding_background_size=[4, 4])
    vision = Sam2VisionConfig(backbone_config=backbone, backbone_channel_list=widths[::-1],
                              backbone_feature_sizes=[[side // s, side // s] for s in (4, 8, 16)])
    prompt = {"image_size": side, "patch_size": 16}
    config = Sam2VideoConfig(vision_config=vision, prompt_encoder_config=prompt, image_size=side,
                             memory_attention_num_layers=1, memory_attention_feed_forward_hidden_size=64,
                             memory_attention_rope_feat_sizes=[side // 16, side // 16])
    Sam2VideoModel(config).save_pretrained(folder)
    size = {"height": side, "width": side}
    Sam2VideoProcessor(Sam2ImageProcessor(size=size), Sam2VideoVideoProcessor(size=size)).save_pretrained(folder)
    return folder


class BrightestBox(torch.nn.Module):
    """YOLOX's raw output `(1, N, 85)`: one sure person whose box is the bright part of the picture."""

    def __init__(self, side: int):
        super().__init__()
        self.side = side
        cells = [(x, y, s) for s in (8, 16, 32) for y in range(side // s) for x in range(side // s)]
        self.num = len(cells)
        self.register_buffer("cells", torch.tensor(cells, dtype=torch.float32))

    def forward(self, image):
        bright = (image.mean(1, keepdim=True) > 180).float()
        columns, rows = bright.amax((0, 1, 2)), bright.amax((0, 1, 3))
        places = torch.arange(self.side, dtype=torch.float32)
        x0, x1 = (places + (1 - columns) * 1e4).amin(), (places * columns).amax() + 1
        y0, y1 = (places + (1 - rows) * 1e4).amin(), (places * rows).amax() + 1
        stride, seen = self.cells[:, 2], columns.amax()
        first = torch.cat([torch.ones(1), torch.zeros(self.num - 1)])
        centre = torch.stack([(x0 + x1) / 2 / stride - self.cells[:, 0], (y0 + y1) / 2 / stride - self.cells[:, 1]], 1)
        size = torch.stack([torch.log((x1 - x0).clamp(min=1) / stride), torch.log((y1 - y0).clamp(min=1) / stride)], 1)
        score = (first * seen)[:, None]
        return torch.cat([centre, size, score, score, torch.zeros(self.num, 79)], 1)[None]


class FixedPose(torch.nn.Module):
    """SimCC output `(1, 133, 2 W)`, `(1, 133, 2 H)`: keypoint k lies at a known place of the person's box."""

    def __init__(self, height: int, width: int, places: torch.Tensor):
        super().__init__()
        self.register_buffer("x", torch.nn.functional.one_hot((places[:, 0] * 2 * width).long(), 2 * width).float())
        self.register_buffer("y", torch.nn.functional.one_hot((places[:, 1] * 2 * height).long(), 2 * height).float())

    def forward(self, image):
        zero = image.mean() * 0
        return self.x[None] * 0.9 + zero, self.y[None] * 0.9 + zero


def body_places() -> torch.Tensor:
    """`(133, 2)` shares of the model's picture: a standing person; the rest of the points near the wrists."""
    body = [(.5, .2), (.52, .18), (.48, .18), (.55, .2), (.45, .2), (.6, .35), (.4, .35), (.65, .5), (.35, .5), (.66, .62),
            (.34, .62), (.57, .6), (.43, .6), (.57, .75), (.43, .75), (.57, .88), (.43, .88)]
    return torch.tensor(body + [(.5, .5)] * (133 - len(body)))


def write_dwpose(folder: Path, side: int = 64, size: tuple[int, int] = (96, 72)) -> tuple[Path, Path]:
    """`(pose file, detector file)`."""
    folder.mkdir(parents=True, exist_ok=True)
    pose, people = folder / "pose.onnx", folder / "people.onnx"
    torch.onnx.export(FixedPose(*size, body_places()), (torch.zeros(1, 3, *size),), str(pose), dynamo=False,
                      input_names=["input"], output_names=["simcc_x", "simcc_y"])
    torch.onnx.export(BrightestBox(side), (torch.zeros(1, 3, side, side),), str(people), dynamo=False,
                      input_names=["images"], output_names=["output"])
    return pose, people
