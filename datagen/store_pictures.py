"""The frames that pairs and documents use become picture files: one pass over each film."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from manifests.archives import Shelf
from manifests.columns import column, map_rows
from manifests.errors import MediaError
from manifests.media import VideoReader
from manifests.media_store import MediaStore
from manifests.planes import fit
from manifests.schema import DOCUMENTS
from manifests.spans import frames_at

S, F = pa.string(), pa.float64()
MADE = tuple(
    field
    for side in ("source", "target")
    for field in (column(f"{side}_path", S, f"path or URI of the file that holds the {side}"),
                  column(f"{side}_time_s", F, f"moment of the {side} in its film; null = the path is a picture", "s")))


class StorePairs:
    """Pairs of frames → the same with both sides as picture files; `…_time_s` becomes null.

    `kind` is "jpg" or "png"; pictures larger than `long_px` are shrunk. Where a frame cannot be read both sides
    are null, with the reason in `issues`.
    """

    reads = ("source_path", "source_time_s", "target_path", "target_time_s")
    adds = MADE
    neutral = ("media",)

    def __init__(self, media: str, *, kind: str = "jpg", long_px: int = 1920):
        self._store = PictureWriter(media, kind=kind, long_px=long_px)

    def __call__(self, table: pa.Table) -> pa.Table:
        rows = table.select(list(self.reads)).to_pylist()
        wanted = [(row[f"{side}_path"], row[f"{side}_time_s"]) for row in rows for side in ("source", "target")]
        stored = self._store.frames(wanted)

        def take(row: dict) -> dict:
            found = {}
            for side in ("source", "target"):
                found |= {f"{side}_path": opened(stored, row[f"{side}_path"], row[f"{side}_time_s"]),
                          f"{side}_time_s": None}
            return found

        return map_rows(table, self, take)


class StoreKeyFrames:
    """Documents with `path` and `key_times_s` → `images`, the picture files of those frames."""

    reads = ("path", "key_times_s")
    adds = (column("images", pa.list_(S), "picture files in the order of the document"),)
    neutral = ("media",)

    def __init__(self, media: str, *, kind: str = "jpg", long_px: int = 1920):
        self._store = PictureWriter(media, kind=kind, long_px=long_px)

    def __call__(self, table: pa.Table) -> pa.Table:
        rows = table.select(list(self.reads)).to_pylist()
        stored = self._store.frames([(row["path"], t) for row in rows for t in row["key_times_s"]])
        return map_rows(table, self, lambda row: {
            "images": [opened(stored, row["path"], t) for t in row["key_times_s"]]})


class StoreWebPictures:
    """Web DOCUMENTS with `picture_reasons` → `order` and `images` without the pictures that are left out.

    Members of archives are written to the `MediaStore`; files below `image_root` stay where they are.
    """

    reads = ("order", "images", "image_keys", "picture_reasons")
    adds = tuple(f for f in DOCUMENTS.fields if f.name in ("order", "images"))
    neutral = ("image_root", "media")

    def __init__(self, image_root: str, media: str):
        self._shelf, self._media = Shelf(image_root), MediaStore(media)

    def __call__(self, table: pa.Table) -> pa.Table:
        return map_rows(table, self, self._store)

    def _store(self, row: dict) -> dict:
        kept = [reason is None for reason in row["picture_reasons"]]
        number, order = iter(kept), []
        for kind in row["order"]:
            if kind == "text" or next(number):
                order.append(kind)
        return {"order": order, "images": [self._path(name, key) for name, key, keep in zip(
            row["images"], row["image_keys"], kept, strict=True) if keep]}

    def _path(self, name: str, key: str | None) -> str:
        place = self._shelf.find(name, key)
        if "::" not in place:
            return place
        return self._media.image(self._shelf.read(place), kind="png" if place.lower().endswith(".png") else "jpg")


Stored = dict[tuple[str, float | None], str | MediaError]


class PictureWriter:
    """Writes frames of films into a `MediaStore`, each once."""

    def __init__(self, media: str, *, kind: str, long_px: int):
        self._media, self._kind, self._long_px = MediaStore(media), kind, long_px

    def frames(self, wanted: Sequence[tuple[str, float | None]]) -> Stored:
        """`(path, time_s)` → where its picture lies, or why there is none. A null time is a picture already."""
        found: Stored = {(path, None): path for path, time_s in wanted if time_s is None}
        films: dict[str, set[float]] = {}
        for path, time_s in wanted:
            if time_s is not None:
                films.setdefault(path, set()).add(time_s)
        for path, times in films.items():
            found |= self._film(path, sorted(times))
        return found

    def _film(self, path: str, times_s: list[float]) -> Stored:
        found: Stored = {}
        try:
            with VideoReader(path) as reader:
                for time_s, frame in zip(times_s, frames_at(reader, times_s), strict=True):
                    found[path, time_s] = self._write(frame) if frame is not None else MediaError(
                        f"{path} ends before {time_s:.3f} s")
        except MediaError as error:
            found |= {(path, t): error for t in times_s if (path, t) not in found}
        return found

    def _write(self, frame) -> str:
        size = fit(frame.shown_size, long_px=self._long_px)
        large = max(frame.shown_size) > self._long_px
        return self._media.image(frame.bgr(size)[..., ::-1] if large else frame.rgb(), kind=self._kind)


def opened(stored: Stored, path: str, time_s: float | None) -> str:
    result = stored[path, time_s]
    if isinstance(result, MediaError):
        raise result
    return result
