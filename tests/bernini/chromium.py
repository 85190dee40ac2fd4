"""A headless Chromium over its debugging pipe: no driver package needed."""

import json
import os
import subprocess
import time
from pathlib import Path

PATH = Path("/usr/bin/chromium")


class Browser:
    """One page; `evaluate` runs JavaScript in it."""

    def __init__(self, profile: Path, url: str):
        to_child, self._write = os.pipe()
        self._read, from_child = os.pipe()
        flags = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--no-first-run",
        ]

        def wire():
            os.dup2(to_child, 3)
            os.dup2(from_child, 4)

        # descriptors 3 and 4 are what the debugging pipe speaks on
        self._process = subprocess.Popen(
            [str(PATH), *flags, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=wire,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(to_child)
        os.close(from_child)
        self._number, self._buffer, self._session = 0, b"", None
        target = self.send("Target.createTarget", url=url)["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def send(self, method: str, **params):
        """One command and its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def _next(self) -> dict:
        while b"\0" not in self._buffer:
            chunk = os.read(self._read, 1 << 16)
            assert chunk, "the browser went away"
            self._buffer += chunk
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def evaluate(self, script: str):
        """Value of a JavaScript expression."""
        result = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, script: str, seconds: float = 60):
        """The first truthy value of an expression."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            value = self.evaluate(script)
            if value:
                return value
            time.sleep(0.1)
        raise AssertionError(f"never true: {script}")

    def fill(self, selector: str, text: str) -> None:
        """Types into a field the way a page framework notices."""
        self.wait(f"document.querySelector({selector!r}) !== null")
        self.evaluate(
            f"(() => {{ const e = document.querySelector({selector!r}); e.value = {json.dumps(text)};"
            " for (const kind of ['input', 'change']) e.dispatchEvent(new Event(kind, {bubbles: true})); })()"
        )

    def click(self, selector: str) -> None:
        self.wait(f"document.querySelector({selector!r}) !== null")
        self.evaluate(f"document.querySelector({selector!r}).click()")

    def close(self) -> None:
        """Ends this browser, and only this one."""
        os.write(self._write, b'{"id": 0, "method": "Browser.close"}\0')
        os.close(self._write)
        self._process.wait(20)
        os.close(self._read)
