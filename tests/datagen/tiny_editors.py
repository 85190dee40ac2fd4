"""The editors' own diffusers pipelines in miniature, random weights, saved as folders of the real layout."""

from __future__ import annotations

import json
from pathlib import Path

import diffusers
import torch
import transformers

SPECIAL = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]


def byte_tokenizer(special: list[str], **names: str):
    """One token a byte, then the special ones from 256 on."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def text_tokenizer():
    return byte_tokenizer(["<pad>", "</s>"], pad_token="<pad>", eos_token="</s>")


def clip_parts(folder: Path):
    words = folder / "words"
    words.mkdir(parents=True)
    (words / "vocab.json").write_text(json.dumps({"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2}))
    (words / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(vocab=str(words / "vocab.json"), merges=str(words / "merges.txt"),
                                           model_max_length=77)
    config = transformers.CLIPTextConfig(bos_token_id=0, eos_token_id=1, pad_token_id=1, hidden_size=32,
                                         intermediate_size=37, num_attention_heads=4, num_hidden_layers=1,
                                         vocab_size=100, projection_dim=32)
    return tokenizer, transformers.CLIPTextModel(config)


def flux_kontext(folder: Path) -> Path:
    torch.manual_seed(0)
    tokenizer, text = clip_parts(folder / "clip")
    t5 = transformers.T5Config(vocab_size=272, d_model=32, d_kv=8, d_ff=37, num_layers=1, num_heads=4, pad_token_id=256)
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=[4, 4, 8], guidance_embeds=True)
    vae = diffusers.AutoencoderKL(
        in_channels=3, out_channels=3, down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3, block_out_channels=(4, 4, 4), layers_per_block=1, latent_channels=1,
        norm_num_groups=1, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.06, scaling_factor=1.5)
    diffusers.FluxKontextPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(), text_encoder=text,
        text_encoder_2=transformers.T5EncoderModel(t5), tokenizer=tokenizer, tokenizer_2=text_tokenizer(),
        transformer=transformer, vae=vae).save_pretrained(folder / "model")
    return folder / "model"


def qwen_image_edit(folder: Path) -> Path:
    """Its autoencoder shrinks 32 times, as the pipeline always shows the source at one megapixel."""
    torch.manual_seed(0)
    ids = {name: 256 + i for i, name in enumerate(SPECIAL)}
    config = transformers.Qwen2_5_VLConfig(
        text_config=dict(vocab_size=272, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                         num_attention_heads=2, num_key_value_heads=2, bos_token_id=None,
                         eos_token_id=ids["<|im_end|>"],
                         rope_parameters=dict(rope_type="default", rope_theta=1e6, mrope_section=[1, 1, 2])),
        vision_config=dict(depth=1, hidden_size=16, intermediate_size=16, num_heads=2, out_hidden_size=16,
                           fullatt_block_indexes=[0]),
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"])
    tokenizer = transformers.Qwen2Tokenizer(vocab=_byte_vocabulary() | ids, merges=[], unk_token=None,
                                            eos_token=SPECIAL[1], pad_token=SPECIAL[1],
                                            additional_special_tokens=SPECIAL)
    pictures = transformers.Qwen2VLImageProcessor(min_pixels=56 * 56, max_pixels=112 * 112)
    processor = transformers.Qwen2VLProcessor(image_processor=pictures, tokenizer=tokenizer,
                                              video_processor=transformers.Qwen2VLVideoProcessor())
    vae = diffusers.AutoencoderKLQwenImage(
        base_dim=8, z_dim=4, dim_mult=[1] * 6, num_res_blocks=1, temperal_downsample=[False] * 5,
        latents_mean=[0.0] * 4, latents_std=[1.0] * 4)
    transformer = diffusers.QwenImageTransformer2DModel(
        patch_size=2, in_channels=16, out_channels=4, num_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, axes_dims_rope=(8, 4, 4))
    diffusers.QwenImageEditPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(), vae=vae, tokenizer=tokenizer, processor=processor,
        text_encoder=transformers.Qwen2_5_VLForConditionalGeneration(config),
        transformer=transformer).save_pretrained(folder)
    return folder


def _byte_vocabulary() -> dict[str, int]:
    from tokenizers import pre_tokenizers

    return {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}


def wan_vace(folder: Path) -> Path:
    torch.manual_seed(0)
    text = transformers.UMT5EncoderModel(transformers.UMT5Config(
        vocab_size=272, d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4, pad_token_id=256, eos_token_id=257,
        tie_word_embeddings=False, feed_forward_proj="gated-gelu"))
    transformer = diffusers.WanVACETransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=16, out_channels=16,
        text_dim=32, freq_dim=32, ffn_dim=32, num_layers=2, cross_attn_norm=True, qk_norm="rms_norm_across_heads",
        rope_max_seq_len=64, vace_layers=[0, 1], vace_in_channels=96)
    vae = diffusers.AutoencoderKLWan(base_dim=4, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
                                     temperal_downsample=[False, True, True])
    diffusers.WanVACEPipeline(
        tokenizer=text_tokenizer(), text_encoder=text, vae=vae, transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)).save_pretrained(folder)
    return folder


def stable_inpainting(folder: Path) -> Path:
    torch.manual_seed(0)
    tokenizer, text = clip_parts(folder / "clip")
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(8, 8), layers_per_block=1, sample_size=8, in_channels=9, out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32, attention_head_dim=2, norm_num_groups=4)
    vae = diffusers.AutoencoderKL(
        in_channels=3, out_channels=3, down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4, block_out_channels=(4, 4, 4, 4), layers_per_block=1,
        latent_channels=4, norm_num_groups=2)
    diffusers.StableDiffusionInpaintPipeline(
        vae=vae, text_encoder=text, tokenizer=tokenizer, unet=unet, scheduler=diffusers.DDIMScheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False).save_pretrained(folder / "model")
    return folder / "model"
