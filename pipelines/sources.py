"""Several manifests of one kind, read as one table."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from manifests import storage
from manifests.errors import ConfigError, ManifestError
from manifests.features import feature_root
from manifests.manifest import Manifest


class Sources:
    """Manifests of one stop; `schema` has the columns that all of them hold in one type, the rest is named."""

    def __init__(self, paths: Sequence[str], stop: str = ""):
        if not paths:
            raise ConfigError("name at least one manifest")
        self.manifests = [Manifest.open(path) for path in paths]
        wrong = [m for m in self.manifests if m.stop.name != (stop or self.manifests[0].stop.name)]
        if wrong:
            raise ManifestError(f"{wrong[0].path} is a {wrong[0].stop.name} table, not "
                                f"{stop or self.manifests[0].stop.name}: rows of one kind go together")
        self.stop = self.manifests[0].stop
        schemas = [m.schema for m in self.manifests]
        self.schema = pa.schema([f for f in schemas[0] if all(
            f.name in s.names and s.field(f.name).type == f.type for s in schemas)])
        left_out = sorted({name for s in schemas for name in s.names} - set(self.schema.names))
        if left_out:
            print(f"note: columns that not all manifests have are left out: {', '.join(left_out)}")

    def require(self, name: str, hint: str = "") -> None:
        for m in self.manifests:
            if name not in m.schema.names:
                raise ManifestError(f"{m.path} has no column {name}{hint}")
        if name not in self.schema.names:
            kinds = sorted({str(m.schema.field(name).type) for m in self.manifests})
            raise ManifestError(f"the column {name} holds {' in one manifest and '.join(kinds)} in another: rows of "
                                "one kind go together")

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        for m in self.manifests:
            yield from m.batches(list(columns or self.schema.names))

    def check_keys(self) -> None:
        """`ManifestError` where two rows have one key. Held are eight bytes a row."""
        parts = [np.frombuffer(b"".join(map(_hash, batch[self.stop.key].to_pylist())), np.uint64)
                 for batch in self.batches([self.stop.key])]
        hashes = np.concatenate(parts) if parts else np.empty(0, np.uint64)
        hashes.sort()
        if repeated := int(np.count_nonzero(hashes[1:] == hashes[:-1])):
            raise ManifestError(f"the manifests share {repeated} rows (equal {self.stop.key}): name each one once")

    def parents_of(self, folder: str) -> list[str]:
        """Where they lie, seen from a manifest in `folder`."""
        return [storage.relative(m.path, folder) for m in self.manifests]

    def feature_header(self, folder: str) -> dict:
        """What a manifest of LATENTS in `folder` must say about its features; empty for other stops."""
        if self.stop.name != "latents":
            return {}
        first = self.manifests[0]
        root = feature_root(first.path, first.header["feature_folder"])
        for m in self.manifests[1:]:
            if m.header["encoders"] != first.header["encoders"]:
                raise ManifestError(f"{m.path} and {first.path} were encoded by different models")
            if feature_root(m.path, m.header["feature_folder"]) != root:
                raise ManifestError(f"the features of {m.path} and {first.path} lie in different folders: work on each "
                                    "of them alone, training takes several manifests")
        return {"encoders": first.header["encoders"], "feature_folder": storage.relative(root, folder)}

    @property
    def owners(self) -> dict[str, dict]:
        return {k: v for m in self.manifests for k, v in (m.header.get("owners") or {}).items()}


def _hash(key: str | None) -> bytes:
    return hashlib.blake2b(str(key).encode(), digest_size=8).digest()
