"""`bernini encode`: SAMPLES → LATENTS, for training that decodes and encodes nothing.

    bernini encode OUT/samples/NAME --model DIR --output OUT

Each manifest of samples becomes one of latents: `OUT/latents/encode-<hash>`, its tensors in
`OUT/features`. The name holds settings and the fingerprints of the encoders, so a changed encoder
or size makes a new manifest, and the same command resumes what was stopped.
"""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass

import pyarrow.compute as pc

from bernini.encode import EncodeSettings
from bernini.encoder_parts import fingerprints
from bernini.layouts import open_model
from bernini.train.dataset import write_index
from filters.rules import Rule
from manifests import storage
from manifests.errors import ConfigError, ManifestError
from manifests.manifest import Manifest
from manifests.provenance import plain
from manifests.settings import parse

from .command import print_funnel
from .place import Place
from .recipe import RunConfig, apply_rules
from .run import require_accepted
from .run import run as run_stages
from .stage import Stage

RULES = (Rule(column="features", failure=True, why="what cannot be encoded cannot be trained on"),)


@dataclass(frozen=True, kw_only=True)
class Config(EncodeSettings, RunConfig):
    """Settings of `bernini encode`. Defaults of sizes and frames are the released trainer's and full pipeline's."""

    input: str
    """Folder of a samples manifest."""
    model: str
    """Folder of a model, in any layout that `bernini generate` opens."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    rows_per_block: int = 8
    """Samples encoded and stored together: they share a file, and a crash costs at most so many."""
    gpus_per_worker: float = 0.0
    """Share of a GPU that one worker takes."""

    def __post_init__(self):
        EncodeSettings.__post_init__(self)
        RunConfig.__post_init__(self)
        if self.rows_per_block < 1:
            raise ConfigError(f"rows_per_block is {self.rows_per_block}; at least 1")

    @property
    def settings(self) -> EncodeSettings:
        return EncodeSettings(**{f.name: getattr(self, f.name) for f in dataclasses.fields(EncodeSettings)})

    @property
    def feature_root(self) -> str:
        return storage.join(storage.absolute(self.output), "features")


def encode(config: Config) -> Manifest:
    """Finish the latents of one samples manifest and return them."""
    samples = Manifest.open(config.input)
    if samples.stop.name != "samples":
        raise ManifestError(f"{samples.path} is a {samples.stop.name} table; `bernini encode` takes samples")
    encoders = fingerprints(open_model(config.model), config.settings.needs)
    stages = build(config)
    identity = encoders | ({"prompt": "reasoning"} if config.settings.planned and _has_reasoning(samples) else {})
    target = Place(config.output, "encode", config).target("latents", stages, parents=[samples],
                                                           settings=identity, rules=RULES)
    target = dataclasses.replace(target, header={
        **target.header, "encoders": encoders, "feature_folder": storage.relative(config.feature_root, target.path)})
    latents = run_stages(samples, target, stages, rows_per_block=config.rows_per_block, **config.engine_options)
    require_accepted(latents)
    if not storage.is_uri(latents.path):
        write_index(latents)
    return latents


def _has_reasoning(samples: Manifest) -> bool:
    """Latents with reasoning were once made with another prompt: theirs is another name, all others keep theirs."""
    found = (pc.match_substring(batch["inputs"], '"cot_text"') for batch in samples.batches(["inputs"]))
    return any(pc.any(has).as_py() for has in found)


def build(config: Config) -> tuple[Stage, ...]:
    return (
        Stage(op="bernini.encode_samples:EncodeSamples", batch_size=config.rows_per_block, workers=config.workers,
              num_gpus=config.gpus_per_worker,
              kwargs={"model": config.model, "root": config.feature_root, "settings": plain(config.settings),
                      "device": config.device}),
        apply_rules(*RULES),
    )


def main(argv: list[str]) -> int:
    usage = "usage: bernini encode SAMPLES [SAMPLES ...] --model DIR --output OUT [settings]"
    split = next((i for i, word in enumerate(argv) if word.startswith("-")), len(argv))
    if not argv[:split]:
        if not set(argv) & {"-h", "--help"}:
            print(usage, file=sys.stderr)
            return 2
        print(usage)
        argv, split = ["SAMPLES", *argv], 1
    first = parse(Config, ["--input", argv[0], *argv[split:]], prog="bernini encode SAMPLES ...",
                  description=__doc__)
    done = [encode(dataclasses.replace(first, input=path)) for path in argv[:split]]
    print_funnel(done)
    for latents in done:
        print(f"latents   {latents.path}")
    return 0
