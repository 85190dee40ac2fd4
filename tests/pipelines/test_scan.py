"""The one decoding pass: a verdict for every file, clips and measures from the good parts."""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa
import pytest

from filters import FILTERS
from manifests.media import VideoReader
from pipelines.scan import ScanVideos

from .conformance import EXPECTED, write_set

LIGHT = ("damage", "exposure")


def videos(paths) -> pa.Table:
    paths = [str(p) for p in paths]
    return pa.table({
        "video_id": [os.path.basename(p) for p in paths], "path": paths,
        "num_bytes": pa.array([os.path.getsize(p) if os.path.exists(p) else None for p in paths], pa.int64()),
        "issues": pa.nulls(len(paths), pa.list_(pa.string())), "drop_reason": pa.nulls(len(paths), pa.string()),
    })


def scan(paths, measures=LIGHT, **options) -> dict[str, dict]:
    return {row["video_id"]: row for row in ScanVideos(measures, **options)(videos(paths)).to_pylist()}


@pytest.fixture(scope="module")
def conformance(tmp_path_factory):
    folder = write_set(tmp_path_factory.mktemp("conformance"))
    return folder, scan(sorted(folder.iterdir()), min_clip_s=0.2)


@pytest.mark.parametrize("name", EXPECTED)
def test_the_conformance_set_gets_ten_right_verdicts(conformance, name):
    verdict, word = EXPECTED[name]
    row = conformance[1][name]
    assert row["verdict"] == verdict
    assert word in " ".join(row["issues"] or [])
    assert bool(row["issues"]) == (verdict != "good")


def test_the_good_part_of_a_damaged_file_becomes_clips(conformance):
    row = conformance[1]["corrupt_middle.mp4"]
    good = [c for c in row["clips"] if c["damaged_ratio"] == 0]
    assert sum(c["end_s"] - c["start_s"] for c in good) > 1.5  # of 4 s, with 4 % overwritten and a key frame a second
    assert any(c["damaged_ratio"] > 0 for c in row["clips"])
    assert row["num_frames_corrupt"] + row["num_decode_errors"] > 0


def test_three_frame_counts_are_kept_apart(conformance):
    truncated, variable = conformance[1]["truncated.mp4"], conformance[1]["good_variable_rate.mp4"]
    assert truncated["num_frames_header"] == truncated["num_frames_expected"] == 100
    assert 30 < truncated["num_frames_decoded"] < 80
    assert variable["is_variable_rate"] and not conformance[1]["good_h264.mp4"]["is_variable_rate"]
    assert variable["num_frames_decoded"] == 100 and abs(variable["decoded_s"] - 6.0) < 0.1


# file -> what a person would expect: verdict, shown size, decoded frames, and facts of its own
ODD = {
    "zero_byte.webm": ("empty", None, None, {}),
    "truncated_after_moov.mp4": ("no_frames", (1280, 720), 0, {"num_frames_header": 5544}),
    "bad_chunk_table.mp4": ("unreadable", None, None, {}),
    "corrupt_frames.mp4": ("damaged", (1280, 720), 49, {"num_frames_header": 50, "num_frames_corrupt": 1}),
    "rotated_90.mov": ("good", (320, 568), 3, {"rotation_deg": -90}),
    "vfr_traffic.mp4": ("good", (1280, 720), 341, {"is_variable_rate": True}),
    "hevc_10bit.mp4": ("good", (200, 200), 30, {"pixel_format": "yuv420p10le"}),
    "odd_size_321x241_vp9.mp4": ("good", (321, 241), 25, {}),
    "vp9_no_duration.webm": ("good", (1280, 720), 74, {"duration_s": None, "num_frames_expected": None}),
    "nonzero_start.mp4": ("good", (200, 112), 12, {}),
    "audio_only.mp4": ("no_video", None, None, {}),
    "one_frame.mp4": ("good", (176, 144), 1, {}),
}


def test_odd_files_get_what_a_user_would_expect(media):
    found = scan(sorted((media / "odd").iterdir()), tuple(FILTERS))
    assert set(found) == set(ODD)
    for name, (verdict, size, num, facts) in ODD.items():
        row = found[name]
        got = (row["verdict"], (row["width"], row["height"]) if row["width"] else None, row["num_frames_decoded"])
        assert got == (verdict, size, num), name
        assert {k: row[k] for k in facts} == facts, name
        assert bool(row["issues"]) == (verdict != "good"), name
    assert abs(found["nonzero_start.mp4"]["clips"][0]["start_s"]) < 1e-3  # counted from the start of the presentation
    assert found["vp9_no_duration.webm"]["clips"][0]["black_ratio"] > 0.9


