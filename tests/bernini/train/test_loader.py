"""The stream of packs: equal for all workers and ranks, exact to resume, honest about bad samples."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from bernini.train.cost import ASK_TOKENS, CostModel
from bernini.train.dataset import Dataset, write_index
from bernini.train.draws import DrawSettings
from bernini.train.loader import Loader, LoaderConfig
from bernini.train.pace import Pace
from manifests.columns import set_column
from manifests.errors import ConfigError, ManifestError, MediaError
from manifests.ids import make_id
from manifests.manifest import ManifestWriter
from manifests.mixtures import Mixture
from manifests.schema import STOPS

from .latents import ENCODERS, write_latents

NEEDS = ("latent", "vit", "text")
COST = CostModel(renderer_layers=2, renderer_width=48, renderer_ffn=64, planner_layers=2, planner_width=32,
                 planner_ffn=48, planner_kv_width=16, context=8)
KEEP = DrawSettings(drop_text=0, drop_images=0, drop_videos=0)
TASKS = {("edits", "v2v"): 30, ("subjects", "vr2v"): 12, ("pictures", "t2i"): 25}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_latents(tmp_path_factory.mktemp("latents"), TASKS)


@pytest.fixture(scope="module")
def dataset(manifest):
    return Dataset([manifest], needs=NEEDS)


def make(dataset, *, rank=0, world=1, num_workers=0, **settings):
    config = LoaderConfig(**{"token_budget": 400, "window": 8, **settings})
    return Loader(dataset, config, COST, rank=rank, world=world, num_workers=num_workers)


def take(loader, num):
    return list(itertools.islice(loader, num))


def content(pack):
    """All that a pack says, as comparable values; tensors by their bits."""
    return ([(e.sample_id, e.parts, [(v.kind, v.is_target, v.grid, v.latent.view(torch.int16).tolist(),
                                      v.vit.view(torch.int16).tolist()) for v in e.visuals],
              e.text_embedding.view(torch.int16).tolist()) for e in pack.examples],
            list(pack.draws), pack.num_tokens, pack.flops, pack.epoch, pack.skipped)


def seen(packs):
    return [(e.sample_id, d) for p in packs for e, d in zip(p.examples, p.draws, strict=True)]


def test_an_example_holds_what_the_stage_needs(dataset):
    for pack in take(make(dataset), 3):
        for e in pack.examples:
            assert e.target is e.visuals[-1] and e.target.latent.shape[:2] == (1, 16)
            assert e.target.latent.dtype == e.text_embedding.dtype == torch.bfloat16
            assert [p.visual for p in e.parts if p.visual is not None] == list(range(len(e.visuals)))
            assert e.text_embedding.shape == (5, 8) and e.empty_embedding.shape == (2, 8)


def test_a_stage_reads_only_its_own_features(manifest):
    (pack,) = take(make(Dataset([manifest], needs=("vit",))), 1)
    assert all(v.latent is None and v.vit is not None for e in pack.examples for v in e.visuals)
    assert all(e.text_embedding is None for e in pack.examples)


def test_three_workers_give_the_bits_of_none(dataset):
    one, three = (take(make(dataset, num_workers=n), 12) for n in (0, 3))
    assert [content(p) for p in one] == [content(p) for p in three]


def test_two_ranks_see_the_samples_and_draws_of_one(dataset):
    alone = seen(take(make(dataset), 120))
    both = [seen(take(make(dataset, rank=r, world=2), 60)) for r in (0, 1)]
    assert not {id_ for id_, _ in both[0][:10]} & {id_ for id_, _ in both[1][:10]}  # they share the work
    num = 200  # the beginning of one sequence; windows differ, so the ends do too
    first, second = (Counter(d.sigma for _, d in x) for x in (alone, [*both[0], *both[1]]))
    assert len(alone) > num and len(both[0]) + len(both[1]) > num
    early = Counter(d.sigma for _, d in alone[:num])
    assert not early - second, "a draw of the one-rank stream is missing with two ranks"
    assert max(first.values()) == 1


def test_every_sample_comes_once_an_epoch_in_an_order_of_its_own(dataset):
    ids = [e.sample_id for p in take(make(dataset, mixture=Mixture(name="x", groups={"V2V": 1})), 60)
           for e in p.examples]
    first, second = ids[:30], ids[30:60]
    assert len({*ids}) == 30 and len(ids) >= 60
    assert len({*first, *second}) == 30 and Counter(ids[:60]).most_common(1)[0][1] <= 3
    assert first != second


@pytest.mark.parametrize("after", [1, 3, 7, 12])
def test_a_resumed_stream_is_the_uninterrupted_one(dataset, after):
    whole = take(make(dataset, num_workers=2), 20)
    loader = make(dataset, num_workers=2)
    iterator = iter(loader)
    for _ in range(after):
        next(iterator)
    state = json.loads(json.dumps(loader.state_dict()))  # plain values
    iterator.close()
    resumed = make(dataset, num_workers=0)  # also with another number of workers
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    assert [content(p) for p in take(resumed, 20 - after)] == [content(p) for p in whole[after:]]
    assert len(json.dumps(state)) < 2000


def test_other_ranks_take_over_without_losing_or_repeating_a_sample(dataset):
    loaders = [make(dataset, rank=r, world=2, token_budget=120) for r in (0, 1)]
    before = []
    for loader in loaders:
        iterator = iter(loader)
        before += [next(iterator) for _ in range(2)]  # in the middle of a window
    state = loaders[0].state_dict()
    assert state["round"] > 0 and state == loaders[1].state_dict()
    resumed = make(dataset, token_budget=120)
    resumed.load_state_dict(state)
    both = Counter(d.sigma for _, d in [*seen(before), *seen(take(resumed, 60))])
    assert max(both.values()) == 1, "a sample came twice in its epoch"
    reference = Counter(d.sigma for _, d in seen(take(make(dataset, token_budget=120), 40)))
    assert not reference - both, "a sample was lost"


def test_a_state_of_other_data_or_another_seed_is_refused(dataset, tmp_path):
    state = make(dataset).state_dict()
    with pytest.raises(ConfigError, match="seed"):
        make(dataset, seed=1).load_state_dict(state)
    other = Dataset([write_latents(tmp_path, {("edits", "v2v"): 9}, name="b")], needs=NEEDS)
    with pytest.raises(ConfigError, match="other samples"):
        make(other).load_state_dict(state)


def test_a_state_is_refused_where_one_sample_of_many_is_another(tmp_path):
    """Also between the samples that a look at some of them would see."""
    one, latents = write_latents(tmp_path, {("pictures", "t2i"): 1}), STOPS["latents"].schema
    (row,), found = one.table().to_pylist(), []
    for changed in ({}, {1001: "s-0123456789abcdef"}):
        rows = [row | {"sample_id": changed.get(i, make_id("sample", i))} for i in range(3000)]
        with ManifestWriter(str(tmp_path / "latents" / f"many-{len(changed)}"), STOPS["latents"], latents) as writer:
            writer.append(pa.Table.from_pylist(rows, latents))
            found.append(writer.commit(**{k: one.header[k] for k in ("name", "row", "parents", "config", "versions",
                                                                     "encoders", "feature_folder")}))
    first, second = found
    state = make(Dataset([first], needs=NEEDS)).state_dict()
    make(Dataset([first], needs=NEEDS)).load_state_dict(state)
    with pytest.raises(ConfigError, match="other samples"):
        make(Dataset([second], needs=NEEDS)).load_state_dict(state)


def test_packs_keep_the_budget_and_say_what_they_cost(dataset):
    for pack in take(make(dataset, token_budget=150, draws=KEEP), 20):
        tokens = sum(sum(v.latent.shape[2] * 4 + len(v.vit) for v in e.visuals) + 5 + 6 for e in pack.examples)
        assert pack.num_tokens == tokens <= 150 and pack.flops > 0


RENDERER = CostModel(renderer_layers=2, renderer_width=48, renderer_ffn=64, context=8)
KINDS = {("questions", "understanding"): 20, ("edits", "v2v"): 20, ("reasoning-text", "v2v"): 20}


def test_a_pack_holds_the_tokens_of_what_runs(tmp_path):
    """An understanding sample fills no room of the renderer; one with reasoning has two documents."""
    packs = take(make(Dataset([write_latents(tmp_path, KINDS)], needs=NEEDS), token_budget=300, draws=KEEP), 30)
    assert {e.source_name for p in packs for e in p.examples} == {n for n, _ in KINDS}
    for pack in packs:
        tokens = 0
        for e in pack.examples:
            seen, latent = [len(v.vit) for v in e.visuals], sum(v.latent.shape[2] * 4 for v in e.visuals)
            tokens += {"questions": seen[0] + 6,  # 6: all its texts in the planner's tokens
                       "edits": latent + 5 + sum(seen) + 6,
                       # "prompt 1" and "because" share the 6; what was reasoned is the prompt of the plan
                       "reasoning-text": latent + 5 + sum(seen) + 3 + seen[0] + 6 + ASK_TOKENS}[e.source_name]
        assert pack.num_tokens == tokens <= 300


def test_more_masked_tokens_cost_more(tmp_path):
    dataset = Dataset([write_latents(tmp_path, {("edits", "v2v"): 4}, frames=(2, 3))], needs=NEEDS)
    cost = replace(COST, decoder_depth=2, decoder_width=48, vit_width=8, vit_noises=16)
    loader = Loader(dataset, LoaderConfig(token_budget=400, max_samples=1, draws=KEEP), cost, num_workers=0)
    found = sorted((max(1, round(p.draws[0].mask_ratio * 8)), p.flops) for p in take(loader, 40))
    steps = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.pairwise(found) if b[0] > a[0]]
    assert steps and all(s > 0.9 * cost.decoder_flops(16) for s in steps)  # the renderer is shown one token fewer


def test_without_a_planner_samples_that_only_teach_words_are_named(tmp_path):
    m = write_latents(tmp_path, KINDS)
    loader = Loader(Dataset([m], needs=("latent", "text")), LoaderConfig(token_budget=200, window=8), RENDERER, num_workers=0)
    packs = take(loader, 30)
    assert {e.source_name for p in packs for e in p.examples} == {"edits", "reasoning-text"}
    told = [line for p in packs for line in p.skipped]
    assert told and all("nothing in it is trained in this stage" in line for line in told)
    write_latents(tmp_path, {("questions", "understanding"): 5}, name="b")
    alone = Dataset([str(tmp_path / "latents" / "encode-b")], needs=("latent", "text"))
    with pytest.raises(ManifestError, match="samples in a row cannot be used, .* nothing in it is trained"):
        next(iter(Loader(alone, LoaderConfig(), RENDERER, num_workers=0)))


def test_max_samples_bounds_a_pack(dataset):
    assert {len(p.examples) for p in take(make(dataset, token_budget=10_000, max_samples=4), 10)} <= {3, 4}


def test_pair_data_decays_with_the_steps(dataset):
    mix = Mixture(name="x", groups={"V2V": 1.0, "T2I": 1.0}, decayed=("T2I",))
    packs = take(make(dataset, mixture=mix, total_steps=60), 60)
    early, late = ([e.task for p in part for e in p.examples] for part in (packs[:15], packs[-15:]))
    assert 0.25 < early.count("t2i") / len(early) < 0.6  # half at the start
    assert late.count("t2i") / len(late) < 0.25          # an eighth on average in the last quarter


FADING = Mixture(name="x", groups={"V2V": 1.0, "T2I": 1.0}, decayed=("T2I",))


def stopped(dataset, packs, **settings):
    """State of a run of 100 steps with one pack each, after that many."""
    loader = make(dataset, mixture=FADING, total_steps=100, token_budget=120, **settings)
    iterator = iter(loader)
    first = [next(iterator) for _ in range(packs)]
    return first, json.loads(json.dumps(loader.state_dict()))


@pytest.mark.parametrize("steps, accumulate, packs_left", [(100, 2, 100), (200, 1, 150), (80, 4, 120), (50, 1, 0)])
def test_pair_data_goes_on_fading_when_steps_or_packs_a_step_change(dataset, steps, accumulate, packs_left):
    """After half of the run half has faded, whatever is changed then; the rest fades over the packs that are left."""
    _, state = stopped(dataset, 50)
    loader = make(dataset, mixture=FADING, total_steps=steps, accumulate=accumulate, token_budget=120)
    loader.load_state_dict(state)
    pace = Pace(**loader.state_dict()["pace"])
    assert pace.at(50) == pytest.approx(0.5 if packs_left else 1)
    assert pace.at(50 + packs_left // 2) == pytest.approx(0.75 if packs_left else 1)
    assert pace.at(50 + packs_left) == pytest.approx(1) and pace.at(50 + packs_left) < 1
    again = make(dataset, mixture=FADING, total_steps=steps, accumulate=accumulate, token_budget=120)
    again.load_state_dict(json.loads(json.dumps(loader.state_dict())))
    assert [content(p) for p in take(again, 10)] == [content(p) for p in take(loader, 10)]


def test_pair_data_that_has_faded_does_not_come_back(dataset):
    _, state = stopped(dataset, 98)
    loader = make(dataset, mixture=FADING, total_steps=100, accumulate=8, token_budget=120)
    loader.load_state_dict(state)
    tasks = Counter(e.task for p in take(loader, 16) for e in p.examples)
    assert tasks["v2v"] > 30 > 3 >= tasks["t2i"]


def test_other_packs_a_step_neither_lose_nor_repeat_a_sample(dataset):
    before, state = stopped(dataset, 3)
    assert state["round"] > 0  # in the middle of a window
    resumed = make(dataset, mixture=FADING, total_steps=100, accumulate=2, token_budget=120)
    resumed.load_state_dict(state)
    both = Counter(d.sigma for _, d in [*seen(before), *seen(take(resumed, 40))])
    assert max(both.values()) == 1, "a sample came twice in its epoch"
    window, _ = stopped(dataset, 6)
    assert not Counter(d.sigma for _, d in seen(window)) - both, "a sample was lost"


def test_a_state_from_before_the_pace_was_stored_goes_on(dataset):
    _, state = stopped(dataset, 3)
    (whole, _), loader = stopped(dataset, 9), make(dataset, mixture=FADING, total_steps=100, token_budget=120)
    loader.load_state_dict({k: v for k, v in state.items() if k != "pace"})
    assert [content(p) for p in take(loader, 6)] == [content(p) for p in whole[3:]]


def test_other_steps_change_nothing_where_nothing_fades(dataset):
    loader = make(dataset, total_steps=100)
    iterator = iter(loader)
    next(iterator)
    state, whole = loader.state_dict(), [content(next(iterator)) for _ in range(6)]
    longer = make(dataset, total_steps=200, accumulate=3)
    longer.load_state_dict(state)
    assert [content(p) for p in take(longer, 6)] == whole


def test_the_mixture_table_adds_up(dataset):
    table = make(dataset).mixture_table()
    assert [(r["source_name"], r["task"]) for r in table] == sorted(TASKS)
    assert sum(r["weight"] for r in table) == pytest.approx(1) == sum(r["token_share"] for r in table)


def test_a_weight_makes_a_sample_come_more_often(tmp_path):
    m = write_latents(tmp_path, {("edits", "v2v"): 12})
    table = m.table()
    weights = [5.0] + [1.0] * 11
    heavy = str(tmp_path / "latents" / "encode-heavy")
    with ManifestWriter(heavy, m.stop, m.schema) as writer:
        writer.append(set_column(table, pa.field("weight", pa.float64()), weights))
        writer.commit(**{k: m.header[k] for k in ("name", "row", "parents", "config", "versions", "encoders",
                                                  "feature_folder")})
    packs = take(make(Dataset([heavy], needs=NEEDS)), 30)
    counts = Counter(i for i, _ in seen(packs))
    heavy_id = table["sample_id"][0].as_py()
    assert counts[heavy_id] > 2 * max(n for i, n in counts.items() if i != heavy_id)
    draws = [d.sigma for i, d in seen(packs) if i == heavy_id]
    assert len(set(draws)) == len(draws)  # two copies in an epoch are drawn apart


# Bad input


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


def test_the_mapped_index_gives_the_same_stream(tmp_path):
    m = write_latents(tmp_path, TASKS)
    before = [content(p) for p in take(make(Dataset([m], needs=NEEDS)), 6)]
    write_index(m)
    assert [content(p) for p in take(make(Dataset([m], needs=NEEDS)), 6)] == before
