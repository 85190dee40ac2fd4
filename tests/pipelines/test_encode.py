"""`bernini encode`: the same bits as training from raw samples, resumable, honest about what it cannot encode."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

torch = pytest.importorskip("torch", reason="needs the extra 'models': pip install 'bernini[models]'")

from bernini.encode import Encoders, EncodeSettings, visual_costs  # noqa: E402
from bernini.encode_samples import EncodeSamples  # noqa: E402
from bernini.encoder_parts import fingerprints  # noqa: E402
from bernini.layouts import open_model  # noqa: E402
from bernini.train.dataset import Dataset  # noqa: E402
from manifests.errors import BackendError, ManifestError  # noqa: E402
from manifests.manifest import Manifest, ManifestWriter  # noqa: E402
from manifests.messages import video_item  # noqa: E402
from manifests.schema import SAMPLES  # noqa: E402
from pipelines.encode_samples import Config, build, encode  # noqa: E402
from pipelines.stage import check  # noqa: E402

SMALL = {"min_size": 16, "max_size": 48, "max_frames": 9}  # the tiny autoencoder takes seconds at 480p
SETTINGS = EncodeSettings(**SMALL)
MESSAGES = {"v2v": ("video", "text", "video_gen"), "t2i": ("text", "image_gen"),
            "vr2v": ("video", "image", "text", "video_gen")}


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    from bernini.tiny import write_tiny

    return write_tiny(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> Manifest:
    from manifests.media_store import MediaStore
    from manifests.video_writer import write_video
    from tests.conftest import moving_frames

    folder = tmp_path_factory.mktemp("encode-samples")
    for name in ("a", "b"):
        write_video(str(folder / f"{name}.mp4"), moving_frames(40, size=(64, 48), seed=len(name) + ord(name)), fps=25)
    picture = MediaStore(str(folder)).image(next(moving_frames(1, size=(70, 40))))
    rows = [_row(i, task, folder, picture) for i, task in enumerate(("v2v", "t2i", "vr2v", "v2v", "t2i"))]
    return write(folder, rows)


def _row(i: int, task: str, folder: Path, picture: str) -> dict:
    kinds = MESSAGES[task]
    messages = [{"type": k, "has_loss": int(k.endswith("_gen")), **({"text": f"prompt {i % 2}"} if k == "text" else {})}
                for k in kinds]
    videos = [video_item(str(folder / f"{n}.mp4"), 0.2, 1.0 + 0.1 * i) for n in "ab"[: sum("video" in k for k in kinds)]]
    return {"sample_id": f"s-{i:016x}", "task": task, "source_name": "made", "inputs": json.dumps(messages),
            "images": [picture for k in kinds if "image" in k], "videos": videos, "split": "train", "weight": 1.0,
            "issues": [], "num_attempts": 1}


def write(folder: Path, rows: list[dict]) -> Manifest:
    with ManifestWriter(str(folder / "samples" / "x"), SAMPLES, SAMPLES.schema) as writer:
        writer.append(pa.Table.from_pylist(rows, SAMPLES.schema))
        return writer.commit(name="x", row=SAMPLES.row, parents=[], config={}, versions={})


def settings(samples, model, output, **changed) -> Config:
    return Config(**{"input": samples.path, "model": str(model), "output": str(output), "engine": "local", "quiet": True,
                     "device": "cpu", "rows_per_block": 2, **SMALL, **changed})


@pytest.fixture(scope="module")
def latents(samples, model, tmp_path_factory) -> Manifest:
    return encode(settings(samples, model, tmp_path_factory.mktemp("encoded")))


@pytest.fixture(scope="module")
def encoders(model) -> Encoders:
    return Encoders(open_model(model), SETTINGS, device="cpu")


def test_encoded_and_raw_samples_are_equal_to_the_bit(samples, latents, encoders):
    needs = SETTINGS.needs
    stored, raw = Dataset([latents], needs=needs, expects=encoders.fingerprints), Dataset([samples], needs=needs,
                                                                                          encoders=encoders)
    for i in range(len(stored)):
        a, b = stored.example(i), raw.example(i)
        assert (a.sample_id, a.task, a.source_name, a.parts) == (b.sample_id, b.task, b.source_name, b.parts)
        assert torch.equal(a.text_embedding, b.text_embedding) and torch.equal(a.empty_embedding, b.empty_embedding)
        for x, y in zip(a.visuals, b.visuals, strict=True):
            assert (x.kind, x.is_target, x.grid) == (y.kind, y.is_target, y.grid)
            assert torch.equal(x.latent, y.latent) and torch.equal(x.vit, y.vit)
        assert stored.tokens(i) == raw.tokens(i)  # costs of raw samples come from file headers alone


def test_features_are_what_the_model_gives_when_it_generates(samples, latents, model):
    """Latents as the generation pipeline encodes them, ViT features as the planner sees them."""
    from bernini.encode import read_media
    from bernini.generate.parts import Parts
    from bernini.memory import MemorySettings
    from manifests.samples import SampleMedia, read_messages

    row = samples.table().to_pylist()[0]
    parts = Parts(open_model(model), MemorySettings(device="cpu"))
    target = SampleMedia.of(row, read_messages(row))[1]
    shown, seen = read_media(target, SETTINGS)
    example = Dataset([latents], needs=SETTINGS.needs).example(0)
    assert torch.equal(example.target.latent, parts["vae"].encode(shown).bfloat16())
    patches, grid = parts.eye().video(seen)
    assert example.target.grid == grid
    assert torch.equal(example.target.vit, parts["planner"].see(patches, grid).bfloat16())


def test_frames_and_sizes_follow_the_rules(samples, latents):
    rows = latents.table().to_pylist()
    for row in rows:
        shapes = {(f["name"], f["visual"]): f["shape"] for f in row["features"]}
        for i, visual in enumerate(row["visuals"]):
            c, t, y, x = shapes["latent", i]
            # 64x48 px at most 48 wide: 48x32; 0.8 s and more at 16 fps cut to 9 frames: 3 latent frames
            assert (c, t) == (16, 3 if visual["kind"] == "video" else 1) and y % 2 == x % 2 == 0 and x == 6
            assert visual["num_latent_tokens"] == t * (y // 2) * (x // 2)
            assert visual["num_vit_tokens"] == shapes["vit", i][0]
        assert row["visuals"][-1]["is_target"] and not any(v["is_target"] for v in row["visuals"][:-1])
        assert {f["dtype"] for f in row["features"]} == {"bfloat16"}


def test_a_raw_sample_tells_its_cost_without_decoding(samples, latents):
    for raw, done in zip(samples.table().to_pylist(), latents.table().to_pylist(), strict=True):
        costs = visual_costs(raw, SETTINGS)
        assert [(c.kind, c.num_latent_tokens, c.num_vit_tokens) for c in costs] == [
            (v["kind"], v["num_latent_tokens"], v["num_vit_tokens"]) for v in done["visuals"]]


def test_a_text_is_stored_once(latents, samples, model):
    root = Path(latents.path).parents[1] / "features"
    files = list((root / "text").rglob("*.bin"))
    texts = {(r["task"], r["inputs"].split("prompt ")[1][0]) for r in latents.table().to_pylist()}
    assert len(files) == len(texts) + len({task for task, _ in texts})  # prompts, and one empty text a task
    before = {f: f.stat().st_mtime_ns for f in files}
    encode(settings(samples, model, root.parent, max_frames=5))  # other latents, the same texts
    assert {f: f.stat().st_mtime_ns for f in (root / "text").rglob("*.bin")} == before


def with_texts(samples, *texts: tuple[str, str]) -> list[dict]:
    """The second row of the samples (a picture from text) with other texts, `(message type, text)`."""
    row = samples.table().to_pylist()[1]
    messages = [{"type": kind, "text": text, "has_loss": int(kind == "cot_text")} for kind, text in texts]
    return [row | {"inputs": json.dumps([*messages, {"type": "image_gen", "has_loss": 1}])}]


def test_reasoning_is_the_prompt_of_planner_and_renderer_as_in_generation(samples, encoders, model, tmp_path):
    """Generation with the planner's reasoning (self_text) replaces the prompt of a case, for both parts."""
    from bernini.generate.cases import Case
    from bernini.text import positive_text
    from bernini.tiny import _planner_tokenizer, tiny_planner
    from bernini.train.chats import documents
    from bernini.train.draws import DrawSettings, draw

    m = write(tmp_path, with_texts(samples, ("text", "melt it"), ("cot_text", "the snow turns to water")))
    case = Case(prompt="the snow turns to water", task_type="t2i", output="o.png")
    wanted = encoders.text(positive_text(case.task_type, case.prompt))
    stored = Dataset([encode(settings(m, model, tmp_path / "out"))], needs=SETTINGS.needs)
    raw = Dataset([m], needs=SETTINGS.needs, encoders=encoders)
    tokenizer, special = _planner_tokenizer(), tiny_planner().special
    for dataset in (stored, raw):
        example = dataset.example(0)
        assert torch.equal(example.text_embedding, wanted) and dataset.tokens(0).text == len(wanted)
        chosen = draw(DrawSettings(drop_text=0), 0, 0, "x", "t2i")
        *_, planning = documents(0, example, chosen, lambda t: tokenizer(t, add_special_tokens=False)["input_ids"], special, 1)
        said = tokenizer.decode(planning.chat.ids[planning.chat.token_type == 0])
        assert "the snow turns to water" in said and "melt it" not in said
    # The renderer alone has no planner that would think: all texts joined, as its released trainer has it.
    alone = Encoders(open_model(model), EncodeSettings(stage="II", **SMALL), device="cpu")
    joined = alone.text(positive_text("t2i", "melt it the snow turns to water"))
    stored = Dataset([encode(settings(m, model, tmp_path / "out", stage="II"))], needs=alone.settings.needs)
    for dataset in (stored, Dataset([m], needs=alone.settings.needs, encoders=alone)):
        assert torch.equal(dataset.example(0).text_embedding, joined)


