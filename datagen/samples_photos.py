"""Photographs and cut-outs of the sample film, all from files inside the scikit-image wheel.

For samples_shots.py, which names them, and samples_camera.py, which films them. Nothing is
downloaded: the files are read from the installed package. Pictures are uint8 RGB (H, W, 3),
cut-outs uint8 RGBA (H, W, 4) with straight alpha.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

PHOTOS = {
    "astronaut": "astronaut.png",
    "cat": "chelsea.png",
    "coffee": "coffee.png",
    "rocket": "rocket.jpg",
    "motorcycle": "motorcycle_left.png",
    "galaxies": "hubble_deep_field.jpg",
    "retina": "retina.jpg",
    "moon": "moon.png",
    "coins": "coins.png",
    "bricks": "brick.png",
    "gravel": "gravel.png",
}

# Outline of the person in astronaut.png, in its pixels.
ASTRONAUT = [
    (201, 23), (185, 38), (163, 51), (156, 58), (153, 68), (154, 92), (157, 104), (170, 116), (174, 128),
    (182, 132), (183, 147), (153, 151), (140, 158), (131, 167), (121, 183), (123, 205), (110, 206),
    (90, 227), (70, 240), (60, 253), (44, 282), (39, 306), (34, 315), (26, 342), (26, 366), (22, 390),
    (24, 418), (23, 445), (36, 470), (62, 488), (100, 511), (511, 511), (511, 490), (500, 455), (496, 431),
    (487, 398), (470, 369), (444, 350), (408, 345), (376, 350), (361, 355), (360, 330), (355, 305),
    (345, 280), (330, 259), (305, 243), (300, 222), (292, 208), (281, 196), (268, 184), (256, 176),
    (259, 160), (268, 140), (271, 128), (290, 117), (297, 102), (297, 87), (291, 82), (291, 74), (296, 69),
    (296, 61), (288, 43), (276, 31), (251, 19), (227, 16), (212, 22),
]  # fmt: skip
ROCKET = [(323, 126), (316, 133), (312, 143), (311, 176), (314, 180), (313, 405), (332, 405), (332, 180),
          (334, 176), (334, 143), (330, 133)]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Grade:
    """A colour grade: `gain` per channel (R, G, B), `gamma`, `saturation`, then `lift`."""

    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gamma: float = 1.0
    saturation: float = 1.0
    lift: tuple[float, float, float] = (0.0, 0.0, 0.0)  # black becomes this, 0 to 1; white stays


GRADES = {
    "neutral": Grade(),
    "warm": Grade(gain=(1.12, 1.0, 0.82)),
    "cool": Grade(gain=(0.84, 0.98, 1.16)),
    "dim": Grade(gain=(0.62, 0.64, 0.70), gamma=1.1),
    "bright": Grade(gain=(1.12, 1.12, 1.12), gamma=0.82),
    "faded": Grade(gamma=0.85, saturation=0.45),
    "mono": Grade(saturation=0.0),
    "sunset": Grade(gain=(1.55, 0.92, 0.72), gamma=0.95),
    # The hue of a black sky is noise, which shot detectors that look at hue take for a cut: give it a colour.
    "night": Grade(lift=(0.05, 0.07, 0.15)),
    "blue night": Grade(gain=(0.84, 0.98, 1.16), lift=(0.04, 0.09, 0.20)),
    "brown night": Grade(gain=(1.12, 1.0, 0.82), lift=(0.13, 0.08, 0.06)),
}


@cache
def photograph(name: str) -> np.ndarray:
    """The photograph `name`: a key of PHOTOS, or "empty pad", the launch pad without its rocket.

    Shared, so callers must not write into it.
    """
    if name == "empty pad":
        return _empty_pad()
    picture = np.array(Image.open(_folder() / PHOTOS[name]).convert("RGB"))
    return np.rot90(picture).copy() if name == "bricks" else picture  # the wall lies on its side


def _folder() -> Path:
    try:
        import skimage
    except ImportError as error:
        raise ImportError(
            "the sample film is shot from photographs inside scikit-image, which is not installed; "
            'run: pip install "bernini[samples]"'
        ) from error
    return Path(skimage.__file__).parent / "data"


def _empty_pad() -> np.ndarray:
    """rocket.jpg with the rocket painted over by the sky on both sides of it."""
    picture = photograph("rocket").astype(np.float32)
    left, right, top, bottom = 302, 343, 118, 406
    share = np.linspace(0, 1, right - left)[None, :, None]
    beside = cv2.GaussianBlur(picture, (0, 0), 2)  # single columns would draw streaks
    sky = (1 - share) * beside[top:bottom, left, None] + share * beside[top:bottom, right, None]
    picture[top:bottom, left:right] = sky
    return picture.round().astype(np.uint8)


def graded(picture: np.ndarray, grade: str) -> np.ndarray:
    """`picture` (RGB or RGBA) in the named grade; alpha stays."""
    look = GRADES[grade]
    colour = picture[..., :3].astype(np.float32) / 255 * np.array(look.gain, np.float32)
    colour = np.clip(colour, 0, 1) ** look.gamma
    grey = colour @ np.array([0.299, 0.587, 0.114], np.float32)
    colour = grey[..., None] + look.saturation * (colour - grey[..., None])
    lift = np.array(look.lift, np.float32)
    colour = lift + colour * (1 - lift)
    out = picture.copy()
    out[..., :3] = np.clip(colour * 255, 0, 255).round()
    return out


@cache
def cutout(name: str) -> np.ndarray:
    """The cut-out `name`, a key of CUTOUTS; shared, so callers must not write into it."""
    return CUTOUTS[name]()


def _outlined(photo: str, outline: list[tuple[int, int]], soft_px: float) -> np.ndarray:
    """What lies inside `outline` of a photograph, cropped to it."""
    points = np.array(outline, np.int32)
    picture = photograph(photo)
    alpha = np.zeros(picture.shape[:2], np.uint8)
    cv2.fillPoly(alpha, [points], 255, cv2.LINE_AA)
    # Eroded first: a soft edge would otherwise carry a rim of the old background.
    alpha = cv2.GaussianBlur(cv2.erode(alpha, np.ones((3, 3), np.uint8)), (0, 0), soft_px)
    x, y, width, height = cv2.boundingRect(points)
    return np.dstack([picture, alpha])[y : y + height, x : x + width]


def _disc(size_px: int, soft_px: float = 1.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit coordinates x, y in [-1, 1] and alpha uint8 of a disc that fills a square of `size_px`."""
    y, x = np.mgrid[-1 : 1 : size_px * 1j, -1 : 1 : size_px * 1j].astype(np.float32)
    alpha = np.clip((1 - np.hypot(x, y)) * size_px / 2 / soft_px, 0, 1)
    return x, y, (alpha * 255).astype(np.uint8)


