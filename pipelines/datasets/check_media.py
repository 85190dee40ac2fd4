"""Do the media of a pair exist, and how long are they."""

from __future__ import annotations

import pyarrow as pa

from manifests import storage
from manifests.columns import add_issues, column, require, set_column
from manifests.errors import InputError, MediaError
from manifests.media import probe
from manifests.messages import input_kinds
from manifests.pictures import PICTURE_ENDINGS
from manifests.schema import PAIRS
from manifests.spans import read_image
from manifests.tasks import TASKS

from .entries import MEDIA_ENDINGS, VIDEOS, kind_of

_SPANS = tuple(f"{side}_{part}" for side in ("source", "target") for part in ("start_s", "end_s", "duration_s"))
MEDIA = column("media", pa.string(), "good, missing, unreadable, no target, or not what its task takes")


class CheckMedia:
    """Fills the spans of sources, targets and conditions from the files, and says in `media` what is wrong.

    Pictures are decoded, of videos the header is read. A span that is there is kept and must lie
    inside the video. A row whose media cannot be used keeps its paths.
    """

    reads = ("task", "source_path", "target_path", "mask_path", "conditions", "target_start_s", "target_end_s")
    adds = (*(PAIRS.schema.field(name) for name in (*_SPANS, "conditions")), MEDIA)

    def __call__(self, table: pa.Table) -> pa.Table:
        require(table, self.reads, "CheckMedia")
        results, issues = [], []
        for row in table.select(list(self.reads)).to_pylist():
            found, wrong = self._row(row)
            results.append(found)
            issues.append([f"CheckMedia: {wrong}"] if wrong else [])
        for field in self.adds:
            table = set_column(table, field, [r.get(field.name) for r in results])
        return add_issues(table, issues)

    def _row(self, row: dict) -> tuple[dict, str]:
        found = {"conditions": row["conditions"], "media": "good"}
        if not row["target_path"]:
            return found | {"media": "no target"}, "the data set names no target for this row"
        conditions = [c["path"] for c in row["conditions"] or ()]
        try:
            for path in filter(None, [row["source_path"], row["target_path"], row["mask_path"], *conditions]):
                if not storage.exists(path):
                    return found | {"media": "missing"}, f"there is no file {path}"
            found |= self._spans(row)
        except (MediaError, InputError, OSError) as error:  # also an address on the web, or a text in place of a name
            return found | {"media": "unreadable"}, str(error)
        task, kinds, made = TASKS[row["task"]], input_kinds(row | found), kind_of(row["target_path"])
        if task.takes(kinds) and made == task.output:
            return found, ""
        return found | {"media": "not what its task takes"}, (
            f"the task {task.name} makes a target of the kind {task.output} from {task.inputs or 'nothing'}; here the "
            f"target is of the kind {made}, the inputs are {kinds or 'nothing'}")

    def _spans(self, row: dict) -> dict:
        found = {}
        if row["source_path"]:
            found |= _side("source", _span(row["source_path"]))
        given = None if row["target_start_s"] is None else (row["target_start_s"], row["target_end_s"])
        found |= _side("target", _span(row["target_path"], given))
        conditions = []
        for c in row["conditions"] or ():
            start, end = _span(c["path"])
            conditions.append(c | {"start_s": start, "end_s": end, "kind": "image" if start is None else "video"})
        if row["mask_path"]:
            _span(row["mask_path"])
        return found | {"conditions": conditions}


def _span(path: str, given: tuple[float, float] | None = None) -> tuple[float | None, float | None]:
    """`(start_s, end_s)`; two nulls for a picture."""
    if kind_of(path) == "image":
        read_image(path, long_px=64)
        return None, None
    seconds = _seconds(path)
    start, end = given or (0.0, seconds)
    if not 0 <= start < end or start >= seconds:
        raise MediaError(f"{path} lasts {seconds:.2f} s; the data set names the part {start:.2f} to {end:.2f} s")
    return start, min(end, seconds)


def _seconds(path: str) -> float:
    """Length of a film; one whose ending is not known may be a film all the same."""
    known = path.lower().endswith(MEDIA_ENDINGS)
    try:
        seconds, why = probe(path).duration_s, "it does not say how long it is"
    except MediaError as error:
        if known:
            raise
        seconds, why = None, str(error)
    if not seconds and not known:
        raise MediaError(f"{path} ends neither as a picture ({' '.join(PICTURE_ENDINGS)}) nor as a film "
                         f"({' '.join(VIDEOS)}), and cannot be read as a film ({why}): convert or rename it")
    if not seconds:
        raise MediaError(f"{path} does not say how long it is")
    return seconds


def _side(side: str, span: tuple[float | None, float | None]) -> dict:
    start, end = span
    return {f"{side}_start_s": start, f"{side}_end_s": end,
            f"{side}_duration_s": None if start is None else end - start}
