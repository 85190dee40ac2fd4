"""A Qwen3-VL with random weights, 1.3 MB, made in seconds: real files in the real layout.

Two text layers and two vision layers of width 64, a byte-level BPE of about 500 tokens with Qwen's
own special tokens, the chat template of Qwen3-VL cut down to what a chat with pictures needs.

    python tests/annotators/make_tiny_qwen3vl.py FOLDER
"""

from __future__ import annotations

import json
import os
import sys

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
           "<|image_pad|>", "<|video_pad|>")
TEMPLATE = (
    "{%- for message in messages -%}<|im_start|>{{ message.role }}\n"
    "{%- if message.content is string -%}{{ message.content }}{%- else -%}"
    "{%- for part in message.content -%}"
    "{%- if part.type == 'image' or 'image_url' in part or 'image' in part -%}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{%- elif part.type == 'video' or 'video' in part -%}<|vision_start|><|video_pad|><|vision_end|>"
    "{%- elif 'text' in part -%}{{ part.text }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}<|im_end|>\n{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|im_start|>assistant\n{%- endif -%}"
)
CORPUS = ("The camera pans slowly to the left and a man in a red coat walks into the picture.",
          "Remove the dog from the video and keep the background as it is.", '{"camera": "static", "score": 4}',
          "The woman sits at a table while light falls through the window behind her.")
MIN_PIXELS, MAX_PIXELS = 32 * 32, 64 * 64


def make_tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import Qwen2TokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=list(SPECIAL), show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(CORPUS, trainer)
    return Qwen2TokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>",
                              unk_token=None, model_max_length=8192, chat_template=TEMPLATE,
                              additional_special_tokens=list(SPECIAL[1:]))


def make_config(tokenizer):
    from transformers import Qwen3VLConfig

    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    return Qwen3VLConfig(
        text_config={"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
                     "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32,
                     "max_position_embeddings": 8192, "tie_word_embeddings": True,
                     "eos_token_id": ids["<|im_end|>"], "bos_token_id": ids["<|endoftext|>"],
                     "pad_token_id": ids["<|endoftext|>"],
                     "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 4, 4],
                                         "mrope_interleaved": True}},
        vision_config={"depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 2, "patch_size": 16,
                       "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 64,
                       "deepstack_visual_indexes": [0, 1], "num_position_embeddings": 256},
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True)


def make(folder: str) -> str:
    import torch
    from transformers import (
        GenerationConfig,
        Qwen2VLImageProcessorFast,
        Qwen3VLForConditionalGeneration,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )

    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    sizes = {"size": {"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS}, "patch_size": 16, "merge_size": 2,
             "temporal_patch_size": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    processor = Qwen3VLProcessor(Qwen2VLImageProcessorFast(**sizes), tokenizer, Qwen3VLVideoProcessor(**sizes),
                                 chat_template=TEMPLATE)
    model = Qwen3VLForConditionalGeneration(make_config(tokenizer)).to(torch.bfloat16)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id,
                                               pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with open(os.path.join(folder, "chat_template.jinja"), "w") as file:
        file.write(TEMPLATE)
    return folder


if __name__ == "__main__":
    print(json.dumps({"model": make(sys.argv[1])}))
