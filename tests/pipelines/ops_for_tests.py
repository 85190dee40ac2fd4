"""Ops that fail on purpose. They exist only to inject faults."""

from __future__ import annotations

import os
import signal
import time

import pyarrow as pa

from manifests.columns import column, map_rows
from manifests.errors import MediaError

VALUE = column("value", pa.int64(), "length of the path")


class MeasureLength:
    """`value` = length of the path. Slow, unreadable or deadly for paths that say so."""

    reads = ("path",)
    adds = (VALUE,)

    def __init__(self, delay_s: float = 0.0, log: str = ""):
        self.delay_s, self.log = delay_s, log

    def __call__(self, table: pa.Table) -> pa.Table:
        return map_rows(table, self, self._measure)

    def _measure(self, row: dict) -> dict:
        if self.log:  # one line a row worked on, with the process that did it
            with open(self.log, "a") as file:
                file.write(f"{row['path']} {os.getpid()}\n")
        time.sleep(self.delay_s)
        if "deadly" in row["path"]:
            os.kill(os.getpid(), signal.SIGKILL)
        if "bad" in row["path"]:
            raise MediaError(f"{row['path']} is bad")
        if "bug" in row["path"]:
            raise ZeroDivisionError("a bug in an op")
        return {"value": len(row["path"])}
