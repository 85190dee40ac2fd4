"""What the report shows of a manifest: its ancestors, chosen rows, and numbers to draw.

Columns are read one at a time, whole rows only for those that were chosen; embeddings and
other nested columns are never read.
"""

from __future__ import annotations

import json
import posixpath
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from . import storage
from .columns import DROP_REASON
from .errors import BerniniError
from .manifest import Manifest
from .messages import IMAGE_MESSAGES, VIDEO_MESSAGES
from .report_pictures import Span
from .schema import STOPS

MAX_REASONS = 12
EXAMPLES_PER_REASON = 3
PAIR_STOPS = ("candidates", "pairs")
SIMILARITIES = ("video_similarity", "frame_similarity")
TOKENS = r"[\p{L}\p{N}_]+|[^\p{L}\p{N}_\s]"  # RE2's form of the words and marks of report_text


@dataclass
class Chain:
    """The manifest and everything it was made from, first stop first."""

    manifests: list[Manifest] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)  # parents that cannot be opened, and why


def follow_parents(manifest: Manifest) -> Chain:
    chain, seen, waiting = Chain(), set(), [manifest]
    while waiting:
        here = waiting.pop()
        if here.path in seen:
            continue
        seen.add(here.path)
        chain.manifests.append(here)
        for parent in here.header.get("parents") or []:
            try:
                waiting.append(Manifest.open(_below(here.path, parent)))
            except (BerniniError, OSError, TypeError) as error:
                chain.absent.append(f"{parent}: {error}")
    order = list(STOPS)
    chain.manifests.sort(key=lambda m: (order.index(m.stop.name), m.path))
    return chain


def _below(folder: str, path: str) -> str:
    """A path of a header or row: absolute, a URI, or relative to the manifest."""
    if storage.is_uri(path) or posixpath.isabs(path):
        return path
    scheme, mark, inner = folder.rpartition("://")
    return scheme + mark + posixpath.normpath(posixpath.join(inner, path))


@dataclass
class Choice:
    """The rows that the page shows in full, with media paths that can be opened."""

    accepted: list[dict]
    rejected: list[tuple[str, int, list[dict]]]  # reason, how many rows have it, examples
    num_reasons: int
    rejects: Manifest | None                     # where the rejected rows lie


def choose_rows(chain: Chain, manifest: Manifest, max_rows: int) -> Choice:
    dropped = drop_codes(manifest)
    accepted = take_rows(manifest, _spread(manifest, np.flatnonzero(dropped.codes < 0), max_rows))
    rejects = _with_rejects(chain, manifest)
    if rejects is None:
        return Choice(accepted, [], 0, None)
    dropped = dropped if rejects is manifest else drop_codes(rejects)
    counts = np.bincount(dropped.codes[dropped.codes >= 0], minlength=len(dropped.reasons))
    order = sorted(range(len(counts)), key=lambda i: (-counts[i], dropped.reasons[i]))
    examples = [(dropped.reasons[i], int(counts[i]), take_rows(rejects, _evenly(
        np.flatnonzero(dropped.codes == i), EXAMPLES_PER_REASON))) for i in order[:MAX_REASONS]]
    return Choice(accepted, examples, len(order), rejects)


def _with_rejects(chain: Chain, manifest: Manifest) -> Manifest | None:
    """The manifest itself, or for pairs the candidates they came from when those were dropped there."""
    if manifest.header.get("drops"):
        return manifest
    if manifest.stop.name in PAIR_STOPS:
        for parent in reversed(chain.manifests):
            if parent.stop.name in PAIR_STOPS and parent.header.get("drops"):
                return parent
    return None


@dataclass
class Drops:
    codes: np.ndarray    # position in `reasons` for each row, -1 = accepted
    reasons: list[str]


