"""D13 from files to samples over small films, read by other readers than ours."""

from __future__ import annotations

import json
from pathlib import Path

import av
import cv2
import numpy as np
import pandas as pd
import pytest
from skimage import data

from datagen.subtitles import LINES
from datagen.transforms import MASKED, TRANSFORMS
from manifests.errors import ConfigError
from manifests.mixtures import TABLE_1
from manifests.tasks import TASKS
from manifests.video_writer import write_video
from pipelines.pairs.transforms import PRESETS, Config, run_steps, tell_scripts
from tests.by_pandas import by_pandas
from tests.datagen.moving_object import crossing


def run(config: Config) -> dict:
    """All stops of the recipe by name."""
    return dict(run_steps(config))


def frame(manifest) -> pd.DataFrame:
    return by_pandas(manifest.path)


SHOTS = (("coffee", "chelsea"), ("chelsea", "rocket"), ("rocket", "coffee"), ("retina", "chelsea"))


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> dict:
    """Two films of two shots of 3.3 s, photographs that something crosses, and a file that is no film."""
    folder = tmp_path_factory.mktemp("transforms")
    for i, shots in enumerate((SHOTS[:2], SHOTS[2:])):
        frames = [crossing(cv2.resize(getattr(data, a)(), (480, 320)), cv2.resize(getattr(data, b)(), (200, 150)), num=80,
                           size=(320, 240))[0] for a, b in shots]
        write_video(str(folder / f"film{i}.mp4"), np.concatenate(frames), fps=24)
    (folder / "broken.mp4").write_bytes(b"no film")
    names = ("film0.mp4", "film1.mp4", "broken.mp4")
    (folder / "list.csv").write_text("\n".join(["path,licence", *(f"{n},CC-BY-4.0" for n in names)]))
    return {"input": str(folder / "list.csv"), "output": str(folder / "out"), "engine": "local", "quiet": True,
            "per_clip": 4, "seed": 1}


@pytest.fixture(scope="module")
def stops(settings):
    return run(Config(**settings))


def test_every_row_is_accounted_for_and_accepted_ones_obey_the_rules(stops):
    pairs, planned = frame(stops["pairs"]), frame(stops["candidates"])
    assert list(pairs.pair_id) == list(planned.pair_id) and stops["pairs"].validate() == []
    good = pairs[pairs.drop_reason.isna()]
    assert len(good) >= 0.7 * len(pairs) and good.edit.nunique() >= 6
    masked = good[good.edit.isin(MASKED)]
    assert len(masked) and masked.mask_area.between(0.01, 0.6).all()
    assert (masked.mask_stability >= 0.75).all() and (masked.mask_score >= 0.5).all()
    assert good[~good.edit.isin(MASKED)].mask_area.isna().all()
    dropped = pairs[pairs.drop_reason.notna()]
    assert dropped.drop_reason.str.contains("mask_|failed").all()
    assert (good.num_frames % 4 == 1).all() and good.num_frames.between(17, 97).all()
    clips = frame(stops["clips"]).set_index("clip_id")
    assert clips.loc[pairs.clip_id].drop_reason.isna().all() and (pairs.groupby("clip_id").size() == 4).all()


def test_samples_have_the_names_of_table_1_and_media_that_play(stops):
    samples, pairs = frame(stops["samples"]), frame(stops["pairs"]).set_index("pair_id")
    assert set(samples.pair_id) == set(pairs[pairs.drop_reason.isna()].index)
    for row in samples.itertuples():
        pair, messages = pairs.loc[row.pair_id], json.loads(row.inputs)
        assert row.source_name == TRANSFORMS[pair.edit].source_name and row.licence == "CC-BY-4.0"
        assert row.source_name in TABLE_1 or row.source_name == "inpainting-nomask-ref"
        kinds = [m["type"] for m in messages]
        assert TASKS[row.task].takes(tuple(kinds[: kinds.index("text")])) and kinds[-1] == "video_gen"
        assert messages[kinds.index("text")]["text"] == pair.instruction and "{" not in pair.instruction
        assert len(row.images) == kinds.count("image") and len(row.videos) == kinds.count("video") + 1
        for video in row.videos:
            with av.open(video["video_path"]) as container:
                assert container.streams.video[0].frames == round(video["duration"] * 16)
        assert all(Path(image).stat().st_size for image in row.images)


def test_the_same_command_makes_nothing_twice(settings, stops):
    media = Path(settings["output"]) / "media"
    before = {f: f.stat().st_mtime_ns for f in media.rglob("*") if f.is_file()}
    again = run(Config(**settings))
    assert {n: m.path for n, m in again.items()} == {n: m.path for n, m in stops.items()}
    assert {f: f.stat().st_mtime_ns for f in media.rglob("*") if f.is_file()} == before


def test_a_run_says_in_which_scripts_it_writes(capsys):
    tell_scripts(())
    said = capsys.readouterr().out
    assert "latin" in said and all(script in said for script in LINES)  # each is written, or named as missing


@pytest.mark.parametrize("wrong, words", [
    ({"transforms": ("rotoscope",)}, "no transform 'rotoscope'; known: video-extension"),
    ({"transforms": ("pose2video",)}, "pose2video needs --pose dwpose"),
    ({"pose": "dwpose"}, "--pose-model and --pose-detector"),
    ({"segmenter": ""}, "need a segmenter"),
    ({"max_frames": 96}, "4 n \\+ 1"),
    ({"fps": 0}, "above 0"),
    ({"fps": float("nan")}, "--fps is nan; it is a finite number above 0"),
    ({"fps": float("inf")}, "--fps is inf; it is a finite number above 0"),
    ({"fonts": ("/nonexistent",)}, "there is no folder /nonexistent, which --fonts names"),
])
def test_settings_that_cannot_work_are_told_at_once(wrong, words):
    with pytest.raises(ConfigError, match=words):
        Config(input="a", output="b", **wrong)


def test_the_cluster_preset_names_the_papers_models():
    config = Config(input="a", output="b", pose_model="p.onnx", pose_detector="d.onnx", **PRESETS["cluster"])
    kwargs = config.backends()
    assert kwargs["segmenter"] == "grounded-sam2" and kwargs["pose"] == "dwpose" and kwargs["phrases"]
    assert set(config.transforms) == set(TRANSFORMS)
