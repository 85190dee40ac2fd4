"""LATENTS in the form that the released trainer's preprocessing writes, out and in (spec: model.md, 6).

    bernini trainer-latents export OUT/latents/NAME --model DIR --output TRAIN
    bernini trainer-latents import TRAIN --model DIR --output OUT --task v2v

Its rows carry `image_embeds`, `image_grid_thw`, `image_vae_latents` and the same for videos: one
`torch.save` blob a medium, VAE blobs being the parameters of the posterior, mean ‖ logvar, not
normalised. We keep the mean alone, so the logvar that is written is -30, the least that the
posterior's class knows: its samples are the mean to seven digits. Blobs are read with
`weights_only=True`, up to a size; one that is anything else than a tensor drops its row by name.
"""

from __future__ import annotations

import io
import json
import posixpath
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from bernini.encode import Encoders, EncodeSettings, renderer_prompt
from bernini.encode_samples import bits
from bernini.encoder_parts import fingerprints, part
from bernini.layouts import ModelFolder, open_model
from bernini.text import MAX_TOKENS, positive_text
from bernini.train.dataset import Encoded, write_index
from bernini.train.example import wrong_latent, wrong_vit
from manifests import storage
from manifests.columns import FAILED
from manifests.errors import ConfigError, InputError, ManifestError, MediaError
from manifests.features import Feature, known_text, write_features, write_text
from manifests.ids import digest, file_hash, make_id
from manifests.manifest import Manifest, ManifestWriter
from manifests.messages import VIDEO_MESSAGES
from manifests.provenance import versions
from manifests.samples import TEXT_MESSAGES, read_messages
from manifests.schema import LATENTS
from manifests.settings import parse
from manifests.tasks import TASKS
from manifests.trainer_form import SCHEMA as RAW
from manifests.trainer_preflight import preflight
from manifests.trainer_shards import Shards

LOGVAR = -30.0
MAX_BLOB_BYTES = 2_000_000_000
ROWS_AT_ONCE = 8  # some 64 MB, the released row-group size
BLOBS = ("embeds", "grid_thw", "vae_latents")
BLOB_COLUMNS = tuple(f"{kind}_{blob}" for kind in ("image", "video") for blob in BLOBS)
FORM = pa.schema([*RAW, *(pa.field(name, pa.list_(pa.binary())) for name in BLOB_COLUMNS)])


@dataclass(frozen=True)
class Scale:
    """Mean and std of the latent channels `[C, 1, 1, 1]`: what makes a posterior's mean a latent."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, model: ModelFolder) -> Scale:
        config = model.part("vae").empty().config  # with the class's own values where the file names none
        return cls(*(torch.tensor(config[name]).view(-1, 1, 1, 1) for name in ("latents_mean", "latents_std")))

    def parameters(self, latent: Tensor) -> Tensor:
        """Latent `[1, C, T, Y, X]` → float32 `[1, 2C, T, Y, X]`, mean ‖ logvar."""
        mean = latent[0].float() * self.std + self.mean
        return torch.cat([mean, torch.full_like(mean, LOGVAR)])[None]

    def latent(self, parameters: Tensor) -> Tensor:
        """`[1, 2C, T, Y, X]` (or without the first axis) → bfloat16 latent `[C, T, Y, X]` of the posterior's mean."""
        p = parameters[0] if parameters.ndim == 5 else parameters
        channels = len(self.mean)
        if p.ndim != 4 or len(p) != 2 * channels:
            raise MediaError(f"VAE parameters have the shape {list(parameters.shape)}, not "
                             f"[1, {2 * channels}, T, Y, X]: they are of another autoencoder")
        if why := wrong_latent((1, channels, *p.shape[1:]), channels):
            raise MediaError(f"the latent of {list(parameters.shape)} VAE parameters {why}")
        return ((p[:channels].float() - self.mean) / self.std).bfloat16()


