"""The stream of packs: equal for all workers and ranks, exact to resume, within its budget."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import replace

import pyarrow as pa
import pytest
import torch

from bernini.train.cost import ASK_TOKENS, CostModel
from bernini.train.dataset import Dataset, write_index
from bernini.train.loader import Loader, LoaderConfig
from manifests.columns import set_column
from manifests.errors import ConfigError, ManifestError
from manifests.ids import make_id
from manifests.manifest import ManifestWriter
from manifests.mixtures import Mixture
from manifests.schema import STOPS

from .latents import write_latents
from .streams import COST, KEEP, NEEDS, TASKS, content, make, seen, take


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


def test_the_mapped_index_gives_the_same_stream(tmp_path):
    m = write_latents(tmp_path, TASKS)
    before = [content(p) for p in take(make(Dataset([m], needs=NEEDS)), 6)]
    write_index(m)
    assert [content(p) for p in take(make(Dataset([m], needs=NEEDS)), 6)] == before
