"""One HTTP exchange with a hard deadline and a hard size, on a kept-open connection.

The standard library's client is used because it costs a third of the CPU time of the usual
packages (benchmarks/openai_client.py) and because both limits must hold in every phase: a
server that sends one byte a minute, or a gigabyte, is cut off all the same. No redirect is
followed and no proxy is asked: a model server is named by its own address.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import threading
import time
import weakref
from urllib.parse import urlsplit

from manifests.errors import ConfigError


class Unreachable(Exception):
    """No connection came about: nothing was asked."""


class Lost(Exception):
    """The connection broke, or the time was up, after the question was sent."""


class TooLong(Exception):
    """The answer has more bytes than are read."""


class Endpoint:
    """Address of one server. Each thread keeps its own connection to it."""

    def __init__(self, url: str):
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{url!r} is not the address of a server: write http://host:port/v1")
        if parts.username or parts.password or parts.query:
            raise ConfigError("the address of a server must hold no user, password or query: keys are read from "
                              f"the environment only (server {parts.hostname})")
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._parts, self._base, self._mine = parts, parts.path.rstrip("/"), threading.local()
        self._open: set[_Guarded] = set()
        weakref.finalize(self, _close, self._open)  # ops are not closed, they are let go

    def exchange(self, method: str, path: str, body: bytes | None, headers: dict, *, timeout_s: float,
                 connect_s: float, max_bytes: int) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Status, headers and body. Raises `Unreachable`, `Lost` or `TooLong`."""
        deadline = time.monotonic() + timeout_s
        connection = getattr(self._mine, "connection", None)
        if connection is not None:
            try:
                return self._send(connection, method, path, body, headers, deadline, max_bytes)
            except http.client.RemoteDisconnected:
                self._drop()  # the server had closed an idle connection: that is no fault
            except (OSError, http.client.HTTPException) as error:
                self._drop()
                if not isinstance(error, ConnectionError) or connection.has_answered:
                    raise Lost(_reason(error, timeout_s)) from None
        connection = self._connect(min(connect_s, timeout_s))
        try:
            return self._send(connection, method, path, body, headers, deadline, max_bytes)
        except (OSError, http.client.HTTPException) as error:
            self._drop()
            raise Lost(_reason(error, timeout_s)) from None

    def _connect(self, connect_s: float) -> http.client.HTTPConnection:
        host, port = self._parts.hostname, self._parts.port
        secure = self._parts.scheme == "https"
        connection = (http.client.HTTPSConnection(host, port, timeout=connect_s, context=ssl.create_default_context())
                      if secure else http.client.HTTPConnection(host, port, timeout=connect_s))
        try:
            connection.connect()
        except OSError as error:
            raise Unreachable(_reason(error, connect_s)) from None
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sock = connection.guard = _Guarded(connection.sock)
        connection.auto_open = 0
        self._open.add(connection.sock)
        self._mine.connection = connection
        return connection

    def _send(self, connection, method, path, body, headers, deadline, max_bytes):
        connection.guard.deadline, connection.guard.left = deadline, max_bytes
        connection.has_answered = False
        try:
            connection.request(method, self._base + path, body, headers)
            connection.guard.flush()
            response = connection.getresponse()
            connection.has_answered = True
            data = response.read()
        except TooLong:
            self._drop()
            raise
        if response.will_close:
            self._drop()
        return response.status, response.headers, data

    def _drop(self) -> None:
        connection = getattr(self._mine, "connection", None)
        if connection is not None:
            self._open.discard(connection.guard)
            connection.close()
            self._mine.connection = None

    def hang_up(self) -> None:
        """Break off every exchange that is under way, in all threads."""
        for guard in tuple(self._open):
            guard.hang_up()


class _Guarded:
    """A socket whose every wait ends at one deadline, and that reads at most `left` bytes."""

    def __init__(self, sock: socket.socket):
        self.sock, self.deadline, self.left = sock, 0.0, 0
        self._held: list[bytes] = []

    def _arm(self) -> None:
        left_s = self.deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self.sock.settimeout(left_s)

    def sendall(self, data: bytes) -> None:
        self._held.append(data)  # head and body go out together: one system call, one packet where it fits

    def flush(self) -> None:
        data, self._held = b"".join(self._held), []
        self._arm()
        self.sock.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self), 64 * 1024)

    def close(self) -> None:
        self.sock.close()  # really closed when its reader is, too

    def hang_up(self) -> None:
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it is gone already


class _Reader(io.RawIOBase):
    def __init__(self, guarded: _Guarded):
        self.guarded, self.raw = guarded, guarded.sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        self.guarded._arm()
        num = self.raw.readinto(buffer)
        self.guarded.left -= num
        if self.guarded.left < 0:
            raise TooLong
        return num

    def close(self) -> None:
        self.raw.close()
        super().close()


def _close(open_: set[_Guarded]) -> None:
    for guard in open_:
        guard.close()


def _reason(error: Exception, timeout_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout_s:g} s"
    if isinstance(error, http.client.IncompleteRead):
        return "the connection broke in the middle of the answer"
    if isinstance(error, http.client.HTTPException):
        return f"no usable HTTP answer ({type(error).__name__})"
    return (error.strerror or str(error) or type(error).__name__).lower()
