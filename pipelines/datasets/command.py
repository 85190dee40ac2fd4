"""`bernini import DATASET`: open data sets, and pairs of one's own, as CANDIDATES, PAIRS and SAMPLES.

The layout is read row by row into CANDIDATES; then workers look at the media (are they there, do they
open, how long are they), so that the same command resumes. What lacks its media keeps its row,
with the reason in `issues`, and is dropped. SAMPLES carry the name that Table 1 knows the data set
by and the licence its authors state.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pkgutil import resolve_name

import pyarrow as pa
import tyro

from datagen.build_samples import BuildSamples
from filters.rules import Rule
from manifests import storage
from manifests.columns import ACCOUNT, column
from manifests.errors import ConfigError, InputError
from manifests.ids import digest, file_hash, make_id
from manifests.manifest import Manifest, live
from manifests.media_store import MediaStore
from manifests.schema import CANDIDATES, SAMPLES
from manifests.settings import parse
from manifests.tasks import TASKS

from ..command import print_funnel
from ..recipe import RunConfig, Steps, apply_rules
from ..run import require_accepted
from ..stage import Stage
from . import DATASETS
from .entries import TABLES, Entry, base_of, is_file, kind_of, task_of

ROWS = 4096
CACHED = 65_536  # hashes of files that several rows may name
EXTRA = (
    column("source_name", pa.string(), "data set it counts as in a mixture"),
    column("instruction", pa.string(), "what to change, or what is seen, as the data set says it"),
    column("reasoning", pa.string(), "chain of thought that the data set gives; null = none"),
)
SCHEMA = pa.schema([*CANDIDATES.fields, *EXTRA, *ACCOUNT])
RULES = (
    Rule(column="media", allowed=("good",), failure=True, why="what is not there cannot be trained on"),
    Rule(column="instruction", why="a pair without a prompt cannot be trained on"),
)


@dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """Settings of `bernini import`."""

    dataset: tyro.conf.Positional[str]
    """Name of the data set or layout."""
    source_name: str = ""
    """Name in the mixture; empty = that of Table 1, for layouts of your own the layout's name."""
    licence: str = ""
    """Licence of all rows that state none themselves; empty = what the data set's authors state."""

    def __post_init__(self):
        super().__post_init__()
        if self.dataset not in DATASETS:
            raise ConfigError(f"no data set {self.dataset!r}; known: {', '.join(DATASETS)}")


def main(argv: list[str]) -> int:
    """Read a data set into pairs and samples."""
    if not argv or argv[0] in ("-h", "--help"):
        known = "\n".join(f"  {name:<18} {resolve_name(module).WHY}" for name, module in DATASETS.items())
        print("usage: bernini import DATASET --input FOLDER --output OUT [settings]\n\n"
              f"{__doc__}\nData sets:\n{known}\n\n  bernini import DATASET --help   explains the settings")
        return 0 if argv else 2
    config = parse(Config, argv, prog="bernini import", description=_about(argv[0]))
    done = []
    try:
        for manifest in import_dataset(config):
            done.append(manifest)
    finally:
        print_funnel(done)
    print(f"samples   {done[-1].path}")
    return 0


def _about(name: str) -> str:
    return resolve_name(DATASETS[name]).__doc__ if name in DATASETS else __doc__


def import_dataset(config: Config) -> Iterator[Manifest]:
    """CANDIDATES, PAIRS and SAMPLES as they finish; `RunStopped` where no pair has its media."""
    layout, steps = resolve_name(DATASETS[config.dataset]), Steps(config, f"import-{config.dataset}")
    if not storage.exists(_root(config)):
        raise InputError(f"--input {config.input} does not exist; it is the folder of the data set, or one list or "
                         "shard of it")
    settings = [_root(config), config.source_name, config.licence]
    found = steps.finish("candidates", SCHEMA, _tables(layout, config), settings=settings,
                         sources=[_fingerprint(layout, config)])
    yield found
    if not found.num_rows:
        raise InputError(f"--input {config.input} is laid out as {config.dataset}, but its lists hold no rows: nothing "
                         "can be imported")
    own = [Stage(op=op, kwargs={"root": config.media_root}, batch_size=8) for op in getattr(layout, "STAGES", ())]
    stages = (*own, Stage(op="pipelines.datasets.check_media:CheckMedia", batch_size=64), apply_rules(*RULES))
    yield (pairs := steps.run("pairs", found, stages, rows_per_block=256, parents=[found], rules=RULES))
    require_accepted(pairs, hint="Media are looked for below --input; are they downloaded and unpacked?")
    yield steps.finish("samples", SAMPLES.schema, _samples(pairs), parents=[pairs], settings="source_name")


