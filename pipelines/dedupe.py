"""`bernini dedupe`: near-duplicates among all rows of one or more manifests.

Writes a copy of the rows with duplicate_group, duplicate_of, duplicate_similarity and
duplicate_by, and drops by a rule all but the best row of each group: highest resolution, then
sharpest, then longest, then by a number made of the key, so that a second run keeps the same.

`picture_hash` comes from `bernini measure MANIFEST --filters picture_hash`; `video_embedding` from
the first scan. Rows that were dropped before are not looked at. Memory is bounded: vectors lie in a
scratch file of two bytes a dimension (TMPDIR), the index takes one byte a dimension and row.

A still clip has the hash of its picture, so videos and pictures are compared with each other: in pairs
and samples that hold both, and by picture_hash alone in clips and frames given together. Then each kind
gets a manifest of its own, WRITE/clips/dedupe and WRITE/frames/dedupe, and duplicate_of may name a row of
the other. An edit that changes a small part of a picture is a near-duplicate of it.

    bernini dedupe OUT/clips/measure-1a2b3c4d --by picture_hash video_embedding=0.97 --write OUT/unique
    bernini dedupe OUT/clips/measure-1a2b3c4d OUT/frames/measure-5e6f7a8b --write OUT/unique
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tyro

from filters.duplicates import COLUMNS, Criterion, Duplicates, Vectors, find_duplicates, quality_rank, scratch
from filters.picture_hash import NUM_BITS
from filters.rules import ApplyRules, Rule
from manifests import storage
from manifests.columns import set_column
from manifests.errors import ConfigError
from manifests.ids import order_key
from manifests.manifest import HEADER, Manifest, ManifestWriter
from manifests.provenance import plain, versions
from manifests.settings import parse

from .sources import Sources

QUALITY = (("width", "height"), ("sharpness",), ("target_sharpness",), ("duration_s",), ("target_duration_s",))
RAW = {"clips", "frames"}  # kinds that go together; rows of the others are made of each other and would repeat


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of `bernini dedupe`."""

    manifests: tyro.conf.Positional[tuple[str, ...]]
    """Manifests of one kind: clips, frames, pairs or samples; by picture_hash alone also clips with frames."""
    write: str
    """Folder for the rows with their groups and drop reasons; it must not hold a manifest yet."""
    by: tuple[str, ...] = ("picture_hash",)
    """COLUMN=SIMILARITY, several are joined: picture_hash=0.88 (share of equal bits) video_embedding=0.96 (cosine)."""
    drop_above: float = 0.0
    """Duplicates more similar than this to their kept row are dropped; 1 keeps all and only marks them."""
    seed: int = 0
    """Breaks ties between equally good rows."""

    def __post_init__(self):
        if not 0 <= self.drop_above <= 1:
            raise ConfigError(f"--drop-above is {self.drop_above:g}; it is a similarity, 0 to 1")


def main(argv: list[str]) -> int:
    """Find near-duplicates, mark their groups, drop all but the best row of each."""
    dedupe(parse(Config, argv, prog="bernini dedupe", description=__doc__))
    return 0


def dedupe(config: Config) -> list[Manifest]:
    """One manifest for each kind of rows."""
    criteria = [Criterion.parse(text) for text in config.by]
    if not criteria:
        raise ConfigError("name at least one column with --by, e.g. --by picture_hash")
    kinds = _kinds(config.manifests, criteria)
    folders = [config.write] if len(kinds) == 1 else [storage.join(config.write, s.stop.name, "dedupe") for s in kinds]
    for folder in (config.write, *folders):
        if storage.exists(storage.join(folder, HEADER)):
            raise ConfigError(f"{folder} holds a finished manifest, which never changes: name another folder")
    with tempfile.TemporaryDirectory(prefix="bernini-dedupe-") as folder:
        vectors = scratch(folder, criteria)
        keys, rank = _read(kinds, vectors, config.seed)
        _tell_of_old_hashes(vectors)
        found = find_duplicates(vectors, rank)
    manifests, start = [], 0
    for sources, folder in zip(kinds, folders, strict=True):
        manifests.append(_write(config, folder, sources, _marked(sources, criteria, keys, found, start)))
        start += manifests[-1].num_rows
    _show(found, manifests)
    return manifests


def _kinds(paths: Sequence[str], criteria: Sequence[Criterion]) -> list[Sources]:
    """The manifests by their stop. `Sources` refuses several that are neither compared by hashes nor both raw."""
    stops = {path: Manifest.open(path).stop.name for path in paths}
    if set(stops.values()) == RAW and all(c.is_hash for c in criteria):
        kinds = [Sources([p for p in paths if stops[p] == stop]) for stop in dict.fromkeys(stops.values())]
    else:
        kinds = [Sources(paths)]
    for sources in kinds:
        for criterion in criteria:
            sources.require(criterion.column,
                            "; picture_hash is added by: bernini measure MANIFEST --filters picture_hash")
            criterion.check(sources.schema.field(criterion.column).type)
        sources.check_keys()
    return kinds


