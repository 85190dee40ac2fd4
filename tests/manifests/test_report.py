"""The report page: what a reader sees on it, and that what comes from files and models is text."""

from __future__ import annotations

import json
import re
from pathlib import Path

from manifests.manifest import Manifest
from manifests.report import build_report, main

from .report_pages import HOSTILE_FILE, HOSTILE_PROMPT, Page, film, pair, write


def test_funnel_shows_every_stop_and_adds_up(chain):
    page = Page(build_report(chain))
    sums = re.findall(r"(\d+) in = (\d+) accepted \+ (\d+) rejected \+ (\d+) failed", page.text)
    assert sums == [("2", "1", "0", "1"), ("5", "4", "1", "0"), ("5", "3", "2", "0"), ("3", "3", "0", "0")]
    for reason in ("failed: empty1", "sharpness<201", "video_similarity>0.952"):
        assert reason in page.text


def test_page_lies_in_the_output_root_and_needs_nothing_else(chain, tmp_path):
    path = build_report(chain)
    page = Page(path)
    assert Path(path) == tmp_path / "report-pairs-demo-0123abcd.html"
    assert "default-src 'none'" in page.all("meta")[1]["content"]
    loaded = [a.get("src") or a.get("href") for tag, a in page.tags if tag in ("img", "link", "script", "iframe")]
    assert all(url is None or url.startswith("data:") for url in loaded)
    assert page.source == Path(build_report(chain)).read_text(encoding="utf-8"), "equal input, equal page"


def test_what_comes_from_files_and_models_is_escaped(tmp_path):
    path = film(tmp_path / HOSTILE_FILE)
    hostile = pair(path, 0, instruction=HOSTILE_PROMPT, transition="\"'><svg onload=alert(1)>",
                   issues=["<b>bold</b>"], licence="<i>\u202efree")
    dropped = pair(path, 1, reason="failed: <script>alert(2)</script>")
    page = Page(build_report(write(tmp_path, "pairs", [hostile, dropped], model="<style>*{display:none}</style>")))
    assert len(page.all("script")) == 1 and len(page.all("style")) == 1
    assert not [a for _, attrs in page.tags for a in attrs if a.startswith("on")]
    for words in (HOSTILE_FILE, "<b>bold</b>", "onload=alert(1)", "failed: <script>alert(2)</script>"):
        assert words in page.text
    assert "alert(1)</script>" in page.text and "\u202e" not in page.source


def test_a_missing_parent_is_told(tmp_path):
    page = Page(build_report(write(tmp_path, "pairs", [pair(film(tmp_path / "a.mp4"), 0)], ["../../clips/gone"])))
    assert "A parent could not be opened" in page.text and "../../clips/gone" in page.text


def test_rejected_examples_three_for_each_reason(tmp_path):
    path = film(tmp_path / "a.mp4")
    rows = [pair(path, i, ("duration_s<2", "is_human: balance", None)[i % 3]) for i in range(24)]
    page = Page(build_report(write(tmp_path, "pairs", rows)))
    assert "duration_s<2 8 dropped, 3 shown" in page.text and "is_human: balance 8 dropped, 3 shown" in page.text
    assert len(page.all("article")) == 8 + 6


def test_choice_is_spread_over_similarity(tmp_path):
    path = film(tmp_path / "a.mp4")
    page = Page(build_report(write(tmp_path, "pairs", [pair(path, i) for i in range(101)][::-1]), max_pairs=5))
    assert [a["data-similarity"] for a in page.all("article")] == ["0.66", "0.685", "0.71", "0.735", "0.76"]
    assert "5 of 101 accepted rows, evenly spread" in page.text


def test_other_stops(chain, tmp_path):
    for stop, words in (("videos", "the file has 0 bytes"), ("clips", "sharpness<20"), ("candidates", "Similarity")):
        page = Page(build_report(Manifest.open(tmp_path / stop / "demo-0123abcd")))
        assert words in page.text
    inputs = json.dumps([{"type": "text", "text": "Make it <rain>."}, {"type": "video"}, {"type": "video_gen"}])
    item = {"video_path": str(tmp_path / "walk.mp4"), "duration": 2.0, "start_s": 1.0, "end_s": 3.0}
    row = {"sample_id": "s-1", "task": "v2v", "inputs": inputs, "videos": [item, item | {"start_s": 0.5}]}
    page = Page(build_report(write(tmp_path, "samples", [row, row | {"sample_id": "s-2", "inputs": "{"}])))
    assert "Make it <rain>." in page.text and "target 0:00.50 – 0:03.00" in page.text and "v2v" in page.text
    empty = Page(build_report(write(tmp_path / "empty", "pairs", [])))
    assert "No accepted row to show." in empty.text


def test_command_line(chain, tmp_path, capsys):
    output = tmp_path / "page.html"
    assert main([chain.path, "--output", str(output), "--max-pairs", "1"]) == 0
    assert str(output) in capsys.readouterr().out and len(Page(str(output)).all("article")) == 1 + 2
    assert main([str(tmp_path / "nothing")]) == 2
    assert "is not a manifest" in capsys.readouterr().err
    assert main([chain.path, "--max-pairs", "-1"]) == 2
