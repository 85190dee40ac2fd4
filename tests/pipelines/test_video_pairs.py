"""D1 from files to samples: every accepted pair obeys every rule when recomputed from the tables alone."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from manifests.errors import ConfigError, InputError, RunStopped
from manifests.messages import count_tokens
from pipelines.ingest import list_videos
from pipelines.pairs.video_pairs import Config, run_steps
from tests.by_pandas import by_pandas

ROOT = Path(__file__).resolve().parents[2]


def run(config: Config) -> dict:
    """All stops of the recipe by name."""
    return dict(run_steps(config))


def frame(manifest) -> pd.DataFrame:
    """The table by another reader than ours."""
    return by_pandas(manifest.path)


@pytest.fixture(scope="module")
def clips_run(media, tmp_path_factory):
    """The recipe over all real clips and all odd files at once."""
    folder = tmp_path_factory.mktemp("real-in")
    for kind in ("clips", "odd"):
        (folder / kind).symlink_to(media / kind)
    real = folder / "in"
    real.mkdir()
    for kind in ("clips", "odd"):
        for file in (media / kind).iterdir():
            os.symlink(file, real / file.name)
    return run(Config(input=str(real), output=str(tmp_path_factory.mktemp("real-out")), engine="local", quiet=True,
                      human_balance=False))


@pytest.fixture(params=["film", "real"])
def stops(request):
    return request.getfixturevalue("film_run" if request.param == "film" else "clips_run")


def test_accepted_pairs_obey_the_rules(stops):
    pairs, clips = frame(stops["pairs"]), frame(stops["clips"]).set_index("clip_id")
    good = pairs[pairs.drop_reason.isna()]
    assert len(good)
    assert good.video_similarity.between(0.65, 0.95).all()
    for side in ("source", "target"):
        seconds = good[f"{side}_end_s"] - good[f"{side}_start_s"]
        assert seconds.between(2 - 1e-6, 10 + 1e-5).all()
        mine = clips.loc[good[f"{side}_clip_id"]]
        assert mine.drop_reason.isna().all()
        assert np.array_equal(mine.video_id, good.video_id) and np.array_equal(mine.path, good[f"{side}_path"])
    assert good.groupby("video_id").size().max() <= 100
    assert good.pair_id.is_unique and (good.source_clip_id != good.target_clip_id).all()
    embeddings = {s: np.stack(clips.loc[good[f"{s}_clip_id"]].video_embedding) for s in ("source", "target")}
    cosine = (embeddings["source"] * embeddings["target"]).sum(1)
    assert np.allclose(cosine, good.video_similarity, atol=1e-5)  # float32 product of 535 terms


def test_people_are_balanced_and_flagged_by_their_clips(film_run):
    pairs, clips = frame(film_run["pairs"]), frame(film_run["clips"]).set_index("clip_id")
    good = pairs[pairs.drop_reason.isna()]
    assert good.is_human.sum() == (~good.is_human.astype(bool)).sum() > 0
    either = clips.loc[pairs.source_clip_id].is_human.to_numpy() | clips.loc[pairs.target_clip_id].is_human.to_numpy()
    assert np.array_equal(pairs.is_human, either)


def test_people_of_the_film_are_found_where_they_are(film, film_run):
    """The classical detectors see frontal faces: some misses, no false alarm."""
    truth, seen, missed = {v.file: v for v in film.videos}, 0, 0
    clips = frame(film_run["clips"])
    for row in clips[clips.duration_s >= 2].itertuples():  # shorter ones are not looked at
        video = truth[os.path.basename(row.path)]
        shown = {s.has_people for s in video.shots if s.start_s < row.end_s - 0.5 and s.end_s > row.start_s + 0.5}
        if shown == {False}:
            assert not row.is_human, (row.path, row.start_s)
        elif shown == {True}:
            seen, missed = seen + row.is_human, missed + (not row.is_human)
    assert seen >= 10 and missed <= 3  # the small faces of composed scenes


def test_the_funnel_adds_up_at_every_stop(stops):
    for manifest in stops.values():
        table = frame(manifest)
        assert manifest.num_rows == len(table) == manifest.header["accepted"] + sum(manifest.header["drops"].values())
        assert Counter(table.drop_reason.dropna()) == manifest.header["drops"]
        assert manifest.validate() == []
    live = {name: frame(m)[lambda t: t.drop_reason.isna()] for name, m in stops.items()}
    assert set(frame(stops["clips"]).video_id) == set(live["videos"].video_id)
    per_video = live["clips"].groupby("video_id").size()
    assert len(frame(stops["candidates"])) == (per_video * (per_video - 1) // 2).sum()
    assert len(frame(stops["pairs"])) == len(frame(stops["candidates"]))
    assert set(frame(stops["samples"]).pair_id) == set(live["pairs"].pair_id)


def test_every_input_file_is_accounted_for(media, clips_run):
    videos = frame(clips_run["videos"])
    assert set(videos.relative_path) == {f.name for k in ("clips", "odd") for f in (media / k).iterdir()}
    failed = videos[videos.drop_reason.notna()]
    assert set(failed.relative_path) == {"zero_byte.webm", "truncated_after_moov.mp4", "bad_chunk_table.mp4", "audio_only.mp4"}
    assert (failed.issues.str.len() > 0).all()


def test_prompts_tell_camera_then_foreground_then_background_from_measures(film_run):
    good = frame(film_run["pairs"])[lambda t: t.drop_reason.isna()]
    assert good.instruction.str.len().min() > 40 and good.instruction.nunique() > 0.8 * len(good)
    for row in good.itertuples():
        if row.target_camera_pan > 0.05:
            assert "right" in row.instruction.split(".")[0]
        if row.target_camera_pan < -0.05:
            assert "left" in row.instruction.split(".")[0]


def test_samples_are_in_the_trainers_form(film_run):
    pairs = frame(film_run["pairs"]).set_index("pair_id")
    for row in frame(film_run["samples"]).itertuples():
        pair, messages = pairs.loc[row.pair_id], json.loads(row.inputs)
        assert [m["type"] for m in messages] == ["video", "text", "video_gen"]
        assert [m["has_loss"] for m in messages] == [0, 0, 1]
        assert messages[1]["text"] == pair.instruction and row.num_prompt_tokens == count_tokens(pair.instruction)
        source, target = row.videos
        assert (source["video_path"], source["start_s"], target["end_s"]) == (
            pair.source_path, pair.source_start_s, pair.target_end_s)


def test_rights_travel_from_a_list_to_the_samples(film, tmp_path):
    lines = ["path,licence,source_url,consent,camera"]
    lines += [f"{film.path(v)},CC-BY-4.0,http://example.org/{v.file},given,Bolex" for v in film.videos[:4]]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    stops = run(Config(input=str(tmp_path / "list.csv"), output=str(tmp_path / "out"), engine="local", quiet=True))
    samples = frame(stops["samples"])
    assert len(samples) and set(samples.licence) == {"CC-BY-4.0"} and set(samples.consent) == {"given"}
    assert samples.source_url.str.startswith("http://example.org/").all()
    assert {json.loads(e)["camera"] for e in samples.extra} == {"Bolex"}


@pytest.mark.parametrize("name, text", [
    ("list.jsonl", '{"path": "a.mp4", "camera": "Bo\u2028lex"}\r\n\n{"path": "b.mp4", "camera": "x\x85y"}'),
    ("list.csv", 'path,camera\r\na.mp4,Bo\u2028lex\r\nb.mp4,x\x85y\r\n'),
])
def test_a_line_of_a_list_ends_at_a_newline_alone(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    rows = list_videos(str(tmp_path / name)).to_pylist()
    assert [(r["relative_path"], json.loads(r["extra"])["camera"]) for r in rows] == [
        ("a.mp4", "Bo\u2028lex"), ("b.mp4", "x\x85y")]


def test_a_changed_threshold_redoes_only_what_depends_on_it(film, film_run, tmp_path):
    shutil.copytree(Path(film_run["videos"].path).parents[1], tmp_path / "out")
    config = Config(input=str(film.videos_folder), output=str(tmp_path / "out"), engine="local", quiet=True,
                    similarity_min=0.7, human_balance=False)
    changed = run(config)
    for name in ("videos", "clips"):
        assert Path(changed[name].path).name == Path(film_run[name].path).name
    for name in ("pairs", "samples"):
        assert Path(changed[name].path).name != Path(film_run[name].path).name
    good = frame(changed["pairs"])[lambda t: t.drop_reason.isna()]
    assert good.video_similarity.min() >= 0.7


def test_order_and_place_of_the_input_do_not_change_the_result(film, film_run, tmp_path):
    """The same files in another folder, copied in another order: equal rows but for the paths."""
    (tmp_path / "in").mkdir()
    for video in reversed(film.videos):
        shutil.copy(film.path(video), tmp_path / "in" / video.file)
    again = run(Config(input=str(tmp_path / "in"), output=str(tmp_path / "out"), engine="local", quiet=True))
    paths = ["source_path", "target_path"]
    assert frame(again["pairs"]).drop(columns=paths).to_json() == frame(film_run["pairs"]).drop(columns=paths).to_json()


def command(film, out, *more) -> list[str]:
    return [sys.executable, "-m", "pipelines", "run", "video-pairs", "--input", str(film.videos_folder),
            "--output", str(out), "--no-report", "--quiet", *more]


def tree(out) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in Path(out).rglob("*") if p.is_file()}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_killed_at_random_moments_and_resumed_it_ends_the_same(film, tmp_path, engine):
    """SIGKILL of the driver at ten random moments (each run is killed until one gets through)."""
    out, kept = tmp_path / "out", tmp_path / "kept"
    whole = command(film, out, "--engine", engine)
    begin = time.time()
    subprocess.run(whole, cwd=ROOT, check=True, capture_output=True)
    lasted = time.time() - begin
    shutil.move(out, kept)
    rng, kills = random.Random(0), 0
    while kills < 10:
        child = subprocess.Popen(whole, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            child.wait(timeout=rng.uniform(0.3, lasted))
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.wait()
            kills += 1
            continue
        assert child.returncode == 0 and tree(out) == tree(kept)
        shutil.rmtree(out)
    subprocess.run(whole, cwd=ROOT, check=True, capture_output=True)
    assert tree(out) == tree(kept)


def test_nothing_accepted_is_a_failure_with_its_reasons(make_video, tmp_path):
    make_video("a.mp4", num_frames=60, folder=tmp_path)
    with pytest.raises(RunStopped, match="no row of pairs|no row of clips|no row of candidates"):
        run(Config(input=str(tmp_path), output=str(tmp_path / "out"), engine="local", quiet=True))


def test_an_output_inside_the_input_is_not_taken_for_input(make_video, tmp_path):
    make_video("a.mp4", num_frames=150, shots=2, folder=tmp_path)
    for _ in range(2):
        with pytest.raises(RunStopped):
            run(Config(input=str(tmp_path), output=str(tmp_path / "out"), engine="local", quiet=True, similarity_min=0.9))
    assert len(list((tmp_path / "out" / "videos").iterdir())) == 1


@pytest.mark.parametrize("settings, words", [
    ({"similarity_min": 0.9, "similarity_max": 0.8}, "similarity_min 0.9 must be below similarity_max 0.8"),
    ({"clip_min_s": 5, "clip_max_s": 4}, "clip_min_s 5 must be above 0 and below clip_max_s 4"),
    ({"annotator": "openai"}, "needs --url"),
    ({"max_failed_share": 0}, "max_failed_share is 0"),
])
def test_wrong_settings_are_refused_before_anything_runs(settings, words):
    with pytest.raises(ConfigError, match=words):
        Config(input="a", output="b", **settings)


@pytest.mark.parametrize("prepare, words", [
    (lambda f: f / "missing", "does not exist"),
    (lambda f: f, "holds no files"),
    (lambda f: (f / "x.csv").write_text("name\nfoo\n") and f / "x.csv", "none of the columns path, uri"),
    (lambda f: (f / "x.jsonl").write_text("{broken\n") and f / "x.jsonl", "cannot read the list"),
    (lambda f: f / "none.parquet", "does not exist"),
])
def test_an_unusable_input_is_one_clear_error(tmp_path, prepare, words):
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError, match=words):
        run(Config(input=str(prepare(tmp_path / "in")), output=str(tmp_path / "out"), engine="local", quiet=True))
