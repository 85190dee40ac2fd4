"""Subtitles burned into planes: real fonts, several scripts and styles, timed.

For the transform Movie-with-Subtitles (paper, Table 1). The lines are made up for this purpose. A
cue is rendered once; each of its frames then costs one blend of its small rectangle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .fonts import fonts_for, open_font
from .planes import chroma, luma

LINES = {
    "latin": (
        "I told you not to open that door.", "Where were you last night?", "We have less than an hour left.",
        "Nobody leaves until I say so.", "Do you remember the summer by the lake?", "Listen. Someone is coming.",
        "- Are you sure?\n- No, but we have no choice.", "It was never about the money.",
        "¿Por qué no me lo dijiste antes?", "Mañana será otro día.", "Ça ne peut plus continuer comme ça.",
        "Où est passé le garçon ?", "Wir müssen über die Brücke, schnell!", "Das hätte ich früher wissen müssen.",
        "Não há mais ninguém aqui.", "Nie mogę w to uwierzyć.", "Bunu kimse bilmemeli."),
    "cyrillic": ("Ты слышал, что он сказал?", "Нам пора идти.", "Я никогда этого не забуду.", "Закрой дверь и молчи.",
                 "Хто там стоїть біля вікна?", "Завтра все буде інакше."),
    "greek": ("Πού πας τέτοια ώρα;", "Δεν ξέρω τι να πω.", "Περίμενε, έρχομαι κι εγώ.", "Όλα θα πάνε καλά."),
    "arabic": ("أين كنت طوال الليل؟", "لا أريد أن أذهب.", "هذا بيتي.", "سنعود غدا إن شاء الله."),
    "chinese": ("你昨天晚上在哪里？", "我们没有时间了。", "别担心，一切都会好的。", "請你再說一次。"),
    "japanese": ("どこへ行くの？", "もう時間がない。", "彼を信じてもいいですか？", "また明日会いましょう。"),
    "korean": ("어디 가는 거야?", "시간이 없어요", "나는 너를 믿어", "내일 다시 만나요"),
}
STYLES = ("outline", "yellow", "box", "shadow")
COLOURS = {"outline": (255, 255, 255), "yellow": (255, 222, 66), "box": (245, 245, 245), "shadow": (250, 250, 250)}


@dataclass(frozen=True, kw_only=True)
class Subtitles:
    """How the lines of one clip look. `size` is a share of the picture's height."""

    script: str
    style: str
    font: str
    size: float
    at_top: bool


