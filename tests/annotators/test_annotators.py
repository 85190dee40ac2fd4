"""The contract of every annotator, and what the classical ones say without a model."""

from __future__ import annotations

import pickle
from pkgutil import resolve_name

import cv2
import pyarrow as pa
import pytest

from annotators import ANNOTATORS, serve_check
from annotators.ask import Annotator
from annotators.backends import wording
from annotators.judge import JudgeEdit, JudgePictureEdit
from annotators.swap_prompt import RewriteSwapped
from manifests.columns import ISSUES, set_column
from manifests.errors import ConfigError
from manifests.spans import read_frames
from manifests.video_writer import write_video

from .chat_server import chat_server
from .conftest import MEASURE_FIELDS, measures

MEASURED = {"people", "transition", "instruction", "difference", "key-frames", "rewrite", "swap", "removal", "reasoning", "judge",
            "judge-picture", "judge-reference", "choose-edit", "invent-edit", "motion", "motion-edit", "person",
            "planned-edit", "frame-reasoning", "references"}


@pytest.fixture
def table(film, tmp_path) -> pa.Table:
    """Three rows with every column; the files of the middle one cannot be read."""
    good = serve_check.sample_table(str(tmp_path), film)
    for field in (*MEASURE_FIELDS, pa.field("num_faces", pa.int32()), pa.field("num_bodies", pa.int32())):
        good = set_column(good, field, [{**measures(), "num_faces": 1, "num_bodies": 0}[field.name]])
    broken = good
    for name in ("path", "source_path", "target_path", "frame_path", "edited_path", "reference_path"):
        broken = set_column(broken, good.schema.field(name), ["/nowhere/x.mp4"])
    for name in ("images", "reference_paths"):
        broken = set_column(broken, good.schema.field(name), [["/nowhere/x.png"]])
    return pa.concat_tables([good, broken, good])


@pytest.mark.parametrize("backend", ["classical", "openai"])
@pytest.mark.parametrize("name", ANNOTATORS)
def test_contract(name, backend, table, tmp_path):
    before = table.to_pylist()
    with chat_server() as server:
        options = {"urls": server.url, "num_frames": 2, "long_px": 96} if backend == "openai" else {}
        op = serve_check.open_annotator(name, str(tmp_path), backend=backend, **options)
        reads, adds = type(op).contract(backend)
        assert (reads, adds) == (op.reads, op.adds) and set(reads) <= set(table.column_names)
        made, again = op(table), op(table)
        empty = op(table.slice(0, 0))
    assert table.to_pylist() == before and made.num_rows == 3 and empty.num_rows == 0
    assert made["path"].to_pylist() == table["path"].to_pylist()
    late = f"{op.question.name}_latency_s"
    assert made.drop_columns([late]).equals(again.drop_columns([late]))
    for field in adds:
        assert made.schema.field(field.name).type == empty.schema.field(field.name).type == field.type
        assert field.metadata[b"doc"]
    first = op.question.adds[0].name
    values, issues = made[first].to_pylist(), made["issues"].to_pylist()
    if not op.question.views:  # it asks about texts alone
        assert None not in values and not any(issues)
    elif backend == "openai":
        assert values[1] is None and "/nowhere/x" in issues[1][0] and len(issues[1]) == 1
        assert None not in (values[0], values[2]) and not issues[0] and not issues[2]
        assert made[f"{op.question.name}_model"].to_pylist() == ["m", None, "m"]
    elif name not in MEASURED:
        assert values == [None] * 3 and all("backend='openai'" in lines[0] for lines in issues)
    pickle.loads(pickle.dumps((type(op), {"backend": backend})))


def test_every_class_is_registered_and_names_an_owner_of_its_columns():
    classes = {resolve_name(path) for path in ANNOTATORS.values()}
    assert classes == set(Annotator.__subclasses__())
    for cls in classes:
        owner = cls.owners("openai", model="qwen")[cls.question.adds[0].name]
        assert owner["model"] == "qwen" and owner["prompt"] == cls.question.version


def test_the_address_does_not_change_what_a_stage_is():
    assert {"urls", "cache", "concurrency"} <= set(Annotator.neutral) and "model" not in Annotator.neutral


