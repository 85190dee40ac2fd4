"""SAMPLES rows → the same rows with their features on disk: the op behind `bernini encode`."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import torch
from torch import Tensor

from bernini.encode import EncodedSample, Encoders, EncodeSettings
from bernini.layouts import open_model
from bernini.text import MAX_TOKENS
from manifests.columns import add_issues, require, set_column
from manifests.errors import BackendError, MediaError
from manifests.features import Feature, known_text, write_features, write_text
from manifests.ids import digest
from manifests.schema import LATENTS, SAMPLES

ADDED = tuple(f for f in LATENTS.fields if f.name not in {g.name for g in SAMPLES.fields})


class EncodeSamples:
    """Encodes rows and writes their tensors below `root`; the rows get their places and token costs.

    The visuals of one call go into one file, named by content; each text embedding has a file of its
    own, named after the text and the encoder. A row whose media cannot be read, or whose features are
    not finite, gets nulls and a line in `issues`. A prompt that is longer than the text encoder reads gets the line
    alone.
    """

    reads = ("sample_id", "task", "inputs", "images", "videos")
    adds = ADDED
    neutral = ("model", "root", "device")  # the run's identity holds the encoders' fingerprints instead

    def __init__(self, *, model: str, root: str, settings: Mapping, device: str = "auto"):
        self.root, self.settings = root, EncodeSettings(**settings)
        self.encoders = Encoders(open_model(model), self.settings, device=device)

    def __call__(self, table: pa.Table) -> pa.Table:
        require(table, self.reads, "EncodeSamples")
        rows, issues, tensors = [], [], []
        for row in table.select(list(self.reads)).to_pylist():
            try:
                values, features, told = self._encode(row)
            except (MediaError, BackendError) as error:
                values, features = dict.fromkeys(f.name for f in ADDED), []
                told = str(error)
            issues.append([f"EncodeSamples: {told}"] if told else [])
            rows.append(values)
            tensors.append(features)
        for values, entries in zip(rows, write_features(self.root, tensors), strict=True):
            if values["features"] is not None:
                values["features"] = [*entries, *values["features"]]
        for field in ADDED:
            table = set_column(table, field, [values[field.name] for values in rows])
        return add_issues(table, issues)

    def _encode(self, row: dict) -> tuple[dict, list[Feature], str | None]:
        """Values of the added columns (features: texts only), the visuals' tensors, and what of the text is lost."""
        sample = self.encoders.encode(row, texts=False)
        texts = self._texts(row)
        num = {e["name"]: e["shape"][0] for e in texts}
        values = {
            "visuals": [_visual(v) for v in sample.visuals],
            "num_text_tokens": num.get("text", 0), "num_empty_text_tokens": num.get("empty_text", 0),
            "num_planner_text_tokens": self.encoders.num_planner_tokens(row), "features": texts,
        }
        lost = self.encoders.cut(self.encoders.texts_of(row)[0]) if num.get("text") == MAX_TOKENS else None
        return values, _features(sample), lost

    def _texts(self, row: dict) -> list[dict]:
        if "text" not in self.settings.needs:
            return []
        return [self._text(name, text) for name, text in
                zip(("text", "empty_text"), self.encoders.texts_of(row), strict=True)]

    def _text(self, name: str, text: str) -> dict:
        """Where the embedding of a text lies; encoded only if nobody did before."""
        key = digest("text", text, self.encoders.fingerprints["text"], length=32)
        known = known_text(self.root, key, name, self.encoders.text_width)
        return known or write_text(self.root, key, Feature(name=name, visual=None,
                                                           data=bits(self.encoders.text(text))))


def bits(tensor: Tensor):
    """The 16 bits of bfloat16 values as numpy uint16."""
    return tensor.contiguous().view(torch.int16).numpy().view("uint16")


def _visual(visual) -> dict:
    tokens = 0
    if visual.latent is not None:
        _, t, y, x = visual.latent.shape
        tokens = t * (y // 2) * (x // 2)
    return {"kind": visual.kind, "is_target": visual.is_target, "num_latent_tokens": tokens,
            "num_vit_tokens": 0 if visual.vit is None else len(visual.vit),
            "grid": None if visual.grid is None else list(visual.grid)}


def _features(sample: EncodedSample) -> list[Feature]:
    return [Feature(name=name, visual=i, data=bits(tensor)) for i, visual in enumerate(sample.visuals)
            for name, tensor in (("latent", visual.latent), ("vit", visual.vit)) if tensor is not None]
