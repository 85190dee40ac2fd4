"""The camera of the sample film: a shot's plan in, its frames out.

For samples.py. A `Shot` says what is filmed and how the camera moves at which speed, so the ground
truth is the plan itself and not a measurement. Framing is given at the middle of the shot, in
fractions of the photograph; speeds are constant, as from a motorised head.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from datagen.samples_photos import cutout, graded, photograph


@dataclass(frozen=True, kw_only=True)
class Move:
    """A camera move at speed 1: `pan` (right, down) in frame widths/s, `zoom` and `roll` directions."""

    unit: str = ""
    pan: tuple[int, int] = (0, 0)
    zoom: int = 0  # 1: the picture is magnified by the speed each second, -1: the reverse
    roll: int = 0  # 1: the camera turns clockwise, so the picture turns counter-clockwise


WIDTHS = "frame widths per second"
ZOOM = "magnification ratio per second"
DEGREES = "degrees per second"
MOVES = {
    "static": Move(),
    "handheld": Move(),
    "pan left": Move(unit=WIDTHS, pan=(-1, 0)),
    "pan right": Move(unit=WIDTHS, pan=(1, 0)),
    "tilt up": Move(unit=WIDTHS, pan=(0, -1)),
    "tilt down": Move(unit=WIDTHS, pan=(0, 1)),
    "zoom in": Move(unit=ZOOM, zoom=1),
    "zoom out": Move(unit=ZOOM, zoom=-1),
    "roll clockwise": Move(unit=DEGREES, roll=1),
    "roll counter-clockwise": Move(unit=DEGREES, roll=-1),
}


# Linear sampling of a picture at its own size is sharp on whole pixels and soft between them, which pulses
# in a slow pan. From 1.5 times the size it does not, at a seventh of the cost of cubic sampling.
OVERSAMPLE = 1.5
GRAIN = 2.2  # standard deviation of the sensor noise, of 255


@dataclass(frozen=True, kw_only=True)
class Extra:
    """A cut-out set into the photograph; it goes from `start` to `end` during the shot.

    Positions are its centre as fractions (x, y) of the photograph, `size` its width as a fraction
    of the photograph's width, `spin` its turn in degrees per second.
    """

    cutout: str
    start: tuple[float, float]
    end: tuple[float, float]
    size: float
    spin: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Shot:
    """The plan of one shot; `seconds` is its own part of the video, transitions are centred on its ends."""

    subject: str  # what is seen, in words
    seconds: float
    photo: str = ""  # key of PHOTOS; empty: black
    move: str = "static"  # key of MOVES
    speed: float = 0.0  # in the unit of the move
    at: tuple[float, float] = (0.5, 0.5)  # centre of the frame at mid-shot, fraction of the photograph
    width: float = 1.0  # width of the frame at mid-shot, fraction of the photograph's width
    sway: float = 0.0  # amplitude of the hand that holds the camera, fraction of the frame's width
    grade: str = "neutral"  # key of GRADES
    flip: bool = False  # mirrored left to right
    defocus: float = 0.0  # blur of the photograph behind the extras, sigma in its pixels
    extras: tuple[Extra, ...] = ()
    transition: str = "cut"  # into this shot: cut, dissolve, fade (through black)
    transition_s: float = 0.0
    has_people: bool = False
    frozen: bool = False  # the same frame all the time, sensor noise included


def _grain(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Sensor noise to add to frames: int16 (H + 32, W + 32, 3), each frame taking another part of it.

    Blurred a little, for the encoder wipes out noise that changes from pixel to pixel, and a static
    shot would come out frozen.
    """
    noise = rng.standard_normal((size[1] + 32, size[0] + 32), np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), 0.7)
    noise = (noise * (GRAIN / noise.std())).round().astype(np.int16)
    return cv2.merge([noise] * 3)


