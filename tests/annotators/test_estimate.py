"""What `bernini estimate` promises, beside what the run then does."""

from __future__ import annotations

import json
import shutil

import pytest

from manifests.errors import ConfigError
from manifests.manifest import Manifest
from pipelines.__main__ import main
from pipelines.estimate import estimate, longest_text, read_estimate

from .chat_server import chat_server
from .test_d1_with_a_model import ALL_PAIRS


def test_an_estimate_from_every_file_is_what_the_run_does(photo_film, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for i in range(3):
        shutil.copy(photo_film, tmp_path / "in" / f"{i}.mp4")
    with chat_server() as server:
        flags = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--annotator", "openai", "--url",
                 server.url, "--annotator-model", "m", *ALL_PAIRS]
        assert estimate(["video-pairs", *flags, "--sample", "3"]) == 0
        assert server.asked == []  # an estimate asks nobody
        assert main(["run", "video-pairs", *flags, "--engine", "local", "--quiet", "--no-report"]) == 0
    found = read_estimate(str(tmp_path / "out"), "video-pairs")
    for stop in ("videos", "clips", "candidates", "pairs"):
        real = Manifest.open(str(next((tmp_path / "out" / stop).iterdir())))
        accepted = found["accepted"][stop]
        assert accepted["value"] == pytest.approx(real.header["accepted"])
        assert accepted["low"] <= accepted["value"] <= accepted["high"]
    asked = found["requests"]["RefineTransition"]
    # Three copies of one film: three pairs are counted, and asked about once thanks to the kept answers.
    assert asked["requests"]["value"] == 3 and len(server.asked) == 2
    assert asked["pictures"] == 12 * asked["requests"]["value"]
    assert "RefineTransition" in capsys.readouterr().out
    json.dumps(found)


def test_a_sample_gives_an_interval(photo_film, tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(6):
        shutil.copy(photo_film, tmp_path / "in" / f"{i}.mp4")
    (tmp_path / "in" / "broken.mp4").write_bytes(b"\0" * 200_000)
    estimate(["video-pairs", "--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--sample", "6",
              *ALL_PAIRS])
    found = read_estimate(str(tmp_path / "out"), "video-pairs")
    assert (found["files"], found["sampled"], found["requests"]) == (7, 6, {})
    assert found["accepted"]["pairs"]["low"] <= 6 <= found["accepted"]["pairs"]["high"] + 1


def test_unknown_recipes_are_named():
    with pytest.raises(ConfigError, match="video-pairs"):
        estimate(["nothing"])


def test_the_longest_text_of_a_schema():
    from annotators.parsing import many, obj, text

    assert longest_text(obj(a=text(100))) == pytest.approx(111, abs=5)
    assert longest_text(obj(a=many(text(10), 1, 5))) == pytest.approx(61, abs=8)
