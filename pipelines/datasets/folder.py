"""A folder of pairs, told apart by names.

Two layouts, both with any number of levels below:

* folders: `source/a.mp4`, `target/a.mp4`, `prompt/a.txt`, and where there are some `reference/a.png`
  (or `a_0.png`, `a_1.png`), `mask/a.mp4`, `first_frame/a.png`
* endings: `a_source.mp4`, `a_target.mp4`, `a_prompt.txt` (or `a.txt`), `a_reference.png`, …

The roles have the names that such folders usually have: input, original, before, src; output, edited,
after, tgt; instruction, caption, text. A licence stands in `LICENSE` or `licence.txt` (first line).
"""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterator

from manifests import storage
from manifests.errors import InputError

from .entries import IMAGES, VIDEOS, Condition, Entry

NAME, LICENCE = "folder", None
DEEP = True  # the layout is the files themselves, not a list of them
WHY = "a folder of source, target and prompt files, paired by name"

ROLES = {
    "source": ("source", "input", "original", "before", "src"),
    "target": ("target", "output", "edited", "after", "tgt"),
    "prompt": ("prompt", "instruction", "caption", "text"),
    "reference": ("reference", "ref"), "mask": ("mask",), "first_frame": ("first_frame",),
}
_ROLE_OF = {alias: role for role, names in ROLES.items() for alias in (*names, *(f"{n}s" for n in names))}
_ENDING = re.compile(rf"^(?P<name>.+?)[._-](?P<role>{'|'.join(sorted(_ROLE_OF, key=len, reverse=True))})"
                     r"(?:[._-]?\d+)?$", re.IGNORECASE)
MAX_PROMPT_BYTES = 1 << 20


def entries(root: str, store=None, *, leave_out: str = "") -> Iterator[Entry]:
    """`leave_out` is an output folder that may lie inside the data set."""
    groups: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    files = storage.files_below(root, leave_out)
    for file, num_bytes in files:
        if found := _place(file):
            groups[found[0]][found[1]].append((storage.join(root, file), num_bytes))
    whole = {name: group for name, group in groups.items() if "target" in group or "source" in group}
    if not whole:
        raise InputError(f"{root} has {len(files)} files, but none is a source or target by its name: use folders "
                         "source/, target/ and prompt/ with equal file names, or endings as in a_source.mp4, "
                         "a_target.mp4, a_prompt.txt")
    licence = _licence(root, [file for file, _ in files])
    for name, group in sorted(whole.items()):
        first = {role: paths[0][0] for role, paths in group.items()}
        conditions = [Condition("first_frame", p) for p, _ in group.get("first_frame", ())]
        conditions += [Condition("reference", p) for p, _ in sorted(group.get("reference", ()))]
        yield Entry(source=first.get("source"), target=first.get("target"), mask=first.get("mask"),
                    text=_text(group["prompt"][0]) if "prompt" in group else None, conditions=tuple(conditions),
                    licence=licence, extra={"name": name})


def _place(file: str) -> tuple[str, str] | None:
    """`(name of the pair, role)` of a file; None where its name tells none."""
    stem, ending = posixpath.splitext(file)
    if ending.lower() not in (*IMAGES, *VIDEOS, ".txt"):
        return None
    *folders, name = stem.split("/")
    roles = [(n, _ROLE_OF[f.lower()]) for n, f in enumerate(folders) if f.lower() in _ROLE_OF]
    if roles:
        n, role = roles[-1]
        if role in ("reference", "first_frame"):
            name = re.sub(r"[._-]\d+$", "", name)
        found = "/".join([*folders[:n], *folders[n + 1 :], name]), role
    elif match := _ENDING.match(name):
        found = "/".join([*folders, match["name"]]), _ROLE_OF[match["role"].lower()]
    else:
        found = "/".join([*folders, name]), "prompt"
    is_text = ending.lower() == ".txt"
    return found if is_text == (found[1] == "prompt") else None


def _text(file: tuple[str, int]) -> str | None:
    path, num_bytes = file
    if num_bytes > MAX_PROMPT_BYTES:
        raise InputError(f"{path} has {num_bytes:,} bytes; a prompt has at most {MAX_PROMPT_BYTES:,}")
    return storage.read_bytes(path).decode("utf-8", "replace").strip() or None


def _licence(root: str, files: list[str]) -> str | None:
    name = next((f for f in files if posixpath.splitext(f)[0].lower() in ("license", "licence")), None)
    if name is None:
        return None
    lines = storage.read_bytes(storage.join(root, name)).decode("utf-8", "replace").strip().splitlines()
    return lines[0].strip()[:200] if lines else None
