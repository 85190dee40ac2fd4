"""D5 with a model that plans, writes and judges: references by the words for what came in, judged beside them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from annotators.parsing import InvalidAnswer
from annotators.planned_edit import as_columns
from datagen.backends import Track
from manifests.errors import BackendError
from manifests.manifest import Manifest
from manifests.spans import read_image
from pipelines.pairs.propagation_edits import FRAME, RECIPE, REF, Config, run_steps, turned_words

from .chat_answers import FINE, answering, asking
from .small_clips import SMALL

BALL, CUBE = "the blue ball on the table", "a green cube"
THERE, BACK = f"Replace {BALL} with {CUBE}.", f"Replace {CUBE} with {BALL}."
EDIT = {"object": BALL, "result": CUBE, "frame_edit": THERE, "instruction": THERE}


def excess(image: np.ndarray, channel: int) -> np.ndarray:
    """int (H, W): by how much a channel leads the other two."""
    others = np.delete(image.astype(int), channel, axis=-1)
    return image[..., channel].astype(int) - others.max(axis=-1)


class Greener:
    """An image editor that makes green of what is blue."""

    def __init__(self, **options):
        pass

    def edit(self, image, request):
        return np.where((excess(image, 2) > 40)[..., None], np.array((20, 200, 40), np.uint8), image)


class ByColour:
    """A segmenter that reads: it finds what has the colour that it is asked for, and nothing else."""

    def __init__(self, **options):
        pass

    def segment(self, frames, phrases=()):
        found = [(p, excess(frames, channel) > 40) for p in phrases
                 for word, channel in (("green", 1), ("blue", 2)) if word in p]
        if not any(mask.any() for _, mask in found):
            raise BackendError(f"there is no {', '.join(phrases)}")
        return [Track(masks=mask, phrase=p, score=0.9) for p, mask in found if mask.any()]


def say(fields: set[str], texts: str) -> dict:
    """The way there is badly judged beside its reference, the way back is not."""
    if "result" in fields:
        return EDIT
    if "executed" in fields:
        return FINE | ({"overall": 2, "reference": 2} if "reference" in fields and f"with {CUBE}" in texts else {})
    return {"instruction": BACK}


@pytest.fixture(scope="module")
def made(small_clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("asked")
    (folder / "one.csv").write_text(f"path\n{small_clips.parent / 'coffee.mp4'}\n")
    with answering(say) as server:
        config = Config(input=str(folder / "one.csv"), output=str(folder / "out"), edits=("replacement",), per_clip=1,
                        direct=(), image_editor=f"{__name__}:Greener", segmenter=f"{__name__}:ByColour",
                        **{**SMALL, **asking(server)})
        stops = dict(run_steps(config))
        num_asked = len(server.asked)
        again = {name: manifest.path for name, manifest in run_steps(config)}
    assert again == {name: manifest.path for name, manifest in stops.items()} and len(server.asked) == num_asked
    return stops, server


def by_kind(made) -> dict[tuple[str, bool], dict]:
    return {(r["source_name"], r["swapped_from"] is not None): r for r in made[0]["pairs"].table().to_pylist()}


def test_a_reference_shows_what_came_in_and_on_the_way_back_what_was_there(made):
    rows = by_kind(made)
    assert rows.keys() == {(name, way) for name in (RECIPE, REF, FRAME) for way in (False, True)}
    for back, words, channel in ((False, (BALL, CUBE), 1), (True, (CUBE, BALL), 2)):
        row = rows[REF, back]
        assert (row["edited_thing"], row["edited_result"]) == words
        assert row["reference_found_by"] == "segmenter" and row["issues"] == []
        cut = read_image(row["reference_path"])
        shown = cut[(cut < 230).any(axis=2)]
        assert len(shown) > 300 and (excess(shown, channel) > 40).mean() > 0.7


@pytest.mark.parametrize("edit, told, result, words", [
    ("removal", "", None, (BALL, BALL)),
    ("addition", BALL, BALL, (BALL, None)),
    ("replacement", CUBE, CUBE, (CUBE, BALL)),
])
def test_the_way_back_is_about_what_came_in_and_shows_what_was_there(edit, told, result, words):
    there = as_columns(EDIT | {"result": told}, {"edit": edit})
    assert (there["edited_thing"], there["edited_result"]) == (BALL, result)
    assert tuple(turned_words(there | {"edit": edit}).values()) == words


def test_an_edit_that_brings_something_in_must_name_it():
    with pytest.raises(InvalidAnswer, match="'result' is empty; after a recolour"):
        as_columns(EDIT | {"result": " "}, {"edit": "recolour"})


def test_a_variant_is_judged_beside_its_reference(made):
    stops, server = made
    rows = by_kind(made)
    there, back = rows[REF, False], rows[REF, True]
    assert there["drop_reason"] == "judge_overall<3" and there["judge_overall"] == 2
    assert back["drop_reason"] is None and back["judge_executed"] and back["judge_reason"]
    assert [back[f"judge_{m}"] for m in ("instruction", "consistency", "reference", "quality", "overall")] == [5, 4, 4, 4, 4]
    assert {r["pair_id"] for r in stops["samples"].table().to_pylist()} == {
        r["pair_id"] for key, r in rows.items() if key != (REF, False)}
    for (name, _), row in rows.items():
        assert name == REF or (row["judge_overall"], row["judge_reference"], row["drop_reason"]) == (4, None, None)
    owners = stops["pairs"].header["owners"]
    assert owners["judge_reference"]["op"] == "annotators.judge:JudgeReferenceEdit" != owners["judge_overall"]["op"]
    assert there["judge_prompt"] == back["judge_prompt"] == owners["judge_reference"]["prompt"]
    assert rows[RECIPE, True]["judge_prompt"] == owners["judge_overall"]["prompt"] != back["judge_prompt"]
    beside = [body for body in server.asked if "as the reference picture shows it" in json.dumps(body)]
    assert len(beside) == 2 and all(json.dumps(body).count('"reference:"') == 1 for body in beside)


def test_the_rules_of_the_judge_are_told_with_their_reasons(made):
    rules = {r["column"]: r for r in made[0]["references"].header["rules"]}
    assert {c: r["min"] for c, r in rules.items()} == {"judge_overall": 3, "judge_reference": 3}
    assert all(r["why"] for r in rules.values()) and made[0]["references"].header["drops"] == {"judge_overall<3": 1}
    assert Manifest.open(made[0]["pairs"].path).validate() == []
