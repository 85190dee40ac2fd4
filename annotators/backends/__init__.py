"""The one protocol between annotators and models, and the backends that speak it.

`classical` is not in the table: it measures instead of asking, and lives in the annotator.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from inspect import signature
from pkgutil import resolve_name
from typing import Protocol

from manifests.errors import BackendError, ConfigError

BACKENDS = {
    "openai": "annotators.backends.openai:OpenAIChat",
    "vllm": "annotators.backends.vllm:VLLMEngine",
}


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """One question. `parts` are texts and whole JPEG files, in the order the model sees them.

    `corrections` are earlier answers to it and what was wrong with each, oldest first.
    """

    parts: tuple[str | bytes, ...]
    schema: dict                                      # JSON schema that the answer must obey
    corrections: tuple[tuple[str, str], ...] = ()
    max_tokens: int = 2048
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class ChatAnswer:
    """What came back: `text` as the model wrote it, or `error`. Never both."""

    text: str = ""
    error: BackendError | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    latency_s: float | None = None  # None: taken from the cache, nobody was asked


class ChatBackend(Protocol):
    """`model` is the name that goes into the evidence columns.

    `ask` pulls requests as it has room for them (so that frames of waiting rows need not be
    in memory) and answers in their order. A request that fails is an answer with an error;
    an exception means that the run cannot go on (`ConfigError`, `RunStopped`).
    """

    model: str

    def ask(self, requests: Iterable[ChatRequest]) -> list[ChatAnswer]: ...


def open_backend(name: str, /, **options: object) -> ChatBackend:
    if name not in BACKENDS and ":" not in name:
        raise ConfigError(f"no annotator backend {name!r}; known: classical, {', '.join(BACKENDS)}, or 'module:Class'")
    try:
        cls = resolve_name(BACKENDS.get(name, name))
    except ModuleNotFoundError as error:
        raise ConfigError(f"the backend {name!r} needs the package {error.name}, which is not installed: "
                          f"pip install {'vllm==0.31.0' if error.name == 'vllm' else error.name}") from None
    try:
        signature(cls).bind(**options)
    except TypeError as error:
        raise ConfigError(f"the backend {name!r} cannot be opened so: {error}") from None
    return cls(**options)