def export_preprocessed(latents: str, /, model: str, output: str) -> int:
    """Write the accepted rows of a latents manifest in the released preprocessed form.

    There is one file for each task, data set and modality, and a `data.yaml` that names them. What the trainer
    could not read is left out by name.

    Args:
        latents: folder of a latents manifest.
        model: folder of the model whose autoencoder made them.
        output: folder to write to.
    """
    m, opened = Manifest.open(latents), open_model(model)
    if m.stop.name != "latents":
        raise ManifestError(f"{m.path} is a {m.stop.name} table; this form is made of latents")
    needs = ("latent", "vit") if "vision" in m.header["encoders"] else ("latent",)
    source = Encoded(m, needs, "train", fingerprints(opened, needs))
    scale, lost = Scale.of(opened), []
    with ExitStack() as stack:
        shards = Shards(output, FORM, stack, rows_at_once=ROWS_AT_ONCE)
        table = m.table(["sample_id", "images", "videos", "weight", "split", "drop_reason"]).filter(
            (pa.compute.field("split") == "train") & pa.compute.field("drop_reason").is_null())
        for i in range(source.table.num_rows):
            row = {**source.table.slice(i, 1).to_pylist()[0], **table.slice(i, 1).to_pylist()[0]}
            try:
                preflight(row)
                blobs = _blobs(source.example(i), scale)
            except MediaError as error:
                lost.append(f"{row['sample_id']}: {error}")
                continue
            videos = [{k: v[k] for k in ("video_path", "duration", "crop_method")} for v in row["videos"]]
            shards.add(row, {"inputs": row["inputs"], "images": row["images"], "videos": videos, **blobs})
        shards.flush()
    if shards.num_rows:
        shards.write_config()
    for line in lost:
        print(f"left out {line}")
    print(f"wrote {shards.num_rows:,} samples to {output}; {len(lost):,} left out")
    return 0 if shards.num_rows and not lost else 1


def _blobs(example, scale: Scale) -> dict[str, list[bytes]]:
    out: dict[str, list[bytes]] = {name: [] for name in BLOB_COLUMNS}
    for v in example.visuals:
        out[f"{v.kind}_vae_latents"].append(_save(scale.parameters(v.latent)))
        if v.vit is not None:
            out[f"{v.kind}_embeds"].append(_save(v.vit))
            out[f"{v.kind}_grid_thw"].append(_save(torch.tensor(v.grid)))
    return out


def _save(tensor: Tensor) -> bytes:
    stream = io.BytesIO()
    torch.save(tensor, stream)
    return stream.getvalue()


def import_preprocessed(folder: str, /, model: str, output: str, task: str, source_name: str = "imported") -> int:
    """Read the released preprocessed form as latents; texts are encoded now. Rows that cannot be used stay, dropped.

    Args:
        folder: folder with .parquet files of one task.
        model: folder of the model whose autoencoder made them, and whose text encoder encodes the prompts.
        output: folder below which the latents are written.
        task: task of the rows, e.g. v2v.
        source_name: name of the data set in a mixture.
    """
    if task not in TASKS:
        raise ConfigError(f"no task {task!r}; known: {', '.join(TASKS)}")
    files = [storage.join(folder, n) for n, _ in storage.list_files(folder) if n.endswith(".parquet")]
    if not files:
        raise InputError(f"{folder} holds no .parquet file")
    reader = _Reader(open_model(model), storage.join(output, "features"), task, source_name)
    identity = [[[posixpath.basename(f), file_hash(f)] for f in files], task, source_name, reader.header["encoders"]]
    path = storage.join(output, "latents", f"trainer-{digest(identity, length=8)}")
    with ManifestWriter(path, LATENTS, LATENTS.schema) as writer:
        for file in files:
            for start, rows in _rows_of(file):
                writer.append(pa.Table.from_pylist(reader.rows(rows, posixpath.basename(file), start), LATENTS.schema))
        m = writer.commit(name="trainer", row=LATENTS.row, parents=[], versions=versions(), **reader.header)
    write_index(m)
    print(f"latents   {m.path}: {m.num_rows:,} rows, {m.header['accepted']:,} accepted")
    for reason, num in m.header["drops"].items():
        print(f"{num:,} dropped: {reason}")
    return 0 if m.header["accepted"] else 1