def _read(kinds: Sequence[Sources], vectors: list[Vectors], seed: int) -> tuple[pa.Array, np.ndarray]:
    """Vectors into their files; the keys of all rows, kind by kind, and their rank by quality."""
    qualities = [group for group in QUALITY if any(set(group) <= set(s.schema.names) for s in kinds)]
    keys: list[pa.Array] = []
    values: list[list[np.ndarray]] = [[] for _ in qualities]
    try:
        for key, batch in _batches(kinds, [*(v.criterion.column for v in vectors), *(c for g in qualities for c in g)]):
            keys.append(batch[key].combine_chunks())
            dropped = pc.is_valid(batch["drop_reason"])
            for stored in vectors:
                column = batch[stored.criterion.column].combine_chunks()
                stored.append(pc.if_else(dropped, pa.scalar(None, column.type), column))
            for group, parts in zip(qualities, values, strict=True):
                parts.append(np.prod([_numbers(batch, name) for name in group], axis=0))
    finally:
        for stored in vectors:
            stored.close()
    all_keys = pa.concat_arrays(keys) if keys else pa.array([], pa.string())
    ranks = quality_rank([np.concatenate(parts) for parts in values], order_key(all_keys, seed))
    return all_keys, ranks


def _batches(kinds: Sequence[Sources], columns: Sequence[str]) -> Iterator[tuple[str, pa.Table]]:
    """Name of the key and rows of each batch, with those of `columns` that its kind has."""
    for sources in kinds:
        names = [sources.stop.key, "drop_reason", *(c for c in columns if c in sources.schema.names)]
        for batch in sources.batches(list(dict.fromkeys(names))):
            yield sources.stop.key, batch


def _numbers(batch: pa.Table, name: str) -> np.ndarray:
    """`(rows,)` float64; nan where there is no number, or the kind has no such column."""
    return batch[name].cast(pa.float64()).to_numpy() if name in batch.column_names else np.full(batch.num_rows, np.nan)


def _tell_of_old_hashes(vectors: Sequence[Vectors]) -> None:
    for stored in vectors:
        if stored.criterion.is_hash and 0 < stored.dim < NUM_BITS:
            print(f"note: {stored.criterion.column} has {stored.dim} bits, of an earlier version that sees no colours: "
                  "recoloured and one-coloured pictures count as copies. Measure again to tell them apart")


def _write(config: Config, folder: str, sources: Sources, tables: Iterator[pa.Table]) -> Manifest:
    rules = (Rule(column="duplicate_similarity", max=config.drop_above, optional=True,
                  why="one of several that show the same"),)
    decide = ApplyRules(rules)
    full = pa.schema([*(f for f in sources.schema if f.name not in {c.name for c in COLUMNS}), *COLUMNS])
    made_by = {c.name: {"op": "filters.duplicates:find_duplicates", "by": list(config.by)} for c in COLUMNS}
    with ManifestWriter(folder, sources.stop, full) as writer:
        for table in tables:
            writer.append(decide(table))
        return writer.commit(name="dedupe", row=sources.stop.row, parents=sources.parents_of(folder),
                             config=plain(config), rules=plain(rules),
                             policy=plain([Criterion.parse(text) for text in config.by]),
                             owners=sources.owners | made_by, versions=versions(), **sources.feature_header(folder))


def _marked(sources: Sources, criteria: Sequence[Criterion], keys: pa.Array, found: Duplicates,
            start: int) -> Iterator[pa.Table]:
    """The rows of a kind, of which the first is row `start` of all, with what was found of them."""
    grouped, names = found.grouped, pa.array([c.column for c in criteria])
    for batch in sources.batches():
        part = slice(start, start + batch.num_rows)
        copies = found.by[part] >= 0
        stands_for = keys.take(pa.array(found.kept[part]))
        by = names.take(pa.array(np.maximum(found.by[part], 0)))
        values = {"duplicate_group": (grouped[part], stands_for), "duplicate_of": (copies, stands_for),
                  "duplicate_similarity": (copies, pa.array(found.similarity[part])), "duplicate_by": (copies, by)}
        for field in COLUMNS:
            mask, column = values[field.name]
            batch = set_column(batch, field, pc.if_else(pa.array(mask), column, pa.scalar(None, column.type)))
        start += batch.num_rows
        yield batch


def _show(found: Duplicates, manifests: Sequence[Manifest]) -> None:
    copies = int((found.by >= 0).sum())
    groups = len(np.unique(found.kept[found.by >= 0]))
    print(f"{len(found.by):>11,} rows, {copies:,} repeat another one, in {groups:,} groups")
    for manifest in manifests:
        of = f" of {manifest.stop.name}" if len(manifests) > 1 else ""
        for reason, num in manifest.header["drops"].items():
            print(f"{num:>11,}{of} dropped: {reason}")
    for manifest in manifests:
        print(f"manifest  {manifest.path}")
