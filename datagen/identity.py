"""The face of a clip: where its main person is seen best, and a vector that tells persons apart (D8).

Paper section 3.4: one face embedding a clip. The embedding stays in the CLIPS manifest; what goes on from
there are similarities and ids, never names.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from manifests.columns import column, map_rows
from manifests.planes import fit, shrink
from manifests.spans import read_span

from .backends import Face, open_backend

LONG_PX = 640     # frames are searched at this size

BOX = pa.list_(pa.float32(), 4)
FACE_COLUMNS = (
    column("face_embedding", pa.list_(pa.float32()), "the clip's main person, of unit length; null = no face"),
    column("face_time_s", pa.float64(), "moment at which that face is seen best", "s"),
    column("face_box", BOX, "x0, y0, x1, y1 of that face", "share of frame width and height"),
    column("face_score", pa.float32(), "how sure the detector is of that face", "0 to 1"),
    column("face_height", pa.float32(), "height of that face", "frame heights"),
    column("num_face_looks", pa.int32(), "frames looked at in which that person's face was found"),
    column("num_people_seen", pa.int32(), "most faces in one of these frames; 0 = no face found"),
)


class EmbedFaces:
    """CLIPS → the main person's face: the largest one that is found, averaged over the frames that show it.

    `backend` is a `FaceEmbedder` by name; `looks_per_s` frames a second are searched, at most `max_looks`. Faces
    with a cosine of at least `min_identity` are one person's (it belongs to the backend).
    A clip without a face is a finding (`num_people_seen` 0), not an issue.
    """

    reads = ("path", "start_s", "end_s")
    adds = FACE_COLUMNS

    def __init__(self, backend: str = "classical", *, min_identity: float = 0.8, looks_per_s: float = 1.0,
                 max_looks: int = 8, **options: object):
        self.embedder = open_backend("face", backend, **options)
        self.min_identity, self.looks_per_s, self.max_looks = min_identity, looks_per_s, max_looks

    @classmethod
    def owners(cls, backend: str = "classical", **options: object) -> dict[str, dict]:
        return {f.name: {"op": "datagen.identity:EmbedFaces", "backend": backend, **options} for f in cls.adds}

    def __call__(self, table: pa.Table) -> pa.Table:
        return map_rows(table, self, self._look)

    def _look(self, row: dict) -> dict:
        length = row["end_s"] - row["start_s"]
        num = min(self.max_looks, max(2, round(length * self.looks_per_s)))
        step, found, most = length / num, [], 0
        # Middles of equal parts: never the first or last frame, which a transition may blend.
        start = row["start_s"] + step / 2
        for i, frame in enumerate(read_span(row["path"], start, row["end_s"], fps=1 / step, max_frames=num)):
            faces = self.embedder.faces(shrunk(frame))
            most = max(most, len(faces))
            found += [(start + i * step, face, _scaled(face, shrunk(frame))) for face in faces[:1]]
        return {"num_people_seen": most, **(_main(found, self.min_identity) if found else {})}


def _main(found: list[tuple[float, Face, tuple]], min_identity: float) -> dict:
    """Columns of the person whose face is largest and surest, averaged over the frames that show the same one."""
    best = max(range(len(found)), key=lambda i: (found[i][2][3] - found[i][2][1]) * found[i][1].score)
    time_s, face, box = found[best]
    same = [f.embedding for _, f, _ in found if float(f.embedding @ face.embedding) >= min_identity]
    mean = np.mean(same, axis=0)
    return {"face_embedding": (mean / max(float(np.linalg.norm(mean)), 1e-6)).astype(np.float32), "face_time_s": time_s,
            "face_box": box, "face_score": face.score, "face_height": box[3] - box[1], "num_face_looks": len(same)}


def _scaled(face: Face, image: np.ndarray) -> tuple[float, float, float, float]:
    height, width = image.shape[:2]
    x0, y0, x1, y1 = face.box
    return (max(x0 / width, 0.0), max(y0 / height, 0.0), min(x1 / width, 1.0), min(y1 / height, 1.0))


def shrunk(image: np.ndarray) -> np.ndarray:
    """The frame with its longer side at most `LONG_PX`."""
    size = fit(image.shape[1::-1], long_px=LONG_PX)
    return image if size == image.shape[1::-1] else shrink(image, size)
