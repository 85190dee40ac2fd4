"""Model folders: which layout one has, and where its parts are (spec 2.1).

Known layouts:
    full        bernini/ mllm/ t5_text_encoder/ t5_tokenizer/ vae/ config.json transformer(_2)_config.json
    diffusers   transformer/ [transformer_2/] text_encoder/ tokenizer/ vae/ [config.json]
    experts     bernini_renderer_high/ bernini_renderer_low/ beside a diffusers folder as `base`
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from bernini.config import HeadsConfig, RendererConfig, read_json
from bernini.errors import CheckpointError
from bernini.weights import Entries, Part, prefer_ema, read_entries, under

EXPERT_PREFIXES = {
    "high": ("diff_dec.transformer.", "transformer.", ""),
    "low": ("diff_dec_low.transformer_2.", "diff_dec.transformer_2.", "transformer_2.", ""),
}
PLANNER_PREFIXES = ("mllm.", "connector.", "vit_decoder.", "mask_tokens")


@dataclass(frozen=True)
class ModelFolder:
    """A model on disk: layout and parts, nothing loaded."""

    path: Path
    layout: str
    config: dict
    parts: dict[str, Part] = field(default_factory=dict)
    tokenizer: Path | None = None
    processor: Path | None = None

    @property
    def has_planner(self) -> bool:
        return "planner" in self.parts

    @property
    def boundary(self) -> float:
        """Sigma at which the experts change; 0 for one expert."""
        return float(self.config.get("switch_dit_boundary", 0.875)) if "low" in self.parts else 0.0

    def part(self, name: str) -> Part:
        if name not in self.parts:
            raise CheckpointError(
                f"{self.path} ({self.layout}) has no {name}; known parts: {', '.join(self.parts)}"
            )
        return self.parts[name]


def make_renderer(config: dict) -> nn.Module:
    from bernini.renderer.transformer import Renderer

    return Renderer(RendererConfig.of(config))


def make_vae(config: dict) -> nn.Module:
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan.from_config(config)


def make_text(config: dict) -> nn.Module:
    from transformers import UMT5Config, UMT5EncoderModel

    return UMT5EncoderModel(UMT5Config(**config))


def make_planner(config: dict) -> nn.Module:
    from transformers import Qwen2_5_VLConfig

    from bernini.planner.model import Planner

    mllm = Qwen2_5_VLConfig(**config["mllm"])
    return Planner(mllm, HeadsConfig.of(config["heads"], mllm.text_config.hidden_size))


def open_model(path: str | Path, base: str | Path | None = None) -> ModelFolder:
    """Reads the headers of a model folder (or of a hub id, fetched or in the cache) of any known layout."""
    path = local_folder(path)
    if (path / "bernini").is_dir():
        return _open_full(path)
    if (path / "transformer").is_dir():
        return _open_diffusers(path)
    if (path / "bernini_renderer_high").is_dir() or (path / "bernini_renderer_low").is_dir():
        return _open_experts(path, base)
    raise CheckpointError(
        f"{path} is no known model layout; expected bernini/ (full), transformer/ (diffusers) or "
        "bernini_renderer_high/ and bernini_renderer_low/"
    )


def local_folder(name: str | Path) -> Path:
    """The folder itself, or where the hub's client keeps the repository `owner/name`."""
    path = Path(name)
    if path.is_dir():
        return path
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", str(name)):
        raise CheckpointError(
            f"{path} is not a folder; give the folder of a downloaded model, or owner/name of the hub"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(name)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{name} is not a folder and cannot be fetched from the hub ({why})") from None


def _open_diffusers(path: Path) -> ModelFolder:
    config = read_json(path / "config.json") if (path / "config.json").exists() else {}
    parts = {"high": _folder_part("high", path / "transformer", make_renderer)}
    if (path / "transformer_2").is_dir():
        parts["low"] = _folder_part("low", path / "transformer_2", make_renderer)
    parts["text"] = _folder_part("text", path / "text_encoder", make_text)
    parts["vae"] = _folder_part("vae", path / "vae", make_vae)
    return ModelFolder(path, "diffusers", config, parts, tokenizer=path / "tokenizer")


def _folder_part(name: str, folder: Path, make: Callable[[dict], nn.Module]) -> Part:
    return Part(name, read_json(folder / "config.json"), read_entries(folder), make, folder=folder)


def _open_experts(path: Path, base: str | Path | None) -> ModelFolder:
    if base is None:
        raise CheckpointError(
            f"{path} holds the two experts only; give --base with Wan2.2-T2V-A14B in diffusers' layout"
        )
    beside = _open_diffusers(Path(base))
    config = read_json(path / "config.json") if (path / "config.json").exists() else beside.config
    parts = dict(beside.parts)
    for name in ("high", "low"):
        folder = path / f"bernini_renderer_{name}"
        entries = under(prefer_ema(read_entries(folder)), EXPERT_PREFIXES[name])
        parts[name] = Part(name, beside.part(name).config, entries, make_renderer, folder=folder)
    return ModelFolder(path, "experts", config, parts, tokenizer=beside.tokenizer)


def _open_full(path: Path) -> ModelFolder:
    from bernini.planner.model import new_keys

    config, stored = read_json(path / "config.json"), prefer_ema(read_entries(path / "bernini"))
    mllm_folder = path / config.get("mllm_subfolder", "mllm")
    planner = {k: e for k, e in stored.items() if k.startswith(PLANNER_PREFIXES)}
    parts = {}
    for name, file in (("high", "transformer_config.json"), ("low", "transformer_2_config.json")):
        entries = under(stored, EXPERT_PREFIXES[name])
        parts[name] = Part(name, read_json(path / file), entries, make_renderer, folder=path / "bernini")
    parts["planner"] = Part(
        "planner",
        {"mllm": read_json(mllm_folder / "config.json"), "heads": config},
        planner,
        make_planner,
        new_keys,
        path / "bernini",
    )
    parts["text"] = _full_text(path, config, stored)
    parts["vae"] = _folder_part("vae", path / config.get("vae_subfolder", "vae"), make_vae)
    tokenizer = path / config.get("t5_tokenizer_subfolder", "t5_tokenizer")
    return ModelFolder(path, "full", config, parts, tokenizer, mllm_folder)


def _full_text(path: Path, config: dict, stored: Entries) -> Part:
    """The text encoder lies among the trained weights, or in a folder of its own."""
    folder = path / config.get("t5_text_encoder_subfolder", "t5_text_encoder")
    inside = under(stored, ("t5_text_encoder.",))
    if inside:
        return Part("text", read_json(folder / "config.json"), inside, make_text, folder=path / "bernini")
    return _folder_part("text", folder, make_text)
