"""Latents to and from the form of the released trainer's preprocessing."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from bernini.encoder_parts import fingerprints
from bernini.layouts import open_model
from bernini.preprocessed_form import FORM, Scale
from bernini.train.dataset import Dataset
from manifests.manifest import Manifest

from .latents import write_latents

NEEDS = ("latent", "vit", "text")


@pytest.fixture(scope="module")
def model(tiny) -> Path:
    return tiny()


@pytest.fixture(scope="module")
def latents(tmp_path_factory, model) -> Manifest:
    return write_latents(tmp_path_factory.mktemp("l"), {("edits", "vr2v"): 3, ("pictures", "t2i"): 2}, widths=(64, 8),
                         encoders=fingerprints(open_model(model), NEEDS))


@pytest.fixture(scope="module")
def exported(latents, model, tmp_path_factory) -> Path:
    from bernini.preprocessed_form import export_preprocessed

    folder = tmp_path_factory.mktemp("released")
    assert export_preprocessed(latents.path, str(model), str(folder)) == 0
    return folder


def file_of(exported):
    """Pictures and videos of one task: the trainer wants them in a file of their own."""
    (file,) = exported.glob("vr2v-edits-images_videos-*.parquet")
    return file


def test_the_released_class_reads_the_mean_back(exported, latents, model):
    """Through diffusers' own posterior, normalised as the pipeline does it."""
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    row = pq.read_table(file_of(exported)).to_pylist()[0]
    kinds = [m["type"] for m in json.loads(row["inputs"])]
    assert kinds == ["video", "image", "text", "video_gen"]
    assert [len(row[c]) for c in ("video_vae_latents", "image_vae_latents", "video_embeds", "image_grid_thw")] == [2, 1, 2, 1]
    parameters = torch.load(io.BytesIO(row["video_vae_latents"][1]), weights_only=True)
    scale, target = Scale.of(open_model(model)), Dataset([latents], needs=NEEDS).example(0).target.latent
    posterior = DiagonalGaussianDistribution(parameters)
    # bfloat16 keeps 8 bits; the way there and back in float32 moves none of them
    assert torch.equal(((posterior.mode() - scale.mean) / scale.std).bfloat16(), target)
    assert torch.allclose(posterior.sample(), posterior.mode(), atol=1e-5)


def test_the_trainers_own_rules_hold_here_too(bernini, exported, model, tmp_path):
    names = json.loads((exported / "data.yaml").read_text())  # JSON is YAML
    assert sorted(names["names"]) == ["t2i$pictures", "vr2v$edits"] and all(Path(s).exists() for s in names["sources"])
    odd = write_latents(tmp_path, {("a/b", "interleaved"): 2, ("a/b", "t2i"): 1}, widths=(64, 8),
                        encoders=fingerprints(open_model(model), NEEDS))
    code, out, _ = bernini("trainer-latents", "export", odd.path, "--model", model, "--output", tmp_path / "out")
    assert code == 1 and "wrote 1 samples" in out and out.count("the released trainer does not know the task interleaved") == 2
    assert [p.name.startswith("t2i-a_b-images-") for p in (tmp_path / "out").glob("*.parquet")] == [True]


def test_what_was_exported_comes_back(bernini, exported, latents, model, tmp_path):
    (folder := tmp_path / "in").mkdir()
    shutil.copy(file_of(exported), folder / "a.parquet")
    code, out, _ = bernini("trainer-latents", "import", folder, "--model", model, "--output", tmp_path, "--task", "vr2v")
    assert code == 0 and "3 rows, 3 accepted" in out
    m = Manifest.open(str(next((tmp_path / "latents").iterdir())))
    assert m.validate() == []
    ours, theirs = Dataset([latents], needs=NEEDS), Dataset([m], needs=NEEDS)
    for i in range(3):
        a, b = ours.example(i), theirs.example(i)
        assert a.parts == b.parts and ours.tokens(i).visuals == theirs.tokens(i).visuals
        for x, y in zip(a.visuals, b.visuals, strict=True):
            assert torch.equal(x.latent, y.latent) and torch.equal(x.vit, y.vit) and x.grid == y.grid


