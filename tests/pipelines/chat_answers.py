"""A server whose answers a test writes field by field; what it leaves open is filled with the least that is allowed."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.annotators.chat_server import chat_server, completion, fill

FINE = {"executed": True, "instruction": 5, "consistency": 4, "reference": 4, "quality": 4, "overall": 4}


def answering(say: Callable[[set[str], str], dict]):
    """`say(fields, texts)` gets the fields that an answer has and all that the model read."""

    def behave(handler, body: dict) -> bool:
        schema = body["response_format"]["json_schema"]["schema"]
        parts = (part for message in body["messages"] for part in message["content"] if isinstance(part, dict))
        texts = "\n".join(part["text"] for part in parts if part["type"] == "text")
        said = say(set(schema["properties"]), texts)
        handler.reply(200, completion(json.dumps({k: said.get(k, v) for k, v in fill(schema).items()})))
        return True

    return chat_server(behave=behave)


def asking(server) -> dict:
    """Settings of a recipe that asks it."""
    return {"annotator": "openai", "url": (server.url,), "annotator_model": "m", "max_failed_share": 1.0}
