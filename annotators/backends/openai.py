"""Any OpenAI-compatible server: vLLM first of all, one or several replicas of it.

At most `concurrency` requests are in flight, and the next one is made (its frames decoded)
only when there is room. What is asked again: connection loss, time-outs, 408, 429 (after its
Retry-After), 5xx and answers that are not chat completions, each with growing pauses. What is
never asked again: any other 4xx, which becomes the issue of its row; a wrong model name, a wrong
address or a refused key stops the run at once.

The key is read from the environment (OPENAI_API_KEY, or the variable named by `key_from`) and
goes into one header: never into a log, a message, a manifest or the hash of a request.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

from manifests.errors import BackendError, ConfigError

from ..parsing import clean_text
from . import ChatAnswer, ChatRequest
from .cache import AnswerCache
from .messages import chat_messages
from .replicas import Replica, Replicas
from .replies import count_of, load_object, read_reply, retry_after
from .wire import Lost, TooLong, Unreachable

SHOWN = 300  # characters of a server's own words in a message


class OpenAIChat:
    """`urls` is one address such as http://host:8000/v1, or a list of replicas. Times in seconds.

    `model` may be left out where the server has only one. `timeout_s` is the longest wait for
    one answer, `wait_s` the longest time without any server before the run stops.
    """

    def __init__(self, urls: str | Sequence[str] = (), model: str = "", *, concurrency: int = 32,
                 timeout_s: float = 180.0, connect_s: float = 10.0, retries: int = 7, backoff_s: float = 0.5,
                 wait_s: float = 600.0, cache: str = "", max_answer_bytes: int = 256 * 1024,
                 key_from: str = "OPENAI_API_KEY", extra: dict | None = None):
        urls = [u.strip() for u in (urls.split(",") if isinstance(urls, str) else urls) if u.strip()]
        if not urls:
            raise ConfigError("the openai backend needs the address of a server: urls='http://host:8000/v1'")
        if concurrency < 1:
            raise ConfigError(f"concurrency is {concurrency}; at least one request must be in flight")
        self.model, self.concurrency, self.retries, self.backoff_s = model, concurrency, retries, backoff_s
        self.extra = extra or {}
        self._limits = {"timeout_s": timeout_s, "connect_s": connect_s, "max_bytes": max_answer_bytes}
        self._key, self._key_from = _read_key(key_from), key_from
        self._cache = AnswerCache(cache) if cache else None
        self._replicas = Replicas(urls, backoff_s=backoff_s, wait_s=wait_s)
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="chat")
        self._flying: dict[bytes, threading.Event] = {}
        self._lock = threading.Lock()
        self._attempt("GET", "/models", None)

    def ask(self, requests: Iterable[ChatRequest]) -> list[ChatAnswer]:
        room, futures, over = threading.Semaphore(self.concurrency), [], threading.Event()

        def done(future: Future) -> None:
            if not future.cancelled() and future.exception() is not None:
                over.set()
            room.release()

        try:
            source = iter(requests)
            while room.acquire() and not over.is_set():
                if (request := next(source, None)) is None:
                    break
                futures.append(self._pool.submit(self._answer, request))
                futures[-1].add_done_callback(done)
            failed = next((f for f in wait(futures, return_when=FIRST_EXCEPTION).done if f.exception()), None)
            if failed is not None:
                failed.result()
            return [future.result() for future in futures]
        except BaseException:
            self._replicas.stop()
            for future in futures:
                future.cancel()
            raise

    def close(self) -> None:
        self._replicas.stop()
        self._pool.shutdown(cancel_futures=True)
        if self._cache is not None:
            self._cache.close()

    def body(self, request: ChatRequest) -> bytes:
        """The request as sent. Equal requests give equal bytes, which is what the cache rests on."""
        return json.dumps({
            "model": self.model, "messages": chat_messages(request), "max_tokens": request.max_tokens,
            "temperature": request.temperature, "seed": request.seed,
            "response_format": {"type": "json_schema",
                                "json_schema": {"name": "answer", "strict": True, "schema": request.schema}},
            **self.extra,
        }, separators=(",", ":")).encode()

    def _answer(self, request: ChatRequest) -> ChatAnswer:
        body = self.body(request)
        if self._cache is None:
            return self._ask_server(body)
        key = hashlib.blake2b(body, digest_size=16).digest()
        with _Turn(self._flying, self._lock, key):
            if (found := self._cache.get(key)) is not None:
                return ChatAnswer(text=found[0], tokens_in=found[1], tokens_out=found[2])
            answer = self._ask_server(body)
            if answer.error is None:
                self._cache.put(key, answer.text, answer.tokens_in, answer.tokens_out)
            return answer

    def _ask_server(self, body: bytes) -> ChatAnswer:
        start = time.monotonic()
        try:
            data = self._attempt("POST", "/chat/completions", body)
        except BackendError as error:
            return ChatAnswer(error=error, latency_s=time.monotonic() - start)
        text = clean_text(data["choices"][0]["message"].get("content") or "")
        return ChatAnswer(text=text, latency_s=time.monotonic() - start, tokens_in=count_of(data, "prompt_tokens"),
                          tokens_out=count_of(data, "completion_tokens"))

    def _attempt(self, method: str, path: str, body: bytes | None) -> dict:
        """Ask until there is an answer; `BackendError` when this request cannot get one."""
        num_failures, problem, last = 0, "", None
        while num_failures <= self.retries:
            replica = self._replicas.take(avoid=last)
            try:
                status, headers, data = self._exchange(replica, method, path, body)
            except Unreachable as error:  # nothing was asked: the request is not to blame, and is not counted
                replica.is_checked = False
                self._replicas.failed(replica, str(error))
                continue
            except Lost as error:
                num_failures, problem, last = num_failures + 1, f"{replica.url}: {error}", replica
                self._replicas.failed(replica, str(error))
                continue
            except TooLong:
                status, problem = 0, f"{replica.url}: the answer has more than {self._limits['max_bytes']} bytes"
            except BaseException:
                self._replicas.answered(replica)
                raise
            if status in (429, 502, 503, 504):  # overloaded or not there yet: only a time-out counts
                num_failures += status == 504
                problem = f"{replica.url}: HTTP {status} {self._words(data)}".strip()
                self._replicas.failed(replica, f"HTTP {status}", retry_after(headers))
                continue
            self._replicas.answered(replica)
            if status == 200:
                value, problem = read_reply(data, method, replica.url)
                if not problem:
                    return value
            elif status:
                problem = self._judge(status, data, replica)
            num_failures, last = num_failures + 1, replica
            if num_failures <= self.retries:
                self._replicas.pause(min(self.backoff_s * 2 ** (num_failures - 1), 30.0))
        raise BackendError(f"gave up after {num_failures} tries: {problem}")

    def _exchange(self, replica: Replica, method: str, path: str, body: bytes | None) -> tuple:
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        if not replica.is_checked:
            status, answer_headers, data = replica.endpoint.exchange("GET", "/models", None, headers, **self._limits)
            if status == 404 and self.model:  # a server that lists no models is taken at our word
                status, data = 200, b"{}"
            if status == 200:
                self._check(replica, data)
            if status != 200 or method == "GET":
                return status, answer_headers, data
        if body is not None:
            headers["Content-Type"] = "application/json"
        return replica.endpoint.exchange(method, path, body, headers, **self._limits)

    def _check(self, replica: Replica, data: bytes) -> None:
        """Is our model among the served ones? `ConfigError` with their names where it is not."""
        listed = (load_object(data) or {}).get("data")
        names = [str(m.get("id")) for m in listed if isinstance(m, dict)] if isinstance(listed, list) else []
        if not self.model and len(names) == 1:
            self.model = names[0]
        if not self.model or (names and self.model not in names):
            wanted = f"no model {self.model!r}" if self.model else "more than one model, or does not list them"
            raise ConfigError(f"{replica.url} serves {wanted}; it serves: {', '.join(names) or 'nothing it tells'}. "
                              "Give one of those as model")
        replica.is_checked = True

    def _judge(self, status: int, data: bytes, replica: Replica) -> str:
        """What an error status means: words for a retry, or an exception where asking again is useless."""
        words = self._words(data)
        if status in (401, 403):
            raise ConfigError(f"{replica.url} refuses the key (HTTP {status}): set {self._key_from} in the environment")
        if status in (404, 405) or 300 <= status < 400:
            raise ConfigError(f"{replica.url} has no chat completions for model {self.model!r} (HTTP {status} {words})")
        if status < 500 and status != 408:
            raise BackendError(f"{replica.url} refuses the request: HTTP {status} {words}")
        return f"{replica.url}: HTTP {status} {words}".strip()

    def _words(self, data: bytes) -> str:
        """A server's error message, short, on one line, without the key that some servers repeat."""
        value = load_object(data)
        inner = value.get("error", value) if value else None
        words = inner.get("message") if isinstance(inner, dict) else inner
        text = " ".join(str(words or data[:SHOWN].decode(errors="replace")).split())
        return (text.replace(self._key, "***") if self._key else text)[:SHOWN]


class _Turn:
    """Lets one of several equal requests ask; the others wait and then find the answer in the cache."""

    def __init__(self, flying: dict[bytes, threading.Event], lock: threading.Lock, key: bytes):
        self.flying, self.lock, self.key = flying, lock, key

    def __enter__(self) -> None:
        while True:
            with self.lock:
                ahead = self.flying.get(self.key)
                if ahead is None:
                    self.flying[self.key] = threading.Event()
                    return
            ahead.wait()

    def __exit__(self, *error) -> None:
        with self.lock:
            self.flying.pop(self.key).set()


def _read_key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if key and not (key.isascii() and key.isprintable()):
        raise ConfigError(f"the key in {variable} has characters that no HTTP header may hold")
    return key
