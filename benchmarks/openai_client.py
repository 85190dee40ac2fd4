"""How much the `openai` backend costs: requests a second against a fixed latency, CPU a request.

A server in a process of its own answers every chat request after 50 ms. N requests in flight can
then have at most N / 0.05 answers a second. Beside our backend runs the bare `openai` client
(`pip install openai`, for this benchmark only), which neither caches nor checks.

    python -m benchmarks.openai_client              [--seconds 4] [--pictures 4]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from .measure import store

MYSELF = (sys.executable, "-m", "benchmarks.openai_client")
LATENCY_S = 0.05
ANSWER = json.dumps({
    "id": "c", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": '{"a": true}'}}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
}).encode()
MODELS = b'{"object": "list", "data": [{"id": "m", "object": "model"}]}'
SCHEMA = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"], "additionalProperties": False}


class Answer(asyncio.Protocol):
    """As little of HTTP as both clients need, so that the server is never the slow side."""

    def connection_made(self, transport) -> None:
        self.transport, self.data = transport, bytearray()

    def data_received(self, data: bytes) -> None:
        self.data += data
        while (end := self.data.find(b"\r\n\r\n")) >= 0:
            head = bytes(self.data[:end]).lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.data) < end + 4 + length:
                return
            del self.data[: end + 4 + length]
            body, wait = (MODELS, 0.0) if head.startswith(b"get") else (ANSWER, LATENCY_S)
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
            asyncio.get_running_loop().call_later(wait, self.transport.write, head + body)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Answer, "127.0.0.1", 0, backlog=256)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.wait_for(server.serve_forever(), 900)


def with_ours(url: str, concurrency: int, num: int, parts: tuple) -> None:
    from annotators.backends import ChatRequest
    from annotators.backends.openai import OpenAIChat

    chat = OpenAIChat(url, concurrency=concurrency)
    chat.ask(ChatRequest(parts=parts, schema=SCHEMA) for _ in range(concurrency))
    report("bernini", concurrency, num, lambda: chat.ask(ChatRequest(parts=parts, schema=SCHEMA) for _ in range(num)))
    chat.close()


def with_openai(url: str, concurrency: int, num: int, parts: tuple) -> None:
    import openai

    from annotators.backends import ChatRequest
    from annotators.backends.messages import chat_messages

    client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
    answer_format = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": SCHEMA}}

    def ask(_: int) -> str:
        messages = chat_messages(ChatRequest(parts=parts, schema=SCHEMA))
        return client.chat.completions.create(model="m", messages=messages, max_tokens=100, temperature=0.0, seed=0,
                                              response_format=answer_format).choices[0].message.content

    with ThreadPoolExecutor(concurrency) as pool:
        list(pool.map(ask, range(concurrency)))
        report("openai", concurrency, num, lambda: list(pool.map(ask, range(num))))
    client.close()


def report(name: str, concurrency: int, num: int, run) -> None:
    cpu, start = cpu_s(), time.perf_counter()
    run()
    seconds, cpu = time.perf_counter() - start, cpu_s() - cpu
    rate, ideal = num / seconds, concurrency / LATENCY_S
    print(json.dumps({"client": name, "concurrency": concurrency, "requests": num, "per_s": round(rate, 1),
                      "of_ideal": round(rate / ideal, 3), "cpu_ms_per_request": round(cpu / num * 1e3, 3)}))


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="about how long each measurement takes")
    parser.add_argument("--pictures", type=int, default=0, help="JPEG pictures of 30 kB a request")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--client", choices=("bernini", "openai"), help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve())
        return
    if options.client:  # in a process of its own, so that neither pays for the other's imports and threads
        parts = ("what is seen?" * 40, *[bytes(30_000)] * options.pictures)
        for concurrency in (1, 8, 64):
            num = max(int(options.seconds * concurrency / LATENCY_S), 20)
            {"bernini": with_ours, "openai": with_openai}[options.client](options.url, concurrency, num, parts)
        return
    server = subprocess.Popen([*MYSELF, "--serve"], stdout=subprocess.PIPE)
    rows: list[dict] = []
    try:
        url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        for client in ("bernini", "openai"):
            done = subprocess.run([*MYSELF, "--client", client, "--url", url, "--seconds", str(options.seconds),
                                   "--pictures", str(options.pictures)], capture_output=True, text=True)
            rows += [json.loads(line) for line in done.stdout.splitlines()]
            if done.returncode:
                print(f"{client}: {done.stderr.splitlines()[-1]}", file=sys.stderr)
    finally:
        server.terminate()
        server.wait(10)
    store("openai_client", rows, f"A server that answers after {LATENCY_S * 1000:g} ms, {options.pictures} pictures of "
          "30 kB a request; ideal = concurrency / latency. Rebuild: python -m benchmarks.openai_client")


if __name__ == "__main__":
    main()