def save(value) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("/tmp/was-run-by-a-pickle"),))


DAMAGES = 40


def damaged(blob: bytes) -> list[bytes]:
    """Copies with some of the bytes that say what follows overwritten, not those of the numbers themselves."""
    rng, begin = np.random.default_rng(0), blob.index(b"data.pkl")
    copies = [bytearray(blob) for _ in range(DAMAGES)]
    for copy in copies:
        copy[begin + 10 : begin + 60] = rng.bytes(50)
    return list(map(bytes, copies))


def only_the_first(bernini, model, rows: list[dict], tmp_path) -> list[dict]:
    """The imported rows of t2i samples, of which one alone is accepted."""
    (tmp_path / "in").mkdir()
    pq.write_table(pa.Table.from_pylist(rows, FORM), tmp_path / "in" / "a.parquet")
    code, out, _ = bernini("trainer-latents", "import", tmp_path / "in", "--model", model, "--output", tmp_path, "--task",
                           "t2i")
    assert code == 0 and f"{len(rows)} rows, 1 accepted" in out
    return Manifest.open(str(next((tmp_path / "latents").iterdir()))).table().to_pylist()


def test_bad_blobs_drop_their_rows_by_name(bernini, model, tmp_path):
    good = torch.zeros(1, 32, 1, 4, 4)
    blobs = [save(good), save(good[:, :16]), save(torch.full_like(good, float("nan"))), b"no tensor", save(Evil()),
             save({"a": 1}), None, *damaged(save(good))]
    rows = [{"inputs": json.dumps([{"type": "text", "text": "go"}, {"type": "image_gen", "has_loss": 1}]),
             "image_vae_latents": [blob]} for blob in blobs]
    rows.append(rows[0] | {"image_vae_latents": []})
    table = only_the_first(bernini, model, rows, tmp_path)
    words = ["", "another autoencoder", "not finite", "no stored tensor", "no stored tensor", "holds a dict", "is null",
             *["a feature "] * DAMAGES, "more image"]
    for row, word in zip(table, words, strict=True):
        assert (not row["issues"] and not word) or word in row["issues"][0]
    assert not Path("/tmp/was-run-by-a-pickle").exists()
    assert len(Dataset([str(next((tmp_path / "latents").iterdir()))], needs=("latent", "text"))) == 1


def test_features_of_a_wrong_shape_drop_their_rows_by_name(bernini, model, tmp_path):
    vae, vit, grid = torch.zeros(1, 32, 1, 4, 4), torch.zeros(4, 64), torch.tensor([1, 4, 4])
    changes = [({}, ""), ({"grid_thw": None}, "have no grid"), ({"vae_latents": torch.zeros(1, 32, 1, 5, 4)}, "Y and X even"),
               ({"vae_latents": torch.zeros(1, 32, 0, 4, 4)}, "T above 0"), ({"embeds": torch.zeros(0, 64)}, "have the shape [0, 64]"),
               ({"embeds": torch.tensor(1.0)}, "have the shape []"), ({"embeds": torch.zeros(4, 8)}, "another vision tower"),
               ({"embeds": torch.zeros(6, 64)}, "have 6 rows, their grid [1, 4, 4] has 4"),
               ({"grid_thw": torch.tensor([1, 4])}, "not three numbers above 0"),
               ({"grid_thw": torch.tensor([1.0, 4.0, 4.0])}, "has the type torch.float32, not whole numbers")]
    rows = []
    for change, _ in changes:
        blobs = {"vae_latents": vae, "embeds": vit, "grid_thw": grid} | change
        rows.append({"inputs": json.dumps([{"type": "text", "text": "go"}, {"type": "image_gen", "has_loss": 1}])}
                    | {f"image_{name}": [save(blob)] for name, blob in blobs.items() if blob is not None})
    table = only_the_first(bernini, model, rows, tmp_path)
    for row, (_, word) in zip(table, changes, strict=True):
        assert (not row["issues"] and not word) or word in row["issues"][0]