@dataclass(frozen=True, kw_only=True)
class Cue:
    """A line of text on screen from frame `first` until before `end`; empty corners are transparent.

    `x`, `y` (even) is its place. `keep_*` uint16 is 255 - alpha, `ink_*` uint16 is 255 times the colour
    that comes on top: `(h, w)` of Y and `(2, h / 2, w / 2)` of U and V.
    """

    first: int
    end: int
    text: str
    x: int
    y: int
    keep_y: np.ndarray
    ink_y: np.ndarray
    keep_uv: np.ndarray
    ink_uv: np.ndarray

    def draw(self, planes: np.ndarray) -> None:
        """Blend the text into `planes`, in place."""
        height, width = self.keep_y.shape
        y = luma(planes)[self.y : self.y + height, self.x : self.x + width]
        uv = chroma(planes)[:, self.y // 2 : (self.y + height) // 2, self.x // 2 : (self.x + width) // 2]
        y[:] = (y * self.keep_y + self.ink_y + 127) // 255
        uv[:] = (uv * self.keep_uv + self.ink_uv + 127) // 255


def scripts_here(extra: Sequence[str] = ()) -> dict[str, tuple[str, ...]]:
    """Script → fonts of this machine that can write all of its lines; scripts without one are not in it."""
    found = {script: fonts_for(script, "".join(lines), extra) for script, lines in LINES.items()}
    return {script: fonts for script, fonts in found.items() if fonts}


def choose(rng: np.random.Generator, extra: Sequence[str] = ()) -> Subtitles:
    """A look drawn from what this machine can write. Latin is half of it, as in films at hand."""
    known = scripts_here(extra)
    others = [s for s in known if s != "latin"]
    script = "latin" if not others or rng.random() < 0.5 else others[rng.integers(len(others))]
    return Subtitles(script=script, style=STYLES[rng.integers(len(STYLES))],
                     font=known[script][rng.integers(len(known[script]))],
                     size=float(rng.uniform(0.05, 0.085)), at_top=bool(rng.random() < 0.12))


def make_cues(look: Subtitles, rng: np.random.Generator, *, num_frames: int, fps: float,
              size: tuple[int, int]) -> list[Cue]:
    """One line after another through the clip, each 0.6 to 2.6 s long, with pauses; the first frame is clean."""
    lines = list(rng.permutation(np.array(LINES[look.script], object)))
    cues, now = [], 1 + int(rng.integers(0, max(1, round(0.4 * fps))))
    while now + round(0.4 * fps) < num_frames - 1 and lines:
        end = min(now + round(rng.uniform(0.6, 2.6) * fps), num_frames - 1)
        cues.append(render(lines.pop(), look, size=size, first=now, end=end))
        now = end + 1 + int(rng.integers(0, round(0.8 * fps)))
    return cues


def render(text: str, look: Subtitles, *, size: tuple[int, int], first: int, end: int) -> Cue:
    """`text` as a cue for pictures of `size` = (width, height); it shrinks until it fits."""
    width, height = size
    points = max(10, round(look.size * height))
    while True:
        font, text_now = open_font(look.font, points), text
        if _extent(font, text, points)[0] > 0.92 * width:
            text_now = _wrap(text)
        if _extent(font, text_now, points)[0] <= 0.94 * width or points <= 10:
            break
        points -= 1
    image = _paint(text_now, look.style, font, points)
    image = _centre(image, width // 2 * 2, height // 2 * 2)
    margin = round(0.045 * height)
    y = margin if look.at_top else height - margin - image.height
    return _cue(np.asarray(image), first, end, text_now, (width - image.width) // 4 * 2, max(0, y) // 2 * 2)


def _centre(image: Image.Image, width: int, height: int) -> Image.Image:
    """The middle of a picture that is larger than this: what is cut off is cut off at both sides."""
    left, top = (max(0, has - room) // 2 for has, room in zip(image.size, (width, height), strict=True))
    return image.crop((left, top, left + min(image.width, width), top + min(image.height, height)))


def _extent(font, text: str, points: int) -> tuple[int, int]:
    box = ImageDraw.Draw(Image.new("L", (1, 1))).multiline_textbbox((0, 0), text, font=font,
                                                                    stroke_width=_stroke(points))
    return int(box[2] - box[0]), int(box[3] - box[1])


def _stroke(points: int) -> int:
    return max(1, round(points / 12))


def _wrap(text: str) -> str:
    """Two lines, broken at the space nearest to the middle, or in the middle where there is no space."""
    if "\n" in text:
        return text
    spaces = [i for i, c in enumerate(text) if c == " "]
    if not spaces:
        return text[: len(text) // 2] + "\n" + text[len(text) // 2 :]
    at = min(spaces, key=lambda i: abs(i - len(text) / 2))
    return text[:at] + "\n" + text[at + 1 :]


def _paint(text: str, style: str, font, points: int) -> Image.Image:
    """RGBA of the text on nothing, with a little room around it."""
    stroke, pad = _stroke(points), points // 2
    draw = ImageDraw.Draw(Image.new("L", (1, 1)))
    box = draw.multiline_textbbox((0, 0), text, font=font, align="center", stroke_width=stroke)
    size = (int(box[2] - box[0]) + 2 * pad + 1, int(box[3] - box[1]) + 2 * pad + 1)
    image = Image.new("RGBA", (size[0] + size[0] % 2, size[1] + size[1] % 2), (0, 0, 0, 0))
    if style == "box":
        image.paste((0, 0, 0, 150), (0, pad // 2, image.width, image.height - pad // 2))
    at, colour = (pad - box[0], pad - box[1]), (*COLOURS[style], 255)
    if style == "shadow":
        shade = Image.new("L", image.size, 0)
        ImageDraw.Draw(shade).multiline_text((at[0] + stroke, at[1] + stroke), text, font=font, fill=255,
                                             align="center", stroke_width=stroke)
        image.putalpha(shade.filter(ImageFilter.GaussianBlur(stroke)))
    over = Image.new("RGBA", image.size, (0, 0, 0, 0))
    outlined = style in ("outline", "yellow")
    ImageDraw.Draw(over).multiline_text(at, text, font=font, fill=colour, align="center",
                                        stroke_width=stroke if outlined else 0, stroke_fill=(0, 0, 0, 255))
    return Image.alpha_composite(image, over)


def _cue(rgba: np.ndarray, first: int, end: int, text: str, x: int, y: int) -> Cue:
    height, width = rgba.shape[:2]
    alpha = rgba[..., 3].astype(np.float32)
    ycc = cv2.cvtColor(np.ascontiguousarray(rgba[..., :3]), cv2.COLOR_RGB2YCrCb).astype(np.float32)
    ink_y = (16 + ycc[..., 0] * 219 / 255) * alpha
    inks = [(128 + (ycc[..., i] - 128) * 224 / 255) * alpha for i in (2, 1)]  # U is Cb, V is Cr
    half = (width // 2, height // 2)
    small = [np.rint(cv2.resize(p, half, interpolation=cv2.INTER_AREA)) for p in (255 - alpha, *inks)]
    return Cue(first=first, end=end, text=text, x=x, y=y, keep_y=(255 - alpha).astype(np.uint16),
               ink_y=np.rint(ink_y).astype(np.uint16), keep_uv=small[0].astype(np.uint16),
               ink_uv=np.stack(small[1:]).astype(np.uint16))