def test_edit_lists_are_followed(media):
    row = scan([media / "clips" / "basketball_crowd.mp4"])["basketball_crowd.mp4"]
    assert (row["num_frames_header"], row["num_frames_decoded"]) == (265, 214)
    assert abs(row["decoded_s"] - 7.14) < 0.05 and row["verdict"] == "good"


def test_clips_and_transitions_cover_the_film_without_overlap(media):
    row = scan([media / "clips" / "multishot_nature_fades.mp4"])["multishot_nature_fades.mp4"]
    spans = sorted([(c["start_s"], c["end_s"]) for c in row["clips"]] +
                   [(t["start_s"], t["end_s"]) for t in row["transitions"] if t["end_s"] > t["start_s"]])
    assert spans[0][0] == 0 and abs(spans[-1][1] - row["decoded_s"]) < 1e-6
    assert all(abs(a[1] - b[0]) < 1e-6 for a, b in zip(spans, spans[1:], strict=False))


def test_frames_of_a_clip_are_those_inside_its_span(media):
    path = str(media / "clips" / "multishot_bikes.mp4")
    row = scan([path])["multishot_bikes.mp4"]
    with VideoReader(path) as reader:
        times = np.array([frame.time_s for frame in reader])
    for clip in row["clips"]:
        inside = (times >= clip["start_s"] - 1e-6) & (times < clip["end_s"] - 1e-6)
        assert clip["num_frames"] == inside.sum()
    assert sum(c["num_frames"] for c in row["clips"]) == len(times)


def test_a_missing_file_keeps_its_row(tmp_path):
    row = scan([tmp_path / "gone.mp4"])["gone.mp4"]
    assert row["verdict"] == "missing" and "there is no file" in row["issues"][0]


def test_measures_of_real_clips_are_what_one_sees(media):
    clips = media / "clips"
    names = ("traffic_motorway.mp4", "vertical_selfie_man.mp4", "motorcycle_pov_4k.mp4", "pair_bbb_luma.mp4",
             "pair_bbb_color.mp4")
    found = {n: scan([clips / n], tuple(FILTERS), min_clip_s=1.0)[n]["clips"][0] for n in names}
    assert found["vertical_selfie_man.mp4"]["is_human"] and found["vertical_selfie_man.mp4"]["num_faces"] >= 1
    assert not found["traffic_motorway.mp4"]["is_human"]
    assert abs(found["traffic_motorway.mp4"]["camera_pan"]) < 0.01  # a tripod
    assert found["pair_bbb_luma.mp4"]["saturation"] < 3 < 50 < found["pair_bbb_color.mp4"]["saturation"]
    assert found["pair_bbb_luma.mp4"]["colors"] == ["grey"]
    assert found["motorcycle_pov_4k.mp4"]["moving_area"] > 0.1
    for clip in found.values():
        assert abs(np.linalg.norm(clip["video_embedding"]) - 1) < 1e-5


def scripted(video, shot) -> tuple[str, float] | None:
    """Column and value that the shot's camera move should give; None for other moves and composed scenes."""
    if " before " in shot.subject or " in a " in shot.subject or " among " in shot.subject:
        return None  # the person stays while the background moves: what the camera does is open to dispute
    tilt = shot.speed * video.width / video.height  # film.json counts widths, the column frame heights
    return {"pan right": ("camera_pan", shot.speed), "pan left": ("camera_pan", -shot.speed),
            "tilt up": ("camera_tilt", tilt), "tilt down": ("camera_tilt", -tilt),
            "zoom in": ("camera_zoom", shot.speed - 1), "zoom out": ("camera_zoom", 1 - shot.speed),
            "roll clockwise": ("camera_roll", shot.speed)}.get(shot.move)


def test_camera_moves_of_the_film_are_measured_with_sign_and_speed(film):
    off = []
    for video in film.videos:
        clips = scan([film.path(video)], ("motion",))[video.file]["clips"]
        for shot in video.shots:
            middle, wanted = (shot.start_s + shot.end_s) / 2, scripted(video, shot)
            clip = next((c for c in clips if c["start_s"] < middle < c["end_s"]  # and not two shots in one
                         and c["start_s"] > shot.start_s - 1 and c["end_s"] < shot.end_s + 1), None)
            if wanted and clip and shot.end_s - shot.start_s > 2:
                column, speed = wanted
                assert 0.5 < clip[column] / speed < 1.5, (video.file, shot.start_s, shot.move)
                off.append(abs(clip[column] / speed - 1))
    assert len(off) >= 15 and np.median(off) < 0.03  # a dim sky is hard to track, the rest is exact