class Take:
    """A shot being filmed at `size` (width, height) and `fps`; `frame(k)` is its k-th picture.

    k below 0 and beyond the shot's length is valid within a transition: the camera runs on.
    """

    def __init__(self, shot: Shot, size: tuple[int, int], fps: int, key: tuple[int, ...]):
        """`key` seeds the noise and the sway: (seed, number of the video, number of the shot)."""
        self.shot, self.size, self.fps, self.key = shot, size, fps, key
        self.last: tuple[np.ndarray, np.ndarray] | None = None  # camera matrix and what it saw
        self.num_frames = round(shot.seconds * fps)
        rng = np.random.default_rng(key)
        self.sway_hz = rng.uniform([0.25] * 3 + [0.7] * 3, [0.6] * 3 + [1.3] * 3)
        self.sway_phase = rng.uniform(0, 2 * np.pi, 6)
        self.grain = _grain(size, rng)
        if shot.photo:
            self._develop()

    def _develop(self) -> None:
        """Grade the photograph and scale it to OVERSAMPLE pixels a frame pixel where the shot is tightest."""
        shot, (width, _) = self.shot, self.size
        picture = photograph(shot.photo)
        if shot.flip:
            picture = np.ascontiguousarray(picture[:, ::-1])
        self.photo_size = np.array(picture.shape[1::-1], np.float64)
        ends = (-0.5, shot.seconds + 0.5)
        self.scale = OVERSAMPLE * width / min(self._camera(t)[1] for t in ends)
        picture = graded(picture, shot.grade)
        if shot.defocus:
            picture = cv2.GaussianBlur(picture, (0, 0), shot.defocus)
        how = cv2.INTER_AREA if self.scale < 1 else cv2.INTER_LANCZOS4
        self.picture = cv2.resize(picture, None, fx=self.scale, fy=self.scale, interpolation=how)
        self.extras = [(extra, self._prepare(extra)) for extra in shot.extras]

    def _prepare(self, extra: Extra) -> np.ndarray:
        """The cut-out at its size in the scaled photograph: RGBA uint8."""
        piece = graded(cutout(extra.cutout), self.shot.grade)
        factor = extra.size * self.photo_size[0] * self.scale / piece.shape[1]
        how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
        return cv2.resize(piece, None, fx=factor, fy=factor, interpolation=how)

    def _camera(self, t: float) -> tuple[np.ndarray, float, float]:
        """At `t` seconds: centre (x, y) and width of the frame in photograph pixels, roll in degrees."""
        shot, move = self.shot, MOVES[self.shot.move]
        since_middle = t - shot.seconds / 2
        width = shot.width * self.photo_size[0]
        if move.zoom:
            width *= shot.speed ** (-move.zoom * since_middle)
        centre = np.array(shot.at) * self.photo_size
        centre = centre + np.array(move.pan) * shot.speed * since_middle * width
        wave = np.sin(2 * np.pi * self.sway_hz * t + self.sway_phase)
        sway = shot.sway * (0.75 * wave[:3] + 0.25 * wave[3:])
        return centre + sway[:2] * width, width, move.roll * shot.speed * since_middle + 40 * sway[2]

    def _to_photo(self, t: float) -> np.ndarray:
        """2x3 matrix from frame pixels to pixels of the scaled photograph."""
        centre, width, roll = self._camera(t)
        step = width * self.scale / self.size[0]
        cos, sin = step * np.cos(np.radians(roll)), step * np.sin(np.radians(roll))
        turn = np.array([[cos, -sin], [sin, cos]])
        offset = centre * self.scale - 0.5 - turn @ (np.array(self.size) - 1) / 2
        return np.column_stack([turn, offset])

    def frame(self, k: int) -> np.ndarray:
        """The k-th picture, RGB uint8 (H, W, 3)."""
        if self.shot.frozen:
            k = 0
        width, height = self.size
        picture = np.zeros((height, width, 3), np.uint8)
        if not self.shot.photo:
            return picture
        t = k / self.fps
        to_photo = self._to_photo(t)
        self._stay_inside(to_photo, t)
        picture = self._seen(to_photo)
        for extra, piece in self.extras:
            self._set_in(picture, piece, self._place(extra, piece, t, to_photo))
        x, y = np.random.default_rng((*self.key, k + 1000)).integers(0, 32, 2)
        return cv2.add(picture, self.grain[y : y + height, x : x + width], dtype=cv2.CV_8U)

    def _seen(self, to_photo: np.ndarray) -> np.ndarray:
        """The photograph through the camera; a camera at rest looks once and copies."""
        if self.last is None or not np.array_equal(self.last[0], to_photo):
            how = dict(flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE)
            self.last = to_photo, cv2.warpAffine(self.picture, to_photo, self.size, **how)
        return self.last[1].copy() if self.extras else self.last[1]

    def _stay_inside(self, to_photo: np.ndarray, t: float) -> None:
        width, height = self.size
        corners = np.array([[0, 0, 1], [width - 1, 0, 1], [0, height - 1, 1], [width - 1, height - 1, 1]])
        found = corners @ to_photo.T
        limit = np.array(self.picture.shape[1::-1])
        assert (found > -1).all() and (found < limit).all(), (self.shot, t, found, limit)

    def _place(self, extra: Extra, piece: np.ndarray, t: float, to_photo: np.ndarray) -> np.ndarray:
        """2x3 matrix from the cut-out's pixels to the frame's."""
        share = t / self.shot.seconds
        centre = (1 - share) * np.array(extra.start) + share * np.array(extra.end)
        centre = centre * self.photo_size * self.scale
        cos, sin = np.cos(np.radians(extra.spin * t)), np.sin(np.radians(extra.spin * t))
        turn = np.array([[cos, -sin], [sin, cos]])
        middle = (np.array(piece.shape[1::-1]) - 1) / 2
        placed = np.vstack([np.column_stack([turn, centre - turn @ middle]), [0, 0, 1]])
        return cv2.invertAffineTransform(to_photo) @ placed

    def _set_in(self, picture: np.ndarray, piece: np.ndarray, place: np.ndarray) -> None:
        """Draw the cut-out into `picture`, in place, touching only the rectangle that it covers."""
        high, wide = piece.shape[:2]
        corners = np.array([[0, 0, 1], [wide, 0, 1], [0, high, 1], [wide, high, 1]]) @ place.T
        x0, y0 = np.maximum(np.floor(corners.min(axis=0)).astype(int) - 1, 0)
        x1, y1 = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + 2, self.size)
        if x0 >= x1 or y0 >= y1:
            return
        shifted = place - np.array([[0, 0, x0], [0, 0, y0]])
        warped = cv2.warpAffine(piece, shifted, (int(x1 - x0), int(y1 - y0)), flags=cv2.INTER_LINEAR)
        alpha = warped[..., 3:].astype(np.float32) / 255
        below = picture[y0:y1, x0:x1]
        below[:] = (below + alpha * (warped[..., :3].astype(np.float32) - below)).round()
