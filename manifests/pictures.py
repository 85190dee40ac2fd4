"""Picture files: which endings they have, and how one becomes upright 8-bit RGB.

One way for data and for generation: what a model is trained on and what it is asked with look alike.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError, features

from .errors import MediaError

# A GIF is not among them: in pairs and cases it is a film.
PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif")
# Other readers of Pillow are rarely met and little tested; some ask a stream for what Arrow's have not (readline).
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "PPM", *(n.upper() for n in ("webp", "avif") if features.check(n)))
MAX_PIXELS = 64_000_000  # of a picture: a decompression bomb asks for more
BROKEN = (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError)  # raised by Pillow
WHITE_16 = 65_535


def is_picture_file(path: str) -> bool:
    """By its ending: is it a file with one picture?"""
    return path.lower().endswith(PICTURE_ENDINGS)


def open_picture(file, name: str) -> Image.Image:
    """The upright RGB picture in an open binary stream or a file of this path; `name` is for messages.

    Raises `MediaError` where it is too large or its white is not known, one of `BROKEN` where it cannot be read.
    """
    with Image.open(file, formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise MediaError(f"{name} has {image.width}x{image.height} pixels; more than {MAX_PIXELS:,} are not read")
        return _upright_rgb(image, name)


def _upright_rgb(image: Image.Image, name: str) -> Image.Image:
    """Turned as the EXIF tag says, on white where it is transparent, as a browser shows it."""
    deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))  # their deepest
    if image.mode in ("I", "F") and not deep:
        raise MediaError(f"{name} holds 32-bit values (Pillow's mode {image.mode}), and nothing says which of them is "
                         "white; save it as 8 or 16 bits")
    image = ImageOps.exif_transpose(image)
    if deep:
        image = _eight_bits(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """A grey picture of 16 bits as one of 8: 65,535 becomes 255. Pillow alone would cut off all above 255."""
    values = np.asarray(image).astype(np.uint32)
    if (hidden := image.info.get("transparency")) is not None:
        values[values == hidden] = WHITE_16
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))
