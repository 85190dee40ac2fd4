"""Sizes of the two models, read from and written to the released configuration files.

For loaders and tests. Defaults are the released ones (spec 2.2, 2.3 and 3); every number of a
smaller model goes through the same classes.
"""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from bernini.errors import CheckpointError


def _known(cls, values: dict):
    """`cls` from the keys of `values` that it has; others belong to other readers of the file."""
    names = {f.name for f in fields(cls)}
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in names})


@dataclass(frozen=True, kw_only=True)
class RendererConfig:
    """One expert; the field names are those of diffusers' `WanTransformer3DModel`."""

    patch_size: tuple[int, int, int] = (1, 2, 2)
    num_attention_heads: int = 40
    attention_head_dim: int = 128
    in_channels: int = 16
    out_channels: int = 16
    text_dim: int = 4096
    freq_dim: int = 256
    ffn_dim: int = 13824
    num_layers: int = 40
    cross_attn_norm: bool = True
    qk_norm: str = "rms_norm_across_heads"
    eps: float = 1e-6
    rope_max_seq_len: int = 1024

    @classmethod
    def of(cls, values: dict) -> "RendererConfig":
        """From a diffusers config; variants that the renderer does not have are refused."""
        if values.get("image_dim") or values.get("added_kv_proj_dim"):
            raise CheckpointError(
                "this transformer has an image embedder (Wan I2V); Bernini uses the T2V form"
            )
        if values.get("qk_norm", cls.qk_norm) != cls.qk_norm or not values.get("cross_attn_norm", True):
            raise CheckpointError("this transformer has other norms than Wan T2V; cannot be loaded")
        return _known(cls, values)

    @property
    def inner_dim(self) -> int:
        """Width of the hidden states."""
        return self.num_attention_heads * self.attention_head_dim

    def to_json(self) -> dict:
        """As diffusers writes it, with the class name that its loader wants."""
        return {"_class_name": "WanTransformer3DModel", **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class HeadsConfig:
    """Connector and ViT decoder on top of the planner."""

    hidden: int = 3584  # width of the planner
    context_dim: int = 4096  # width of the renderer's text condition
    vit_dim: int = 3584  # width of the ViT features
    decoder_width: int = 4096
    decoder_depth: int = 16
    decoder_shift: float = 2.0
    num_mask_tokens: int = 4096

    @classmethod
    def of(cls, config: dict, hidden: int) -> "HeadsConfig":
        """From the released `config.json` of the full model."""
        connector, decoder = config.get("connector_cfg", {}), config.get("clip_diff_cfg", {})
        return cls(
            hidden=hidden,
            context_dim=connector.get("out_dim_for_gen", cls.context_dim),
            vit_dim=connector.get("out_dim_for_vit", hidden),
            decoder_width=decoder.get("width", cls.decoder_width),
            decoder_depth=decoder.get("depth", cls.decoder_depth),
            decoder_shift=decoder.get("shift", cls.decoder_shift),
            num_mask_tokens=config.get("num_mask_token", cls.num_mask_tokens),
        )


def read_json(path: Path) -> dict:
    """A JSON object from a file of a model folder."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; the model folder is incomplete") from None
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from None
