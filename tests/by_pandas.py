"""A manifest read by another reader than ours, as its README says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd


def by_pandas(folder: str | Path) -> pd.DataFrame:
    """All rows, with the paths that are named relative to the folder opened from there."""
    folder = Path(folder).resolve()
    table = pd.concat(pd.read_parquet(part) for part in sorted(folder.glob("part-*.parquet")))
    for name, values in table.items():
        table[name] = pd.Series([_opened(v, folder) for v in values], values.index, values.dtype)
    return table


def _opened(value, folder: Path):
    if isinstance(value, str) and value.startswith("../../"):
        return str((folder / value).resolve())
    if isinstance(value, dict):
        return {k: _opened(v, folder) for k, v in value.items()}
    if isinstance(value, (list, np.ndarray)):
        new = np.empty(len(value), object)
        new[:] = [_opened(v, folder) for v in value]
        return new if any(isinstance(v, (str, dict)) for v in value) else value
    return value
