"""The planner's network: Qwen2.5-VL with Bernini's heads (paper, section 2.1.1; spec 3).

The modules are transformers'; the pass through the layers is written here, because the hybrid
mask, keys and values kept over planning steps and the unused last layer are not in its forward.
Hidden states "of the planner" are the input of the last layer (`hidden_states[-2]`).

N tokens, D width, H query heads, d head width.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bernini.config import HeadsConfig
from bernini.planner.chat import Chat, Special, positions
from bernini.planner.heads import Connector, ViTDecoder
from bernini.planner.masks import TARGET, attend, attend_flex, block_mask, visible

LayerKV = list[tuple[Tensor, Tensor]]


@dataclass
class Prefix:
    """What stays constant while a branch is planned: all tokens but the target."""

    hidden: Tensor  # `[N_fixed, D]`, input of the last layer
    keys_values: LayerKV  # of the tokens before the target, one pair a layer


class Planner(nn.Module):
    """Vision-language model, mask token, connector, decoder."""

    def __init__(self, mllm_config, heads: HeadsConfig):
        super().__init__()
        from transformers import Qwen2_5_VLForConditionalGeneration

        self.mllm = Qwen2_5_VLForConditionalGeneration(mllm_config)
        self.connector, self.vit_decoder = Connector(heads), ViTDecoder(heads)
        self.mask_tokens = nn.Parameter(torch.randn(1, heads.num_mask_tokens, heads.hidden) * 0.01)
        self.special = special_tokens(mllm_config)

    @property
    def language(self) -> nn.Module:
        return self.mllm.model.language_model

    @property
    def dtype(self) -> torch.dtype:
        return self.mask_tokens.dtype

    @property
    def device(self) -> torch.device:
        return self.mask_tokens.device

    def round_rotary(self) -> "Planner":
        """Rotary frequencies rounded to bfloat16, as the released pipeline has them (spec 13.1)."""
        rotary = self.language.rotary_emb
        rotary.inv_freq = rotary.inv_freq.bfloat16().float()
        self.mllm.model.visual.rotary_pos_emb = RoundedVisionRotary(self.mllm.model.visual.rotary_pos_emb)
        return self

    @torch.no_grad()
    def see(self, pixels: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """Merged visual features `[tokens, V]` of flattened patches `[patches, 3·2·p·p]`."""
        grid_thw = torch.tensor([grid], device=self.device)
        return self.mllm.model.visual(pixels.to(self.device, self.dtype), grid_thw).pooler_output

    def embed(self, chat: Chat, features: Sequence[Tensor]) -> Tensor:
        """Input embeddings `[N, D]`: sources carry their features, the target the mask token."""
        x = self.language.embed_tokens(chat.ids.to(self.device)).clone()
        for visual in chat.visuals:
            where = slice(visual.start, visual.start + visual.num_tokens(self.special.merge))
            x[where] = (
                self.mask_tokens[0, 0] if visual.role == "target" else features[visual.index].to(x.dtype)
            )
        return x

    def rotary(self, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines `[N, 1, d]` for positions `[3, N]`."""
        like = torch.empty(0, dtype=self.dtype, device=self.device)
        cos, sin = self.language.rotary_emb(like, position_ids[:, None].to(self.device))
        return cos[0].unsqueeze(1), sin[0].unsqueeze(1)

    def hidden_states(self, chat: Chat, x: Tensor, flex: bool | None = None) -> list[Tensor]:
        """States `[N, D]` before each layer and after the final norm, with the whole mask at once.

        For checks and training; planning itself needs no mask. `flex`: FlexAttention, by default on a GPU.
        """
        rotary = self.rotary(positions(chat, self.special))
        types, segments = chat.token_type.to(self.device), chat.segment_id.to(self.device)
        flex = self.device.type == "cuda" if flex is None else flex
        mask = block_mask(types, segments) if flex else visible(types, segments)
        states = [x]
        for layer in self.language.layers:
            q, k, v = project(layer, states[-1], rotary)
            seen = attend_flex(q, k, v, mask) if flex else attend(q, k, v, mask)
            states.append(finish(layer, states[-1], seen))
        states[-1] = self.language.norm(states[-1])
        return states

    @torch.no_grad()
    def prefix(self, chat: Chat, x: Tensor) -> Prefix:
        """One pass over everything but the target; causal, so no mask is built."""
        fixed = (chat.token_type != TARGET).nonzero().flatten()
        rotary = self.rotary(positions(chat, self.special)[:, fixed])
        x, kept = x[fixed.to(x.device)], []
        for layer in self.language.layers[:-1]:
            q, k, v = project(layer, x, rotary)
            kept.append((k[: chat.target.start], v[: chat.target.start]))
            x = finish(layer, x, attend(q, k, v, causal=True))
        return Prefix(x, kept)

    @torch.no_grad()
    def target_hidden(self, x: Tensor, prefixes: Sequence[Prefix], rotaries: Sequence[tuple]) -> list[Tensor]:
        """Target states `[n, D]` of several branches in one pass: linears packed, attention a branch each."""
        count = len(x)
        x = x.repeat(len(prefixes), 1)
        rotary = tuple(torch.cat(parts) for parts in zip(*rotaries, strict=True))
        for i, layer in enumerate(self.language.layers[:-1]):
            packed = zip(*(part.split(count) for part in project(layer, x, rotary)), strict=True)
            seen = [
                attend(q, torch.cat([p.keys_values[i][0], k]), torch.cat([p.keys_values[i][1], v]))
                for p, (q, k, v) in zip(prefixes, packed, strict=True)
            ]
            x = finish(layer, x, torch.cat(seen))
        return list(x.split(count))


