"""Shards of the WebDataset form: tar files whose members are grouped by the name before the first dot.

`0001.source.jpg`, `0001.target.jpg`, `0001.txt` (or `0001.json` with a prompt) make one pair; the roles are
those of the folder form. An image or video without a role is a target (text to image or video); each target is a row,
and what has neither source nor target is a row that is dropped.
Members stream through once; media are kept below the output folder under the hash of their
content, never under a name that the archive gives. Layout: github.com/webdataset/webdataset.
Members of one sample must follow each other, as that form demands.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator

from manifests import storage
from manifests.errors import InputError
from manifests.media_store import MediaStore

from .entries import MEDIA_ENDINGS, SHARDS, Condition, Entry, natural
from .folder import ROLE_OF, Files, problem_of, rows_of
from .row import Row

NAME, LICENCE = "webdataset", None
WHY = "tar shards in the WebDataset form"

MAX_MEMBER_BYTES = 2 << 30
MAX_TEXT_BYTES = 4 << 20
PROMPTS = ("prompt", "instruction", "caption", "text")


def entries(root: str, store: MediaStore) -> Iterator[Entry]:
    shards = [root] if root.lower().endswith(SHARDS) else [storage.join(root, name) for name, _ in
                                                           storage.list_files(root) if name.lower().endswith(SHARDS)]
    if not shards:
        raise InputError(f"{root} holds no .tar file, so there are no shards to read")
    for shard in shards:
        found = 0
        for key, members in _samples(shard, store):
            for entry in _entries(key, members, shard):
                found += not entry.problem
                yield entry
        if not found:
            raise InputError(f"no member of {shard} is a source or target: name them as in 0001.source.jpg, "
                             "0001.target.jpg, 0001.txt")


def _samples(shard: str, store: MediaStore) -> Iterator[tuple[str, dict[str, object]]]:
    """`(key, {ending: path of the kept file, text, or object})` of runs of members with one key."""
    filesystem, inner = storage.resolve(shard)
    try:
        with filesystem.open_input_stream(inner) as stream, tarfile.open(fileobj=stream, mode="r|*") as archive:
            key, members = None, {}
            for member in archive:
                folder, _, file = member.name.rpartition("/")
                name, _, ending = file.partition(".")
                if not member.isreg() or not name or not ending:
                    continue
                here = f"{folder}/{name}" if folder else name
                if key is not None and here != key:
                    yield key, members
                    members = {}
                key = here
                if ending.lower() in members:
                    raise InputError(f"{shard} holds {member.name} twice in one sample: give each its own name")
                members[ending.lower()] = _value(archive, member, ending.lower(), store)
            if members:
                yield key, members
    except (tarfile.TarError, OSError, EOFError) as error:
        raise InputError(f"cannot read the shard {shard}: {error}") from None


def _value(archive: tarfile.TarFile, member: tarfile.TarInfo, ending: str, store: MediaStore):
    suffix = f".{ending.rsplit('.', 1)[-1]}"
    if suffix in (".txt", ".json"):
        if member.size > MAX_TEXT_BYTES:
            raise InputError(f"{member.name} has {member.size:,} bytes; a text has at most {MAX_TEXT_BYTES:,}")
        text = archive.extractfile(member).read().decode("utf-8", "replace")
        try:
            return json.loads(text) if suffix == ".json" else text.strip()
        except ValueError as error:
            raise InputError(f"{member.name} is not JSON: {error}") from None
    if suffix not in MEDIA_ENDINGS and _role(ending)[0] not in ("source", "target"):
        return None
    if member.size > MAX_MEMBER_BYTES:
        raise InputError(f"{member.name} has {member.size:,} bytes; more than {MAX_MEMBER_BYTES:,} are not read")
    return store.keep(archive.extractfile(member).read(), suffix[1:])


def _role(ending: str) -> tuple[str, str]:
    """`(role, number)` of a member: `("reference", "2")` of "reference_2.png"; the role of "png" is empty."""
    name = ending.rpartition(".")[0]
    role = name.rstrip("0123456789_-")
    return ROLE_OF.get(role, role), name[len(role) :].strip("_-")


def _entries(key: str, members: dict[str, object], shard: str) -> Iterator[Entry]:
    facts = Row(next((v for v in members.values() if isinstance(v, dict)), {}), f"{key} of {shard}")
    text = next((v for e, v in members.items() if e.endswith("txt")), None) or next(
        (facts.text(p) for p in PROMPTS if facts.text(p)), None)
    files = _files(members)
    conditions = [Condition(role, p) for role in ("first_frame", "reference") for _, p in files.get(role, ())]
    for row in rows_of(files, f"{key} of {shard}"):
        yield Entry(source=row.get("source"), target=row.get("target"), mask=row.get("mask"), text=text,
                    conditions=tuple(conditions), task=facts.text("task") or "", edit=facts.text("edit") or "",
                    licence=facts.text("licence") or facts.text("license"), source_url=facts.text("url"),
                    extra={"shard": shard.rsplit("/", 1)[-1], "key": key},
                    problem=problem_of(files, f"{key} of {shard}", members))


def _files(members: dict[str, object]) -> Files:
    """The kept media by role; of an unknown kind only where the role has no other."""
    files: Files = {}
    kept = [e for e in sorted(members, key=natural) if isinstance(members[e], str) and not e.endswith(("txt", "json"))]
    for ending in sorted(kept, key=lambda e: not f".{e}".endswith(MEDIA_ENDINGS)):
        role, number = _role(ending)
        if f".{ending}".endswith(MEDIA_ENDINGS) or role not in files:
            files.setdefault(role or "target", []).append((number, members[ending]))
    return files
