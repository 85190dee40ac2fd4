"""A folder of pairs, told apart by names.

Two layouts, both with any number of levels below:

* folders: `source/a.mp4`, `target/a.mp4`, `prompt/a.txt`, and where there are some `reference/a.png`
  (or `a_0.png`, `a_1.png`), `mask/a.mp4`, `first_frame/a.png`
* endings: `a_source.mp4`, `a_target.mp4`, `a_prompt.txt` (or `a.txt`), `a_reference.png`, …

Each target is a row. Where there are several, a source, mask or prompt serves all of them, or there is one of each
target's number (`a_source_1.png`, `a_target_1.png`). The roles have the names that such folders usually have: input,
original, before, src; output, edited, after, tgt; instruction, caption, text. A licence stands in `LICENSE` or
`licence.txt` (first line).
"""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

from manifests import storage
from manifests.errors import InputError

from .entries import MEDIA_ENDINGS, Condition, Entry, natural

NAME, LICENCE = "folder", None
DEEP = True  # the layout is the files themselves, not a list of them
WHY = "a folder of source, target and prompt files, paired by name"

ROLES = {
    "source": ("source", "input", "original", "before", "src"),
    "target": ("target", "output", "edited", "after", "tgt"),
    "prompt": ("prompt", "instruction", "caption", "text"),
    "reference": ("reference", "ref"), "mask": ("mask",), "first_frame": ("first_frame",),
}
ROLE_OF = {alias: role for role, names in ROLES.items() for alias in (*names, *(f"{n}s" for n in names))}
_ENDING = re.compile(rf"^(?P<name>.+?)[._-](?P<role>{'|'.join(sorted(ROLE_OF, key=len, reverse=True))})"
                     r"(?:[._-]?(?P<number>\d+))?$", re.IGNORECASE)
MAX_PROMPT_BYTES = 1 << 20


def entries(root: str, store=None, *, leave_out: str = "") -> Iterator[Entry]:
    """`leave_out` is an output folder that may lie inside the data set."""
    files = storage.files_below(root, leave_out)
    groups = _groups(root, files)
    if not any(group.keys() & {"target", "source"} for group in groups.values()):
        raise InputError(f"{root} has {len(files)} files, but none is a source or target by its name: use folders "
                         "source/, target/ and prompt/ with equal file names, or endings as in a_source.mp4, "
                         "a_target.mp4, a_prompt.txt")
    licence, sizes = _licence(root, [file for file, _ in files]), {storage.join(root, f): n for f, n in files}
    for name, group in sorted(groups.items()):
        conditions = [Condition(role, path) for role in ("first_frame", "reference")
                      for _, path in sorted(group.get(role, ()), key=lambda file: natural(file[1]))]
        for row in rows_of(group, name):
            text = row.get("prompt")
            yield Entry(source=row.get("source"), target=row.get("target"), mask=row.get("mask"),
                        text=text and _text(text, sizes[text]), conditions=tuple(conditions), licence=licence,
                        extra={"name": name}, problem=problem_of(group, name))


Files = dict[str, list[tuple[str, str]]]  # role -> (number in the name or nothing, path)


def rows_of(files: Files, name: str) -> Iterator[dict[str, str]]:
    """Role → path for each target of a pair; without one for each source, or once. Nothing is left over.

    Raises `InputError` that names both files where it is not clear which of them belongs to a target.
    """
    targets = sorted(files.get("target", ()), key=lambda file: natural(file[1]))
    shared = {role: files[role][0][1] for role in ("source", "mask", "prompt") if files.get(role)}
    if not targets:
        yield from (shared | {"source": path} for _, path in files.get("source") or [("", None)])
        return
    numbers = {number for number, _ in targets}
    for role in shared:
        found = [number for number, _ in files[role]]
        if found == [""] or len(found) == len(targets) == 1:
            continue
        if len(set(found)) < len(found) or set(found) != numbers:
            one, other = (files[role] + targets)[:2]
            raise InputError(f"{name}: which {role} belongs to which target ({one[1]}, {other[1]})? Let one without a "
                             f"number serve all, or give each target its own by number (a_{role}_1, a_target_1)")
    for number, path in targets:
        yield {"target": path} | {role: dict(files[role]).get(number, first) for role, first in shared.items()}


def problem_of(files: Files, name: str, parts: Iterable[str] = ()) -> str:
    """In words that a pair has neither source nor target, and what it has; empty where it has one."""
    known = files.keys() & {"source", "target"}
    return "" if known else f"{name} has neither a source nor a target, only: {', '.join(sorted(parts or files))}"


def _groups(root: str, files: list[tuple[str, int]]) -> dict[str, Files]:
    """The files of each pair. A lone text without a role in its name may be about the whole folder: it is none."""
    groups: dict[str, Files] = defaultdict(lambda: defaultdict(list))
    strange: dict[str, Files] = defaultdict(lambda: defaultdict(list))
    lone = {}
    for file, _ in files:
        name, role, number = _place(file)
        is_text, is_media = (file.lower().endswith(endings) for endings in (".txt", MEDIA_ENDINGS))
        if not role and is_text:
            lone[name] = storage.join(root, file)
        elif role and is_text == (role == "prompt") and (is_text or is_media):
            groups[name][role].append((number, storage.join(root, file)))
        elif role in ("source", "target") and not is_text:
            strange[name][role].append((number, storage.join(root, file)))
    for name, group in groups.items():  # a picture of an unknown kind is told, not left out of its pair
        group.update({role: found for role, found in strange[name].items() if role not in group})
        if name in lone:
            group["prompt"].append(("", lone[name]))
    return groups


def _place(file: str) -> tuple[str, str, str]:
    """`(name of the pair, role, number in the name)` of a file; the role is empty where its name tells none."""
    *folders, name = posixpath.splitext(file)[0].split("/")
    roles = [(n, ROLE_OF[f.lower()]) for n, f in enumerate(folders) if f.lower() in ROLE_OF]
    if roles:
        n, role = roles[-1]
        if role in ("reference", "first_frame"):
            name = re.sub(r"[._-]\d+$", "", name)
        return "/".join([*folders[:n], *folders[n + 1 :], name]), role, ""
    if match := _ENDING.match(name):
        return "/".join([*folders, match["name"]]), ROLE_OF[match["role"].lower()], match["number"] or ""
    return "/".join([*folders, name]), "", ""


def _text(path: str, num_bytes: int) -> str | None:
    if num_bytes > MAX_PROMPT_BYTES:
        raise InputError(f"{path} has {num_bytes:,} bytes; a prompt has at most {MAX_PROMPT_BYTES:,}")
    return storage.read_bytes(path).decode("utf-8", "replace").strip() or None


def _licence(root: str, files: list[str]) -> str | None:
    name = next((f for f in files if posixpath.splitext(f)[0].lower() in ("license", "licence")), None)
    if name is None:
        return None
    lines = storage.read_bytes(storage.join(root, name)).decode("utf-8", "replace").strip().splitlines()
    return lines[0].strip()[:200] if lines else None