def test_a_prompt_that_is_longer_than_the_encoder_reads_is_told(samples, encoders, model, tmp_path):
    long, short = with_texts(samples, ("text", "word " * 600)), with_texts(samples, ("text", "word"))
    rows = [row | {"sample_id": f"s-{i:016x}"} for i, row in enumerate([*short, *long, *long])]
    m, said = write(tmp_path, rows), []
    lost = encoders.cut(encoders.texts_of(long[0])[0])
    assert "tokens with the system prompt, the text encoder reads the first 512" in lost
    done = encode(settings(m, model, tmp_path / "out")).table().to_pylist()
    assert [r["issues"] for r in done] == [[], [f"EncodeSamples: {lost}"], [f"EncodeSamples: {lost}"]]
    assert [r["drop_reason"] for r in done] == [None] * 3
    raw = Dataset([m], needs=SETTINGS.needs, encoders=encoders, say=said.append)
    assert [raw.tokens(i).text for i in (0, 1, 2, 1)][1:] == [512] * 3
    assert said == [f"sample {rows[1]['sample_id']}: {lost}; 1 such so far in {m.path}"]
    assert raw.sources[0].num_cut == 2


def test_threads_that_encode_give_the_bits_of_none(samples, encoders):
    import itertools

    from bernini.train.cost import CostModel
    from bernini.train.loader import Loader, LoaderConfig

    raw, bits = Dataset([samples], needs=SETTINGS.needs, encoders=encoders), []
    cost = CostModel.of(encoders.model, SETTINGS.needs)
    for workers in (0, 3):
        loader = Loader(raw, LoaderConfig(token_budget=400, window=3, max_samples=3), cost, num_workers=workers)
        packs = list(itertools.islice(loader, 2))
        bits.append([(e.sample_id, [(v.latent.sum().item(), v.vit.sum().item()) for v in e.visuals])
                     for p in packs for e in p.examples])
    assert bits[0] == bits[1] and len(bits[0]) >= 4


