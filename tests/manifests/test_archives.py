"""Pictures by name out of folders and archives that strangers packed."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from manifests import archives, pictures
from manifests.archives import Shelf
from manifests.errors import MediaError


def png(value: int = 0, size: tuple[int, int] = (40, 30)) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((size[1], size[0], 3), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def root(tmp_path) -> Path:
    """Files 10 and 11, a zip with 20, a tar with 30; outside lies 99."""
    (tmp_path / "root" / "deep").mkdir(parents=True)
    root = tmp_path / "root"
    (tmp_path / "outside.png").write_bytes(png(99))
    (root / "a.png").write_bytes(png(10))
    (root / "deep" / "b.png").write_bytes(png(11))
    with zipfile.ZipFile(root / "one.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("pictures/z.png", png(20))
        file.writestr("../../escape.png", png(21))
        file.writestr("notes.txt", "no picture")
    with tarfile.open(root / "two.tar", "w") as file:
        add(file, "t.png", png(30))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "../outside.png"
        file.addfile(link)
    return root


def add(file: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    file.addfile(info, io.BytesIO(data))


def value(shelf: Shelf, *names: str | None) -> int:
    return int(shelf.read(shelf.find(*names))[0, 0, 0])


def test_pictures_are_found_by_path_member_base_name_and_hash(root):
    address = "https://example.org/pictures/1.jpg?size=large"
    (root / (hashlib.sha256(address.encode()).hexdigest() + ".png")).write_bytes(png(40))
    shelf = Shelf(str(root))
    assert [value(shelf, n) for n in ("a.png", "deep/b.png", "pictures/z.png", "z.png", "z", "t.png", address)] == [
        10, 11, 20, 20, 20, 30, 40]
    assert value(shelf, "https://example.org/unknown.jpg", "t") == 30  # the second name is the list's own key
    assert shelf.find("a.png") == str(root / "a.png") and shelf.find("t.png") == f"{root}/two.tar::t.png"
    assert not shelf.problems


@pytest.mark.parametrize("name", ["../outside.png", "deep/../../outside.png", "/etc/hostname", "link.png", "file:///etc/hostname",
                                  "notes.txt", "nothing.png", "a\0.png", ""])
def test_nothing_outside_the_folder_is_opened(root, name):
    with pytest.raises(MediaError, match="no picture"):
        Shelf(str(root)).find(name)


def test_a_link_that_leads_out_is_not_followed(root):
    os.symlink(root.parent / "outside.png", root / "out.png")
    os.symlink(root / "a.png", root / "in.png")
    shelf = Shelf(str(root))
    assert value(shelf, "in.png") == 10
    with pytest.raises(MediaError, match="no picture"):
        shelf.find("out.png")


def test_reading_writes_nothing(root):
    before = sorted(p for p in root.parent.rglob("*"))
    shelf = Shelf(str(root))
    assert value(shelf, "escape.png") == 21  # a member is only ever read into memory, whatever its name
    assert sorted(p for p in root.parent.rglob("*")) == before


def test_a_bomb_is_stopped_at_the_limit(root, monkeypatch):
    monkeypatch.setattr(archives, "MAX_PICTURE_BYTES", 2**20)
    with zipfile.ZipFile(root / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bomb.png", b"\0" * 40 * 2**20)
    assert (root / "bomb.zip").stat().st_size < 100_000
    shelf = Shelf(str(root))
    with pytest.raises(MediaError, match="more than 1 MiB"):
        shelf.read(shelf.find("bomb.png"))


def test_a_picture_of_too_many_pixels_is_not_decoded(root, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_PIXELS", 1000)
    shelf = Shelf(str(root))
    with pytest.raises(MediaError, match="40x30 pixels; more than 1,000 are not read"):
        shelf.read(shelf.find("z.png"))


def test_too_many_members_are_not_listed(root, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBERS", 2)
    assert "one.zip cannot be read: it has more than 2 members" in Shelf(str(root)).problems


def test_broken_archives_are_problems_and_the_others_work(root):
    (root / "broken.zip").write_bytes((root / "one.zip").read_bytes()[:-30])
    (root / "broken.tar").write_bytes(b"not a tar at all" * 100)
    (root / "packed.tar.gz").write_bytes(b"\x1f\x8b")
    cut = (root / "two.tar").read_bytes()
    (root / "cut.tar").write_bytes(cut[:700])
    shelf = Shelf(str(root))
    words = " ".join(shelf.problems)
    for name in ("broken.zip cannot be read", "broken.tar cannot be read", "packed.tar.gz has no random access"):
        assert name in words
    assert value(shelf, "z.png") == 20
    with pytest.raises(MediaError, match="no picture 'gone.png'.*broken"):
        shelf.find("gone.png")


def test_a_damaged_member_is_an_error_of_that_member(root):
    data = bytearray((root / "one.zip").read_bytes())
    at = data.index(b"pictures/z.png") + len(b"pictures/z.png") + 5
    data[at] ^= 255
    (root / "one.zip").write_bytes(bytes(data))
    shelf = Shelf(str(root))
    with pytest.raises(MediaError, match="cannot read"):
        shelf.read(shelf.find("pictures/z.png"))
    assert value(shelf, "t.png") == 30
