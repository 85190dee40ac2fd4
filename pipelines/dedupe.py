"""`bernini dedupe`: near-duplicates among all rows of one or more manifests.

Writes a copy of the rows with duplicate_group, duplicate_of, duplicate_similarity and
duplicate_by, and drops by a rule all but the best row of each group: highest resolution, then
sharpest, then longest, then by a number made of the key, so that a second run keeps the same.

`picture_hash` comes from `bernini measure MANIFEST --filters picture_hash`; `video_embedding` from
the first scan. Rows that were dropped before are not looked at. Memory is bounded: vectors lie
in a scratch file of two bytes a dimension (TMPDIR), the index takes one byte a dimension and row.

    bernini dedupe OUT/clips/measure-1a2b3c4d --by picture_hash video_embedding=0.97 --write OUT/unique
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tyro

from filters.duplicates import COLUMNS, Criterion, Duplicates, find_duplicates, quality_rank, scratch
from filters.rules import ApplyRules, Rule
from manifests import storage
from manifests.columns import set_column
from manifests.errors import ConfigError
from manifests.ids import order_key
from manifests.manifest import HEADER, Manifest, ManifestWriter, count_drops
from manifests.provenance import plain, versions
from manifests.settings import parse

from .sources import Sources

QUALITY = (("width", "height"), ("sharpness",), ("target_sharpness",), ("duration_s",), ("target_duration_s",))


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of `bernini dedupe`."""

    manifests: tyro.conf.Positional[tuple[str, ...]]
    """Manifests of one kind: clips, frames, pairs or samples."""
    write: str
    """Folder for the rows with their groups and drop reasons; it must not hold a manifest yet."""
    by: tuple[str, ...] = ("picture_hash",)
    """COLUMN=SIMILARITY, several are joined: picture_hash=0.88 (share of equal bits) video_embedding=0.96 (cosine)."""
    drop_above: float = 0.0
    """Duplicates more similar than this to their kept row are dropped; 1 keeps all and only marks them."""
    seed: int = 0
    """Breaks ties between equally good rows."""


def main(argv: list[str]) -> int:
    """Find near-duplicates, mark their groups, drop all but the best row of each."""
    dedupe(parse(Config, argv, prog="bernini dedupe", description=__doc__))
    return 0


def dedupe(config: Config) -> Manifest:
    if storage.exists(storage.join(config.write, HEADER)):
        raise ConfigError(f"{config.write} holds a finished manifest, which never changes: name another folder")
    sources, criteria = Sources(config.manifests), [Criterion.parse(text) for text in config.by]
    if not criteria:
        raise ConfigError("name at least one column with --by, e.g. --by picture_hash")
    for criterion in criteria:
        sources.require(criterion.column, "; picture_hash is added by: bernini measure MANIFEST --filters picture_hash")
        criterion.check(sources.schema.field(criterion.column).type)
    sources.check_keys()
    with tempfile.TemporaryDirectory(prefix="bernini-dedupe-") as folder:
        vectors = scratch(folder, criteria)
        keys, rank = _read(sources, vectors, config.seed)
        found = find_duplicates(vectors, rank)
    manifest = _write(config, sources, criteria, keys, found)
    _show(found, manifest)
    return manifest


def _read(sources: Sources, vectors: list, seed: int) -> tuple[pa.Array, np.ndarray]:
    """Vectors into their files; the keys of all rows and their rank by quality."""
    stop = sources.stop
    qualities = [group for group in QUALITY if set(group) <= set(sources.schema.names)]
    keys: list[pa.Array] = []
    values: list[list[np.ndarray]] = [[] for _ in qualities]
    columns = [stop.key, "drop_reason", *(v.criterion.column for v in vectors), *(c for g in qualities for c in g)]
    try:
        for batch in sources.batches(list(dict.fromkeys(columns))):
            keys.append(batch[stop.key].combine_chunks())
            dropped = pc.is_valid(batch["drop_reason"])
            for stored in vectors:
                column = batch[stored.criterion.column].combine_chunks()
                stored.append(pc.if_else(dropped, pa.scalar(None, column.type), column))
            for group, parts in zip(qualities, values, strict=True):
                parts.append(np.prod([_numbers(batch[c]) for c in group], axis=0))
    finally:
        for stored in vectors:
            stored.close()
    all_keys = pa.concat_arrays(keys) if keys else pa.array([], pa.string())
    ranks = quality_rank([np.concatenate(parts) for parts in values], order_key(all_keys, seed))
    return all_keys, ranks


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    return column.cast(pa.float64()).to_numpy()


def _write(config: Config, sources: Sources, criteria: Sequence[Criterion],
           keys: pa.Array, found: Duplicates) -> Manifest:
    rules = (Rule(column="duplicate_similarity", max=config.drop_above, optional=True,
                  why="one of several that show the same"),)
    decide = ApplyRules(rules)
    full = pa.schema([*(f for f in sources.schema if f.name not in {c.name for c in COLUMNS}), *COLUMNS])
    made_by = {c.name: {"op": "filters.duplicates:find_duplicates", "by": list(config.by)} for c in COLUMNS}
    with ManifestWriter(config.write, sources.stop, full) as writer:
        for table in _marked(sources, criteria, keys, found):
            writer.append(decide(table))
        return writer.commit(name="dedupe", row=sources.stop.row, parents=sources.parents_of(config.write),
                             config=plain(config), rules=plain(rules), policy=plain(criteria),
                             owners=sources.owners | made_by, versions=versions(),
                             **sources.feature_header(config.write))


def _marked(sources: Sources, criteria: Sequence[Criterion], keys: pa.Array,
            found: Duplicates) -> Iterator[pa.Table]:
    start, grouped, names = 0, found.grouped, pa.array([c.column for c in criteria])
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


def _show(found: Duplicates, manifest: Manifest) -> None:
    copies = int((found.by >= 0).sum())
    groups = len(np.unique(found.kept[found.by >= 0]))
    print(f"{len(found.by):>11,} rows, {copies:,} repeat another one, in {groups:,} groups")
    for reason, num in sorted(count_drops(manifest.table(["drop_reason"])["drop_reason"]).items()):
        print(f"{num:>11,} dropped: {reason}")
    print(f"manifest  {manifest.path}")