class Stopped(Exception):
    pass


def test_a_stopped_run_goes_on_and_gives_the_same_bytes(samples, latents, model, tmp_path, monkeypatch):
    real, calls = EncodeSamples.__call__, []

    def once(self, table):
        if calls:
            raise Stopped
        calls.append(table["sample_id"].to_pylist())
        return real(self, table)

    monkeypatch.setattr(EncodeSamples, "__call__", once)
    with pytest.raises(Stopped):
        encode(settings(samples, model, tmp_path))
    for file in tmp_path.rglob("in-flight.json"):  # stopped between two blocks: else its rows run in a child first
        file.unlink()
    done = []
    monkeypatch.setattr(EncodeSamples, "__call__", lambda self, t: (done.extend(t["sample_id"].to_pylist()), real(self, t))[1])
    again = encode(settings(samples, model, tmp_path))
    assert sorted([*calls[0], *done]) == sorted(samples.table()["sample_id"].to_pylist())  # nothing twice
    assert again.table().equals(latents.table())
    one, other = (Path(m.path).parents[1] / "features" for m in (latents, again))
    for file in other.rglob("*.bin"):
        assert file.read_bytes() == (one / file.relative_to(other)).read_bytes()


def test_latents_that_were_filtered_are_trained_on(bernini, latents, tmp_path):
    name = latents.path.rsplit("/", 1)[-1]  # the name of the one whose index lies beside the features
    tokens = sorted(latents.table(["num_text_tokens"])["num_text_tokens"].to_pylist())
    code, _, err = bernini("filter", latents.path, "--keep", f"num_text_tokens<={tokens[0]}", "--write", tmp_path / name)
    assert code == 0, err
    kept, whole = (Dataset([str(p)], needs=("latent", "text")) for p in (tmp_path / name, latents.path))
    assert 0 < len(kept) < len(whole)
    place = whole.ids.to_pylist().index(kept.ids[0].as_py())
    for a, b in zip(kept.example(0).visuals, whole.example(place).visuals, strict=True):
        assert torch.equal(a.latent, b.latent)


