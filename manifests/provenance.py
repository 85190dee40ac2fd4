"""What made a table: code, packages and configuration, in plain JSON values."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform

# Packages whose version can change a pixel, a number or a row.
PACKAGES = (
    "bernini", "av", "numpy", "opencv-python-headless", "pillow", "pyarrow", "scenedetect-headless",
    "ray", "torch", "transformers", "open-clip-torch", "faiss-cpu", "vllm",
)


def versions() -> dict[str, str]:
    """Installed versions of the packages that matter, without importing any of them."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def plain(value: object) -> object:
    """A configuration as JSON values: dataclasses become dicts, tuples lists, paths strings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)
