"""A complete model in miniature, random weights, in a released layout: `python -m bernini.tiny DIR`.

For tests, the demo and training trials: the real classes with small sizes, so every path runs in
seconds on two cores. What it generates is noise.
"""

import json
import sys
from pathlib import Path

import torch
from torch import nn

from bernini.config import HeadsConfig, RendererConfig
from bernini.errors import CaseError
from bernini.weights import save_sharded

LAYOUTS = ("full", "diffusers", "one_expert", "experts")
TEXT_DIM = 32
RENDERER = RendererConfig(
    num_attention_heads=2, attention_head_dim=24, text_dim=TEXT_DIM, freq_dim=32, ffn_dim=64, num_layers=2
)
SPECIAL = [
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
]


def write_tiny(folder: str | Path, layout: str = "full", seed: int = 0) -> Path:
    """Writes a model; "experts" also writes its base beside it, as `base/`."""
    if layout not in LAYOUTS:
        raise CaseError(f"unknown tiny layout {layout!r}; known: {', '.join(LAYOUTS)}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    {"full": _full, "diffusers": _diffusers, "one_expert": _one_expert, "experts": _experts}[layout](folder)
    return folder


def tiny_renderer() -> nn.Module:
    """One expert with random weights, all of them away from 0 and 1."""
    from bernini.renderer.transformer import Renderer

    return _stir(Renderer(RENDERER))


def tiny_mllm_config():
    """Qwen2.5-VL: 3 layers, width 64; patches and pixel limits are the real ones."""
    from transformers import Qwen2_5_VLConfig

    ids = {name: 256 + i for i, name in enumerate(SPECIAL)}
    return Qwen2_5_VLConfig(
        text_config=dict(
            vocab_size=272,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            bos_token_id=None,
            eos_token_id=ids["<|im_end|>"],
            rope_parameters=dict(rope_type="default", rope_theta=1e6, mrope_section=[2, 3, 3]),
        ),
        vision_config=dict(
            depth=2,
            hidden_size=32,
            num_heads=2,
            intermediate_size=48,
            out_hidden_size=64,
            fullatt_block_indexes=[1],
            window_size=112,
        ),
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        bos_token_id=None,
        eos_token_id=ids["<|im_end|>"],
    )


def tiny_planner() -> nn.Module:
    """The planner with all its heads."""
    from bernini.planner.model import Planner

    return _stir(Planner(tiny_mllm_config(), HeadsConfig.of(_full_config(), 64)), around=0.08)


def tiny_vae() -> nn.Module:
    """Wan's autoencoder, 16 channels, factors 4 and 8, few features."""
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan(base_dim=8, dim_mult=[1, 1, 2, 2], num_res_blocks=1)


def tiny_text_encoder() -> nn.Module:
    """UMT5 encoder over bytes."""
    from transformers import UMT5Config, UMT5EncoderModel

    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=272,
            d_model=TEXT_DIM,
            d_kv=8,
            d_ff=64,
            num_layers=2,
            num_heads=4,
            pad_token_id=256,
            eos_token_id=257,
            tie_word_embeddings=False,
            feed_forward_proj="gated-gelu",
        )
    )


def _stir(module: nn.Module, around: float = 0.05) -> nn.Module:
    """Moves every parameter a little, so that no norm is exactly 1 and no bias exactly 0."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * around)
    return module


def _full_config() -> dict:
    return {
        "model_type": "bernini",
        "mllm_subfolder": "mllm",
        "vae_subfolder": "vae",
        "t5_text_encoder_subfolder": "t5_text_encoder",
        "t5_tokenizer_subfolder": "t5_tokenizer",
        "switch_dit_boundary": 0.875,
        "shift": 3.0,
        "num_mask_token": 4,
        "connector_cfg": {"out_dim_for_gen": TEXT_DIM, "out_dim_for_vit": 64},
        "clip_diff_cfg": {"z_channels": 64, "target_channels": 64, "width": 48, "depth": 2, "shift": 2.0},
    }


def _full(folder: Path) -> None:
    from bernini.planner.model import old_keys

    planner, high, low, text = tiny_planner(), tiny_renderer(), tiny_renderer(), tiny_text_encoder()
    state = planner.state_dict()
    names = old_keys(state)
    tensors = {names[k]: v for k, v in state.items()}
    tensors |= {f"diff_dec.transformer.{k}": v for k, v in high.state_dict().items()}
    tensors |= {f"diff_dec_low.transformer_2.{k}": v for k, v in low.state_dict().items()}
    save_sharded(tensors.items(), folder / "bernini", "model", shard_bytes=400_000)
    _json(folder / "config.json", _full_config())
    for name in ("transformer", "transformer_2"):
        _json(folder / f"{name}_config.json", RENDERER.to_json())
    (folder / "mllm").mkdir()
    tiny_mllm_config().save_pretrained(folder / "mllm")
    _planner_tokenizer().save_pretrained(folder / "mllm")
    text.save_pretrained(folder / "t5_text_encoder")
    _text_tokenizer().save_pretrained(folder / "t5_tokenizer")
    tiny_vae().save_pretrained(folder / "vae")


def _diffusers(folder: Path, names: tuple[str, ...] = ("transformer", "transformer_2")) -> None:
    for name in names:
        _json(folder / name / "config.json", RENDERER.to_json())
        state = tiny_renderer().state_dict()
        save_sharded(state.items(), folder / name, "diffusion_pytorch_model")
    tiny_text_encoder().save_pretrained(folder / "text_encoder")
    _text_tokenizer().save_pretrained(folder / "tokenizer")
    tiny_vae().save_pretrained(folder / "vae")
    two = len(names) == 2
    _json(
        folder / "config.json",
        {
            "model_type": "bernini_renderer",
            "switch_dit_boundary": 0.875 if two else 0,
            "skip_transformer_2": not two,
            "max_sequence_length": 512,
            "use_src_id_rotary_emb": True,
        },
    )


def _one_expert(folder: Path) -> None:
    _diffusers(folder, ("transformer",))


def _experts(folder: Path) -> None:
    _diffusers(folder / "base")
    for name, prefix in (("high", "ema.diff_dec.transformer."), ("low", "ema.diff_dec.transformer_2.")):
        state = {prefix + k: v for k, v in tiny_renderer().state_dict().items()}
        save_sharded(state.items(), folder / f"bernini_renderer_{name}", "model", shard_bytes=100_000)
    _json(folder / "config.json", {"model_type": "bernini_renderer", "switch_dit_boundary": 0.875})


def _byte_tokenizer(special: list[str]):
    """One token a byte, then the special tokens from 256 on."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    return tokenizer


def _planner_tokenizer():
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=_byte_tokenizer(SPECIAL),
        pad_token="<|im_end|>",
        eos_token="<|im_end|>",
        additional_special_tokens=SPECIAL,
    )


def _text_tokenizer():
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    tokenizer = _byte_tokenizer(["<pad>", "</s>"])
    tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 257)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>")


def _json(path: Path, values: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=2))


if __name__ == "__main__":
    write_tiny(*sys.argv[1:3])
