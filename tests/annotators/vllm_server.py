"""A real vLLM on the CPU, in its own environment, with a tiny random Qwen3-VL."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
MISSING = "there is no .venv-vllm: `make venv-vllm` makes it (7 GB, one to four minutes)"
MODEL = "tiny-qwen3-vl"
QUIET = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1",
         "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"}
STRUCTURED = '{"backend":"guidance","disable_any_whitespace":true}'
START_S = 240.0


def make_model(folder: Path) -> str:
    script = Path(__file__).with_name("make_tiny_qwen3vl.py")
    subprocess.run([sys.executable, str(script), str(folder)], check=True, capture_output=True,
                   env={**os.environ, **QUIET})
    return str(folder)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextmanager
def vllm_server(model: str, log: Path, port: int = 0) -> Iterator[str]:
    """Address of a server that answers; its whole process group is stopped afterwards."""
    port = port or free_port()
    command = [str(PYTHON), "-m", "vllm.entrypoints.openai.api_server", "--model", model, "--served-model-name", MODEL,
               "--host", "127.0.0.1", "--port", str(port), "--dtype", "bfloat16", "--max-model-len", "8192",
               "--max-num-seqs", "8", "--enforce-eager", "--limit-mm-per-prompt", '{"image": 16, "video": 0}',
               "--structured-outputs-config", STRUCTURED]
    with open(log, "wb") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True, env={**os.environ, **QUIET})
    try:
        _wait_until_healthy(f"http://127.0.0.1:{port}/health", server, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        stop_group(server)


def stop_group(process: subprocess.Popen) -> None:
    for sign, seconds in ((signal.SIGTERM, 15), (signal.SIGKILL, 15)):
        try:
            os.killpg(process.pid, sign)
            process.wait(seconds)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _wait_until_healthy(url: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"vLLM did not start within {START_S:g} s; the end of its log:\n{log.read_text()[-3000:]}")
