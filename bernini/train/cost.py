"""What an example costs: floating-point operations of one forward, exactly counted.

Balance over ranks, MFU and the mixture in tokens use these. Attention stays inside a sample, so in a
pack the quadratic term is the sum of nᵢ², and the cost of a pack is the sum of its examples' costs
(spec: performance.md, B.0; equal to torch's FlopCounter to 0.01 %).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bernini.layouts import ModelFolder
from bernini.text import MAX_TOKENS

CHAT_TOKENS = 20  # of the planner's chat itself: roles and vision borders, give or take a few


@dataclass(frozen=True, kw_only=True)
class VisualTokens:
    """Tokens of one visual in the renderer (`latent`) and in the planner (`vit`)."""

    kind: str
    is_target: bool
    latent: int
    vit: int


@dataclass(frozen=True, kw_only=True)
class ExampleTokens:
    """Tokens of one example, by what they are."""

    visuals: tuple[VisualTokens, ...]
    text: int = 0
    empty_text: int = 0
    planner_text: int = 0

    def dropped(self, *, text: bool, images: bool, videos: bool) -> ExampleTokens:
        """What is left when conditions are dropped; targets stay."""
        gone = {kind for kind, drop in (("image", images), ("video", videos)) if drop}
        kept = tuple(v for v in self.visuals if v.is_target or v.kind not in gone)
        return ExampleTokens(visuals=kept, text=self.empty_text if text else self.text, empty_text=self.empty_text,
                             planner_text=self.planner_text)

    @property
    def latent(self) -> int:
        return sum(v.latent for v in self.visuals)

    @property
    def vit(self) -> int:
        return sum(v.vit for v in self.visuals)


@dataclass(frozen=True, kw_only=True)
class CostModel:
    """Sizes of the two networks; a part that a stage does not train or run has 0 layers.

    Defaults are one A14B expert. `context` is the least number of rows that the renderer's
    cross-attention sees: texts are padded to it, planner states stand behind the text.
    """

    renderer_layers: int = 40
    renderer_width: int = 5120
    renderer_ffn: int = 13824
    context: int = MAX_TOKENS
    planner_layers: int = 0
    planner_width: int = 3584
    planner_ffn: int = 18944
    planner_kv_width: int = 512

    @classmethod
    def of(cls, model: ModelFolder, needs: Sequence[str]) -> CostModel:
        """For a model folder: renderer where latents are needed, planner where ViT features are."""
        values: dict[str, int] = {"renderer_layers": 0}
        if "latent" in needs:
            c = model.part("high").config
            values |= {"renderer_layers": c["num_layers"], "renderer_ffn": c["ffn_dim"],
                       "renderer_width": c["num_attention_heads"] * c["attention_head_dim"]}
        if "vit" in needs:
            c = model.part("planner").config["mllm"]
            c = c.get("text_config", c)
            head = c["hidden_size"] // c["num_attention_heads"]
            values |= {"planner_layers": c["num_hidden_layers"], "planner_width": c["hidden_size"],
                       "planner_ffn": c["intermediate_size"], "planner_kv_width": head * c["num_key_value_heads"]}
        return cls(**values)

    def num_tokens(self, tokens: ExampleTokens) -> int:
        """Useful tokens of an example: what fills a pack (VAE tokens of all segments + text, as released).

        Where the planner runs, its tokens fill the pack too.
        """
        rendered = tokens.latent + tokens.text if self.renderer_layers and tokens.latent else 0
        planned = tokens.vit + tokens.planner_text if self.planner_layers else 0
        return rendered + planned

    def flops(self, tokens: ExampleTokens) -> float:
        """Of one forward of an example through what the stage runs."""
        total = 0.0
        plan = tokens.vit + tokens.planner_text if self.planner_layers else 0
        if self.renderer_layers and tokens.latent:
            total += self.renderer_flops(tokens.latent, max(self.context, tokens.text + plan))
        if self.planner_layers:
            total += self.planner_flops(plan + CHAT_TOKENS)
        return total

    def renderer_flops(self, n: int, context: int | None = None) -> float:
        """Of the DiT for `n` tokens of one sample and `context` rows (performance.md, B.0)."""
        d, f, t = self.renderer_width, self.renderer_ffn, self.context if context is None else context
        per_layer = 8 * n * d * d + 4 * n * n * d + 4 * n * d * d + 4 * t * d * d + 4 * n * t * d + 4 * n * d * f
        return float(self.renderer_layers * per_layer)

    def planner_flops(self, n: int) -> float:
        """Of the language model for `n` tokens of one sample: q and o, k and v, scores, gated feed-forward."""
        d, f, kv = self.planner_width, self.planner_ffn, self.planner_kv_width
        return float(self.planner_layers * (4 * n * d * d + 4 * n * d * kv + 4 * n * n * d + 6 * n * d * f))
