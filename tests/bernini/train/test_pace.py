"""Pair data fades over the packs of a run, also where steps or packs a step change."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from bernini.train.pace import Pace
from manifests.mixtures import Mixture

from .streams import content, make, seen, take


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
