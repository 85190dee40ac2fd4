"""D12 over the pairs of another recipe: words about the edited frame, then the frame, then the clip."""

from __future__ import annotations

import json

import av
import numpy as np
import pytest
from PIL import Image

from manifests.errors import ConfigError
from manifests.trainer_preflight import preflight
from pipelines.pairs.reasoning_vision_text import EDITS, Config, run_steps


@pytest.fixture(scope="module")
def made(propagated, tmp_path_factory):
    out = str(tmp_path_factory.mktemp("vision"))
    config = Config(input=propagated[1]["pairs"].path, output=out, engine="local", quiet=True)
    return config, dict(run_steps(config))


def first_frame(path: str) -> np.ndarray:
    with av.open(path) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24").astype(int)


def test_samples_learn_the_words_then_the_edited_frame_then_the_clip(propagated, made):
    given = {r["pair_id"]: r for r in propagated[1]["pairs"].table().to_pylist()}
    rows = {r["pair_id"]: r for r in made[1]["pairs"].table().to_pylist()}
    assert rows.keys() == given.keys()
    samples = made[1]["samples"].table().to_pylist()
    assert len(samples) >= 15 and {"v2v", "vr2v"} == {s["task"] for s in samples}
    for sample in samples:
        row, messages = rows[sample["pair_id"]], json.loads(sample["inputs"])
        kinds = [m["type"] for m in messages]
        references = ["image"] * (sample["task"] == "vr2v")
        assert kinds == ["video", *references, "text", "cot_text", "image_gen", "video_gen"]
        assert [m["has_loss"] for m in messages][-4:] == [0, 1, 1, 1]
        assert messages[-4]["text"] == given[sample["pair_id"]]["instruction"]
        assert messages[-3]["text"].startswith("Edited frame: ") and "Through the clip: " in messages[-3]["text"]
        assert sample["images"][-1] == row["edited_path"] and len(sample["images"]) == 1 + len(references)
        preflight(sample)


def test_the_intermediate_is_the_edited_first_frame(made):
    for row in [r for r in made[1]["pairs"].table().to_pylist() if r["drop_reason"] is None]:
        before, edited = (np.asarray(Image.open(row[name]).convert("RGB")).astype(int) for name in ("frame_path", "edited_path"))
        assert np.abs(edited - first_frame(row["target_path"])).mean() < 2
        assert np.abs(before - first_frame(row["source_path"])).mean() < 2
        assert row["edited_gap"] == 0 and row["edited_share"] >= 0.003
        assert (np.abs(edited - before).max(axis=2) > 20).mean() > 0.003


def test_an_edit_of_the_whole_frame_is_told_as_one(made):
    rows = [r for r in made[1]["pairs"].table().to_pylist() if r["drop_reason"] is None]
    told = {r["pair_id"]: (r["edited_share"], r["frame_reasoning"].split("\n")[0]) for r in rows}
    whole = {name for name, (share, _) in told.items() if share > 0.5}
    assert 0 < len(whole) < len(told) and {r["edit"] for r in rows if r["pair_id"] in whole} == {"style"}
    for name, (_, seen) in told.items():
        assert seen.startswith("Edited frame: The whole frame changed: ") == (name in whole)
        assert name in whole or " of the frame" in seen


def test_given_first_frames_leave_nothing_to_think_of(made):
    dropped = [r for r in made[1]["pairs"].table().to_pylist() if r["task"] == "vi2v"]
    assert dropped and all(r["drop_reason"] == "task is vi2v" for r in dropped) and "vi2v" not in EDITS


class Negative:
    """An image editor that turns the picture over, whatever it is told: never what the target shows."""

    def edit(self, image, request):
        assert request.instruction
        return 255 - image


def test_an_editor_that_made_another_picture_than_the_target_is_held_against_it(propagated, tmp_path):
    config = Config(input=propagated[1]["pairs"].path, output=str(tmp_path), engine="local", quiet=True,
                    image_editor=f"{__name__}:Negative")
    from manifests.errors import RunStopped

    with pytest.raises(RunStopped, match="edited_gap>12"):
        list(run_steps(config))


def test_again_is_finished_and_wrong_settings_are_told(made, propagated):
    assert {n: m.path for n, m in run_steps(made[0])} == {n: m.path for n, m in made[1].items()}
    with pytest.raises(ConfigError, match="cannot read an instruction"):
        Config(input="a", output="b", image_editor="classical")
    with pytest.raises(ConfigError, match="holds samples; reasoning needs --input"):
        list(run_steps(Config(input=propagated[1]["samples"].path, output="b")))
