"""What an example costs: floating-point operations of one forward, exactly counted.

Balance over ranks, MFU and the mixture in tokens use these. Attention stays inside a sample, so in a
pack the quadratic term is the sum of nᵢ², and the cost of a pack is the sum of its examples' costs
(spec: performance.md, B.0; equal to torch's FlopCounter to 0.01 %).

Counted is what runs: the renderer where a visual is to be generated, a planner's document where one is
planned and another where a text is learned (`chats`), the ViT decoder for each masked token and noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bernini.config import HeadsConfig
from bernini.layouts import ModelFolder
from bernini.text import MAX_TOKENS
from bernini.train.example import Part

CHAT_TOKENS = 20  # of a planner's document itself: roles and vision borders, give or take a few
SYSTEM_TOKENS = 12  # of the planner's system prompt, what is left of its texts without the prompt
ASK_TOKENS = 45  # that ask the planner to reason before it plans (generate.reasoning.ASK)


@dataclass(frozen=True, kw_only=True)
class VisualTokens:
    """Tokens of one visual in the renderer (`latent`) and in the planner (`vit`)."""

    kind: str
    is_target: bool
    latent: int
    vit: int


@dataclass(frozen=True, kw_only=True)
class ExampleTokens:
    """Tokens of one example, by what they are.

    `planner_text` are the texts of the document in which the target is planned, `written` all tokens of the
    one in which a text is learned, `learned` those to be learned, `masked` the target's that are to be found;
    `is_shown` says whether the renderer is shown the others.
    """

    visuals: tuple[VisualTokens, ...]
    text: int = 0
    empty_text: int = 0
    planner_text: int = 0
    written: int = 0
    learned: int = 0
    masked: int = 0
    is_shown: bool = True

    @classmethod
    def of(cls, visuals: Sequence[VisualTokens], parts: Sequence[Part], task: str, *, text: int, empty_text: int,
           planner_text: int) -> ExampleTokens:
        """Of a sample with these messages; `planner_text` counts all its texts, shared out by their letters."""
        made = cls(visuals=tuple(visuals), text=text, empty_text=empty_text, planner_text=planner_text)
        last = max((i for i, part in enumerate(parts) if part.is_learned), default=-1)
        if last < 0:
            return made
        asked = made.target is not None and task != "interleaved"
        each = planner_text / max(1, sum(len(part.text) for part in parts))
        learned = round(each * sum(len(part.text) for part in parts if part.is_learned))
        written = sum(visuals[part.visual].vit for part in parts[: last + 1] if part.visual is not None)
        written += round(each * sum(len(part.text) for part in parts[: last + 1])) + ASK_TOKENS * asked
        prompt = learned if asked and learned else planner_text  # what was reasoned is the prompt of the plan
        return replace(made, planner_text=prompt, written=written, learned=learned)

    def dropped(self, *, text: bool, images: bool, videos: bool, vit: bool = False,
                plan: bool = False) -> ExampleTokens:
        """What is left when conditions are dropped: all visuals but the last to be generated are conditions.

        A text is learned from everything that stands before it.
        """
        target, gone = self.target, {kind for kind, drop in (("image", images), ("video", videos)) if drop}
        kept = [v for v in self.visuals if v is target or target is None or v.kind not in gone]
        kept = [replace(v, vit=0) if vit and target is not None and v is not target else v for v in kept]
        return replace(self, visuals=tuple(kept), text=self.empty_text if text else self.text,
                       planner_text=min(self.planner_text, SYSTEM_TOKENS) if text else self.planner_text,
                       is_shown=not (plan or (vit and len(self.visuals) > 1)))

    def hiding(self, ratio: float) -> ExampleTokens:
        """With this share of the planned target masked."""
        target = self.target
        return self if target is None else replace(self, masked=num_masked(target.vit, ratio))

    @property
    def target(self) -> VisualTokens | None:
        """The last visual that is to be generated; None for understanding."""
        return next((v for v in reversed(self.visuals) if v.is_target), None)

    @property
    def latent(self) -> int:
        return sum(v.latent for v in self.visuals)

    @property
    def vit(self) -> int:
        return sum(v.vit for v in self.visuals)

    @property
    def planned(self) -> int:
        """Tokens of the document in which the target is planned, without its chat's."""
        return self.vit + self.planner_text if self.target is not None and self.target.vit else 0