@pytest.mark.parametrize(("stage", "names"), [("I", {"vit"}), ("II", {"latent", "text", "empty_text"})])
def test_a_stage_encodes_only_what_it_needs(samples, model, tmp_path, stage, names):
    m = encode(settings(samples, model, tmp_path, stage=stage))
    rows = m.table().to_pylist()
    assert {f["name"] for r in rows for f in r["features"]} == names
    assert set(m.header["encoders"]) == {"I": {"vision"}, "II": {"vae", "text"}}[stage]
    with pytest.raises(ManifestError, match="holds no"):
        Dataset([m], needs=SETTINGS.needs)


def test_what_cannot_be_read_is_a_row_with_a_reason(samples, model, tmp_path):
    rows = samples.table().to_pylist()[:3]
    rows[1]["images"] = [str(tmp_path / "gone.png")]
    m = encode(settings(write(tmp_path, rows), model, tmp_path / "out", stage="II"))
    done = m.table().to_pylist()
    assert [r["drop_reason"] is None for r in done] == [True, False, True]
    assert done[1]["drop_reason"].startswith("failed: ") and "gone.png" in done[1]["issues"][0]
    assert len(Dataset([m], needs=("latent", "text"))) == 2


def test_a_feature_that_is_not_finite_is_refused(samples, encoders, monkeypatch):
    row = samples.table().to_pylist()[1]
    vae = type(encoders._parts["vae"])
    monkeypatch.setattr(vae, "encode", lambda self, frames: torch.full((1, 16, 1, 4, 4), float("nan")))
    with pytest.raises(BackendError, match="latent of visual 0 is not finite"):
        encoders.encode(row)


