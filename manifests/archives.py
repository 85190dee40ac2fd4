"""Pictures by name: files below one folder, or members of the .zip and .tar archives in it.

Names come from lists that strangers wrote. Nothing outside the folder is opened, nothing is unpacked to
disk, links are not followed, and a member is read only up to a limit, whatever its header claims.
"""

from __future__ import annotations

import hashlib
import io
import os
import posixpath
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from . import storage
from .errors import MediaError
from .pictures import PICTURE_ENDINGS
from .spans import decode_image

MAX_PICTURE_BYTES = 64 * 2**20
MAX_MEMBERS = 5_000_000
ENDINGS = (*PICTURE_ENDINGS, ".gif")  # of web pages: a GIF there is a picture
ARCHIVES = (".zip", ".tar")
PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_BROKEN = (OSError, ValueError, RuntimeError, EOFError, NotImplementedError, zipfile.BadZipFile, tarfile.TarError,
           zlib.error)  # what zipfile and tarfile raise on damaged, encrypted or unknown content


class Shelf:
    """`find` a picture by its name, address or hash, then `read` it. `problems` are archives that cannot be used."""

    def __init__(self, root: str):
        self.root = root if storage.is_uri(root) else os.path.realpath(root)
        self.problems: list[str] = []
        self._members: dict[str, tuple[str, str]] = {}  # name, base name or stem -> (archive, member)
        self._open: dict[str, zipfile.ZipFile | tarfile.TarFile] = {}
        for name, _ in storage.list_files(self.root, recursive=True):
            if name.lower().endswith(PACKED):
                self.problems.append(f"{name} has no random access: pack it again as .tar or .zip")
            elif name.lower().endswith(ARCHIVES):
                self._index(name)

    def find(self, *names: str | None) -> str:
        """Where the first of these names that is known lies: a path, or "archive::member". Raises `MediaError`."""
        for name in filter(None, names):
            for option in _options(name):
                if (path := self._inside(option)) is not None:
                    return path
                if option in self._members:
                    return "::".join(self._members[option])
        more = f" ({'; '.join(self.problems[:3])})" if self.problems else ""
        raise MediaError(f"no picture {names[0]!r} below {self.root}{more}")

    def read(self, place: str) -> np.ndarray:
        """`(height, width, 3)` uint8 RGB of what `find` found. Raises `MediaError`."""
        return decode_image(io.BytesIO(self.data(place)), place)

    def data(self, place: str) -> bytes:
        """The bytes of it, at most `MAX_PICTURE_BYTES`."""
        archive, mark, member = place.rpartition("::")
        try:
            stream = self._member(archive, member) if mark else _open(place)
            with stream:
                data = stream.read(MAX_PICTURE_BYTES + 1)
        except _BROKEN as error:
            raise MediaError(f"cannot read {place}: {error}") from None
        if len(data) > MAX_PICTURE_BYTES:
            raise MediaError(f"{place} has more than {MAX_PICTURE_BYTES // 2**20} MiB, which no picture needs")
        return data

    def _inside(self, name: str) -> str | None:
        """The file of that relative name, if it is there and lies below the root."""
        if "://" in name or posixpath.isabs(name) or ".." in name.split("/") or "\0" in name or not name:
            return None
        path = storage.join(self.root, name)
        if storage.is_uri(path):
            return path if storage.exists(path) else None
        real = os.path.realpath(path)
        return real if os.path.isfile(real) and real.startswith(self.root + os.sep) else None

    def _index(self, name: str) -> None:
        path = storage.join(self.root, name)
        try:
            for member in self._names(path):
                for key in (member, posixpath.basename(member), posixpath.splitext(posixpath.basename(member))[0]):
                    self._members.setdefault(key, (path, member))
        except _BROKEN as error:
            self.problems.append(f"{name} cannot be read: {error}")

    def _names(self, path: str) -> Iterator[str]:
        archive = self._archive(path)
        if isinstance(archive, zipfile.ZipFile):
            found = (info.filename for info in archive.infolist() if not info.is_dir())
        else:
            found = (info.name for info in archive if info.isreg())
        for num, name in enumerate(found):
            if num >= MAX_MEMBERS:
                raise ValueError(f"it has more than {MAX_MEMBERS:,} members")
            if name.lower().endswith(ENDINGS):
                yield name

    def _archive(self, path: str) -> zipfile.ZipFile | tarfile.TarFile:
        if path not in self._open:
            file = _open(path)
            self._open[path] = zipfile.ZipFile(file) if path.lower().endswith(".zip") else tarfile.open(
                fileobj=file, mode="r:")
        return self._open[path]

    def _member(self, path: str, member: str):
        archive = self._archive(path)
        if isinstance(archive, zipfile.ZipFile):
            return archive.open(member)
        info = archive.getmember(member)
        if not info.isreg():
            raise ValueError("it is a link or a device, not a file")
        return archive.extractfile(info)


def _open(path: str):
    """Arrow's files close themselves; archives stay open as long as their shelf."""
    filesystem, inner = storage.resolve(path)
    return filesystem.open_input_file(inner)


def _options(name: str) -> Sequence[str]:
    """Names under which a picture may lie: as given, or, for a web address or hash, named by the hash."""
    if "://" in name:
        name = hashlib.sha256(name.encode()).hexdigest()
    plain = posixpath.splitext(name)[1].lower() in ENDINGS
    return [name] if plain else [name, *(name + ending for ending in ENDINGS)]
