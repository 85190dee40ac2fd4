"""The prompt enhancer against a real local server that speaks the OpenAI form."""

import base64
import io
import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from PIL import Image

from bernini.errors import EnhancerError
from bernini.generate.cases import Case
from bernini.generate.enhancer import INSTRUCTIONS, Server, enhance
from bernini.generate.presets import TASKS

pytest.importorskip("httpx", reason="needs the extra 'openai': pip install 'bernini[openai]'")


class Answers(BaseHTTPRequestHandler):
    """Gives the prepared answers in turn and keeps what was asked."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, self.headers["Authorization"], body))
        status, content = self.server.answers.pop(0)
        data = (
            content
            if isinstance(content, bytes)
            else json.dumps({"choices": [{"message": {"content": content}}]}).encode()
        )
        self.send_response(status)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def endpoint():
    server = HTTPServer(("127.0.0.1", 0), Answers)
    server.asked, server.answers = [], []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def server_at(endpoint, **more):
    url = f"http://127.0.0.1:{endpoint.server_port}/v1"
    return Server(key="k", url=url, model="m", pause_s=0.0, timeout_s=5, **more)


def test_edit_shows_three_frames_and_takes_the_text(endpoint, media):
    endpoint.answers = [(200, ' "Repaint the car red; keep the rest." ')]
    case = Case(prompt="red car", task_type="v2v", videos=(str(media["silent"]),))
    assert enhance(case, server_at(endpoint)) == "Repaint the car red; keep the rest."
    (path, key, body), parts = endpoint.asked[0], endpoint.asked[0][2]["messages"][1]["content"]
    assert (path, key, body["model"]) == ("/v1/chat/completions", "Bearer k", "m")
    assert [p["text"] for p in parts if p["type"] == "text"] == [
        "video0, frame 0", "video0, frame 12", "video0, frame 23", "red car",
    ]  # fmt: skip
    data = base64.b64decode(parts[1]["image_url"]["url"].split(",")[1])
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.size == (64, 48)


def test_reference_tasks_answer_in_json_and_name_the_images(endpoint, media):
    endpoint.answers = [(200, 'Sure: {"rewritten_text": "The cat (image0) runs."}')]
    images = (str(media["wide"]), str(media["tall"]))
    assert (
        enhance(Case(prompt="cat", task_type="r2v", images=images), server_at(endpoint))
        == "The cat (image0) runs."
    )
    labels = [p["text"] for p in endpoint.asked[0][2]["messages"][1]["content"] if p["type"] == "text"]
    assert labels == ["image0", "image1", "cat"]


def test_failures_are_tried_again_then_the_raw_prompt_is_kept_with_a_warning(endpoint):
    endpoint.answers = [(500, "x"), (429, "x"), (200, "Better.")]
    case, said = Case(prompt="plain", task_type="t2v"), []
    assert enhance(case, server_at(endpoint), said.append) == "Better." and len(endpoint.asked) == 3
    endpoint.answers = [(500, "x")] * 2
    assert enhance(case, server_at(endpoint, tries=2), said.append) == "plain"
    assert len(said) == 1 and "answered 500" in said[0]


@pytest.mark.parametrize("answer", [(200, ""), (200, b"no json"), (200, b'{"choices": []}'), (401, "x")])
def test_unusable_answers_keep_the_prompt_and_are_not_repeated(endpoint, answer):
    endpoint.answers, said = [answer], []
    assert enhance(Case(prompt="plain", task_type="t2i"), server_at(endpoint), said.append) == "plain"
    assert len(said) == len(endpoint.asked) == 1


def test_no_server_keeps_the_prompt(endpoint):
    nowhere = replace(server_at(endpoint, tries=1), url="http://127.0.0.1:9/v1")
    said = []
    assert enhance(Case(prompt="plain", task_type="t2i"), nowhere, said.append) == "plain"
    assert "gave no answer" in said[0]


def test_the_key_comes_from_the_environment_only(monkeypatch):
    for name in (
        "BERNINI_PE_API_KEY",
        "OPENAI_API_KEY",
        "BERNINI_PE_BASE_URL",
        "OPENAI_BASE_URL",
        "BERNINI_PE_MODEL",
    ):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(EnhancerError, match="BERNINI_PE_API_KEY"):
        Server.from_environment()
    monkeypatch.setenv("OPENAI_API_KEY", "a")
    monkeypatch.setenv("BERNINI_PE_API_KEY", "b")
    monkeypatch.setenv("BERNINI_PE_BASE_URL", "http://host/v1/")
    server = Server.from_environment(model="mine")
    assert (server.key, server.url, server.model) == ("b", "http://host/v1", "mine")


def test_every_task_has_an_instruction():
    assert INSTRUCTIONS.keys() == set(TASKS)
