"""Interleaved data: web documents in the OmniCorpus layout and key frames of films, down to samples."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datagen.documents import WebDocuments
from filters.documents import bits_apart, difference_hash, repetition
from manifests.errors import ConfigError, InputError, RunStopped
from pipelines.pairs.interleaved import Config, run_steps
from tests.annotators.chat_server import chat_server

from .test_video_pairs import frame as rows_of

WORDS = ("The old harbour lies at the end of a narrow road. Boats come in every morning with fish for the market, and "
         "children wait on the wall until the first crates are carried up the steps.")
ABOUT = {"width": 320, "height": 240, "bytes": 1, "d_hash": "0", "p_hash": "0", "aesthetic_prob": 0.5, "unsafe_prob": 0.0,
         "d_hash_dup_count": 0, "p_hash_dup_count": 0}


def run(config: Config) -> dict:
    """All stops of the recipe by name."""
    return dict(run_steps(config))


def picture(seed: int, size: tuple[int, int] = (320, 240)) -> np.ndarray:
    """Coarse random patches: each seed another picture, sharp and not black."""
    rng = np.random.default_rng(seed)
    small = rng.integers(30, 256, (9, 12, 3), np.uint8)
    return cv2.resize(small, size, interpolation=cv2.INTER_NEAREST)


def encoded(image: np.ndarray, ending: str = ".jpg") -> bytes:
    return cv2.imencode(ending, image[..., ::-1])[1].tobytes()


def document(number: int, parts: list[str | tuple[str]], **more) -> dict:
    """A row in the layout of OmniCorpus-CC: texts are strings here, names of pictures one-tuples."""
    images = [p[0] if isinstance(p, tuple) else None for p in parts]
    texts = [None if isinstance(p, tuple) else p for p in parts]
    about = [None if i is None else ABOUT | {"img_url_sha": hashlib.sha256(i.encode()).hexdigest()} for i in images]
    page = {"url": f"http://example.org/{number}", "id": str(number), "domain": ["example"], "fluency_prob": 0.9,
            "non_advertisement_prob": 0.9, "porn_prob": 0.0, "politics_prob": 0.0, "toxic_prob": 0.0}
    return {"general_metadata": page, "images": images, "texts": texts, "metadata": about, **more}


def three(start: int) -> list[tuple[str]]:
    return [(f"p{i}.jpg",) for i in range(start, start + 3)]


@pytest.fixture(scope="module")
def web(tmp_path_factory) -> Path:
    """Lists in both forms; pictures p0 to p39 as files, in a zip, in a tar, and named by the hash of their address."""
    root = tmp_path_factory.mktemp("web")
    for i in range(10):
        (root / f"p{i}.jpg").write_bytes(encoded(picture(i)))
    with zipfile.ZipFile(root / "more.zip", "w") as file:
        for i in range(10, 20):
            file.writestr(f"shard/p{i}.jpg", encoded(picture(i)))
    with tarfile.open(root / "rest.tar", "w") as file:
        for i in range(20, 40):
            name = f"http://example.org/p{i}.jpg"
            info, data = tarfile.TarInfo(hashlib.sha256(name.encode()).hexdigest() + ".jpg"), encoded(picture(i))
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    special = {"wide.jpg": picture(50, (640, 200)), "tiny.jpg": picture(51, (120, 90)), "site-icon.jpg": picture(52),
               "blur.jpg": cv2.GaussianBlur(picture(53), (0, 0), 40),
               "copy.jpg": cv2.resize(picture(0), (300, 225), interpolation=cv2.INTER_AREA)}
    for name, image in special.items():
        (root / name).write_bytes(encoded(image))
    (root / "torn.jpg").write_bytes(encoded(picture(54))[:300])
    (root / "broken.zip").write_bytes(b"PK\3\4 nothing")
    a, b, c = three(0)
    rows = [
        document(0, [WORDS + " Zero.\nShare this\nhttp://example.org/x", a, b, "Later the  boats leave again .", c]),
        document(1, [a, WORDS + " One.", ("p10.jpg",), ("p11.jpg",), ("wide.jpg",), ("tiny.jpg",), ("site-icon.jpg",),
                     ("blur.jpg",), ("copy.jpg",), ("torn.jpg",), ("gone.jpg",), ("../secret.jpg",)]),
        document(2, [WORDS + " Two.", *[(f"http://example.org/p{i}.jpg",) for i in (20, 21, 22)]]),
        document(3, [WORDS + " Zero.\nShare this\nhttp://example.org/x", *three(3), "Later the  boats leave again ."]),
        document(4, [WORDS + " Four.", *[(n,) for n in ("p2.jpg", "p1.jpg", "p0.jpg")]]),   # the pictures of 0
        document(5, ["Too short.", *three(6)]),
        document(6, ["buy now and save big " * 30, *three(6)]),
        document(7, [WORDS + " Seven.", a]),
        document(8, [WORDS + " Eight.", *[(f"http://example.org/p{i}.jpg",) for i in range(20, 30)]]),
    ]
    pq.write_table(pa.Table.from_pylist(rows[:6]), root / "part-0.parquet")
    lines = [json.dumps(r) for r in rows[6:]]
    lines += ['{"images": [null], "texts": ["a", "b"]}', "{broken", "[1]", json.dumps({"images": "p1.jpg", "texts": ["x"]}),
              json.dumps(document(13, [WORDS + " Thirteen.", *three(12)], license="CC-BY-4.0"))]
    (root / "part-1.jsonl").write_text("\n".join(lines) + "\n")
    (root.parent / "secret.jpg").write_bytes(encoded(picture(60)))
    return root


@pytest.fixture(scope="module")
def stops(web, tmp_path_factory):
    return run(Config(source="web", input=str(web), output=str(tmp_path_factory.mktemp("web-out")), engine="local",
                      quiet=True))


def root_of(stops) -> Path:
    return Path(stops["measured"].path).parents[1]


def by_page(table: pd.DataFrame) -> pd.DataFrame:
    return table.set_index(table.source_url.fillna("").str.rsplit("/", n=1).str[-1])


def test_every_line_is_a_row_with_its_reason(stops):
    measured, documents = rows_of(stops["measured"]), rows_of(stops["documents"])
    assert len(measured) == len(documents) == 14
    broken = measured[measured.drop_reason == "failed: layout"]
    assert len(broken) == 4 and {i[0].split(": ", 1)[1][:24] for i in broken.issues} == {
        "2 texts and 1 images; bo", "the line is not JSON: Ex", "the line is not a JSON o", "texts and images must be"}
    reasons = by_page(documents).drop_reason.fillna("")
    assert reasons["5"] == "num_words<20" and reasons["6"] == "repetition>0.3"
    assert reasons["7"] == "num_images<3" and reasons["8"] == "num_images>8"
    assert [reasons["1"], reasons["2"], reasons["13"]] == ["", "", ""]


def test_a_relative_input_gives_rows_that_open_from_everywhere(web, stops, monkeypatch):
    monkeypatch.chdir(web.parent)
    (first, *_) = WebDocuments(web.name).batches(["document_id", "path"])
    assert Path(first["path"][0].as_py()).is_absolute() and Path(first["path"][0].as_py()).parent == web
    assert set(first["document_id"].to_pylist()) <= set(stops["measured"].table()["document_id"].to_pylist())


def test_of_copies_one_is_kept(stops):
    reasons = by_page(rows_of(stops["documents"])).drop_reason.fillna("")
    same_text = sorted(reasons[["0", "3"]])
    assert "text of another document" in same_text
    kept = {n for n in ("0", "3", "4") if not reasons[n]}
    assert len(kept & {"0", "4"}) == 1  # equal pictures in another order
    assert reasons["4"] in ("", "pictures of another document")


def test_measures_can_be_repeated(web, stops):
    measured = by_page(rows_of(stops["measured"]))
    for row in measured[measured.num_words.notna()].itertuples():
        assert row.num_words == len(__import__("re").findall(r"\w+", " ".join(row.texts)))
    first = measured.loc["0"]
    assert [(p["width"], p["height"]) for p in first.pictures] == [(320, 240)] * 3
    own = cv2.Laplacian(cv2.imread(str(web / "p0.jpg"), cv2.IMREAD_GRAYSCALE), cv2.CV_64F).var()
    assert first.pictures[0]["sharpness"] == pytest.approx(own, rel=0.05)  # two JPEG decoders
    assert measured.loc["6"].repetition > 0.9 and first.repetition == 0


def test_pictures_that_are_of_no_use_are_left_out_with_a_reason(stops):
    row = by_page(rows_of(stops["measured"])).loc["1"]
    reasons = dict(zip(row.images, row.picture_reasons, strict=True))
    assert {n for n, r in reasons.items() if r is None} == {"p0.jpg", "p10.jpg", "p11.jpg"} and row.num_images == 3
    assert reasons["wide.jpg"] == "longer than 2 : 1" and reasons["tiny.jpg"] == "side not within 150 to 20000 px"
    assert reasons["site-icon.jpg"] == "part of an interface" and reasons["blur.jpg"] == "sharpness<20"
    assert reasons["copy.jpg"] == "repeats another picture"
    for name in ("torn.jpg", "gone.jpg", "../secret.jpg"):
        assert reasons[name] == "cannot be read"
    assert any("no picture 'gone.jpg'" in i and "broken.zip" in i for i in row.issues)


def test_written_documents_keep_their_order_and_their_pictures(web, stops):
    documents = by_page(rows_of(stops["documents"]))
    row = documents.loc["1"]
    assert list(row.order) == ["image", "text", "image", "image"]
    assert row.images[0] == str(web / "p0.jpg")  # a file stays where it is
    for path, seed in zip(row.images[1:], (10, 11), strict=True):  # members of archives are stored
        assert Path(path).is_relative_to(root_of(stops) / "media")
        assert np.abs(cv2.imread(path)[..., ::-1].astype(int) - picture(seed)).mean() < 6  # twice JPEG
    for path, seed in zip(documents.loc["2"].images, (20, 21, 22), strict=True):
        assert np.abs(cv2.imread(path)[..., ::-1].astype(int) - picture(seed)).mean() < 6
    kept = documents.loc[["0", "3"]]
    kept = kept[kept.drop_reason.isna()].iloc[0]
    assert list(kept.rewritten) == [WORDS + " Zero.", "Later the boats leave again."]


def test_samples_of_documents(stops):
    documents = rows_of(stops["documents"]).set_index("document_id")
    samples = rows_of(stops["samples"])
    assert len(samples) == documents.drop_reason.isna().sum() and set(samples.task) == {"interleaved"}
    assert set(samples.source_name) == {"interleaved-web"}
    for row in samples.itertuples():
        messages, source = json.loads(row.inputs), documents.loc[row.document_id]
        assert list(row.images) == list(source.images) and len(row.images) == sum(m["type"].startswith("image") for m in messages)
        text_seen = False
        for message in messages:
            text_seen |= message["type"] == "cot_text"
            assert message["has_loss"] == int(message["type"] in ("cot_text", "image_gen"))
            assert message["type"] != ("image" if text_seen else "image_gen")
        assert row.source_url == source.source_url
    assert by_page(samples).loc["13"].licence == "CC-BY-4.0"


def test_a_finished_run_is_noticed_and_new_pictures_are_too(web, stops, tmp_path, monkeypatch):
    config = {"source": "web", "engine": "local", "quiet": True}
    monkeypatch.setattr("manifests.archives.Shelf.read", lambda *a: pytest.fail("a picture was read again"))
    again = run(Config(input=str(web), output=str(root_of(stops)), **config))
    assert {n: m.path for n, m in again.items()} == {n: m.path for n, m in stops.items()}
    monkeypatch.undo()
    copy = shutil.copytree(web, tmp_path / "web")
    (copy / "gone.jpg").write_bytes(encoded(picture(70)))
    changed = run(Config(input=str(copy), output=str(copy / "out"), **config))
    assert changed["measured"].path.rsplit("-", 1)[1] != stops["measured"].path.rsplit("-", 1)[1]
    assert by_page(rows_of(changed["measured"])).loc["1"].num_images == 4
    inside = run(Config(input=str(copy), output=str(copy / "out"), **config))  # its own output is no input
    assert inside["measured"].path == changed["measured"].path


def test_a_model_rewrites_and_asks(web, tmp_path):
    with chat_server() as server:
        stops = run(Config(source="web", input=str(web), output=str(tmp_path / "out"), engine="local", quiet=True,
                           annotator="openai", url=(server.url,), annotator_model="m", rewriter_model="m"))
    documents, samples = rows_of(stops["documents"]), rows_of(stops["samples"])
    kept = documents[documents.drop_reason.isna()].set_index("document_id")
    assert (kept.rewritten_model == "m").all() and (kept.rewritten.str.len() == kept.texts.str.len()).all()
    asked = samples[samples.task == "understanding"]
    assert len(asked) == kept.questions.str.len().sum() > 0
    for row in asked.itertuples():
        messages = json.loads(row.inputs)
        assert [m["type"] for m in messages] == ["image"] * len(row.images) + ["text", "cot_text"]
        assert [m["has_loss"] for m in messages] == [0] * (len(row.images) + 1) + [1]
        assert messages[-2]["text"] in {q["question"] for q in kept.loc[row.document_id].questions}
    owners = stops["documents"].header["owners"]
    assert owners["rewritten"]["model"] == "m" and owners["questions"]["op"].endswith("AskAboutSubject")


@pytest.fixture(scope="module")
def film_stops(film, image_run, tmp_path_factory):
    """Beside the finished stops of the image-pair recipe."""
    out = tmp_path_factory.mktemp("interleaved-out")
    for stop in ("videos", "frames"):
        shutil.copytree(Path(image_run[stop].path).parent, out / stop)
    return run(Config(input=str(film.videos_folder), output=str(out), engine="local", quiet=True))


def test_frames_of_another_recipe_are_used_as_they_are(image_run, film_stops):
    assert Path(film_stops["frames"].path).name == Path(image_run["frames"].path).name


def test_films_give_up_to_eight_spread_key_frames_with_transitions(film_stops):
    frames, documents = rows_of(film_stops["frames"]), rows_of(film_stops["documents"])
    accepted = frames[frames.drop_reason.isna()]
    assert set(documents.video_id) == set(accepted.video_id)
    kept = documents[documents.drop_reason.isna()]
    assert len(kept) and kept.num_images.between(2, 8).all() and (kept.num_images == 8).any()
    for row in kept.itertuples():
        times = accepted[accepted.video_id == row.video_id].time_s.sort_values().to_numpy()
        chosen = np.array(row.key_times_s)
        assert set(chosen) <= set(times) and chosen[0] == times[0] and chosen[-1] == times[-1]
        steps = np.diff(np.searchsorted(times, chosen))
        assert steps.max() - steps.min() <= 1  # evenly spread over the good frames
        assert len(row.images) == len(chosen) == len(row.transitions) + 1
        assert all(os.path.getsize(path) > 1000 for path in row.images)


def test_samples_of_films(film_stops):
    documents = rows_of(film_stops["documents"]).set_index("document_id")
    for row in rows_of(film_stops["samples"]).itertuples():
        messages, source = json.loads(row.inputs), documents.loc[row.document_id]
        assert row.task == "interleaved" and row.source_name == "interleaved-video" and row.video_id == source.video_id
        assert [m["type"] for m in messages if m["type"] != "text"] == ["image"] + ["image_gen"] * (len(source.images) - 1)
        assert [m["text"] for m in messages if m["type"] == "text"] == [t for t in source.transitions if t]
        assert list(row.images) == list(source.images)


@pytest.mark.parametrize("prepare, words", [
    (lambda f: (f / "a.jsonl").write_text('{"text": "x"}\n'), "no column texts and no column images; the OmniCorpus layout"),
    (lambda f: pq.write_table(pa.table({"texts": [["x"]]}), f / "a.parquet"), "a.parquet has no column images"),
    (lambda f: (f / "a.parquet").write_bytes(b"no parquet"), "cannot read the list"),
    (lambda f: (f / "a.txt").write_text("x"), "holds no .jsonl or .parquet list"),
])
def test_a_wrong_layout_names_what_is_missing(tmp_path, prepare, words):
    (tmp_path / "in").mkdir()
    prepare(tmp_path / "in")
    with pytest.raises(InputError, match=words):
        run(Config(source="web", input=str(tmp_path / "in"), output=str(tmp_path / "out"), engine="local", quiet=True))


def test_a_document_with_values_of_another_kind_is_a_row_with_its_reason(tmp_path):
    good = document(0, ["a", ("b.jpg",)])
    wrong = [good | {"licence": 5}, good | {"general_metadata": {"url": 7}}, good | {"texts": ["\ud800", None]}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [good, *wrong]))
    (rows,) = WebDocuments(str(tmp_path / "a.jsonl")).batches()
    assert rows["drop_reason"].to_pylist() == [None, *["failed: layout"] * 3]
    said = [issue for issues in rows["issues"].to_pylist() for issue in issues]
    for text, words in zip(said, ("licence must be a string, it is '5'", "url must be", "surrogates not allowed"), strict=True):
        assert words in text


def test_settings_and_empty_results(web, tmp_path):
    with pytest.raises(ConfigError, match="no source 'tv'; known: films, web"):
        Config(source="tv", input="a", output="b")
    with pytest.raises(ConfigError, match="max_key_frames is 9"):
        Config(input="a", output="b", max_key_frames=9)
    with pytest.raises(RunStopped, match="no row of documents"):
        run(Config(source="web", input=str(web), output=str(tmp_path), engine="local", quiet=True, min_words=3999))


def test_hashes_and_repetition():
    image = cv2.cvtColor(picture(1), cv2.COLOR_RGB2GRAY)
    smaller = cv2.imdecode(cv2.imencode(".jpg", cv2.resize(image, (200, 150), interpolation=cv2.INTER_AREA))[1], 0)
    assert bits_apart(difference_hash(image), difference_hash(smaller)) <= 4
    assert bits_apart(difference_hash(image), difference_hash(cv2.cvtColor(picture(2), cv2.COLOR_RGB2GRAY))) > 12
    assert repetition("a b c d e".split()) == 0 and repetition([]) == 0
    assert repetition(["x"] * 100) == pytest.approx(95 / 96)


def test_a_chinese_page_is_as_long_as_what_it_says(tmp_path):
    page = "港口位于一条狭窄道路的尽头，每天早晨船只都会带着鱼来到市场，孩子们在墙上等着第一批箱子被抬上台阶。"
    for i in range(3):
        (tmp_path / f"p{i}.jpg").write_bytes(encoded(picture(i)))
    (tmp_path / "a.jsonl").write_text(json.dumps(document(0, [page, *three(0)]), ensure_ascii=False) + "\n")
    found = run(Config(source="web", input=str(tmp_path), output=str(tmp_path / "o"), engine="local", quiet=True))
    (row,) = rows_of(found["documents"]).to_dict("records")
    assert pd.isna(row["drop_reason"]) and row["num_words"] == len(page) - 3 and row["repetition"] == 0
