"""The prompt bank: what enters, what leaves, and that nobody's order matters."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from annotators.edit_prompt import DrawCandidates
from annotators.prompt_bank import HashedNgrams, PromptBank
from manifests.errors import ConfigError

VERBS = ("Paint", "Remove", "Replace", "Blur", "Add", "Enlarge", "Freeze", "Mirror", "Melt", "Age")
THINGS = ("the red car", "the tall tree", "a sleeping cat", "the old bridge", "her blue coat", "the night sky",
          "a bowl of fruit", "the broken window", "his left hand", "the crowd behind them")
PROMPTS = [f"{verb} {thing}" for verb in VERBS for thing in THINGS]


def test_rewordings_are_near_and_other_ideas_are_far():
    a, b, c = HashedNgrams().embed(["Remove the red car", "remove the red car!", "Turn the sky into a stormy night"])
    assert a @ b > 0.99 and a @ c < 0.4


def test_new_ideas_enter_and_repeats_are_refused(tmp_path):
    bank = PromptBank(str(tmp_path), min_novelty=0.35)
    bank.offer(["Remove the red car", "Turn the sky into a stormy night"])
    assert len(bank.close_round().entered) == 2
    bank.offer(["Remove the red car.", "Put a straw hat on the dog"])
    closed = bank.close_round()
    assert closed.entered == ("Put a straw hat on the dog",) and closed.refused == ("Remove the red car.",)
    assert bank.novelty("remove the red car")[0] < 0.05


def test_at_capacity_the_least_diverse_leaves(tmp_path):
    bank = PromptBank(str(tmp_path), capacity=3, min_novelty=0.0)
    bank.offer(["Remove the red car", "Remove the red cart", "Turn the sky into a stormy night"])
    bank.close_round()
    bank.offer(["Put a straw hat on the dog"])
    closed = bank.close_round()
    assert len(bank) == 3 and len(closed.left) == 1 and closed.left[0].startswith("Remove the red car")
    assert "Put a straw hat on the dog" in bank.prompts


def test_order_number_of_workers_and_repeated_offers_do_not_matter(tmp_path):
    results = []
    for trial, num_workers in enumerate((1, 3, 8)):
        folder = str(tmp_path / str(trial))
        PromptBank(folder, capacity=20, min_novelty=0.2)
        for part in (PROMPTS[:50], PROMPTS[50:]):
            shuffled = random.Random(trial).sample(part, len(part))
            for worker in range(num_workers):
                mine = shuffled[worker::num_workers]
                PromptBank(folder).offer(mine)
                PromptBank(folder).offer(mine)  # a worker that died and did it again
            PromptBank(folder).close_round()
        results.append(PromptBank(folder).prompts)
    assert len(results[0]) == 20 and results[0] == results[1] == results[2]


def test_real_processes_offer_at_the_same_time(tmp_path):
    PromptBank(str(tmp_path), min_novelty=0.0)
    code = ("import sys; from annotators.prompt_bank import PromptBank; b = PromptBank(sys.argv[1]);"
            "[b.offer([f'do thing {sys.argv[2]} number {i}']) for i in range(40)]")
    runs = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(w)]) for w in range(3)]
    assert [run.wait(60) for run in runs] == [0, 0, 0]
    assert len(PromptBank(str(tmp_path)).close_round().entered) == 120


def test_the_bank_outlives_its_process_and_keeps_its_settings(tmp_path):
    PromptBank(str(tmp_path), capacity=7, min_novelty=0.5)
    bank = PromptBank(str(tmp_path), capacity=99)
    assert (bank.capacity, bank.min_novelty) == (7, 0.5)
    bank.offer(["Remove the red car"])
    bank.close_round()
    again = PromptBank(str(tmp_path))
    assert again.prompts == ["Remove the red car"] and again.round == 1
    assert again.sample("f-1", 5) == ["Remove the red car"]


def test_unusable_settings_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="capacity >= 1"):
        PromptBank(str(tmp_path), capacity=0)


def test_candidates_are_drawn_by_the_row_and_not_by_its_place(tmp_path):
    import pyarrow as pa

    pool = tmp_path / "pool.txt"
    pool.write_text("\n".join(PROMPTS))
    table = pa.table({"frame_id": ["f-1", "f-2", "f-3"], "issues": pa.nulls(3, pa.list_(pa.string()))})
    drawn = DrawCandidates(str(pool), num=4)(table)["candidates"].to_pylist()
    assert all(len(set(c)) == 4 for c in drawn) and drawn[0] != drawn[1]
    assert DrawCandidates(str(pool), num=4)(table.slice(1, 1))["candidates"].to_pylist() == drawn[1:2]