def _rows_of(file: str) -> Iterator[tuple[int, list[dict]]]:
    filesystem, inner = storage.resolve(file)
    with pq.ParquetFile(inner, filesystem=filesystem) as stored:
        if missing := [c for c in ("inputs",) if c not in stored.schema_arrow.names]:
            raise InputError(f"{file} has no column {missing[0]}; it has {', '.join(stored.schema_arrow.names)}")
        columns, start = [c for c in FORM.names if c in stored.schema_arrow.names], 0
        for batch in stored.iter_batches(ROWS_AT_ONCE, columns=columns):
            yield start, batch.to_pylist()
            start += batch.num_rows


class _Reader:
    """Rows of the released form → rows of LATENTS."""

    def __init__(self, model: ModelFolder, root: str, task: str, source_name: str):
        self.root, self.task, self.source_name, self.scale = root, task, source_name, Scale.of(model)
        self.encoders = Encoders(model, EncodeSettings(stage="II"))
        needs = ("latent", "text", "vit") if model.has_planner else ("latent", "text")
        self.header = {"encoders": fingerprints(model, needs), "feature_folder": "../../features",
                       "config": {"stage": "III" if model.has_planner else "II", "task": task}}
        vision = part(model, "vision").config["vision_config"] if model.has_planner else None
        self._vit = (vision["out_hidden_size"], vision.get("spatial_merge_size", 2)) if vision else None

    def rows(self, rows: list[dict], file: str, start: int) -> list[dict]:
        done, tensors = [], []
        for i, row in enumerate(rows):
            base = {f.name: None for f in LATENTS.fields} | {
                "sample_id": make_id("sample", file, start + i, row["inputs"]), "task": self.task,
                "source_name": self.source_name, "inputs": row["inputs"], "images": row.get("images") or [],
                "videos": [_video(v) for v in row.get("videos") or ()], "split": "train", "weight": 1.0, "issues": [],
                "num_attempts": 1}
            try:
                values, features = self._row(row)
            except MediaError as error:
                values, features = {"issues": [str(error)],
                                    "drop_reason": f"{FAILED}a row that cannot be read"}, []
            done.append(base | values)
            tensors.append(features)
        for row, entries in zip(done, write_features(self.root, tensors), strict=True):
            if row["features"] is not None:
                row["features"] = [*entries, *row["features"]]
        return done

    def _row(self, row: Mapping) -> tuple[dict, list[Feature]]:
        messages = read_messages(row)
        for message in messages:
            message.setdefault("has_loss", int(message["type"] == "video_gen"))
        left = {name: list(row.get(name) or ()) for name in BLOB_COLUMNS}
        visuals, features = [], []
        for message in messages:
            if message["type"] not in TEXT_MESSAGES:
                visual, tensors = self._visual(message["type"], left, len(visuals))
                visuals.append(visual)
                features += tensors
        if any(left.values()):
            raise MediaError("there are more features than media messages")
        prompt = renderer_prompt(messages, self.task, planned=self._vit is not None)
        texts = {"text": positive_text(self.task, prompt), "empty_text": positive_text(self.task, "")}
        entries = [self._text(name, text) for name, text in texts.items()]
        lost = self.encoders.cut(texts["text"]) if entries[0]["shape"][0] == MAX_TOKENS else None
        return {"inputs": json.dumps(messages, ensure_ascii=False), "issues": [lost] if lost else [],
                "visuals": visuals, "features": entries,
                "num_text_tokens": entries[0]["shape"][0], "num_empty_text_tokens": entries[1]["shape"][0],
                "num_planner_text_tokens": self.encoders.num_planner_tokens({**row, "task": self.task})}, features

    def _visual(self, message: str, left: dict, number: int) -> tuple[dict, list[Feature]]:
        kind = "video" if message in VIDEO_MESSAGES else "image"
        if not left[f"{kind}_vae_latents"]:
            raise MediaError(f"there are more {kind} messages than {kind}_vae_latents")
        latent = self.scale.latent(_tensor(left[f"{kind}_vae_latents"].pop(0)))
        _, t, y, x = latent.shape
        features, num_vit, grid = [Feature(name="latent", visual=number, data=bits(latent))], 0, None
        if left[f"{kind}_embeds"]:
            grids = left[f"{kind}_grid_thw"]
            vit, grid = self._seen(_tensor(left[f"{kind}_embeds"].pop(0)), _tensor(grids.pop(0)) if grids else None)
            features.append(Feature(name="vit", visual=number, data=bits(vit)))
            num_vit = len(vit)
        return {"kind": kind, "is_target": message.endswith("_gen"), "num_latent_tokens": t * (y // 2) * (x // 2),
                "num_vit_tokens": num_vit, "grid": grid}, features

    def _seen(self, vit: Tensor, grid: Tensor | None) -> tuple[Tensor, list[int] | None]:
        """ViT features `[rows, V]` in bfloat16 and their grid; both fit each other and the model's vision tower."""
        if grid is not None and (grid.is_floating_point() or grid.is_complex()):
            raise MediaError(f"a grid of patches has the type {grid.dtype}, not whole numbers")
        sides = None if grid is None else grid.flatten().tolist()
        if vit.ndim < 2 or not vit.numel():
            raise MediaError(f"ViT features have the shape {list(vit.shape)}, not [rows, width]")
        vit = vit.reshape(-1, vit.shape[-1]).bfloat16()
        # Without a vision tower nothing reads them: the rows train the renderer.
        if self._vit and (why := wrong_vit(vit.shape, sides, *self._vit)):
            raise MediaError(f"ViT features {why}")
        return vit, sides

    def _text(self, name: str, text: str) -> dict:
        key = digest("text", text, self.header["encoders"]["text"], length=32)
        return known_text(self.root, key, name, self.encoders.text_width) or write_text(
            self.root, key, Feature(name=name, visual=None, data=bits(self.encoders.text(text))))


def _video(item: Mapping) -> dict:
    return {"video_path": item.get("video_path"), "duration": item.get("duration"), "start_s": 0.0,
            "crop_method": item.get("crop_method") or "center", "end_s": item.get("duration")}


def _tensor(blob: bytes | None) -> Tensor:
    if blob is None:
        raise MediaError("a feature is null")
    if len(blob) > MAX_BLOB_BYTES:
        raise MediaError(f"a feature has {len(blob):,} bytes; more than {MAX_BLOB_BYTES:,} are not read")
    try:
        tensor = torch.load(io.BytesIO(blob), map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - torch's reader fails on damaged bytes in a dozen ways
        raise MediaError(f"a feature is no stored tensor: {(str(error).splitlines() or ['?'])[0]}") from None
    if not isinstance(tensor, Tensor):
        raise MediaError(f"a feature holds a {type(tensor).__name__}, not a tensor")
    if tensor.is_floating_point() and not torch.isfinite(tensor).all():
        raise MediaError("a feature is not finite (NaN or infinite)")
    return tensor


def main(argv: list[str]) -> int:
    ways = {"export": export_preprocessed, "import": import_preprocessed}
    if not argv or argv[0] not in ways:
        usage = f"usage: bernini trainer-latents {{{','.join(ways)}}} [--help]\n\n{__doc__}"
        print(usage, file=sys.stdout if set(argv) & {"-h", "--help"} else sys.stderr)
        return 0 if set(argv) & {"-h", "--help"} else 2
    return parse(ways[argv[0]], argv[1:], prog=f"bernini trainer-latents {argv[0]}")
