"""The report page: what a reader sees on it, what it may weigh, and that a real browser opens it."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from manifests.columns import ACCOUNT, column
from manifests.errors import ConfigError
from manifests.manifest import Manifest, ManifestWriter
from manifests.report import build_report, main
from manifests.report_pictures import NUM_FRAMES, Span, make_album, read_spans
from manifests.schema import STOPS
from manifests.video_writer import write_video

HOSTILE_FILE = "<img src=x onerror=alert(1)>.mp4"
HOSTILE_PROMPT = "</script><script>alert(1)</script>"
S, F = pa.string(), pa.float64()
PAIR_COLUMNS = (column("video_similarity", pa.float32(), "cosine"), column("is_human", pa.bool_(), "people"),
                column("transition", S, "coarse"), column("instruction", S, "prompt"))
ADDED = {"videos": (column("verdict", S, "good or why not"), column("decoded_s", F, "length", "s")),
         "clips": (column("sharpness", F, "variance of the Laplacian"),),
         "frames": (), "documents": (), "candidates": PAIR_COLUMNS[:2], "pairs": PAIR_COLUMNS, "samples": ()}


def film(path: Path, seconds: float = 8.0, size: tuple[int, int] = (96, 64), seed: int = 0) -> str:
    """A bright square on noise that moves to the right with time."""
    noise = np.random.default_rng(seed).integers(0, 90, (size[1], size[0], 3), dtype=np.uint8)
    frames = []
    for i in range(round(seconds * 10)):
        frames.append(noise.copy())
        x = round(i / (seconds * 10) * (size[0] - 12))
        frames[-1][20:32, x : x + 12] = 255
    write_video(str(path), frames, fps=10)
    return str(path)


def write(root: Path, stop: str, rows: list[dict], parents: list[str] | None = None, **header) -> Manifest:
    schema = pa.schema([*STOPS[stop].fields, *ADDED[stop], *ACCOUNT])
    with ManifestWriter(f"{root}/{stop}/demo-0123abcd", STOPS[stop], schema) as writer:
        writer.append(pa.Table.from_pylist(rows, schema))
        return writer.commit(name="demo", parents=parents or [], config={"seed": 7}, versions={"av": "x"}, **header)


def pair(path: str, i: int, reason: str | None = None, **more) -> dict:
    """Pair `i`: clips of 2 s that start at `i % 5` tenths and a second later."""
    start = 0.1 * (i % 5)
    row = {"pair_id": f"p-{i:016x}", "video_id": "v-1", "recipe": "video-pairs", "licence": "CC-BY-4.0",
           "video_similarity": 0.66 + 0.001 * i, "is_human": i % 2 == 0, "transition": f"Coarse {i}.",
           "instruction": f"Fine, {i}.", "drop_reason": reason, "num_attempts": 1}
    for side, at in (("source", start), ("target", start + 1.0)):
        row |= {f"{side}_path": path, f"{side}_start_s": at, f"{side}_end_s": at + 2.0, f"{side}_duration_s": 2.0}
    return row | more


@pytest.fixture
def chain(tmp_path) -> Manifest:
    """VIDEOS → CLIPS → CANDIDATES → PAIRS with a rejected or failed row at each of the first three."""
    path = film(tmp_path / "walk.mp4")
    write(tmp_path, "videos", [
        {"video_id": "v-1", "path": path, "relative_path": "walk.mp4", "verdict": "good", "decoded_s": 8.0},
        {"video_id": "v-2", "path": "gone.mp4", "relative_path": "gone.mp4", "verdict": "empty",
         "issues": ["the file has 0 bytes"], "drop_reason": "failed: empty"}])
    clips = [{"clip_id": f"c-{i}", "video_id": "v-1", "path": path, "start_s": float(i), "end_s": i + 2.0,
              "duration_s": 2.0 + i / 10, "sharpness": 30.0 * i, "drop_reason": "sharpness<20" if i == 0 else None}
             for i in range(5)]
    write(tmp_path, "clips", clips, ["../../videos/demo-0123abcd"])
    candidates = [pair(path, i, "video_similarity>0.95" if i >= 3 else None) for i in range(5)]
    write(tmp_path, "candidates", candidates, [str(tmp_path / "clips" / "demo-0123abcd")])
    return write(tmp_path, "pairs", [pair(path, i) for i in range(3)], ["../../candidates/demo-0123abcd"])


class Page(HTMLParser):
    """The elements of a page, and its text as a reader sees it."""

    def __init__(self, path: str):
        super().__init__()
        self.source = Path(path).read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(self.source)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag: str, name: str = "") -> list[dict]:
        return [a for t, a in self.tags if t == tag and name in (a.get("class") or "").split() + [""]]


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


def test_gallery_shows_each_clip_once_as_animation(chain):
    page = Page(build_report(chain))
    images = page.all("img")
    assert len(images) == (3 + 2) * 2, "three pairs, and two rejected ones from the candidates"
    stored = [img for img in images if "src" in img]
    assert len(stored) == 10 and all(is_animated(img["src"]) for img in stored)
    assert images[0]["alt"] == "source clip of walk.mp4, 0:00.00 – 0:02.00"
    for words in ("Coarse 1.", "Fine, 1.", "0.661", "no people", "walk.mp4", "CC-BY-4.0", "p-0000000000000001"):
        assert words in page.text
    assert [h for h in ("Similarity", "Clip durations", "Prompt tokens") if h in page.text][2:]
    assert "3 prompts; median 4, from 4 to 4" in page.text  # Fine , 1 .


def is_animated(uri: str) -> bool:
    with Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))) as image:
        return image.format == "WEBP" and image.n_frames > 1


def test_repeated_clip_is_stored_once(tmp_path):
    path = film(tmp_path / "a.mp4")
    page = Page(build_report(write(tmp_path, "pairs", [pair(path, 5 * i) for i in range(6)])))
    images = page.all("img")
    assert len(images) == 12 and sum("src" in img for img in images) == 2
    assert {img["data-same"] for img in images if "src" not in img} == {img["id"] for img in images if "src" in img}


def test_frames_come_from_the_span(tmp_path):
    path = film(tmp_path / "a.mp4", seconds=24, size=(160, 64))
    for start in (0.0, 18.0):  # the second needs a seek
        (_, images), = read_spans(path, [Span(path, start, start + 5.0)], 160)
        bright = [float(np.argwhere(i[26, :, 0] > 200).mean()) for i in images]
        expected = [6 + (start + (k + 0.5) * 0.5) / 24 * 148 for k in range(NUM_FRAMES)]
        assert np.abs(np.subtract(bright, expected)).max() < 2.5


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


def test_media_that_is_gone_leaves_a_placeholder(tmp_path):
    path = film(tmp_path / "a.mp4")
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    rows = [pair(path, 0), pair(str(tmp_path / "moved.mp4"), 1), pair(str(tmp_path / "broken.mp4"), 2),
            pair(None, 3), pair(path, 4, source_start_s=60.0, source_end_s=62.0)]
    page = Page(build_report(write(tmp_path, "pairs", rows)))
    assert "5 of 8 clips could not be read" in page.text
    assert page.text.count("media could not be read") == 5 and page.text.count("no clip named") == 2
    assert "the file is not there any more" in page.text and len(page.all("img")) == 3


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


@pytest.mark.slow
def test_size_budget_holds(tmp_path):
    """400 different clips of coarse noise, which compresses badly."""
    rng = np.random.default_rng(0)
    path = str(tmp_path / "noise.mp4")
    noise = (rng.integers(0, 255, (22, 40, 3), dtype=np.uint8) for _ in range(100))
    write_video(path, (n.repeat(8, axis=0).repeat(8, axis=1) for n in noise), fps=10)
    rows = [pair(path, i, instruction="many words " * 60, source_start_s=0.01 * i, source_end_s=2 + 0.01 * i,
                 target_start_s=4 + 0.01 * i, target_end_s=6 + 0.01 * i) for i in range(200)]
    manifest = write(tmp_path, "pairs", rows)
    page = Path(build_report(manifest))
    assert 7_000_000 < page.stat().st_size < 9_500_000
    assert sum("src" in img for img in Page(str(page)).all("img")) == 400
    with pytest.raises(ConfigError, match="--max-mb"):
        build_report(manifest, max_bytes=100_000)


def test_album_never_exceeds_a_small_budget(tmp_path):
    path = film(tmp_path / "a.mp4", size=(320, 180))
    album = make_album([Span(path, 0.1 * i, 2 + 0.1 * i) for i in range(20)], [], 60_000)
    assert sum(len(p) * 4 / 3 for p in album.pictures.values()) <= 60_000
    assert len(album.pictures) + len(album.missing) == 20


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


def picture(path: Path, value: int, size: tuple[int, int] = (80, 60)) -> str:
    Image.fromarray(np.full((size[1], size[0], 3), value, np.uint8)).save(path)
    return str(path)


def shown(img: dict) -> np.ndarray:
    """The first frame of an `<img>` as RGB."""
    with Image.open(io.BytesIO(base64.b64decode(img["src"].split(",", 1)[1]))) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_pairs_of_pictures_and_frames_show_as_stills(tmp_path):
    """A pair of files, and one of moments in a film: neither moves nor has a duration."""
    clip = film(tmp_path / "a.mp4", seconds=8, size=(160, 64))
    schema = pa.schema([*STOPS["pairs"].fields, column("frame_similarity", pa.float32(), "cosine"),
                        *(column(f"{s}_time_s", F, "moment", "s") for s in ("source", "target")), *ACCOUNT])
    base = {"video_id": "v", "recipe": "image-pairs", "task": "i2i", "num_attempts": 1}
    rows = [base | {"pair_id": "p-1", "frame_similarity": 0.8, "source_path": picture(tmp_path / ("ab" * 16 + ".png"), 40),
                    "target_path": picture(tmp_path / "b.jpg", 200)},
            base | {"pair_id": "p-2", "frame_similarity": 0.9, "source_path": clip, "target_path": clip,
                    "source_time_s": 1.0, "target_time_s": 7.0}]
    with ManifestWriter(f"{tmp_path}/pairs/demo-0123abcd", STOPS["pairs"], schema) as writer:
        writer.append(pa.Table.from_pylist(rows, schema))
        manifest = writer.commit(name="demo", parents=[])
    page = Page(build_report(manifest))
    images = page.all("img")
    assert len(images) == 4 and not any(is_animated(img["src"]) for img in images)
    assert abs(shown(images[0]).mean() - 40) < 4 and abs(shown(images[1]).mean() - 200) < 4
    bright = [float(np.argwhere(shown(img)[26, :, 0] > 200).mean()) for img in images[2:]]
    assert np.allclose(bright, [6 + t / 8 * 148 for t in (1.0, 7.0)], atol=4)  # the square has moved
    assert [img["alt"] for img in images[1:3]] == ["target picture of b.jpg", "source picture of a.mp4, 0:01.00"]
    assert "abababab…" in page.text and "ab" * 16 not in page.text.replace("all columns", "")
    assert "0.800" in page.text and "ten moments" not in page.text and "Clip durations" not in page.text
    assert [a["data-similarity"] for a in page.all("article")] == ["0.8", "0.9"]


def test_conditions_and_masks_stand_beside_the_sides(tmp_path):
    """References, a first frame and a further video with their roles; what a mask marks is tinted."""
    clip = film(tmp_path / "a.mp4")
    mask = np.zeros((64, 96, 3), np.uint8)
    mask[:, 48:] = 255
    write_video(str(tmp_path / "mask.mp4"), (mask for _ in range(20)), fps=10)
    Image.fromarray(mask).save(tmp_path / "mask.png")
    conditions = [{"role": "reference", "kind": "image", "path": picture(tmp_path / "hat.png", 90)},
                  {"role": "first_frame", "kind": "image", "path": picture(tmp_path / "first.png", 120)},
                  {"role": "part", "kind": "video", "path": clip, "start_s": 3.0, "end_s": 5.0}]
    rows = [pair(clip, 0, conditions=conditions, mask_path=str(tmp_path / "mask.mp4")),
            pair(clip, 1, mask_path=str(tmp_path / "mask.png")),
            pair(clip, 2, mask_path=str(tmp_path / "gone.png")),
            pair(None, 3, target_path=clip, conditions=conditions[:1])]
    page = Page(build_report(write(tmp_path, "pairs", rows)))
    roles = [img["alt"].split(" of ")[0] for img in page.all("img")]
    assert roles == ["source clip", "reference picture", "first frame picture", "part clip", "target clip", "mask clip",
                     "source clip", "target clip", "mask clip", "source clip", "target clip", "reference picture", "target clip"]
    for img in (page.all("img")[5], page.all("img")[8]):
        left, right = shown(img)[:, :40], shown(img)[:, 56:]
        assert right[..., 0].mean() > right[..., 1].mean() + 60 and abs(left[..., 0].mean() - left[..., 1].mean()) < 25
    assert "media could not be read" in page.text and "gone.png" in page.text
    for words in ("reference", "first frame", "part 0:03.00 – 0:05.00 2.0 s", "mask 0:01.00"):
        assert words in page.text


def test_frames_documents_and_interleaved_samples(tmp_path):
    clip = film(tmp_path / "a.mp4")
    red, blue = picture(tmp_path / "red.png", 60), picture(tmp_path / "blue.png", 140)
    frames = [{"frame_id": f"f-{i}", "video_id": "v", "path": path, "time_s": time_s, "width": 90 + i}
              for i, (path, time_s) in enumerate(((clip, 2.0), (red, None), (str(tmp_path / "gone.png"), None)))]
    page = Page(build_report(write(tmp_path, "frames", frames)))
    assert [img["alt"] for img in page.all("img")] == ["frame picture of a.mp4, 0:02.00", "frame picture of red.png"]
    assert "1 of 3 pictures could not be read" in page.text and "Frames" in page.text

    document = {"document_id": "d-1", "path": "pages.jsonl", "order": ["text", "image"], "texts": ["Once."], "images": [red]}
    page = Page(build_report(write(tmp_path, "documents", [document])))
    assert len(page.all("img")) == 1 and "Once." in page.text

    inputs = [{"type": "image"}, {"type": "text", "text": "Then"}, {"type": "image_gen"}, {"type": "cot_text", "text": "It rains."}]
    sample = {"sample_id": "s-1", "task": "interleaved", "inputs": json.dumps(inputs), "images": [red, blue]}
    page = Page(build_report(write(tmp_path, "samples", [sample])))
    assert [img["alt"] for img in page.all("img")] == ["source picture of red.png", "target picture of blue.png"]
    assert "prompt Then" in page.text and "learned It rains." in page.text


def test_command_line(chain, tmp_path, capsys):
    output = tmp_path / "page.html"
    assert main([chain.path, "--output", str(output), "--max-pairs", "1"]) == 0
    assert str(output) in capsys.readouterr().out and len(Page(str(output)).all("article")) == 1 + 2
    assert main([str(tmp_path / "nothing")]) == 2
    assert "is not a manifest" in capsys.readouterr().err
    assert main([chain.path, "--max-pairs", "-1"]) == 2


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
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
    with os.fdopen(write_to, "wb", 0) as out, os.fdopen(read_from, "rb") as into:
        yield Browser(out, into)
        process.terminate()
        process.wait(20)


class Browser:
    """The DevTools protocol over a pipe: JSON messages that end in a zero byte."""

    def __init__(self, out, into):
        self.out, self.into, self.last, self.events, self.session = out, into, 0, [], {}
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = {"sessionId": self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Runtime", "Log", "Network", "Page"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params) -> dict:
        self.last += 1
        message = {"id": self.last, "method": method, "params": params, **self.session}
        self.out.write(json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self.last:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _receive(self) -> dict:
        data = bytearray()
        while (byte := self.into.read(1)) != b"\0":
            assert byte, "chromium went away"
            data += byte
        return json.loads(data)

    def open(self, path: str) -> None:
        self.events = []
        self.call("Page.navigate", url=Path(path).as_uri())
        while not any(e.get("method") == "Page.loadEventFired" for e in self.events):
            self.events.append(self._receive())

    def value(self, script: str):
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def complaints(self) -> list[dict]:
        names = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded", "Network.loadingFailed")
        return [e for e in self.events if e.get("method") in names or "dialog" in e.get("method", "")]


@pytest.mark.browser
def test_chromium_opens_it(tmp_path):
    path = film(tmp_path / HOSTILE_FILE)
    rows = [pair(path, i, "too <b>late" if i > 5 else None, instruction=HOSTILE_PROMPT) for i in range(8)]
    report = build_report(write(tmp_path, "pairs", rows))
    with browser(tmp_path / "profile") as chromium:
        chromium.open(report)
        images = chromium.value("[...document.images].map((i) => [i.complete, i.naturalWidth, i.src])")
        assert len(images) == 16 and all(complete and width > 0 for complete, width, _ in images)
        assert all(is_animated(src) for _, _, src in images)
        first = "document.querySelector('#gallery .card').dataset.similarity"
        sort = "document.querySelector('[data-sort=similarity]').click();"
        assert chromium.value(sort + sort + first) == "0.665"
        assert chromium.value("find.value = 'p-0000000000000003'; find.dispatchEvent(new Event('input'));"
                              "found.textContent") == "1 of 6"
        assert chromium.value("document.querySelector('.frame').click(); large.open && "
                              "large.querySelectorAll('img').length") == 2
        assert chromium.value("document.documentElement.scrollWidth <= innerWidth")
        assert chromium.complaints() == []
        loud = tmp_path / "loud.html"  # what the policy must stop, and this test must hear
        loud.write_text(Path(report).read_text().replace("</main>", '<img src="https://x.invalid/a.png">'
                                                         "<script>document.title = 'run'</script></main>"))
        chromium.open(str(loud))
        assert chromium.value("document.title") != "run" and len(chromium.complaints()) >= 2