def _sphere(texture: np.ndarray) -> np.ndarray:
    """A square texture (N, N, 3) as a ball lit from the upper left."""
    x, y, alpha = _disc(len(texture))
    z = np.sqrt(np.clip(1 - x * x - y * y, 0, 1))
    light = np.clip(-0.55 * x - 0.45 * y + 0.70 * z, 0, 1) ** 0.8 + 0.03
    return np.dstack([np.clip(texture * light[..., None] * 1.1, 0, 255).astype(np.uint8), alpha])


def _planet() -> np.ndarray:
    eye = photograph("retina")[130:1280, 130:1280]
    return _sphere(cv2.resize(eye, (400, 400), interpolation=cv2.INTER_AREA))


def _moon() -> np.ndarray:
    return _sphere(cv2.convertScaleAbs(photograph("moon")[:400, :400], alpha=1.5))


def _ball() -> np.ndarray:
    return _sphere(np.full((160, 160, 3), (205, 40, 45), np.uint8))


def _coin() -> np.ndarray:
    """The big coin at the right of coins.png, tinted like brass (the photograph is grey)."""
    square = photograph("coins")[155:218, 316:379]
    square = cv2.resize(square, (126, 126), interpolation=cv2.INTER_CUBIC)
    brass = square.astype(np.float32) * np.array([1.25, 1.02, 0.62], np.float32)
    return np.dstack([np.clip(brass, 0, 255).astype(np.uint8), _disc(126)[2]])


def _flame() -> np.ndarray:
    """Exhaust: white-hot at the top, orange and transparent towards the bottom."""
    y, x = np.mgrid[0 : 1 : 240j, -1 : 1 : 60j].astype(np.float32)
    heat = np.exp(-((x / (0.30 + 0.35 * y)) ** 2)) * (1 - y) ** 0.8
    colour = np.dstack([255 + 0 * y, 150 + 105 * heat, 60 + 160 * heat**2])
    return np.dstack([colour, 255 * np.clip(heat * 1.4, 0, 1)]).astype(np.uint8)


def _post() -> np.ndarray:
    """A dark post close to the lens, far out of focus."""
    across = np.clip(1.25 - np.abs(np.linspace(-1.25, 1.25, 120)) * 1.25, 0, 1)
    alpha = np.broadcast_to(across * across * (3 - 2 * across) * 250, (560, 120))
    return np.dstack([np.full((560, 120, 3), (24, 21, 20)), alpha]).astype(np.uint8)


CUTOUTS = {
    "astronaut": lambda: _outlined("astronaut", ASTRONAUT, 0.9),
    "rocket": lambda: _outlined("rocket", ROCKET, 0.6),
    "planet": _planet,
    "moon": _moon,
    "ball": _ball,
    "coin": _coin,
    "flame": _flame,
    "post": _post,
}
