"""Rejected edits beside the kept one of the same source and instruction: preference pairs (D5).

Paper section 3.3: edits pass quality measures before they are kept. One that failed them is still worth something
where another attempt at the same instruction passed: a model can be taught which of the two is meant.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from manifests.columns import DROP_REASON, FAILED, require, set_column
from manifests.ids import make_id
from manifests.schema import PREFERENCES, RIGHTS

KEPT = ("video_id", "recipe", "task", "edit", "instruction")
ATTEMPTS_AT = ("source_clip_id", "task", "edit", "instruction")  # rows that agree in these try the same
REPEATED = "same as an earlier attempt"  # drop reason


class PairPreferences:
    """PAIRS → PREFERENCES. `scores` names the columns of measures and marks that go along.

    A row that was dropped without a target, or as failed, is no reject: nothing of it can be compared. Nor is one
    with the target of an earlier attempt. All rows of a clip must come in one table.
    """

    makes = PREFERENCES.schema

    def __init__(self, scores: Sequence[str]):
        self.scores = tuple(scores)
        self.reads = ("pair_id", "source_clip_id", *KEPT, *(f"{side}_{name}" for side in ("source", "target")
                      for name in ("path", "start_s", "end_s")), *(f.name for f in RIGHTS), "drop_reason")

    def __call__(self, table: pa.Table) -> pa.Table:
        require(table, (*self.reads, *self.scores), "PairPreferences")
        groups: dict[tuple, dict[str, dict]] = {}
        for row in table.select([*self.reads, *self.scores]).to_pylist():
            if row["target_path"] and row["source_path"]:
                groups.setdefault(tuple(row[n] for n in ATTEMPTS_AT), {}).setdefault(row["target_path"], row)
        return pa.Table.from_pylist([p for rows in groups.values() for p in self._of([*rows.values()])], self.makes)

    def _of(self, rows: Sequence[Mapping[str, object]]) -> Iterator[dict]:
        chosen = next((row for row in rows if row["drop_reason"] is None), None)
        for row in rows:
            if chosen and row["drop_reason"] is not None and not row["drop_reason"].startswith(FAILED):
                yield self._preference(chosen, row)

    def _preference(self, chosen: Mapping[str, object], rejected: Mapping[str, object]) -> dict:
        media = {f"{name}_{what}": row[f"{side}_{what}"] for what in ("path", "start_s", "end_s")
                 for name, row, side in (("source", chosen, "source"), ("chosen", chosen, "target"),
                                         ("rejected", rejected, "target"))}
        return {
            "preference_id": make_id("preference", chosen["pair_id"], rejected["pair_id"]), **media,
            **{name: chosen[name] for name in (*KEPT, *(f.name for f in RIGHTS))},
            "reject_reason": rejected["drop_reason"], "issues": [], "num_attempts": 1,
            **{f"{side}_{name}": value for side, row in (("chosen", chosen), ("rejected", rejected))
               for name, value in (("pair_id", row["pair_id"]),
                                   ("scores", json.dumps({n: row[n] for n in self.scores})))},
        }


def drop_repeats(table: pa.Table, *, alike: bool = False) -> pa.Table:
    """Attempts that made the very target of an earlier one are dropped: an editor without chance repeats itself.

    Files are named by their content, so equal paths are equal bytes. `alike`: attempts differ by noise that nobody
    sees, so that behind an accepted one no other is accepted. All rows of a clip must come in one table.
    """
    require(table, (*ATTEMPTS_AT, "target_path", DROP_REASON.name), "drop_repeats")
    made, accepted, reasons = set(), set(), []
    for row in table.select([*ATTEMPTS_AT, "target_path", DROP_REASON.name]).to_pylist():
        at, target, reason = tuple(row[name] for name in ATTEMPTS_AT), row["target_path"], row[DROP_REASON.name]
        repeated = target is not None and (at, target) in made or alike and reason is None and at in accepted
        reasons.append(REPEATED if repeated else reason)
        made.add((at, target))
        accepted |= {at} if reason is None else set()
    return set_column(table, DROP_REASON, reasons)