def num_masked(count: int, ratio: float) -> int:
    """Masked ones of a target's tokens: at least one where there are any."""
    return min(count, max(1, round(ratio * count)))


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
    planner_words: int = 0
    decoder_depth: int = 0
    decoder_width: int = 4096
    vit_width: int = 3584
    vit_noises: int = 16

    @classmethod
    def of(cls, model: ModelFolder, needs: Sequence[str], vit_noises: int = 16) -> CostModel:
        """For a model folder: renderer where latents are needed, planner where ViT features are.

        `vit_noises` 0: the planner is not trained in ViT space.
        """
        values: dict[str, int] = {"renderer_layers": 0}
        if "latent" in needs:
            c = model.part("high").config
            values |= {"renderer_layers": c["num_layers"], "renderer_ffn": c["ffn_dim"],
                       "renderer_width": c["num_attention_heads"] * c["attention_head_dim"]}
        if "vit" in needs:
            whole = model.part("planner").config
            c = {**whole["mllm"], **whole["mllm"].get("text_config", {})}
            heads = HeadsConfig.of(whole, c["hidden_size"])
            head = c["hidden_size"] // c["num_attention_heads"]
            values |= {"planner_layers": c["num_hidden_layers"], "planner_width": c["hidden_size"],
                       "planner_ffn": c["intermediate_size"], "planner_kv_width": head * c["num_key_value_heads"],
                       "planner_words": c["vocab_size"], "decoder_depth": heads.decoder_depth,
                       "decoder_width": heads.decoder_width, "vit_width": heads.vit_dim, "vit_noises": vit_noises}
        return cls(**values)

    def num_tokens(self, tokens: ExampleTokens) -> int:
        """Useful tokens of an example: what fills a pack (VAE tokens of all segments + text, as released).

        Where the planner runs, its tokens fill the pack too. 0: nothing in it is trained.
        """
        rendered = tokens.latent + tokens.text if self._renders(tokens) else 0
        return rendered + (tokens.planned + tokens.written if self.planner_layers else 0)

    def flops(self, tokens: ExampleTokens) -> float:
        """Of one forward of an example through what the stage runs."""
        total, plan = 0.0, 0
        if self.planner_layers:
            plan = tokens.planned + CHAT_TOKENS if tokens.planned else 0
            total += sum(self.planner_flops(n) for n in (plan, tokens.written + CHAT_TOKENS if tokens.written else 0))
            total += 2.0 * tokens.learned * self.planner_width * self.planner_words
            total += self.decoder_flops(tokens.masked * self.vit_noises) if tokens.planned else 0
        if self._renders(tokens):
            hidden = tokens.masked if tokens.is_shown else tokens.target.vit
            context = tokens.text + (plan - hidden if plan else 0)
            total += self.renderer_flops(tokens.latent, max(self.context, context))
        return total

    def _renders(self, tokens: ExampleTokens) -> bool:
        return bool(self.renderer_layers and tokens.target is not None and tokens.target.latent)

    def renderer_flops(self, n: int, context: int | None = None) -> float:
        """Of the DiT for `n` tokens of one sample and `context` rows (performance.md, B.0)."""
        d, f, t = self.renderer_width, self.renderer_ffn, self.context if context is None else context
        per_layer = 8 * n * d * d + 4 * n * n * d + 4 * n * d * d + 4 * t * d * d + 4 * n * t * d + 4 * n * d * f
        return float(self.renderer_layers * per_layer)

    def planner_flops(self, n: int) -> float:
        """Of the language model for `n` tokens of one sample: q and o, k and v, scores, gated feed-forward."""
        d, f, kv = self.planner_width, self.planner_ffn, self.planner_kv_width
        return float(self.planner_layers * (4 * n * d * d + 4 * n * d * kv + 4 * n * n * d + 6 * n * d * f))

    def decoder_flops(self, rows: int) -> float:
        """Of the ViT decoder for `rows` noises: a time, a condition, blocks of five squares, both ends (spec 3.4)."""
        w, v = self.decoder_width, self.vit_width
        return 2.0 * rows * w * (w * (5 * self.decoder_depth + 3) + 3 * v + 256) if self.decoder_depth else 0.0
