"""An image editor behind an OpenAI-compatible server: `POST <url>/images/edits`.

The picture and its mask go out as PNG in one multipart form, the answer comes back as base64 in
JSON. Connection loss, time-outs, 408, 429 (after Retry-After) and 5xx are asked again with
growing pauses; another 4xx is the issue of its row, except that a refused key, a wrong address
or an unknown model stop the run. No redirect is followed, and no address inside an answer is
fetched. The key is read from the environment and appears in one header only.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import io
import json
import os
import socket
import ssl
import threading
import time
import uuid
from urllib.parse import urlsplit

import numpy as np
from PIL import Image, UnidentifiedImageError

from manifests.errors import BackendError, ConfigError

from . import EditRequest
from .sizes import MEGAPIXEL, WorkSize

SHOWN = 300          # characters of a server's own words in a message
ASPECT = 0.1         # by so much the shape of an answer may differ: sides are rounded to multiples, and servers crop
AGAIN = (408, 429, 500, 502, 503, 504)
STOPS = {401: "refuses the key", 403: "refuses the key", 404: "knows no such address or model"}


class OpenAIImageEditor:
    """`url` such as http://host:8000/v1. Times in seconds; `max_bytes` bounds an answer.

    `multiple` is the stride in which the model wants sides; `size` asks for the working size by
    name ("WxH"; some servers know only their own, then give size=False).
    """

    def __init__(self, url: str, model: str, *, timeout_s: float = 300.0, connect_s: float = 10.0, retries: int = 4,
                 backoff_s: float = 1.0, max_bytes: int = 64 * 1024 * 1024, max_pixels: int = MEGAPIXEL,
                 multiple: int = 16, size: bool = True, key_from: str = "OPENAI_API_KEY"):
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{url!r} is not the address of a server: write http://host:port/v1")
        if parts.username or parts.password or parts.query:
            raise ConfigError("the address of a server must hold no user, password or query: keys are read from the "
                              f"environment only (server {parts.hostname})")
        self.url, self._parts, self.model, self.version = f"{parts.scheme}://{parts.netloc}", parts, model, model
        self.timeout_s, self.connect_s, self.retries, self.backoff_s = timeout_s, connect_s, retries, backoff_s
        self.max_bytes, self.max_pixels, self.multiple, self.size = max_bytes, max_pixels, multiple, size
        self._key, self._key_from = os.environ.get(key_from, "").strip(), key_from
        if not (self._key.isascii() and (self._key + " ").isprintable()):
            raise ConfigError(f"the key in {key_from} has characters that no HTTP header may hold")

    def edit(self, image: np.ndarray, request: EditRequest) -> np.ndarray:
        if not request.instruction.strip():
            raise BackendError("an image editor needs an instruction; this request has none")
        size = WorkSize.of(*image.shape[:2], multiple=self.multiple, max_pixels=self.max_pixels)
        fields = {"model": self.model, "prompt": request.instruction, "n": "1", "response_format": "b64_json",
                  "seed": str(request.seed)}
        if self.size:
            fields["size"] = f"{size.work_width}x{size.work_height}"
        files = {"image": _png(size.bring(image))}
        if request.mask is not None and request.mask.ndim == 2:
            # Transparent is what may change, as the protocol has it.
            alpha = size.bring(np.where(request.mask, 0, 255).astype(np.uint8))
            files["mask"] = _png(np.dstack([size.bring(image), alpha]))
        made = self._picture(self._ask(fields, files))
        wide, wanted = made.shape[1] / made.shape[0], image.shape[1] / image.shape[0]
        if abs(wide / wanted - 1) > ASPECT:
            raise BackendError(f"{self.url} answered with a picture of {made.shape[1]}x{made.shape[0]} for one of "
                               f"{image.shape[1]}x{image.shape[0]}; in another shape it would be stretched")
        return size.restore(made)

    def _shown(self, data: bytes) -> str:
        """The beginning of an answer as text, without the key: servers echo what they were sent."""
        return data[:4 * SHOWN].decode("utf-8", "replace").replace(self._key or "\0", "***")

    def _ask(self, fields: dict[str, str], files: dict[str, bytes]) -> bytes:
        body, kind = _form(fields, files)
        problem = ""
        for attempt in range(self.retries + 1):
            time.sleep(self.backoff_s * 2 ** (attempt - 1) if attempt else 0.0)
            try:
                status, after, data = self._exchange(body, kind)
            except (OSError, http.client.HTTPException) as error:
                problem = _reason(error, self.timeout_s)
                continue
            if status == 200:
                return data
            words = self._shown(data).strip()[:SHOWN]
            if status in STOPS:
                wanted = f" ({self._key_from} is {'set' if self._key else 'not set'})" if status in (401, 403) else ""
                raise ConfigError(f"{self.url} {STOPS[status]}{wanted}: HTTP {status} {words}")
            problem = f"HTTP {status} {words}"
            if status not in AGAIN:
                break
            if attempt < self.retries:
                time.sleep(after)
        raise BackendError(f"{self.url} made no edit: {problem}")

    def _exchange(self, body: bytes, kind: str) -> tuple[int, float, bytes]:
        """Status, Retry-After in seconds and body; ends at the deadline whatever the server does."""
        secure = self._parts.scheme == "https"
        options = {"context": ssl.create_default_context()} if secure else {}
        kinds = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kinds(self._parts.hostname, self._parts.port, timeout=self.connect_s, **options)
        headers = {"Content-Type": kind} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        connection.connect()
        connection.sock.settimeout(self.timeout_s)
        with _Deadline(connection.sock, self.timeout_s):
            try:
                connection.request("POST", f"{self._parts.path.rstrip('/')}/images/edits", body, headers)
                answer = connection.getresponse()
                data = answer.read(self.max_bytes + 1)
                if len(data) > self.max_bytes:
                    raise BackendError(f"{self.url}: the answer has more than {self.max_bytes} bytes")
                if answer.length:
                    raise http.client.IncompleteRead(b"", answer.length)
                return answer.status, _seconds(answer.headers.get("Retry-After")), data
            finally:
                connection.close()

    def _picture(self, data: bytes) -> np.ndarray:
        try:
            coded = json.loads(data)["data"][0]["b64_json"]
            with Image.open(io.BytesIO(base64.b64decode(coded, validate=True))) as image:
                if image.width * image.height > 4 * self.max_pixels:
                    raise BackendError(f"{self.url} answered with a picture of {image.width}x{image.height}; "
                                       f"more than {4 * self.max_pixels:,} pixels are not read")
                return np.array(image.convert("RGB"))
        except (ValueError, KeyError, IndexError, TypeError, RecursionError, binascii.Error, OSError, SyntaxError,
                UnidentifiedImageError, Image.DecompressionBombError) as error:
            start = self._shown(data)[:80]
            raise BackendError(f"{self.url} answered with no picture in data[0].b64_json ({type(error).__name__}); it "
                               f"begins {start!r}") from None


class _Deadline:
    """Shuts a socket when the time is up, in whatever phase it is: a server may send a byte a minute."""

    def __init__(self, sock: socket.socket, timeout_s: float):
        self._sock, self._over = sock, threading.Event()
        self._timer = threading.Timer(timeout_s, self._shut)
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, kind, error, trace) -> None:
        self._timer.cancel()
        if self._over.is_set():
            raise TimeoutError from None

    def _shut(self) -> None:
        self._over.set()
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it is gone already


def _png(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(file, format="PNG", compress_level=3)
    return file.getvalue()


def _form(fields: dict[str, str], files: dict[str, bytes]) -> tuple[bytes, str]:
    """A multipart form and its content type."""
    mark = uuid.uuid5(uuid.NAMESPACE_OID, "".join(fields.values())).hex
    parts = [f'--{mark}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
             for name, value in fields.items()]
    for name, data in files.items():
        head = (f'--{mark}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}.png"\r\n'
                "Content-Type: image/png\r\n\r\n")
        parts.append(head.encode() + data + b"\r\n")
    return b"".join(parts) + f"--{mark}--\r\n".encode(), f"multipart/form-data; boundary={mark}"


def _seconds(text: str | None) -> float:
    try:
        seconds = float(text or 0)
    except ValueError:
        return 0.0
    return min(max(seconds, 0.0), 120.0) if seconds == seconds else 0.0


def _reason(error: Exception, timeout_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout_s:g} s"
    if isinstance(error, http.client.IncompleteRead):
        return "the connection broke in the middle of the answer"
    return str(getattr(error, "strerror", None) or error or type(error).__name__).lower()