class RoundedVisionRotary(nn.Module):
    """Vision rotary factors with frequencies, positions, phases and their cosines in bfloat16."""

    def __init__(self, exact: nn.Module):
        super().__init__()
        self.exact = exact

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        phases = position_ids[..., None].bfloat16() * self.exact.inv_freq.bfloat16()
        factors = (phases.cos().float(), phases.sin().float())
        return tuple(self.exact.recomposition_frequencies(f) for f in factors)


def project(layer: nn.Module, x: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Turned queries `[N, H, d]` and keys, and values `[N, H_kv, d]` of a layer."""
    attention, y = layer.self_attn, layer.input_layernorm(x)
    q, k, v = (
        p(y).unflatten(-1, (-1, attention.head_dim))
        for p in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    return turn(q, rotary), turn(k, rotary), v


def turn(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary embedding in halves: `x·cos + (-x2, x1)·sin`."""
    cos, sin = rotary
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def finish(layer: nn.Module, x: Tensor, seen: Tensor) -> Tensor:
    """Output projection, residual, feed-forward of a layer."""
    x = x + layer.self_attn.o_proj(seen.flatten(-2))
    return x + layer.mlp(layer.post_attention_layernorm(x))


def special_tokens(config) -> Special:
    """Chat constants from a Qwen2.5-VL configuration."""
    vision = config.vision_config
    return Special(
        config.image_token_id,
        config.video_token_id,
        config.vision_start_token_id,
        config.vision_end_token_id,
        vision.spatial_merge_size,
        vision.tokens_per_second,
    )


def new_keys(keys: Iterable[str]) -> dict[str, str]:
    """Released (old Qwen) names → transformers' names, for keys that start with `mllm.`."""
    renames = (("mllm.visual.", "mllm.model.visual."), ("mllm.model.", "mllm.model.language_model."))
    done = ("mllm.model.language_model.", "mllm.model.visual.")
    out = {}
    for key in keys:
        rename = next((r for r in renames if key.startswith(r[0]) and not key.startswith(done)), None)
        out[key] = rename[1] + key.removeprefix(rename[0]) if rename else key
    return out


def old_keys(keys: Iterable[str]) -> dict[str, str]:
    """transformers' names → released names."""
    out = {}
    for key in keys:
        out[key] = key.replace("mllm.model.visual.", "mllm.visual.", 1).replace(
            "mllm.model.language_model.", "mllm.model.", 1
        )
    return out
