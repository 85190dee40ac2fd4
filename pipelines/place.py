"""Where the stops of a run lie, and what their headers say.

A folder is named after what determines its rows: stop, recipe, stages with their arguments,
settings and parents. Equal settings find their unfinished or finished work again; changed
ones get a folder of their own, from the first stop that they touch.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from pkgutil import resolve_name

from manifests import storage
from manifests.ids import digest
from manifests.manifest import Manifest
from manifests.provenance import plain, versions
from manifests.schema import SCHEMA_VERSION, STOPS

from .estimate import read_estimate
from .run import Target
from .stage import Stage


class Place:
    def __init__(self, root: str, name: str, config: object, *, estimated_as: str = ""):
        self.root, self.name, self.config = root, name, config
        self._estimated_as = estimated_as or name  # the recipe whose estimate stands beside what came

    def target(self, stop: str, stages: Sequence[Stage], *, parents: Sequence[Manifest] = (),
               sources: Sequence[str] = (), settings: object = None, rules: object = (),
               policy: object = None, made_by: dict[str, dict] | None = None) -> Target:
        """`made_by` names the owners of columns that no stage of this stop makes."""
        identity = [SCHEMA_VERSION, stop, self.name, [s.fingerprint() for s in stages], plain(settings),
                    list(sources), [_identity(p) for p in parents]]
        folder = storage.join(self.root, stop, f"{self.name}-{digest(identity, length=8)}")
        return Target(path=folder, stop=stop, header={
            "name": self.name, "row": STOPS[stop].row, "parents": [storage.relative(p.path, folder) for p in parents],
            "config": plain(self.config), "rules": plain(rules), "policy": plain(policy),
            "owners": (made_by or {}) | owners(stages), "versions": versions(),
            "estimate": read_estimate(self.root, self._estimated_as).get("accepted", {}).get(stop),  # beside "accepted"
        })


def owners(stages: Sequence[Stage]) -> dict[str, dict]:
    """For each column the op that owns it and the arguments it was built with."""
    found = {}
    for stage in stages:
        _, adds, _ = stage.contract()
        known = getattr(resolve_name(stage.op), "owners", lambda **_: {})(**stage.kwargs)
        for column in adds:
            found[column.name] = known.get(column.name) or {"op": stage.op, **plain(stage.kwargs)}
        found |= known
    return found


def _identity(parent: Manifest) -> object:
    """What stands for the rows of a parent: its folder's name, which says it all where it is one of ours.

    `filter`, `dedupe` and `decide --write` write to folders that a user names: there the header counts too.
    """
    name, header = posixpath.basename(parent.path.rstrip("/")), parent.header
    if re.fullmatch(re.escape(header.get("name", "")) + "-[0-9a-f]{8}", name):
        return name
    return [name, digest([header.get(key) for key in ("parts", "rows", "drops", "rules", "config", "parents")])]
