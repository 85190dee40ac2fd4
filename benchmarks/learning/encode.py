"""SAMPLES → LATENTS → tensors with the stand-in encoders, through the stops and readers of real training.

The op is `bernini.encode_samples.EncodeSamples` with another pair of encoders; what comes back is read by
`bernini.train.dataset.Dataset`, from the memory-mapped features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from bernini.encode import EncodedSample, EncodedVisual, EncodeSettings, prompt_of
from bernini.encode_samples import ADDED, EncodeSamples, bits
from bernini.train.dataset import Dataset, write_index
from manifests.features import Feature, known_text, write_text
from manifests.ids import digest
from manifests.manifest import Manifest
from manifests.samples import SampleMedia, read_messages
from manifests.schema import LATENTS
from pipelines.place import Place
from pipelines.run import finish

from .parts import PatchCodec, WordVectors
from .stops import read_media
from .train import Tensors

ROWS = 256  # encoded at once; they share a file


class SpriteEncoders:
    """What `EncodeSamples` asks of encoders, with the patch codec and the word vectors."""

    def __init__(self, codec: PatchCodec, words: WordVectors):
        self.codec, self.words, self.text_width = codec, words, words.width
        axes = hashlib.blake2b(codec.axes.numpy().tobytes() + codec.scale.numpy().tobytes(), digest_size=8).hexdigest()
        self.fingerprints = {"vae": f"patches {axes}", "text": f"word vectors of {words.width}"}

    def encode(self, row: Mapping, *, texts: bool = True) -> EncodedSample:
        media = SampleMedia.of(row, read_messages(row))
        spans = [(None, None) if m.kind == "image" else (m.start_s, m.end_s) for m in media]
        latents = [self.codec.encode(read_media(m.path, *span))[0] for m, span in zip(media, spans, strict=True)]
        return EncodedSample(visuals=tuple(
            EncodedVisual(kind=m.kind, is_target=m.is_target, latent=latent.to(torch.bfloat16))
            for m, latent in zip(media, latents, strict=True)))

    def text(self, text: str) -> Tensor:
        """Word vectors; an empty text is one row of zeros, as padding is."""
        rows = self.words(text) if text else torch.zeros(1, self.text_width)
        return rows.to(torch.bfloat16)

    def num_planner_tokens(self, row: Mapping) -> int:
        return len(prompt_of(read_messages(row)).split())


class EncodeSprites(EncodeSamples):
    """The op with the encoders handed in, and prompts without the system prompts of large models."""

    def __init__(self, encoders: SpriteEncoders, root: str):
        self.root, self.settings, self.encoders = root, EncodeSettings(stage="II"), encoders

    def _texts(self, row: dict) -> list[dict]:
        return [self._text(name, text) for name, text in
                (("text", prompt_of(read_messages(row))), ("empty_text", ""))]

    def _text(self, name: str, text: str) -> dict:
        key = digest("text", text, self.encoders.fingerprints["text"], length=32)
        return known_text(self.root, key, name, self.encoders.text_width) or write_text(
            self.root, key, Feature(name=name, visual=None, data=bits(self.encoders.text(text))))


def encode(samples: Manifest, output: str, encoders: SpriteEncoders) -> Manifest:
    """The LATENTS manifest of a SAMPLES manifest; a finished one is returned at once."""
    op, settings = EncodeSprites(encoders, f"{output}/features"), {"stage": "II"}
    target = Place(output, samples.path.rsplit("/", 1)[-1], settings).target(
        "latents", (), parents=[samples], settings=encoders.fingerprints,
        made_by={f.name: {"op": "benchmarks.learning.encode:EncodeSprites"} for f in ADDED})
    target = replace(target, header={**target.header, "encoders": encoders.fingerprints,
                                     "feature_folder": "../../features"})
    done = (Path(target.path) / "manifest.json").exists()
    latents = finish(target, LATENTS.schema, (op(b.slice(i, ROWS)) for b in samples.batches()
                                              for i in range(0, b.num_rows, ROWS)))
    if not done:
        write_index(latents)
    return latents


def read_tensors(latents: Manifest) -> Tensors:
    """All samples of a LATENTS manifest, as training reads them, in the order of the table."""
    dataset = Dataset([latents], needs=("latent", "text"))
    sources, targets, texts, rows = [], [], {}, []
    for number in range(len(dataset)):
        example = dataset.example(number)
        *shown, target = (v.latent[0].float() for v in example.visuals)
        sources.append(torch.stack(shown))
        targets.append(target)
        prompt = next(p.text for p in example.parts if p.visual is None)
        texts.setdefault(prompt, (len(texts), example.text_embedding.float()))
        rows.append(texts[prompt][0])
    table = torch.nn.utils.rnn.pad_sequence([rows_ for _, rows_ in texts.values()], batch_first=True)
    return Tensors(sources=torch.stack(sources), targets=torch.stack(targets), texts=table, prompt=torch.tensor(rows))
