"""The pictures of the report page: which frames, how large, and what stands where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from manifests.columns import ACCOUNT, column
from manifests.errors import ConfigError
from manifests.manifest import ManifestWriter
from manifests.report import build_report
from manifests.report_pictures import NUM_FRAMES, Span, make_album, read_spans
from manifests.schema import STOPS
from manifests.video_writer import write_video

from .report_pages import F, Page, film, is_animated, pair, picture, shown, write


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


def test_media_that_is_gone_leaves_a_placeholder(tmp_path):
    path = film(tmp_path / "a.mp4")
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    rows = [pair(path, 0), pair(str(tmp_path / "moved.mp4"), 1), pair(str(tmp_path / "broken.mp4"), 2),
            pair(None, 3), pair(path, 4, source_start_s=60.0, source_end_s=62.0)]
    page = Page(build_report(write(tmp_path, "pairs", rows)))
    assert "5 of 8 clips could not be read" in page.text
    assert page.text.count("media could not be read") == 5 and page.text.count("no clip named") == 2
    assert "the file is not there any more" in page.text and len(page.all("img")) == 3


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
