"""Shots and clips: cuts where an eye saw them, dissolves and fades as spans, clips of 2 to 10 s."""

from __future__ import annotations

import json

import numpy as np
import pytest

from datagen.cut import CutClips
from datagen.shots import FindShots, Transition
from manifests.media import VideoReader
from manifests.video_writer import write_video
from tests.conftest import moving_frames

HARD_CUTS = {
    "multishot_tears_of_steel.webm": [2.17, 5.08, 6.54, 9.21, 12.88],
    "multishot_bikes.mp4": [1.20, 3.04, 5.48, 7.48, 9.68],
    "multishot_nature_fades.mp4": [1.00, 6.01],
    "multishot_bbb_intro.webm": [11.79, 15.67, 22.96],
}


def find(path) -> list[Transition]:
    with VideoReader(str(path)) as reader:
        shots, found = FindShots(reader.probe.fps), []
        for frame in reader:
            shots.push(frame)
            found += shots.take_final()
    return found + shots.take_final(at_end=True)


@pytest.mark.parametrize("name", HARD_CUTS)
def test_hard_cuts_are_found_within_a_fifth_of_a_second_and_no_others(media, name):
    found = [t.start_s for t in find(media / "clips" / name) if t.start_s == t.end_s and t.start_s > 0.1]
    listed = HARD_CUTS[name]
    assert len(found) == len(listed)
    assert max(abs(a - b) for a, b in zip(found, listed, strict=True)) <= 0.2


def test_dissolve_and_fades_are_spans_around_the_listed_ones(media):
    spans = [(t.kind, t.start_s, t.end_s) for t in find(media / "clips" / "multishot_nature_fades.mp4")
             if t.end_s > t.start_s]
    listed = [("fade", 7.0, 7.8), ("fade", 11.5, 12.2), ("fade", 13.1, 13.7), ("dissolve", 17.9, 18.6),
              ("fade", 22.5, 23.1)]
    assert [k for k, *_ in spans] == [k for k, *_ in listed]
    for (_, start, end), (_, first, last) in zip(spans, listed, strict=True):
        assert start <= first + 0.1 and end >= last - 0.25 and end - start < last - first + 0.8


def test_single_shots_stay_whole(media):
    facts = json.loads((media / "media.json").read_text())["clips"]
    split = [c["file"] for c in facts if c["shots_by_eye"] == 1 and find(media / c["file"])]
    assert split == []


def test_the_films_own_cuts_are_found_on_the_frame(film):
    for video in film.videos:
        if video.broken:
            continue
        found = [t.start_s for t in find(film.path(video)) if t.kind == "cut"]
        listed = [s.start_s for s in video.shots if s.transition == "cut"]
        assert np.allclose(found, listed, atol=1 / video.fps + 1e-6), video.file


@pytest.mark.parametrize("step", [1, 2, 4])
def test_a_steady_pan_over_soft_content_is_one_shot(tmp_path, step):
    for seed in range(4):
        write_video(str(tmp_path / f"{seed}.mp4"), moving_frames(76, seed=seed, step=step), fps=25)
        assert find(tmp_path / f"{seed}.mp4") == []


def test_a_flash_is_no_cut(tmp_path):
    frames = list(moving_frames(50))
    frames[25] = np.full_like(frames[25], 250)
    write_video(str(tmp_path / "flash.mp4"), frames, fps=25)
    assert find(tmp_path / "flash.mp4") == []


def spans(cutter: CutClips, transitions: list[Transition], end_s: float, step_s: float = 0.3):
    """Feed transitions as a film would: each two seconds after it happened."""
    cutter.begin(0.0)
    out, waiting = [], list(transitions)
    for now in np.arange(0.0, end_s, step_s):
        final = [t for t in waiting if t.end_s <= now - 2.0]
        waiting = [t for t in waiting if t not in final]
        out += list(cutter.push(final, now))
    return [(round(s.start_s, 3), round(s.end_s, 3), s.transition_in) for s in [*out, *cutter.finish(waiting, end_s)]]


@pytest.mark.parametrize("transitions, end_s, expected", [
    ([], 5.0, [(0, 5, "start")]),
    ([], 10.0, [(0, 10, "start")]),
    ([], 11.0, [(0, 5.5, "start"), (5.5, 11, "split")]),
    ([], 25.0, [(0, 10, "start"), (10, 20, "split"), (20, 25, "split")]),
    ([], 21.0, [(0, 10, "start"), (10, 15.5, "split"), (15.5, 21, "split")]),
    ([Transition("cut", 4, 4)], 5.0, [(0, 4, "start"), (4, 5, "cut")]),
    ([Transition("dissolve", 4, 5)], 9.0, [(0, 4, "start"), (5, 9, "dissolve")]),
    ([Transition("fade", 0, 2)], 9.0, [(2, 9, "fade")]),
    ([Transition("cut", 30, 30)], 33.0,
     [(0, 10, "start"), (10, 20, "split"), (20, 30, "split"), (30, 33, "cut")]),
])
def test_clips_are_cut_between_transitions(transitions, end_s, expected):
    assert spans(CutClips(), transitions, end_s) == expected


def test_clips_do_not_depend_on_how_often_the_film_is_asked():
    transitions = [Transition("cut", t, t) for t in (3.3, 17.0, 48.2, 49.0)]
    expected = spans(CutClips(), transitions, 77.7)
    for step_s in (0.04, 1.0, 7.0):
        assert spans(CutClips(), transitions, 77.7, step_s) == expected
    assert all(end - start <= 10.0 + 1e-9 for start, end, _ in expected)
