"""Local paths and object stores (`s3://`, `gs://`, `file://`) through one file-system layer.

pyarrow's file systems are used because the Parquet reader needs them anyway; a local path
stays a local path, so that messages show what the user typed.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager

from pyarrow import fs

from .errors import InputError

_LOCAL = fs.LocalFileSystem()


def is_uri(path: str) -> bool:
    return "://" in path


def resolve(path: str | os.PathLike) -> tuple[fs.FileSystem, str]:
    """File system and path inside it of a local path or URI."""
    path = os.fspath(path)
    if not is_uri(path):
        return _LOCAL, os.path.abspath(path)
    try:
        return fs.FileSystem.from_uri(path)
    except Exception as error:  # pyarrow raises several types for one fault: an unusable URI
        raise InputError(f"cannot use {path!r} as a storage address: {error}") from None


def absolute(path: str | os.PathLike) -> str:
    """The path for rows and workers, which know no working folder: a URI as it is, else absolute."""
    path = os.fspath(path)
    return path if is_uri(path) else os.path.abspath(path)


def relative(path: str, folder: str) -> str:
    """The way from a folder to a path, so that both can be moved together; with a URI the path itself."""
    if is_uri(path) or is_uri(folder):
        return path
    return posixpath.relpath(resolve(path)[1], resolve(folder)[1])


def join(root: str | os.PathLike, *names: str) -> str:
    return posixpath.join(os.fspath(root), *names)


def exists(path: str | os.PathLike) -> bool:
    filesystem, inner = resolve(path)
    return filesystem.get_file_info(inner).type != fs.FileType.NotFound


def list_files(root: str | os.PathLike, *, recursive: bool = False) -> list[tuple[str, int]]:
    """`(path relative to root, bytes)` of the files below `root`, sorted; empty if it is absent."""
    filesystem, inner = resolve(root)
    infos = filesystem.get_file_info(fs.FileSelector(inner, recursive=recursive, allow_not_found=True))
    files = [(posixpath.relpath(i.path, inner), i.size or 0) for i in infos if i.is_file]
    return sorted(files)


def files_below(folder: str, leave_out: str = "") -> list[tuple[str, int]]:
    """`(name, bytes)` of all files below a folder, but for those of an output folder inside it."""
    files = list_files(folder, recursive=True)
    if not leave_out or is_uri(folder) or is_uri(leave_out):
        return files
    inside = os.path.relpath(os.path.realpath(leave_out), os.path.realpath(folder)) + os.sep
    return [file for file in files if not file[0].startswith(inside)]


def list_folders(root: str | os.PathLike) -> list[str]:
    filesystem, inner = resolve(root)
    infos = filesystem.get_file_info(fs.FileSelector(inner, allow_not_found=True))
    return sorted(posixpath.basename(i.path) for i in infos if i.type == fs.FileType.Directory)


def read_bytes(path: str | os.PathLike) -> bytes:
    filesystem, inner = resolve(path)
    with filesystem.open_input_stream(inner) as stream:
        return stream.read()


@contextmanager
def atomic_output(path: str | os.PathLike) -> Iterator[object]:
    """A binary stream that appears under `path` only when it was written whole."""
    filesystem, inner = resolve(path)
    filesystem.create_dir(posixpath.dirname(inner), recursive=True)
    if filesystem is not _LOCAL and not isinstance(filesystem, fs.LocalFileSystem):
        with filesystem.open_output_stream(inner) as stream:  # an object appears when it is closed
            yield stream
        return
    aside = posixpath.join(posixpath.dirname(inner), f".{posixpath.basename(inner)}.{os.getpid()}.tmp")
    try:
        with open(aside, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(aside, inner)
    except BaseException:
        if os.path.exists(aside):
            os.unlink(aside)
        raise


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    with atomic_output(path) as stream:
        stream.write(data)


def delete_folder(path: str | os.PathLike) -> None:
    filesystem, inner = resolve(path)
    if filesystem.get_file_info(inner).type == fs.FileType.Directory:
        filesystem.delete_dir(inner)


def delete_file(path: str | os.PathLike) -> None:
    filesystem, inner = resolve(path)
    filesystem.delete_file(inner)
