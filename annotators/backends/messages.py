"""A `ChatRequest` in the form that OpenAI-compatible servers and vLLM's own `chat` take."""

from __future__ import annotations

import base64

from . import ChatRequest


def chat_messages(request: ChatRequest) -> list[dict]:
    """One turn of the user with texts and pictures, then each wrong answer with what was wrong."""
    content = [_text(p) if isinstance(p, str) else _image(p) for p in request.parts]
    messages: list[dict] = [{"role": "user", "content": content}]
    for answer, problem in request.corrections:
        messages.append({"role": "assistant", "content": answer or "(empty)"})
        messages.append({"role": "user", "content": f"That answer cannot be used: {problem}. Answer again, with "
                                                    "one JSON object of the required form and nothing else."})
    return messages


def _text(text: str) -> dict:
    return {"type": "text", "text": text}


def _image(jpeg: bytes) -> dict:
    return {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()}}
