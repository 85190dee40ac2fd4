"""D1 from raw videos to samples with a served model, as the command line runs it."""

from __future__ import annotations

import json
import shutil

import pytest

from manifests.manifest import Manifest
from pipelines.__main__ import main

from .chat_server import chat_server
from .vllm_server import MODEL

ALL_PAIRS = ("--no-human-balance", "--similarity-balance", "0", "--similarity-min", "-1", "--similarity-max", "1",
             "--clip-min-s", "0.5", "--min-side-px", "64", "--min-sharpness", "0", "--max-frozen", "1")


def run(folder, film: str, url: str, model: str, engine: str = "local", code: int = 0) -> tuple[dict, list[dict]]:
    (folder / "in").mkdir(exist_ok=True)
    shutil.copy(film, folder / "in")
    assert main(["run", "video-pairs", "--input", str(folder / "in"), "--output", str(folder / "out"),
                 "--engine", engine, "--annotator", "openai", "--url", url, "--annotator-model", model,
                 "--quiet", "--no-report", *ALL_PAIRS]) == code
    if code:
        return {}, []
    header = next((folder / "out" / "pairs").glob("*/manifest.json"))
    return json.loads(header.read_text()), Manifest.open(str(header.parent)).table().to_pylist()


def check(header: dict, rows: list[dict], model: str) -> None:
    assert rows and all(row["instruction"] and not row["issues"] for row in rows)
    for name in ("transition", "instruction"):
        owner = header["owners"][name]
        assert owner["model"] == model and owner["prompt"].startswith(f"{name}-")
        assert {row[f"{name}_model"] for row in rows} == {model}
        assert {row[f"{name}_prompt"] for row in rows} == {owner["prompt"]}


def test_d1_with_a_server_of_its_own(photo_film, tmp_path):
    with chat_server() as server:
        check(*run(tmp_path, photo_film, server.url, "m"), "m")


@pytest.mark.ray
def test_d1_on_ray_and_a_wrong_model_name(photo_film, tmp_path, capsys):
    with chat_server(models=("served-a", "served-b")) as server:
        run(tmp_path, photo_film, server.url, "other", engine="ray", code=2)
        assert "no model 'other'; it serves: served-a, served-b" in capsys.readouterr().err
        check(*run(tmp_path, photo_film, server.url, "served-b", engine="ray"), "served-b")


@pytest.mark.vllm
@pytest.mark.timeout(600)
def test_d1_with_a_real_vllm(photo_film, vllm_url, tmp_path):
    check(*run(tmp_path, photo_film, vllm_url, MODEL), MODEL)