def test_a_fingerprint_knows_the_weights_and_not_the_folder(model, tmp_path, latents):
    from bernini.tiny import write_tiny

    needs = SETTINGS.needs
    moved = shutil.copytree(model, tmp_path / "moved")
    assert fingerprints(open_model(moved), needs) == fingerprints(open_model(model), needs) == latents.header["encoders"]
    other = fingerprints(open_model(write_tiny(tmp_path / "other", seed=1)), needs)
    assert all(other[k] != latents.header["encoders"][k] for k in other)
    with pytest.raises(ManifestError, match="another vae encoder"):
        Dataset([latents], needs=needs, expects=other)


def test_a_model_without_planner_cannot_make_vit_features(samples, tmp_path):
    from bernini.errors import CheckpointError
    from bernini.tiny import write_tiny

    renderer = write_tiny(tmp_path / "r", "diffusers")
    with pytest.raises(CheckpointError, match="has no planner"):
        encode(settings(samples, renderer, tmp_path / "out"))
    assert encode(settings(samples, renderer, tmp_path / "out", stage="II")).header["accepted"] == 5


def test_the_op_keeps_the_contract(samples, model, tmp_path):
    stage = build(settings(samples, model, tmp_path, stage="I"))[0]
    op = pickle.loads(pickle.dumps(EncodeSamples))(**stage.kwargs)
    table = samples.table()
    before = table.to_pylist()
    out = op(table)
    assert table.to_pylist() == before and out.equals(op(table))
    assert out.schema.equals(check((stage,), table.schema)) and op(table.slice(0, 0)).schema.equals(out.schema)
    alone = pa.concat_tables([op(table.slice(i, 1)) for i in range(len(table))])
    drop = [{**r, "features": [{**f, "file": "", "offset": 0} for f in r["features"]]} for r in alone.to_pylist()]
    assert drop == [{**r, "features": [{**f, "file": "", "offset": 0} for f in r["features"]]} for r in out.to_pylist()]


def test_the_command(bernini, samples, latents, model, tmp_path):
    assert bernini("encode")[0] == 2
    code, out, _ = bernini("encode", samples.path, "--model", model, "--output", tmp_path, "--stage", "I", "--engine",
                           "local", "--quiet", "--device", "cpu")
    assert code == 0 and "5 accepted" in out
    code, out, _ = bernini("validate", next((tmp_path / "latents").iterdir()))
    assert code == 0
    code, _, err = bernini("encode", latents.path, "--model", model, "--output", tmp_path)
    assert code == 2 and "takes samples" in err


@pytest.mark.ray
def test_ray_gives_the_same_manifest(samples, latents, model, tmp_path):
    m = encode(settings(samples, model, tmp_path, engine="ray", workers=1))
    a, b = (x.table().drop_columns(["features"]) for x in (m, latents))
    assert a.equals(b)
    names = [[(f["name"], f["crc32"]) for f in r["features"]] for r in m.table().to_pylist()]
    assert names == [[(f["name"], f["crc32"]) for f in r["features"]] for r in latents.table().to_pylist()]


def test_frames_of_a_span_are_counted_without_decoding(samples):
    from manifests.spans import read_numbered, read_span, span_times

    path = samples.table()["videos"][0][0]["video_path"].as_py()
    for span in ((0.0, 1.6), (0.2, 1.0), (1.1, 9.0)):
        frames = list(read_span(path, *span))
        times = span_times(path, *span)
        assert len(times) == len(frames) and times == sorted(times)
        found = read_numbered(path, *span, [0, len(frames) - 1, len(frames) + 5])
        assert [np.array_equal(found[i], frames[j]) for i, j in ((0, 0), (len(frames) - 1, -1), (len(frames) + 5, -1))] == [True] * 3
