"""Fonts for drawn text: which of this machine's can write a script, and never an empty box.

Font files are looked for where operating systems keep them, and in `extra` folders. A font is taken
for a script when it has a glyph of its own for every character that will be drawn. Latin always has
one: the font inside Pillow. A script that no font here can write is left out, and so is one whose
letters join (Arabic) where Pillow was built without a shaper.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache

from PIL import ImageFont, features

FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts",
           "/Library/Fonts", "/System/Library/Fonts", "C:/Windows/Fonts")
# Plain faces that subtitles are set in come first; the rest by name.
PREFERRED = ("dejavusans", "liberationsans", "notosans", "arial", "helvetica", "roboto", "opensans", "droidsans")
UNFIT = ("math", "symbol", "emoji", "mono", "dingbat", "barcode", "extralight", "katex")
MAX_FONTS = 6           # of a script
MAX_LOOKED_AT = 400     # files, on machines with thousands
BUILT_IN = "built-in"   # the font inside Pillow
JOINED = ("arabic",)    # scripts that need a shaper
NO_CHARACTER = "\uffff"  # never has a glyph: what a font draws for it is its empty box


def fonts_for(script: str, text: str, extra: Sequence[str] = ()) -> tuple[str, ...]:
    """Paths of fonts that can write all characters of `text`, at most 6; empty = the script cannot be written here."""
    if script in JOINED and not features.check("raqm"):
        return ()
    found = _covering("".join(sorted(set(text) - set(" \n"))), tuple(extra))
    return found or ((BUILT_IN,) if script == "latin" else ())


def open_font(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size) if path == BUILT_IN else ImageFont.truetype(path, size)


@cache
def _covering(characters: str, extra: tuple[str, ...]) -> tuple[str, ...]:
    found = []
    for path in _font_files(extra):
        if _can_write(path, characters):
            found.append(path)
            if len(found) == MAX_FONTS:
                break
    return tuple(found)


@cache
def _font_files(extra: tuple[str, ...]) -> tuple[str, ...]:
    paths = {os.path.join(folder, name)
             for root in (*FOLDERS, *extra) for folder, _, names in os.walk(os.path.expanduser(root))
             for name in names if name.lower().endswith((".ttf", ".otf", ".ttc"))}
    fit = [p for p in paths if not any(word in os.path.basename(p).lower() for word in UNFIT)]
    return tuple(sorted(fit, key=_rank)[:MAX_LOOKED_AT])


def _rank(path: str) -> tuple:
    name = os.path.basename(path).lower().replace("-", "").replace("_", "")
    place = next((i for i, family in enumerate(PREFERRED) if name.startswith(family)), len(PREFERRED))
    return place, name, path


def _can_write(path: str, characters: str) -> bool:
    try:
        font = ImageFont.truetype(path, 24, layout_engine=ImageFont.Layout.BASIC)
        box = _glyph(font, NO_CHARACTER)
        return all(_glyph(font, c) != box for c in characters)
    except OSError:  # a file that FreeType cannot read
        return False


def _glyph(font: ImageFont.FreeTypeFont, character: str) -> tuple:
    mask = font.getmask(character)
    return mask.size, bytes(mask)