def test_unknown_backends_and_options_are_named():
    cls = resolve_name(ANNOTATORS["people"])
    with pytest.raises(ConfigError, match="no annotator backend 'gpt'; known: classical, openai, vllm"):
        cls("gpt")
    with pytest.raises(ConfigError, match="cannot be opened so.*temprature"):
        cls("openai", urls="http://127.0.0.1:1/v1", temprature=1)
    with pytest.raises(ConfigError, match="pip install vllm"):
        cls("vllm", model="x")


@pytest.mark.parametrize("forward, back", [
    ("Remove the dog from the video.", "Add the dog to the video."),
    ("Add a red hat to the scene", "Remove a red hat from the scene."),
    ("Replace the car with a bus", "Replace a bus with the car."),
    ("Turn the grass into snow.", "Turn snow into the grass."),
    ("Make it dramatic", None), (None, None),
])
def test_plain_orders_are_turned_round_and_others_are_not_guessed(forward, back):
    table = pa.table({"forward_instruction": pa.array([forward], pa.string())}).append_column(
        ISSUES, pa.nulls(1, ISSUES.type))
    made = RewriteSwapped()(table)
    assert made["instruction"].to_pylist() == [back] and bool(made["issues"][0].as_py()) == (back is None)


def judged(photo_film, tmp_path, edit) -> dict:
    frames = list(read_frames(photo_film, [i / 6 for i in range(12)]))
    paths = [str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4")]
    write_video(paths[0], frames, fps=6)
    write_video(paths[1], (edit(f.copy()) for f in frames), fps=6, crf=28)
    row = {"source_path": paths[0], "source_start_s": 0.0, "source_end_s": 2.0, "target_path": paths[1],
           "target_start_s": 0.0, "target_end_s": 2.0, "issues": None}
    table = pa.Table.from_pylist([row])
    return JudgeEdit()(set_column(table, ISSUES, [None])).to_pylist()[0]


def test_a_copy_is_not_executed_and_gets_no_other_mark(photo_film, tmp_path):
    row = judged(photo_film, tmp_path, lambda frame: frame)
    assert (row["judge_executed"], row["judge_instruction"], row["judge_overall"]) == (False, 1, 1)
    assert row["judge_consistency"] is None and row["judge_quality"] is None and row["judge_model"] == "classical"


def test_a_visible_edit_is_left_to_a_model(photo_film, tmp_path):
    row = judged(photo_film, tmp_path, lambda frame: cv2.rectangle(frame, (30, 20), (80, 70), (255, 0, 0), -1))
    assert row["judge_executed"] is None and row["judge_overall"] is None
    assert "only a model can judge" in row["issues"][0]


def test_the_not_executed_rule_overrules_the_model():
    answer = {"reason": "a copy", "executed": False, "instruction": 4, "consistency": 5, "quality": 5, "overall": 4}
    made = JudgeEdit.question.parse(answer, {})
    assert made == {"judge_executed": False, "judge_instruction": 1, "judge_overall": 1, "judge_reason": "a copy"}


def test_pictures_are_judged_as_clips_are(photo_film, tmp_path):
    picture = next(iter(read_frames(photo_film, [0.0])))
    paths = [str(tmp_path / f"{n}.png") for n in range(3)]
    for path, image in zip(paths, (picture, picture, 255 - picture), strict=True):
        cv2.imwrite(path, image)
    table = pa.table({"source_path": [paths[0]] * 2, "target_path": paths[1:], "issues": pa.array([[], []], ISSUES.type)})
    copy, other = JudgePictureEdit()(table).to_pylist()
    assert (copy["judge_executed"], copy["judge_overall"], other["judge_executed"]) == (False, 1, None)
    assert "clip" not in JudgePictureEdit.question.prompt and "video" not in JudgePictureEdit.question.prompt


def test_numbers_of_words_agree():
    assert wording.count_in_words(1) == "one" and wording.count_in_words(12) == "12"


def test_serve_check_fails_when_a_server_ignores_schemas(capsys):
    from .chat_server import completion

    with chat_server(behave=lambda h, b: h.reply(200, completion("Sure! I can help.")) or True) as server:
        assert serve_check.main([server.url, "--only", "people", "judge"]) == 1
    out = capsys.readouterr().out
    assert out.count("NOT VALID") == 2 and "0 of 2 annotators" in out


def test_serve_check_says_when_nobody_is_there(capsys):
    assert serve_check.main(["http://127.0.0.1:9/v1", "--wait-s", "0.2"]) == 3
    assert "no model server answered" in capsys.readouterr().err
