"""Bad samples are skipped and named, data that cannot be trained on is refused."""

from __future__ import annotations

import numpy as np
import pytest

from bernini.train.dataset import Dataset
from manifests.errors import ConfigError, ManifestError, MediaError
from manifests.manifest import ManifestWriter
from manifests.mixtures import Mixture
from manifests.schema import STOPS

from .latents import ENCODERS, write_latents
from .streams import COST, KEEP, NEEDS, make, seen, take


def damaged(tmp_path, damage):
    m = write_latents(tmp_path, {("edits", "v2v"): 12})
    (bad,) = m.table(["sample_id", "features"]).slice(4, 1).to_pylist()
    entry = next(f for f in bad["features"] if f["name"] == "latent")
    damage(tmp_path / "features" / entry["file"], entry)
    return m, bad["sample_id"]


def flip(path, entry):
    data = bytearray(path.read_bytes())
    data[entry["offset"]] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize(("damage", "why"), [
    (flip, "checksum"),
    (lambda path, entry: path.unlink(), "No such file"),
    (lambda path, entry: path.write_bytes(path.read_bytes()[: entry["offset"] + 10]), "the file is cut"),
], ids=["changed", "missing", "cut"])
def test_one_bad_sample_is_skipped_and_named(tmp_path, damage, why):
    m, bad = damaged(tmp_path, damage)
    packs = take(make(Dataset([m], needs=NEEDS), num_workers=2), 20)
    assert bad not in {i for i, _ in seen(packs)} and len({i for i, _ in seen(packs)}) == 11
    told = [line for p in packs for line in p.skipped]
    assert told and all(line.startswith(f"{bad}: ") and why in line for line in told)
    assert all(p.examples for p in packs)


def test_validate_finds_what_is_damaged(bernini, tmp_path):
    m, bad = damaged(tmp_path, flip)
    code, out, _ = bernini("validate", m.path)
    assert code == 1 and f"{bad}, latent: " in out and "checksum" in out


def test_a_nan_is_skipped_and_named(tmp_path):
    from tests.bernini.train import latents

    real, calls = latents.bits, []

    def with_nan(rng, *shape):
        calls.append(shape)
        values = real(rng, *shape)
        if len(calls) == 9:
            values.flat[3] = np.uint16(0x7FC0)
        return values

    latents.bits = with_nan
    try:
        m = write_latents(tmp_path, {("edits", "v2v"): 12})
    finally:
        latents.bits = real
    told = {line for p in take(make(Dataset([m], needs=NEEDS)), 12) for line in p.skipped}
    assert len(told) == 1 and "not finite" in told.pop()


def test_a_pack_is_never_empty(tmp_path):
    m, bad = damaged(tmp_path, flip)
    for pack in take(make(Dataset([m], needs=NEEDS), max_samples=1), 30):
        assert len(pack.examples) == 1 and pack.examples[0].sample_id != bad


def test_what_stands_in_for_unreadable_samples_keeps_the_budget(tmp_path):
    m = write_latents(tmp_path, {("edits", "v2v"): 40}, frames=(1, 40))
    dataset = Dataset([m], needs=NEEDS)
    loader = make(dataset, token_budget=200, max_samples=1, draws=KEEP)
    fit = sorted(dataset.ids[i].as_py() for i in range(40) if COST.num_tokens(dataset.tokens(i)) <= 200)
    assert 3 < len(fit) < 30
    read, bad = dataset.example, set(fit[: len(fit) // 2])

    def example(i):
        if dataset.ids[i].as_py() in bad:
            raise MediaError("broken")
        return read(i)

    dataset.example = example
    packs = take(loader, 60)
    assert any("broken" in line for p in packs for line in p.skipped)
    assert max(p.num_tokens for p in packs) <= 200
    assert {e.sample_id for p in packs for e in p.examples} == set(fit) - bad
    bad.update(fit)
    with pytest.raises(ManifestError, match=r"samples of edits \(v2v\) in a row cannot be read: .*broken"):
        take(loader, 2)


def test_a_sample_larger_than_a_pack_is_named_once(tmp_path):
    m = write_latents(tmp_path, {("edits", "v2v"): 8}, frames=(5, 6))
    write_latents(tmp_path, {("small", "t2i"): 8}, name="b")
    both = Dataset([m, str(tmp_path / "latents" / "encode-b")], needs=NEEDS)
    packs = [p for r in (0, 1) for p in take(make(both, rank=r, world=2, token_budget=60, draws=KEEP), 4)]
    told = [line for p in packs for line in p.skipped]
    assert told and all("the budget of a pack is 60" in line for line in told)
    assert {e.task for p in packs for e in p.examples} == {"t2i"}


def test_latents_of_another_vae_are_refused(manifest):
    with pytest.raises(ManifestError, match="another vae encoder"):
        Dataset([manifest], needs=NEEDS, expects={**ENCODERS, "vae": "dddd"})


def test_two_manifests_of_different_encoders_are_refused(manifest, tmp_path):
    other = write_latents(tmp_path, {("edits", "v2v"): 3}, name="b", encoders={**ENCODERS, "vision": "eeee"})
    with pytest.raises(ManifestError, match="another vision encoder"):
        Dataset([manifest, other], needs=NEEDS)


def test_features_that_were_not_made_are_asked_for_by_name(tmp_path):
    m = write_latents(tmp_path, {("edits", "v2v"): 3}, encoders={"vision": "bbbb"}, stage="I")
    with pytest.raises(ManifestError, match="holds no VAE latents .* stage I.*bernini encode"):
        Dataset([m], needs=("latent", "text"))


def empty(folder, stop):
    with ManifestWriter(str(folder / stop / "x"), STOPS[stop], STOPS[stop].schema) as writer:
        return writer.commit(name="x", row="", parents=[], config={}, versions={})


def test_raw_samples_without_a_model_name_the_command(tmp_path):
    with pytest.raises(ManifestError, match="bernini encode .* --model DIR --output OUT"):
        Dataset([empty(tmp_path, "samples")], needs=NEEDS)


def test_other_tables_empty_ones_and_twins_are_refused(manifest, tmp_path):
    with pytest.raises(ManifestError, match="is a clips table"):
        Dataset([empty(tmp_path, "clips")], needs=NEEDS)
    with pytest.raises(ManifestError, match="no accepted sample of the split 'validation'"):
        Dataset([manifest], needs=NEEDS, split="validation")
    with pytest.raises(ManifestError, match="stands 2 times"):
        Dataset([manifest, manifest], needs=NEEDS)


def test_an_empty_mixture_entry_is_refused_by_name(dataset):
    with pytest.raises(ConfigError, match="gives a weight to pose2video, which has no sample"):
        make(dataset, mixture=Mixture(name="x", groups={"V2V": 1}, overrides={"pose2video": 1.0}))
    with pytest.raises(ConfigError, match="no weight"):
        make(dataset, mixture=Mixture(name="x", groups={"T2V": 1}))
