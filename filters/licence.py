"""What a row's licence allows, as columns; a rule decides with a policy (`rights_rule`)."""

from __future__ import annotations

import pyarrow as pa

from manifests.columns import column, require, set_column
from manifests.licences import allowed, classify

from .rules import Rule

LICENCE_ID = column("licence_id", pa.string(), "SPDX identifier of the licence; null = it has none that is known")
RIGHTS = column("rights", pa.string(), "open, non-commercial, no-derivatives, both of these, or unknown")


class ClassifyLicence:
    """Adds `licence_id` and `rights` from the column `licence`. Never null: not stated is unknown."""

    reads = ("licence",)
    adds = (LICENCE_ID, RIGHTS)

    def __call__(self, table: pa.Table) -> pa.Table:
        require(table, self.reads, "ClassifyLicence")
        found = [classify(text) for text in table["licence"].to_pylist()]
        table = set_column(table, LICENCE_ID, [f.spdx for f in found])
        return set_column(table, RIGHTS, [f.rights for f in found])


def rights_rule(policy: str) -> Rule:
    """Keeps rows whose licence the policy allows: any, known, research or commercial."""
    return Rule(column="rights", allowed=allowed(policy), why=f"rights policy {policy}")