def drop_codes(manifest: Manifest) -> Drops:
    column = pc.dictionary_encode(manifest.table([DROP_REASON.name])[DROP_REASON.name]).unify_dictionaries()
    if not column.num_chunks:
        return Drops(np.empty(0, np.int64), [])
    codes = [pc.fill_null(chunk.indices, -1).to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return Drops(np.concatenate(codes).astype(np.int64), column.chunk(0).dictionary.to_pylist())


def _spread(manifest: Manifest, rows: np.ndarray, num: int) -> np.ndarray:
    """Evenly spread over similarity where there is one (lowest first), else over the table."""
    if name := similarity_of(manifest.schema.names):
        values = column_numbers(manifest, name)[rows]
        rows = rows[np.argsort(values, kind="stable")]  # not measured comes last
    return _evenly(rows, num)


def similarity_of(names: Iterable[str]) -> str | None:
    """The column that says how alike the two sides of a pair are, where there is one."""
    return next((name for name in SIMILARITIES if name in names), None)


def _evenly(rows: np.ndarray, num: int) -> np.ndarray:
    if len(rows) <= num:
        return rows
    return rows[np.linspace(0, len(rows) - 1, num).round().astype(np.int64)]


def take_rows(manifest: Manifest, rows: np.ndarray) -> list[dict]:
    """Rows by position, in the order asked for."""
    found, start, order = {}, 0, np.sort(rows)
    if not len(rows):
        return []
    names = [f.name for f in manifest.schema if _is_shown(f)]
    for batch in manifest.batches(names):
        low, high = np.searchsorted(order, (start, start + batch.num_rows))
        if high > low:
            chosen = batch.take(pa.array(order[low:high] - start)).to_pylist()
            found |= zip(order[low:high].tolist(), chosen, strict=True)
        start += batch.num_rows
    return [found[row] for row in rows.tolist() if row in found]


def _is_shown(column: pa.Field) -> bool:
    if column.name in ("issues", "videos", "images", "conditions", "texts"):
        return True
    return not pa.types.is_nested(column.type)


def column_numbers(manifest: Manifest, name: str) -> np.ndarray:
    """float64 `(N,)`, NaN where it was not measured."""
    values = manifest.table([name])[name].cast(pa.float64(), safe=False)
    return pc.fill_null(values, np.nan).to_numpy()


def token_numbers(manifest: Manifest) -> np.ndarray | None:
    """Prompt tokens of every row, float64 with NaN for none; `None` when there are no prompts."""
    if "num_prompt_tokens" in manifest.schema.names:
        return column_numbers(manifest, "num_prompt_tokens")
    if "instruction" not in manifest.schema.names:
        return None
    counts = pc.count_substring_regex(manifest.table(["instruction"])["instruction"], TOKENS)
    return pc.fill_null(counts.cast(pa.float64()), np.nan).to_numpy()


def media_of(row: dict, manifest: Manifest) -> Iterator[tuple[str, str | None, Span | None]]:
    """(role, path, span) of each clip or picture that a row shows; the span is `None` when the row names none."""
    if manifest.stop.name in PAIR_STOPS:
        found = list(_pair_media(row))
    elif manifest.stop.name == "clips":
        found = [("clip", row.get("path"), row.get("start_s"), row.get("end_s"))]
    elif manifest.stop.name == "frames":
        found = [("frame", row.get("path"), row.get("time_s"), None)]
    else:
        found = list(_sample_media(row))
    for role, path, start_s, end_s, *mask in found:
        times = (None if t is None else float(t) for t in (start_s, end_s))
        yield role, path, Span(_below(manifest.path, path), *times, *(_below(manifest.path, m) for m in mask)) \
            if path else None


def _pair_media(row: dict) -> Iterator[tuple]:
    """Source, what else a model is given, target, and where the edit lies in the target."""
    sides = {side: (row.get(f"{side}_path"), row.get(f"{side}_start_s"), row.get(f"{side}_end_s"))
             for side in ("source", "target")}
    for side, (path, start_s, _) in sides.items():
        if start_s is None:  # a picture file, or one moment of a film
            sides[side] = (path, row.get(f"{side}_time_s"), None)
    conditions = row.get("conditions") or []
    if sides["source"][0] or not conditions:
        yield "source", *sides["source"]
    for item in conditions:
        yield (item["role"] or "condition").replace("_", " "), item["path"], item["start_s"], item["end_s"]
    yield "target", *sides["target"]
    if row.get("mask_path") and sides["target"][0]:
        yield "mask", *sides["target"], row["mask_path"]


def _sample_media(row: dict) -> Iterator[tuple]:
    """In the order of the messages; what they do not name comes last."""
    kinds = [m.get("type") for m in messages_of(row)]
    waiting = {"image": deque(row.get("images") or []), "video": deque(row.get("videos") or [])}
    wanted = [kind for kind in kinds if kind in IMAGE_MESSAGES + VIDEO_MESSAGES]
    wanted += ["image"] * (len(waiting["image"]) - sum(k in IMAGE_MESSAGES for k in wanted))
    wanted += ["video"] * (len(waiting["video"]) - sum(k in VIDEO_MESSAGES for k in wanted))
    for kind in wanted:
        role = "target" if kind.endswith("_gen") else "source"
        if kind in IMAGE_MESSAGES and waiting["image"]:
            yield role, waiting["image"].popleft(), None, None
        elif kind in VIDEO_MESSAGES and waiting["video"]:
            item = waiting["video"].popleft()
            start_s = item.get("start_s") or 0.0
            yield role, item.get("video_path"), start_s, item.get("end_s") or start_s + (item.get("duration") or 0.0)


def messages_of(row: dict) -> list[dict]:
    """The messages of a sample; none where `inputs` is not what the training form asks for."""
    try:
        messages = json.loads(row.get("inputs") or "[]")
    except ValueError:
        return []
    return [m for m in messages if isinstance(m, dict)] if isinstance(messages, list) else []


def prompts_of(row: dict) -> list[tuple[str, str]]:
    """(label, text) of what a model is told, coarse before fine."""
    texts = [("coarse", row.get("transition")), ("prompt", row.get("instruction")), ("caption", row.get("caption"))]
    labels = {"text": "prompt", "cot_text": "learned"}
    texts += [(labels[m["type"]], m.get("text")) for m in messages_of(row) if m.get("type") in labels]
    texts += [("text", text) for text in row.get("texts") or []]
    return [(label, text) for label, text in texts if isinstance(text, str) and text]
