"""Samples of several manifests by number: what each costs, and the example itself.

LATENTS are read from their memory-mapped features; raw SAMPLES are encoded on the fly by the same
functions as `bernini encode`, which gives the same bits and costs as much in every epoch as
encoding once. A data set, in the sense of a mixture, is a `(source_name, task)`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from bernini.encode import EncodedSample, Encoders, visual_costs
from bernini.encoder_parts import PART_OF
from bernini.text import MAX_TOKENS
from bernini.train.cost import ExampleTokens, VisualTokens
from bernini.train.example import Example, Part, Visual
from manifests import storage
from manifests.errors import BackendError, ManifestError, MediaError
from manifests.features import FeatureReader, feature_root
from manifests.ids import digest, order_key
from manifests.manifest import Manifest
from manifests.samples import read_messages

INDEX_COLUMNS = ("sample_id", "task", "source_name", "inputs", "weight")
LATENT_COLUMNS = (*INDEX_COLUMNS, "visuals", "num_text_tokens", "num_empty_text_tokens", "num_planner_text_tokens",
                  "features")
RAW_COLUMNS = (*INDEX_COLUMNS, "images", "videos")
WORDS = {"latent": "VAE latents", "vit": "ViT features", "text": "text embeddings"}


class Encoded:
    """A LATENTS manifest."""

    def __init__(self, manifest: Manifest, needs: Sequence[str], split: str, expects: Mapping[str, str] | None):
        self.manifest, self.needs = manifest, frozenset(needs)
        _check_encoders(manifest, needs, expects or {})
        self.table = _index(manifest, LATENT_COLUMNS, split)
        self._reader = FeatureReader(feature_root(manifest.path, manifest.header["feature_folder"]))

    def tokens(self, i: int) -> ExampleTokens:
        """Token cost of a sample, from the table alone."""
        row = _row(self.table, i, ("task", "inputs", "visuals", *LATENT_COLUMNS[-4:-1]))
        visuals = [VisualTokens(kind=v["kind"], is_target=v["is_target"], latent=v["num_latent_tokens"],
                                vit=v["num_vit_tokens"]) for v in row["visuals"]]
        return ExampleTokens.of(visuals, parts(row), row["task"], text=row["num_text_tokens"],
                                empty_text=row["num_empty_text_tokens"], planner_text=row["num_planner_text_tokens"])

    def example(self, i: int) -> Example:
        """A sample with the features that the stage needs. Raises `MediaError` where one cannot be used."""
        row = _row(self.table, i, LATENT_COLUMNS)
        stored = {(f["name"], f["visual"]): f for f in row["features"]}
        visuals = tuple(Visual(kind=v["kind"], is_target=v["is_target"], grid=tuple(v["grid"]) if v["grid"] else None,
                               latent=self._tensor(stored, "latent", n), vit=self._tensor(stored, "vit", n))
                        for n, v in enumerate(row["visuals"]))
        return Example(sample_id=row["sample_id"], task=row["task"], source_name=row["source_name"],
                       parts=parts(row), visuals=visuals, text_embedding=self._tensor(stored, "text", None),
                       empty_embedding=self._tensor(stored, "empty_text", None))

    def _tensor(self, stored: Mapping, name: str, visual: int | None) -> torch.Tensor | None:
        if ("text" if name == "empty_text" else name) not in self.needs:
            return None
        entry = stored.get((name, visual))
        if entry is None:
            raise MediaError(f"no {name} is stored{'' if visual is None else f' for visual {visual}'}")
        tensor = torch.from_numpy(self._reader.read(entry).view(np.int16)).view(torch.bfloat16)
        if not torch.isfinite(tensor).all():
            raise MediaError(f"the {name} is not finite (NaN or infinite)")
        return tensor[None] if name == "latent" else tensor


class Raw:
    """A SAMPLES manifest, encoded when a sample is asked for."""

    def __init__(self, manifest: Manifest, needs: Sequence[str], split: str, encoders: Encoders | None,
                 say: Callable[[str], None]):
        if encoders is None:
            words = " and ".join(WORDS[n] for n in needs)
            raise ManifestError(f"{manifest.path} holds samples without {words}: run `bernini encode {manifest.path} "
                                "--model DIR --output OUT`, or give a model that encodes while it trains")
        if missing := set(needs) - set(encoders.settings.needs):
            raise ManifestError(f"the encoders are those of stage {encoders.settings.stage}, which gives no "
                                f"{' and no '.join(sorted(WORDS[n] for n in missing))}")
        self.manifest, self.encoders = manifest, encoders
        self.table = _index(manifest, RAW_COLUMNS, split)
        self._tokens: dict[int, ExampleTokens] = {}
        self.say, self.num_cut = say, 0  # samples whose prompt is longer than the text encoder reads

    def tokens(self, i: int) -> ExampleTokens:
        """Token cost from file headers. Raises `MediaError` where a file cannot be read."""
        if i not in self._tokens:
            row = _row(self.table, i, RAW_COLUMNS)
            costs = visual_costs(row, self.encoders.settings)
            text, empty = self.encoders.num_text_tokens(row)
            if text == MAX_TOKENS and (lost := self.encoders.cut(self.encoders.texts_of(row)[0])):
                self._tell_cut(row["sample_id"], lost)
            visuals = [VisualTokens(kind=c.kind, is_target=c.is_target, latent=c.num_latent_tokens,
                                    vit=c.num_vit_tokens) for c in costs]
            self._tokens[i] = ExampleTokens.of(visuals, parts(row), row["task"], text=text, empty_text=empty,
                                               planner_text=self.encoders.num_planner_tokens(row))
        return self._tokens[i]

    def _tell_cut(self, sample_id: str, lost: str) -> None:
        """The 1st, 10th, 100th … such sample is told, with the count so far."""
        self.num_cut += 1
        if str(self.num_cut).strip("0") == "1":
            self.say(f"sample {sample_id}: {lost}; {self.num_cut:,} such so far in {self.manifest.path}")

    def example(self, i: int) -> Example:
        """A sample, decoded and encoded now. Raises `MediaError` where it cannot be used."""
        row = _row(self.table, i, RAW_COLUMNS)
        try:
            return example_of(row, self.encoders.encode(row))
        except BackendError as error:
            raise MediaError(str(error)) from None


def example_of(row: Mapping, encoded: EncodedSample) -> Example:
    """A row and its features as an example."""
    visuals = tuple(Visual(kind=v.kind, is_target=v.is_target, grid=v.grid, vit=v.vit,
                           latent=None if v.latent is None else v.latent[None]) for v in encoded.visuals)
    return Example(sample_id=row["sample_id"], task=row["task"], source_name=row["source_name"], parts=parts(row),
                   visuals=visuals, text_embedding=encoded.text, empty_embedding=encoded.empty_text)


def parts(row: Mapping) -> tuple[Part, ...]:
    """The messages of a row in order; media are numbered as they come."""
    out, num = [], 0
    for message in read_messages(row):
        loss = bool(message.get("has_loss"))
        if message["type"] in ("text", "cot_text", "special_token"):
            out.append(Part(text=message.get("text") or "", has_loss=loss))
        else:
            out.append(Part(visual=num, has_loss=loss))
            num += 1
    return tuple(out)


class Dataset:
    """All samples of the given manifests (LATENTS and raw SAMPLES), numbered through.

    `needs` are the features that the stage asks for (`bernini.encode.STAGE_NEEDS`); `encoders` encode raw
    samples; `expects` are the fingerprints of the model's encoders (`bernini.encode.fingerprints`), to refuse
    latents of another one; `say` is told of raw samples whose prompt is cut.
    """

    def __init__(self, paths: Sequence[str | Manifest], *, needs: Sequence[str], split: str = "train",
                 encoders: Encoders | None = None, expects: Mapping[str, str] | None = None,
                 say: Callable[[str], None] = print):
        if not paths:
            raise ManifestError("no manifest was given: name at least one of LATENTS or SAMPLES")
        manifests = [p if isinstance(p, Manifest) else Manifest.open(p) for p in paths]
        expects = expects or (encoders.fingerprints if encoders is not None else _first_encoders(manifests))
        self.sources = [_open(m, needs, split, encoders, expects, say) for m in manifests]
        self._starts = np.cumsum([0, *(s.table.num_rows for s in self.sources)])
        columns = pa.concat_tables([s.table.select(["sample_id", "task", "source_name", "weight"])
                                    for s in self.sources]).combine_chunks()
        self.tasks = _array(columns["task"])
        self.ids, self.weights = _array(columns["sample_id"]), columns["weight"].to_numpy()
        self._refuse_twins()
        self.members = _members(columns)

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def counts(self) -> dict[tuple[str, str], int]:
        """Samples of each data set `(source_name, task)`."""
        return {key: len(index) for key, index in self.members.items()}

    @cached_property
    def fingerprint(self) -> str:
        """Names all samples and their numbering: a saved loader state fits only these."""
        keys = np.ascontiguousarray(order_key_any(self.ids, 0), "<u8")
        return digest([int(n) for n in self._starts], hashlib.blake2b(keys, digest_size=8).hexdigest())

    def tokens(self, i: int) -> ExampleTokens:
        source, row = self._where(i)
        return source.tokens(row)

    def example(self, i: int) -> Example:
        source, row = self._where(i)
        return source.example(row)

    def order(self, key: tuple[str, str], seed: int) -> np.ndarray:
        """The numbers of a data set in the order that `seed` gives: a hash of each id decides."""
        index = self.members[key]
        return index[np.argsort(order_key_any(self.ids.take(pa.array(index)), seed), kind="stable")]

    def _where(self, i: int):
        n = int(np.searchsorted(self._starts, i, side="right")) - 1
        return self.sources[n], int(i - self._starts[n])

    def _refuse_twins(self) -> None:
        counts = pc.value_counts(self.ids)
        twins = counts.filter(pc.greater(counts.field("counts"), 1))
        if len(twins):
            raise ManifestError(f"sample {twins.field('values')[0].as_py()} stands {twins.field('counts')[0].as_py()} "
                                f"times in the manifests ({len(twins):,} such): a sample has one set of draws an "
                                "epoch; give each manifest once")


def _open(m: Manifest, needs, split: str, encoders: Encoders | None, expects: Mapping[str, str], say):
    if m.stop.name not in ("latents", "samples"):
        raise ManifestError(f"{m.path} is a {m.stop.name} table; training reads latents or samples")
    source = Encoded(m, needs, split, expects) if m.stop.name == "latents" else Raw(m, needs, split, encoders, say)
    if not source.table.num_rows:
        raise ManifestError(f"{m.path} has no accepted sample of the split {split!r}: `bernini drops {m.path}` says "
                            "why rows were dropped; leave the manifest out")
    return source


def _first_encoders(manifests: Sequence[Manifest]) -> dict[str, str]:
    """Without a model the first manifest says which encoders all must come from."""
    found: dict[str, str] = {}
    for m in manifests:
        found = {**m.header.get("encoders", {}), **found}
    return found


def _check_encoders(m: Manifest, needs: Sequence[str], expects: Mapping[str, str]) -> None:
    have = m.header.get("encoders", {})
    for need in needs:
        name = PART_OF[need]
        if name not in have:
            raise ManifestError(f"{m.path} holds no {WORDS[need]} (it was encoded for stage "
                                f"{m.header['config'].get('stage', 'another')}): run `bernini encode` with a stage "
                                "that makes them")
        if name in expects and expects[name] != have[name]:
            raise ManifestError(f"the {WORDS[need]} of {m.path} were made by another {name} encoder ({have[name]}) "
                                f"than the one in use ({expects[name]}): run `bernini encode` again with this model")


def index_path(m: Manifest) -> str:
    """Where the memory-mapped copy of a LATENTS table lies: beside its features."""
    name = m.path.rstrip("/").rsplit("/", 1)[-1]
    return storage.join(feature_root(m.path, m.header["feature_folder"]), f"{name}.arrow")


def write_index(m: Manifest) -> str:
    """Copy the columns that the loader reads into one Arrow IPC file that all processes map."""
    path = index_path(m)
    schema = pa.schema([m.schema.field(c) for c in (*LATENT_COLUMNS, "split", "drop_reason")])
    with storage.atomic_output(path) as stream, pa.ipc.new_file(stream, schema) as writer:
        for batch in m.batches([f.name for f in schema]):
            writer.write_table(batch.cast(schema))
    return path


def _index(m: Manifest, columns: Sequence[str], split: str) -> pa.Table:
    table = None
    if m.stop.name == "latents":
        path = index_path(m)
        if not storage.is_uri(path) and storage.exists(path):
            table = pa.ipc.open_file(pa.memory_map(path)).read_all()
    if table is None or (table.num_rows, table["drop_reason"].null_count) != (m.num_rows, m.header["accepted"]):
        table = m.table([*columns, "split", "drop_reason"])
    wanted = pc.and_(pc.equal(table["split"], split), pc.is_null(table["drop_reason"]))
    return (table if pc.all(wanted).as_py() else table.filter(wanted)).select(list(columns))


def _row(table: pa.Table, i: int, columns: Sequence[str]) -> dict:
    return table.select(list(columns)).slice(i, 1).to_pylist()[0]


def _array(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    return pa.concat_arrays(combined.chunks) if isinstance(combined, pa.ChunkedArray) else combined


def _members(columns: pa.Table) -> dict[tuple[str, str], np.ndarray]:
    """Numbers of the samples of each data set; data sets sorted by name."""
    joined = pc.binary_join_element_wise(columns["source_name"], columns["task"], "\x1f")
    codes = joined.combine_chunks().dictionary_encode()
    codes = pa.concat_arrays(codes.chunks) if isinstance(codes, pa.ChunkedArray) else codes
    numbers = codes.indices.to_numpy()
    found = {tuple(name.split("\x1f")): np.flatnonzero(numbers == n) for n, name in
             enumerate(codes.dictionary.to_pylist())}
    return dict(sorted(found.items()))


def order_key_any(ids: pa.Array, seed: int) -> np.ndarray:
    """`manifests.ids.order_key`, also for ids from elsewhere that are no hashes."""
    if len(ids) and pc.min(pc.utf8_length(ids)).as_py() >= 16:
        return order_key(ids, seed)
    return np.array([int(digest(i, seed), 16) for i in ids.to_pylist()], np.uint64)
