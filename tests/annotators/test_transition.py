"""What a reader of the manifest sees in `transition` and `instruction`."""

from __future__ import annotations

import base64
import json

import cv2
import numpy as np
import pyarrow as pa
import pytest

from annotators.backends import classical
from annotators.transition import DescribeTransition, RefineTransition

from .chat_server import chat_server
from .conftest import PAIR_SCHEMA, measures


def told(**changes) -> str:
    row = {"pair_id": "p-0000000000000001", "transition": "t", **measures(**changes)}
    return RefineTransition()(pa.Table.from_pylist([row], PAIR_SCHEMA))["instruction"][0].as_py()


def test_camera_comes_first_then_foreground_then_background():
    text = told(target_camera_pan=0.1, target_num_faces=1, target_brightness=160.0)
    assert text.index("pan") < text.index("face") < text.index("brighter")


@pytest.mark.parametrize("change, words", [
    ({"target_camera_pan": 0.1}, "to the right"), ({"target_camera_pan": -0.1}, "to the left"),
    ({"target_camera_tilt": 0.1}, "up"), ({"target_camera_tilt": -0.1}, "down"),
    ({"target_camera_zoom": 0.1}, "closes in"), ({"target_camera_zoom": -0.1}, "draws back"),
    ({"target_camera_roll": 9.0}, "turns clockwise"), ({"target_camera_roll": -9.0}, "counter-clockwise"),
    ({"target_moving_drift": 0.2}, "to the right"), ({"target_moving_drift": -0.2}, "to the left"),
    ({"target_brightness": 70.0}, "darker"), ({"target_saturation": 20.0}, "less colourful"),
    ({"target_colors": ["blue"]}, "lue"), ({"target_num_faces": 2}, "wo faces"),
    ({"target_layout": [10.0] + [100.0] * 8}, "upper left"), ({"target_sharpness": 900.0}, "crisper"),
    ({}, "static"),
])
def test_signs_and_facts(change, words):
    assert words in told(**change) or (not change and any(w in told() for w in ("holds still", "does not move")))


def test_what_was_not_measured_is_not_told():
    text = told(**{name: None for name in classical.MEASURES if "brightness" not in name})
    assert "bright" in text.lower() and not any(w in text for w in ("camera", "face", "colour", "moves", "contrast"))


def test_an_unsure_camera_is_not_told():
    assert "camera" not in told(target_camera_pan=0.5, target_camera_fit=0.1).lower()


def test_wording_varies_over_pairs_and_stays_for_each(pairs):
    rows = [{"pair_id": f"p-{i:016x}", "transition": "t", **measures()} for i in range(200)]
    table = pa.Table.from_pylist(rows, PAIR_SCHEMA)
    texts = RefineTransition()(table)["instruction"].to_pylist()
    assert len(set(texts)) > 20
    assert texts == RefineTransition()(table.slice(0))["instruction"].to_pylist()


def test_nothing_measured_is_an_issue_not_a_sentence():
    row = {"pair_id": "p-1", **{name: None for name in classical.MEASURES}}
    made = RefineTransition()(DescribeTransition()(pa.Table.from_pylist([row], PAIR_SCHEMA)))
    assert made["instruction"].to_pylist() == [None] and made["instruction_model"].to_pylist() == [None]
    assert "nothing was measured" in made["issues"][0].as_py()[0]


def test_openai_fills_columns_and_evidence_and_spares_the_neighbours(pairs):
    with chat_server() as server:
        coarse = DescribeTransition("openai", urls=server.url, num_frames=2)
        fine = RefineTransition("openai", urls=server.url, num_frames=2, keep_raw=True)
        made = fine(coarse(pairs))
    rows = made.to_pylist()
    assert [r["instruction"] for r in rows] == ["It pans left. He walks. A wall."] * 3 + [None] + [
        "It pans left. He walks. A wall."]
    assert [len(r["issues"] or []) for r in rows] == [0, 0, 0, 2, 0]
    assert "cannot open /nowhere/x.mp4" in rows[3]["issues"][0]
    first = rows[0]
    assert first["instruction_model"] == "m" and first["instruction_prompt"].startswith("instruction-")
    assert (first["instruction_tokens_in"], first["instruction_tokens_out"]) == (11, 7)
    assert first["instruction_latency_s"] > 0 and json.loads(first["instruction_raw"])["camera"] == "It pans left."
    assert made.schema.names[len(pairs.schema.names):][0] == "transition_model"
    assert rows[3]["instruction_model"] is None


def test_the_model_sees_frames_of_both_clips_in_order_of_time(pairs):
    with chat_server() as server:
        DescribeTransition("openai", urls=server.url, num_frames=2, long_px=80)(pairs.slice(0, 1))
    body = server.asked[0]
    content = body["messages"][0]["content"]
    labels = [p["text"] for p in content[1:] if p["type"] == "text"]
    images = [_decode(p["image_url"]["url"]) for p in content if p["type"] == "image_url"]
    assert labels == ["source clip, frame 1 of 2, 0.5 s:", "source clip, frame 2 of 2, 1.5 s:",
                      "target clip, frame 1 of 2, 0.5 s:", "target clip, frame 2 of 2, 1.5 s:"]
    assert [image.shape for image in images] == [(60, 80, 3)] * 4
    red = [image[..., 2].mean() > image[..., 0].mean() for image in images]
    assert red == [True, True, False, False]
    assert body["response_format"]["json_schema"]["schema"]["required"] == ["transition"]


def _decode(uri: str) -> np.ndarray:
    data = base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def test_motion_is_not_told_where_the_camera_is_unsure():
    text = told(source_camera_fit=0.1, target_camera_fit=0.1, target_moving_area=0.6, target_moving_drift=0.5)
    assert "mov" not in text.replace("remov", "") and "motion" not in text and "camera" not in text


def test_headline_and_instruction_agree_about_motion():
    row = {"pair_id": "p-1", **measures(source_moving_area=0.06, target_moving_area=0.18)}
    made = RefineTransition()(DescribeTransition()(pa.Table.from_pylist([row], PAIR_SCHEMA))).to_pylist()[0]
    assert "more of the picture moves" in made["transition"] and "more than in the source" in made["instruction"]
