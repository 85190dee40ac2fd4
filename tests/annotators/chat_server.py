"""A real HTTP server that speaks the chat protocol, well or badly, as a test wishes."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GOOD = {"transition": "The man leaves.", "camera": "It pans left.", "foreground": "He walks.", "background": "A wall."}


def completion(content: str | None, **more: object) -> bytes:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
    return json.dumps({"id": "c", "object": "chat.completion", "model": "m", "choices": [choice],
                       "usage": {"prompt_tokens": 11, "completion_tokens": 7}, **more}).encode()


def fill(schema: dict) -> object:
    """Smallest value that obeys a schema."""
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema["type"]
    if kind == "object":
        return {name: fill(inner) for name, inner in schema["properties"].items()}
    if kind == "array":
        return [fill(schema["items"]) for _ in range(max(schema.get("minItems", 1), 1))]
    return {"string": "a word or two", "boolean": True, "integer": schema.get("minimum", 1),
            "number": schema.get("minimum", 1.0), "null": None}[kind]


class ChatServer:
    """Each request goes to `behave(handler, body)`, which may return True when it answered itself.

    `asked` holds the bodies of all chat requests, `most_in_flight` how many were there at once.
    """

    def __init__(self, port: int = 0, models: tuple[str, ...] = ("m",), behave: Callable | None = None):
        self.models, self.behave = models, behave
        self.asked: list[dict] = []
        self.keys: list[str | None] = []
        self.in_flight = self.most_in_flight = 0
        self.lock = threading.Lock()
        self.open: set[socket.socket] = set()
        self.server = _Server(("127.0.0.1", port), _handler(self))
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    @property
    def port(self) -> int:
        return self.server.server_address[1]

    def kill(self) -> None:
        """As SIGKILL does: the port is closed and every connection reset."""
        self.server.shutdown()
        self.server.server_close()
        with self.lock:
            for connection in self.open:
                reset(connection)


class _Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True

    def handle_error(self, request, client_address) -> None:
        """Clients that break off are part of the tests."""


def reset(connection: socket.socket) -> None:
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


def _handler(server: ChatServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            with server.lock:
                server.open.add(self.connection)

        def log_message(self, *args) -> None:
            pass

        def reply(self, status: int, data: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            self.reply(200, json.dumps({"data": [{"id": name} for name in server.models]}).encode())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with server.lock:
                server.asked.append(body)
                server.keys.append(self.headers.get("Authorization"))
                server.in_flight += 1
                server.most_in_flight = max(server.most_in_flight, server.in_flight)
            try:
                if server.behave is None or not server.behave(self, body):
                    schema = body["response_format"]["json_schema"]["schema"]
                    value = {n: GOOD.get(n, v) for n, v in fill(schema).items()}
                    self.reply(200, completion(json.dumps(value)))
            finally:
                with server.lock:
                    server.in_flight -= 1

    return Handler


@contextmanager
def chat_server(**kwargs: object) -> Iterator[ChatServer]:
    server = ChatServer(**kwargs)
    try:
        yield server
    finally:
        server.kill()


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)
