"""Rules decide what the measures mean. They need no media and no model.

The defaults are those of the paper's section 3.1 (similarity 0.65 to 0.95, 2 to 10 s); the
others keep out what no trainer can use, each with its reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.columns import DROP_REASON, FAILED, require, set_column
from manifests.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Keeps rows whose `column` lies in [min, max], or is one of `allowed`, or is there at all.

    A value that could not be measured (null) fails: the row is dropped as
    "failed: <column> was not measured". `failure` marks rules whose breach is a failure of the
    file and not a decision about it; the reason is then "failed: <value>". With `optional` a
    null passes: the measure does not apply to every row (a picture has no frame before it).
    """

    column: str
    min: float | None = None
    max: float | None = None
    allowed: tuple[str, ...] = ()
    failure: bool = False
    optional: bool = False
    why: str = ""

    def __post_init__(self):
        if self.allowed and (self.min is not None or self.max is not None):
            raise ConfigError(f"the rule on {self.column} takes min and max, or allowed values, not both")
        for name, limit in (("min", self.min), ("max", self.max)):
            if limit is not None and math.isnan(limit):  # nothing is below or above it: the rule would drop no row
                raise ConfigError(f"the rule on {self.column} has {name} {limit}, which is no limit: give a number")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ConfigError(f"the rule on {self.column} has min {self.min:g} above max {self.max:g}")

    def reasons(self, values: pa.ChunkedArray) -> pa.Array:
        """Drop reason for each value, null where the rule holds."""
        result = pa.nulls(len(values), pa.string())
        values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
        if pa.types.is_boolean(values.type) and self.allowed:
            values = values.cast(pa.string())  # true, false
        if self.allowed:
            broken = pc.invert(pc.is_in(values, value_set=pa.array(self.allowed)))
            text = pc.binary_join_element_wise(FAILED.rstrip() if self.failure else f"{self.column} is",
                                               pc.fill_null(values, "unknown"), " ")
            broken = pc.if_else(pc.is_null(values), not self.optional, broken)
            return pc.if_else(broken, text, result)
        if pa.types.is_floating(values.type):
            values = pc.if_else(pc.is_nan(values), None, values)
        if self.min is not None:
            result = pc.if_else(pc.fill_null(pc.less(values, self.min), False), f"{self.column}<{self.min:g}", result)
        if self.max is not None:
            result = pc.if_else(pc.fill_null(pc.greater(values, self.max), False),
                                f"{self.column}>{self.max:g}", result)
        if self.optional:
            return result
        return pc.if_else(pc.is_null(values), f"{FAILED}{self.column} was not measured", result)


class ApplyRules:
    """Fills `drop_reason` with the first rule broken; a row that has a reason keeps it."""

    def __init__(self, rules: Sequence[Rule]):
        self.rules = tuple(rules)
        self.reads, self.adds = tuple(r.column for r in self.rules), (DROP_REASON,)

    @classmethod
    def contract(cls, rules: Sequence[Rule]) -> tuple[tuple[str, ...], tuple[pa.Field, ...]]:
        return tuple(r.column for r in rules), (DROP_REASON,)

    def __call__(self, table: pa.Table) -> pa.Table:
        require(table, self.reads, "ApplyRules")
        reasons = table[DROP_REASON.name]
        for rule in self.rules:
            reasons = pc.coalesce(reasons, rule.reasons(table[rule.column]))
        return set_column(table, DROP_REASON, reasons)


class ApplyRulesWhere:
    """`ApplyRules` for the rows whose `column` has one of `values`; the others pass by.

    For measures that only some kinds of rows have, such as the mask of a pair that needs one.
    """

    def __init__(self, column: str, values: Sequence[str], rules: Sequence[Rule]):
        self.column, self.values, self._apply = column, pa.array(values, pa.string()), ApplyRules(rules)
        self.reads, self.adds = self.contract(column, values, rules)

    @classmethod
    def contract(cls, column: str, values: Sequence[str], rules: Sequence[Rule],
                 ) -> tuple[tuple[str, ...], tuple[pa.Field, ...]]:
        return (column, *ApplyRules.contract(rules)[0]), (DROP_REASON,)

    def __call__(self, table: pa.Table) -> pa.Table:
        require(table, self.reads, "ApplyRulesWhere")
        concerned = pc.fill_null(pc.is_in(table[self.column], value_set=self.values), False)
        decided = self._apply(table)[DROP_REASON.name]
        return set_column(table, DROP_REASON, pc.if_else(concerned, decided, table[DROP_REASON.name]))


class Decisions:
    """First rule broken for every row of a large table, as one small integer a row.

    Columns are looked at one at a time, so that no more than one is ever in memory.
    """

    def __init__(self, num_rows: int):
        self.codes = np.zeros(num_rows, np.uint8)  # 0 = accepted
        self.reasons: list[str | None] = [None]

    @property
    def accepted(self) -> np.ndarray:
        return self.codes == 0

    def drop(self, rows: np.ndarray, reason: str) -> None:
        """Mark rows (boolean mask or indices) that are still accepted."""
        if reason not in self.reasons:
            self.reasons.append(reason)
        mask = np.zeros(len(self.codes), bool)
        mask[rows] = True
        self.codes[mask & self.accepted] = self.reasons.index(reason)

    def apply(self, rule: Rule, values: pa.ChunkedArray) -> None:
        reasons = pc.dictionary_encode(rule.reasons(values))
        reasons = reasons.combine_chunks() if isinstance(reasons, pa.ChunkedArray) else reasons
        index = pc.fill_null(reasons.indices, -1).to_numpy(zero_copy_only=False)
        for i, reason in enumerate(reasons.dictionary.to_pylist()):
            self.drop(index == i, reason)

    def column(self, start: int, num_rows: int) -> pa.Array:
        """`drop_reason` of the rows from `start` on, in the order they were decided."""
        codes = self.codes[start : start + num_rows]
        return pa.DictionaryArray.from_arrays(codes.astype(np.int32), pa.array(self.reasons, pa.string())).cast(
            pa.string())
