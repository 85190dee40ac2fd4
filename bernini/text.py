"""Prompts → text features of the renderer (spec 2.4): UMT5 encoder, at most 512 tokens.

Features are `[rows, text_dim]`. The renderer attends to all rows, padding included, so the number
of zero rows is part of the condition: 512 for the renderer alone; at least 512, never cut, when
planner features follow.
"""

import torch
from torch import Tensor

from bernini.prompts import clean_prompt, text_system_prompt

MAX_TOKENS = 512


class TextEncoder:
    """Tokenizer and encoder; call with a text."""

    def __init__(self, tokenizer, model):
        self.tokenizer, self.model = tokenizer, model.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, text: str) -> Tensor:
        """Features of the valid tokens `[rows, text_dim]` on the CPU, padding cut off."""
        encoded = self.tokenizer(
            [text],
            padding="max_length",
            truncation=True,
            max_length=MAX_TOKENS,
            return_tensors="pt",
            add_special_tokens=True,
            return_attention_mask=True,
        ).to(self.model.device)
        out = self.model(encoded.input_ids, encoded.attention_mask).last_hidden_state[0]
        return out[: int(encoded.attention_mask.sum())].cpu()


def positive_text(task: str, prompt: str, system_prompt: str = "") -> str:
    """System prompt and cleaned prompt, with nothing between them, as trained."""
    return (system_prompt or text_system_prompt(task)) + clean_prompt(prompt)


def context(text: Tensor, plan: Tensor | None = None) -> Tensor:
    """`[1, rows, text_dim]`: text rows, planner rows, zero rows up to 512."""
    rows = text if plan is None else torch.cat([text, plan.to(text)])
    missing = max(0, MAX_TOKENS - len(rows))
    return torch.nn.functional.pad(rows, (0, 0, 0, missing)).unsqueeze(0)
