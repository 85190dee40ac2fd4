"""Every annotator against a real vLLM with random weights: valid rows, because schemas guide the decoding."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest

from annotators import ANNOTATORS, serve_check
from annotators.backends import ChatRequest
from annotators.backends.openai import OpenAIChat
from annotators.parsing import YES_NO, find_problem, obj, whole
from manifests.errors import ConfigError

from .vllm_server import MODEL, PYTHON, QUIET, ROOT

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]
MEDIA = ROOT.parent / "shared" / "media" / "clips"


@pytest.fixture(scope="session")
def videos(photo_film) -> list[str]:
    """The film of photographs, and three real clips where they are at hand."""
    return [photo_film, *map(str, sorted(MEDIA.glob("[sv]*.mp4"))[:3])]


@pytest.fixture(scope="session")
def rows(videos, tmp_path_factory) -> pa.Table:
    return pa.concat_tables([serve_check.sample_table(str(tmp_path_factory.mktemp("rows")), v) for v in videos])


@pytest.mark.parametrize("name", ANNOTATORS)
def test_every_annotator_gets_valid_rows(name, rows, vllm_url, tmp_path):
    op = serve_check.open_annotator(name, str(tmp_path), backend="openai", urls=vllm_url, keep_raw=True, num_frames=3)
    made = op(rows)
    q = op.question
    assert not any(made["issues"].to_pylist())
    for field in q.adds:
        assert made.schema.field(field.name).type == field.type
    assert made[q.adds[0].name].null_count == 0
    for row in made.to_pylist():
        assert row[f"{q.name}_model"] == MODEL and row[f"{q.name}_prompt"] == q.version
        assert row[f"{q.name}_tokens_in"] > 0 and row[f"{q.name}_tokens_out"] > 0 and row[f"{q.name}_latency_s"] > 0
        assert find_problem(json.loads(row[f"{q.name}_raw"], strict=False), q.schema) == ""


def test_the_model_really_sees_the_pictures(vllm_url, photo_film):
    from annotators.pictures import encode_jpeg
    from manifests.spans import read_frames

    schema = obj(a=whole(0, 99))
    pictures = [encode_jpeg(image, 90) for image in read_frames(photo_film, [0.5, 5.5])]
    chat = OpenAIChat(vllm_url)
    one, two, none = chat.ask([ChatRequest(parts=("what?", p), schema=schema) for p in pictures]
                              + [ChatRequest(parts=("what?",), schema=schema)])
    assert one.tokens_in == two.tokens_in > none.tokens_in


def test_a_wrong_model_name_lists_the_real_one(vllm_url):
    with pytest.raises(ConfigError, match=MODEL):
        OpenAIChat(vllm_url, model="Qwen/Qwen3-VL-30B-A3B-Instruct")


def test_a_request_that_is_too_long_is_the_row_s_own_error(vllm_url):
    schema = obj(a=YES_NO)
    long, short = OpenAIChat(vllm_url).ask([ChatRequest(parts=("word " * 20_000,), schema=schema),
                                            ChatRequest(parts=("word",), schema=schema)])
    assert "HTTP 400" in str(long.error) and short.error is None


def test_serve_check_prints_a_line_for_each_annotator(vllm_url, photo_film, capsys):
    assert serve_check.main([vllm_url, "--video", photo_film]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:-1]] == list(ANNOTATORS)
    assert lines[-1] == f"{len(ANNOTATORS)} of {len(ANNOTATORS)} annotators got a valid answer"


def test_offline_engine_answers_in_process(tiny_model, photo_film, tmp_path):
    """The `vllm` backend, inside the environment that has vLLM; one process, as in a Ray actor with one GPU."""
    script = Path(__file__).with_name("run_offline.py")
    done = subprocess.run([str(PYTHON), str(script), tiny_model, photo_film, str(tmp_path)], cwd=ROOT, timeout=400,
                          capture_output=True, text=True,
                          env={**QUIET, "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT),
                               "VLLM_ENABLE_V1_MULTIPROCESSING": "0"})
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert not any(told["issues"])
    assert set(told["valid"]) == {"people", "instruction", "judge"}
