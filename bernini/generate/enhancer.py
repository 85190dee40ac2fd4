"""Rewrites a short instruction into the detailed prompt that the renderer follows best (paper, 6.1).

Talks to any OpenAI-compatible server. The key comes from the environment only:
BERNINI_PE_API_KEY or OPENAI_API_KEY; the server from BERNINI_PE_BASE_URL or OPENAI_BASE_URL; the
model from BERNINI_PE_MODEL. When no answer can be used the raw prompt is kept, with a warning.
"""

import base64
import io
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from bernini.errors import EnhancerError
from bernini.generate.cases import Case
from bernini.video_io import probe, read_frames, read_image

VIDEO_FRAMES = 3
JSON_TASKS = ("r2v", "rv2v")

_EDIT = (
    "You rewrite editing requests for a {what} editing model. You see the source. Keep the user's intent "
    "exactly; add nothing that was not asked for. Name the kind of edit (add, remove, replace, recolour, "
    "change material, background, style, lighting, weather, action, position, camera, text, restore or "
    "extend), say where it applies, describe the result in concrete visual words, and end with what must "
    "stay unchanged: identity, motion, framing, background and everything not mentioned. Answer in English "
    "with the rewritten request only."
)
_CREATE = (
    "You rewrite short ideas into prompts for a {what} generator. Keep every stated subject, number, colour, "
    "action and text; never replace them. Add what a camera would see: subject, action, setting, light, "
    "composition, lens or camera motion, style. 60 to 200 English words, one paragraph. Answer with the "
    "prompt only."
)
_REFERENCE = (
    "You write prompts for a video model that is shown reference pictures named image0, image1, … in the "
    "order you see them{before}. Describe each subject once by its visible traits with its name in brackets, "
    "then the scene: who does what, where, how it moves. Keep the user's intent. Answer as JSON: "
    '{{"rewritten_text": "…"}}.'
)
_ANIMATE = (
    "You see the first frame of a video to be made. Say in English, in two or three sentences, how it moves "
    "on from there as the user wishes: subject motion, camera, light. Answer with the prompt only."
)
_EDITED_TOO = (
    "; the frames before them are from the video to be edited, and what the user does not mention in it "
    "must stay"
)
_INSERT = (
    "You see frames of a video and then of a clip to be inserted into it. Say in English, in two or three "
    "sentences, where and when it appears and how it blends in. Answer with the prompt only."
)
_PROPAGATE = (
    "You see frames of a video, and then its first frame after an edit. Say in English, in one or two sentences, "
    "what the edit changed and how it is carried through the video, as the user wishes; what was not edited stays. "
    "Answer with the prompt only."
)
INSTRUCTIONS = {
    "t2i": _CREATE.format(what="image"),
    "t2v": _CREATE.format(what="video"),
    "i2i": _EDIT.format(what="image"),
    "v2v": _EDIT.format(what="video"),
    "mv2v": _EDIT.format(what="video"),
    "i2v": _ANIMATE,
    "r2v": _REFERENCE.format(before=""),
    "rv2v": _REFERENCE.format(before=_EDITED_TOO),
    "vi2v": _PROPAGATE,
    "ads2v": _INSERT,
}


@dataclass(frozen=True, kw_only=True)
class Server:
    """Where to ask. `from_environment` reads the variables named in the module text."""

    key: str
    url: str = "https://api.openai.com/v1"
    model: str = "gpt-5.4-2026-03-05"
    tries: int = 8
    timeout_s: float = 120.0
    pause_s: float = 1.0  # before the second try; doubles each time, at most 30 s

    @classmethod
    def from_environment(cls, model: str = "", url: str = "", **more) -> "Server":
        key = os.environ.get("BERNINI_PE_API_KEY") or os.environ.get("OPENAI_API_KEY")
        if not key:
            raise EnhancerError("no key for the prompt enhancer; set BERNINI_PE_API_KEY (or OPENAI_API_KEY)")
        url = url or os.environ.get("BERNINI_PE_BASE_URL") or os.environ.get("OPENAI_BASE_URL") or cls.url
        model = model or os.environ.get("BERNINI_PE_MODEL") or cls.model
        return cls(key=key, url=url.rstrip("/"), model=model, **more)


def enhance(case: Case, server: Server, warn: Callable[[str], None] = lambda text: None) -> str:
    """The rewritten prompt of a case; its own prompt when the server gives nothing usable."""
    messages = [
        {"role": "system", "content": INSTRUCTIONS[case.task_type]},
        {"role": "user", "content": [*_media(case), {"type": "text", "text": case.prompt}]},
    ]
    try:
        answer = _ask(messages, server)
        return _json_text(answer) if case.task_type in JSON_TASKS else _plain_text(answer)
    except EnhancerError as error:
        warn(f"prompt enhancer: {error}; the prompt is used as it is")
        return case.prompt


def _ask(messages: list[dict], server: Server) -> str:
    import httpx

    body = {"model": server.model, "messages": messages, "max_completion_tokens": 8192}
    headers, why = {"Authorization": f"Bearer {server.key}"}, ""
    for attempt in range(server.tries):
        if attempt:
            time.sleep(min(30.0, server.pause_s * 2 ** (attempt - 1)))
        try:
            reply = httpx.post(
                f"{server.url}/chat/completions", json=body, headers=headers, timeout=server.timeout_s
            )
        except httpx.HTTPError as error:
            why = f"{server.url} gave no answer ({type(error).__name__})"
            continue
        if reply.status_code == 200:
            return _content(reply.text)
        why = f"{server.url} answered {reply.status_code}"
        if reply.status_code in (400, 401, 403, 404):  # the same question will not fare better
            break
    raise EnhancerError(why)


def _content(text: str) -> str:
    try:
        return json.loads(text)["choices"][0]["message"]["content"] or ""
    except (json.JSONDecodeError, KeyError, IndexError, TypeError):
        raise EnhancerError("the answer is not a chat completion") from None


def _plain_text(answer: str) -> str:
    text = answer.strip().strip('"').strip()
    if not text:
        raise EnhancerError("the answer is empty")
    return text


def _json_text(answer: str) -> str:
    start, end = answer.find("{"), answer.rfind("}")
    try:
        return _plain_text(json.loads(answer[start : end + 1])["rewritten_text"])
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise EnhancerError("the answer is not JSON with rewritten_text") from None


def _media(case: Case) -> list[dict]:
    """Labelled pictures: frames of the videos, then the references."""
    parts: list[dict] = []
    for number, path in enumerate(case.videos):
        indices = np.linspace(0, probe(path).num_frames - 1, VIDEO_FRAMES).round().astype(int).tolist()
        for index, frame in zip(indices, read_frames(path, indices), strict=True):
            parts += _picture(f"video{number}, frame {index}", Image.fromarray(frame))
    for number, path in enumerate(case.references):
        parts += _picture(f"image{number}", read_image(path))
    return parts


def _picture(label: str, image: Image.Image) -> Sequence[dict]:
    image.thumbnail((768, 768))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    url = f"data:image/png;base64,{data}"
    return {"type": "text", "text": label}, {"type": "image_url", "image_url": {"url": url}}
