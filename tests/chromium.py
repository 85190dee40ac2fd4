"""A headless Chromium over its debugging pipe: no driver package needed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CHUNK = 1 << 16


class Browser:
    """One page, by the DevTools protocol over a pipe: JSON messages that end in a zero byte."""

    def __init__(self, write_to: int, read_from: int):
        self.write_to, self.read_from, self.buffer = write_to, read_from, bytearray()
        self.last, self.events, self.session = 0, [], {}
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = {"sessionId": self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Runtime", "Log", "Network", "Page"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params) -> dict:
        """One command and its answer; what happens meanwhile is kept in `events`."""
        self.last += 1
        message = json.dumps({"id": self.last, "method": method, "params": params, **self.session}).encode() + b"\0"
        while message:
            message = message[os.write(self.write_to, message) :]
        while (answer := self._receive()).get("id") != self.last:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _receive(self) -> dict:
        begin = 0
        while (end := self.buffer.find(b"\0", begin)) < 0:
            begin = len(self.buffer)
            chunk = os.read(self.read_from, CHUNK)
            assert chunk, "chromium went away"
            self.buffer += chunk
        message = self.buffer[:end]
        del self.buffer[: end + 1]
        return json.loads(message)

    def open(self, url: str) -> None:
        """Go to an address, and wait until the page is there."""
        self.events = []
        self.call("Page.navigate", url=url)
        while not any(e.get("method") == "Page.loadEventFired" for e in self.events):
            self.events.append(self._receive())

    def value(self, script: str):
        """Value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, script: str, seconds: float = 180):
        """The first truthy value of an expression."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if value := self.value(script):
                return value
            time.sleep(0.1)
        raise AssertionError(f"never true: {script}")

    def fill(self, selector: str, text: str) -> None:
        """Types into a field the way a page framework notices."""
        self.wait(f"document.querySelector({selector!r}) !== null")
        self.value(f"(() => {{ const e = document.querySelector({selector!r}); e.value = {json.dumps(text)};"
                   " for (const kind of ['input', 'change']) e.dispatchEvent(new Event(kind, {bubbles: true})); })()")

    def click(self, selector: str) -> None:
        self.wait(f"document.querySelector({selector!r}) !== null")
        self.value(f"document.querySelector({selector!r}).click()")

    def complaints(self) -> list[dict]:
        """What the page logged, threw, could not load, or asked in a dialog."""
        names = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded", "Network.loadingFailed")
        return [e for e in self.events if e.get("method") in names or "dialog" in e.get("method", "")]


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser with a profile of its own, which goes with it; the test is skipped where there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not found:
        pytest.skip("no chromium on this machine (Debian: apt-get install chromium)")
    (to_read, write_to), (read_from, to_write) = os.pipe(), os.pipe()
    command = [found, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe",
               "--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}"]
    # The protocol wants file descriptors 3 and 4.
    shell = f'exec "$@" 3<&{to_read} 4>&{to_write}'
    process = subprocess.Popen(["bash", "-c", shell, "bash", *command], pass_fds=(to_read, to_write),
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(to_read), os.close(to_write)
    try:
        yield Browser(write_to, read_from)
    finally:
        process.terminate()
        process.wait(20)
        os.close(write_to), os.close(read_from)
        shutil.rmtree(profile, ignore_errors=True)
