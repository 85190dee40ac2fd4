"""A local server with the OpenAI image endpoint that edits really (swaps red and blue), or misbehaves as told."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image


class ImageServer:
    """`faults` are played in order, one a request: see `_Handler.play`; then it behaves. `requests` keeps what came."""

    def __init__(self, *faults: str):
        self.faults, self.requests = list(faults), []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"owner": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> ImageServer:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    owner: ImageServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        fields = _form(self.headers["Content-Type"], body)
        self.owner.requests.append({"path": self.path, "key": self.headers.get("Authorization"), **fields})
        self.close_connection = True
        fault = self.owner.faults.pop(0) if self.owner.faults else ""
        if fault:
            return self.play(fault)
        with Image.open(io.BytesIO(fields["image"])) as image:
            self.answer(200, _coded(np.asarray(image)[..., ::-1]))

    def play(self, fault: str) -> None:
        name, _, value = fault.partition(":")
        if name == "status":
            self.answer(int(value), b'{"error": "no"}', {"Retry-After": "0.05"})
        elif name == "drop":
            self.connection.close()
        elif name == "drip":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            for _ in range(100):
                self.wfile.write(b"X")
                self.wfile.flush()
                time.sleep(0.05)
        elif name == "cut":
            self.answer(200, b"{}", {"Content-Length": "1000"})
        elif name == "bomb":
            self.answer(200, _coded(np.zeros((4000, 4000, 3), np.uint8)))
        elif name == "square":
            self.answer(200, _coded(np.zeros((64, 64, 3), np.uint8)))
        elif name == "body":
            self.answer(200, value.encode())

    def answer(self, status: int, body: bytes, headers: dict | None = None) -> None:
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            return  # the client went away, as it should

    def log_message(self, *args) -> None:
        pass


def _coded(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(file, format="PNG")
    return json.dumps({"data": [{"b64_json": base64.b64encode(file.getvalue()).decode()}]}).encode()


def _form(kind: str, body: bytes) -> dict[str, object]:
    message = BytesParser().parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
    out: dict[str, object] = {}
    for part in message.get_payload():
        name = part.get_param("name", header="content-disposition")
        data = part.get_payload(decode=True)
        out[name] = data if part.get_content_type() == "image/png" else data.decode()
    return out