def _root(config: Config) -> str:
    """The data set as an absolute path or URI: rows must open from everywhere."""
    return storage.absolute(config.input).rstrip("/") or "/"


def _fingerprint(layout, config: Config) -> str:
    """Changes with the content of the data set's lists (or, where the files are the list, with that of a file)."""
    root = _root(config)
    if is_file(root):
        return digest(_content(root))
    if getattr(layout, "DEEP", False):
        names = [name for name, _ in storage.files_below(root, config.output)]
    else:
        names = [name for name, _ in storage.list_files(root) if is_file(name)]
    return digest([[name, _content(storage.join(root, name))] for name in names])


def _content(path: str) -> str | None:
    """Hash of a file: of all bytes of a list, of pieces of a medium or shard; None where it cannot be read."""
    try:
        if not path.lower().endswith(TABLES):
            return file_hash(path)
        filesystem, inner = storage.resolve(path)
        with filesystem.open_input_file(inner) as stream:
            return hashlib.file_digest(stream, "blake2b").hexdigest()
    except (OSError, InputError):
        return None  # whoever needs it says so


def _tables(layout, config: Config) -> Iterator[pa.Table]:
    store, content, rows = MediaStore(config.media_root), lru_cache(CACHED)(_content), []
    own = {"leave_out": config.output} if getattr(layout, "DEEP", False) else {}
    for number, entry in enumerate(layout.entries(_root(config), store, **own)):
        rows.append(_row(entry, number, layout, config, content))
        if len(rows) == ROWS:
            yield pa.Table.from_pylist(rows, SCHEMA)
            rows = []
    yield pa.Table.from_pylist(rows, SCHEMA)


def _row(entry: Entry, number: int, layout, config: Config, content: Callable[[str], str | None]) -> dict:
    """`content` gives the hash of a file: with the source's name it tells data sets of one layout apart."""
    task = task_of(entry)
    if task not in TASKS:
        raise ConfigError(f"row {number} of {config.input} has the task {task!r}; known: {', '.join(TASKS)}")
    start, end = entry.target_span or (None, None)

    def name(path: str | None) -> str | None:  # ids must not change with the place of input and output
        return path and path.removeprefix(base_of(_root(config))).removeprefix(config.media_root)

    extra = {k: v for k, v in entry.extra.items() if v not in (None, "", [])}
    source_name = config.source_name or entry.source_name or layout.NAME
    media = [[name(path), content(path)] for path in (entry.source, entry.target) if path]
    return {
        "pair_id": make_id("pair", config.dataset, source_name, number, media, entry.text),
        "video_id": make_id("video", source_name, media[:1]), "recipe": f"import-{config.dataset}",
        "task": task, "edit": entry.edit, "source_path": entry.source, "target_path": entry.target,
        "target_start_s": start, "target_end_s": end, "mask_path": entry.mask,
        "conditions": [{"role": c.role, "kind": kind_of(c.path), "path": c.path} for c in entry.conditions],
        "licence": entry.licence or config.licence or layout.LICENCE, "source_url": entry.source_url,
        "extra": json.dumps(extra, ensure_ascii=False, sort_keys=True, default=str) if extra else None,
        "source_name": source_name,
        "instruction": (entry.text or "").strip() or None, "reasoning": entry.reasoning,
        "issues": [f"{config.dataset}: {entry.problem}"] if entry.problem else [], "num_attempts": 1,
    }


def _samples(pairs: Manifest) -> Iterator[pa.Table]:
    """A batch of one data set at a time: the builder takes its name as an argument."""
    for batch in map(live, pairs.batches()):
        names = batch["source_name"].to_pylist()
        for name in sorted(set(names)):
            yield BuildSamples(name)(batch.filter(pa.array([n == name for n in names])))
