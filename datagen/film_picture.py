"""A picture becomes a video: a camera that moves over it, or an image-to-video model (D4).

Paper section 3.2: motion prompts are written for the edited images, and an image-to-video model makes the target
videos. Without one the camera moves over the picture, which itself stands still; the
motion prompt says just that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import cv2
import numpy as np
import pyarrow as pa

from manifests.columns import column, map_rows
from manifests.errors import BackendError
from manifests.ids import digest, draw_seed
from manifests.media_store import MediaStore
from manifests.planes import fit, shrink
from manifests.spans import read_image

from .backends import EditRequest, open_backend

CAMERA = "camera"
FPS = 16
# Direction of the view over the picture: (to the right, down, growth of the magnification).
MOVES = {"zoom in": (0, 0, 1), "zoom out": (0, 0, -1), "pan right": (1, 0, 0), "pan left": (-1, 0, 0),
         "tilt up": (0, -1, 0), "tilt down": (0, 1, 0)}
SPEEDS = (0.02, 0.05)  # frame widths (pan), heights (tilt) or magnification a second: slow enough to be watched
LOOK_PX = 160          # longer side at which frames are compared: motion remains, grain does not
OVERSAMPLE = 1.5       # the picture is sampled from so many pixels a pixel, so that a slow move does not pulse


class PlanMove:
    """Rows → a camera move and its speed, drawn by the row's id."""

    reads = ("frame_id",)
    adds = (column("camera_move", pa.string(), "move of the camera over the still picture"),
            column("camera_speed", pa.float32(), "its speed", "frame widths, heights or magnification / s"))

    def __init__(self, seed: int = 0):
        self.seed = seed

    def __call__(self, table: pa.Table) -> pa.Table:
        return map_rows(table, self, self._plan)

    def _plan(self, row: dict) -> dict:
        number = int(digest(self.seed, "move", row["frame_id"], length=12), 16)
        share = (number // len(MOVES)) % 1000 / 999
        return {"camera_move": list(MOVES)[number % len(MOVES)],
                "camera_speed": round(SPEEDS[0] + share * (SPEEDS[1] - SPEEDS[0]), 4)}


class FilmPicture:
    """Edited pictures → a video of `seconds` at `fps`, its shorter side `short_px`.

    `backend` "camera" does the planned move; any `VideoEditor` by name gets the still clip, the picture as
    its first frame, and edit and motion prompt as its instruction.
    """

    adds = (
        column("video_path", pa.string(), "video that shows the edited picture in motion"),
        column("video_duration_s", pa.float64(), "its length", "s"),
        column("video_num_frames", pa.int32(), "its frames"),
        column("video_start_db", pa.float32(), "PSNR of its first frame against the edited picture; null = a camera "
                                               "moves over it", "dB"),
        column("video_moved", pa.float32(), "largest mean difference of a frame from the first", "0 to 255"),
    )
    neutral = ("media",)

    def __init__(self, media: str, *, backend: str = CAMERA, options: dict | None = None, seconds: float = 5.0,
                 fps: int = FPS, short_px: int = 480, seed: int = 0):
        self.reads = self.contract(backend=backend)[0]
        self.store, self.fps, self.short_px, self.seed = MediaStore(media), fps, short_px, seed
        self.num_frames = frames_of(seconds, fps)
        self.editor = None if backend == CAMERA else open_backend("video-editor", backend, **(options or {}))

    @classmethod
    def contract(cls, backend: str = CAMERA, **_: object) -> tuple[tuple[str, ...], tuple[pa.Field, ...]]:
        more = ("camera_move", "camera_speed") if backend == CAMERA else ()
        return ("frame_id", "edited_path", "edit_prompt", "motion_prompt", *more), cls.adds

    @classmethod
    def owners(cls, backend: str = CAMERA, options: dict | None = None, **_: object) -> dict[str, dict]:
        by = {"op": "datagen.film_picture:FilmPicture", "backend": backend, **(options or {})}
        return {field.name: by for field in cls.adds}

    def __call__(self, table: pa.Table) -> pa.Table:
        return map_rows(table, self, self._film)

    def _film(self, row: dict) -> dict:
        if not row["edited_path"] or not row["motion_prompt"]:
            raise BackendError("there is no edited picture, or nothing says how it should move")
        picture = read_image(row["edited_path"])
        if self.editor is None:
            frames = camera_move(picture, row["camera_move"], row["camera_speed"], num_frames=self.num_frames,
                                 fps=self.fps, size=fit(picture.shape[1::-1], short_px=self.short_px))
        else:
            frames = self._animate(picture, row)
        seen = Watched(frames)
        video = self.store.video(seen, fps=self.fps)
        return {"video_path": video.path, "video_duration_s": video.end_s, "video_num_frames": video.num_frames,
                "video_start_db": None if self.editor is None else seen.start_db(picture), "video_moved": seen.moved}

    def _animate(self, picture: np.ndarray, row: dict) -> np.ndarray:
        width, height = fit(picture.shape[1::-1], short_px=self.short_px)
        first = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        request = EditRequest(instruction=f"{row['edit_prompt']} {row['motion_prompt']}", kind="animate",
                              params={"motion_prompt": row["motion_prompt"]},
                              seed=draw_seed(self.seed, row["frame_id"]))
        return self.editor.edit(np.repeat(first[None], self.num_frames, axis=0), request, first)


class Watched:
    """Frames on their way to the encoder: `moved` is then the largest mean difference of a frame from the first."""

    def __init__(self, frames: Iterable[np.ndarray]):
        self._frames, self._first, self.moved = frames, None, 0.0

    def __iter__(self) -> Iterator[np.ndarray]:
        for frame in self._frames:
            small = shrink(frame, fit(frame.shape[1::-1], long_px=LOOK_PX)).astype(np.float32)
            self._first = small if self._first is None else self._first
            self.moved = max(self.moved, float(np.abs(small - self._first).mean()))
            yield frame

    def start_db(self, picture: np.ndarray) -> float:
        """PSNR of the first frame against a picture, both small; 100 = equal."""
        wanted = cv2.resize(picture, self._first.shape[1::-1], interpolation=cv2.INTER_AREA).astype(np.float32)
        return float(10 * np.log10(255**2 / max(float(np.square(wanted - self._first).mean()), 255**2 * 1e-10)))


def frames_of(seconds: float, fps: float = FPS) -> int:
    """Frames of a video of that length: 4k + 1, what video autoencoders hold."""
    return int(seconds * fps) // 4 * 4 + 1


def camera_move(picture: np.ndarray, move: str, speed: float, *, num_frames: int, fps: float,
                size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Frames `(height, width, 3)` uint8 of a steady move over `picture`, never beyond its border.

    A zoom in starts, and a zoom out ends, with the whole picture.
    """
    x, y, zoom = MOVES[move]
    width, height = size
    length = (num_frames - 1) / fps
    travel = min(speed * length, 0.4)               # of the frame, or of its magnification
    tight = 1 + travel                              # largest magnification of the picture
    big = cv2.resize(picture, (round(width * OVERSAMPLE * tight), round(height * OVERSAMPLE * tight)),
                     interpolation=cv2.INTER_AREA if picture.shape[1] > width * OVERSAMPLE * tight else cv2.INTER_CUBIC)
    for n in range(num_frames):
        share = n / max(num_frames - 1, 1)
        scale = tight if not zoom else 1 + travel * (share if zoom > 0 else 1 - share)
        # Centre of the view in shares of the picture; at magnification m it shows 1 / m of it.
        centre_x, centre_y = (0.5 + d * (share - 0.5) * (1 - 1 / scale) for d in (x, y))
        factor = big.shape[1] / (scale * width), big.shape[0] / (scale * height)
        matrix = np.array([[factor[0], 0, centre_x * big.shape[1] - factor[0] * width / 2],
                           [0, factor[1], centre_y * big.shape[0] - factor[1] * height / 2]])
        yield cv2.warpAffine(big, matrix, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                             borderMode=cv2.BORDER_REPLICATE)
