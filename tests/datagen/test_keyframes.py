"""Which moments become key frames, and which pairs of them are listed."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from datagen.image_pairs import PairFrames
from datagen.keyframes import is_picture, key_times
from manifests.errors import ManifestError


def clip(start_s: float, end_s: float, transition: str = "cut") -> dict:
    return {"start_s": start_s, "end_s": end_s, "transition_in": transition}


def test_every_shot_gives_one_and_long_shots_more():
    times = key_times([clip(0, 1, "start"), clip(1, 7), clip(7, 17), clip(17, 22, "split")], every_s=2, max_frames=60)
    assert times[0] == (0.5, 0) and [t for t, shot in times if shot == 1] == [2.0, 4.0, 6.0]
    assert sum(shot == 2 for _, shot in times) == 5 + 2 and max(shot for _, shot in times) == 2  # the split is no cut
    assert times == sorted(times)


def test_too_many_are_thinned_evenly():
    clips = [clip(i, i + 1) for i in range(500)]
    times = np.array([t for t, _ in key_times(clips, every_s=2, max_frames=60)])
    assert len(times) == 60 and times[0] == 0.5 and times[-1] == 499.5
    assert np.ptp(np.diff(times)) <= 1
    assert key_times([], every_s=2, max_frames=60) == []


@pytest.mark.parametrize("container, expected", [("png_pipe", True), ("jpeg_pipe", True), ("image2", True), ("gif", False),
                                                 ("mov,mp4,m4a,3gp,3g2,mj2", False), (None, False), ("", False),
                                                 ("avif", True)])
def test_pictures_are_known_by_their_container(container, expected):
    assert is_picture(container) is expected


def frames(num: int, video: str = "v", seed: int = 0) -> pa.Table:
    vectors = np.random.default_rng(seed).normal(1, 0.35, (num, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    columns = {"frame_id": [f"{video}{i}" for i in range(num)], "video_id": [video] * num, "path": ["a.mp4"] * num,
               "frame_index": pa.array(range(num), pa.int32()), "time_s": [2.0 * i for i in range(num)],
               "frame_embedding": pa.array(list(vectors), pa.list_(pa.float32()))}
    columns |= {n: pa.array([1] * num, pa.int32()) for n in ("width", "height", "shot_index")}
    columns |= {"sharpness": pa.array([50.0] * num, pa.float32())}
    return pa.table(columns | {n: pa.nulls(num, pa.string()) for n in ("licence", "source_url", "consent", "extra")})


def test_all_frames_of_a_film_are_compared_and_no_others():
    table = pa.concat_tables([frames(5, "a"), frames(4, "b", 1), frames(1, "c")])
    rows = PairFrames(recipe="r")(table).to_pylist()
    assert len(rows) == 10 + 6 and {r["source_frame_id"][0] + r["target_frame_id"][0] for r in rows} == {"aa", "bb"}
    vectors = np.stack(frames(5, "a")["frame_embedding"].to_pylist())
    for row in rows[:10]:
        i, j = int(row["source_frame_id"][1:]), int(row["target_frame_id"][1:])
        assert i < j and row["gap_s"] == 2.0 * (j - i) and row["gap_share"] == pytest.approx((j - i) / 4)
        assert row["frame_similarity"] == pytest.approx(float(vectors[i] @ vectors[j]), abs=1e-5)
        assert row["source_time_s"] == 2.0 * i and row["source_start_s"] is None and row["task"] == "i2i"
    assert PairFrames(recipe="r")(frames(1)).num_rows == 0


def test_a_long_film_lists_a_bounded_number_inside_the_band_first():
    rows = PairFrames(recipe="r", max_listed=100)(frames(60)).to_pylist()
    assert len(rows) == 100 and all(0.75 <= r["frame_similarity"] <= 0.95 for r in rows)
    assert rows[0]["num_candidates"] == 60 * 59 // 2
    steps = [int(r["target_frame_id"][1:]) - int(r["source_frame_id"][1:]) for r in rows]
    assert np.median(steps) > 5 and len({r["source_frame_id"] for r in rows}) > 30


def test_a_table_without_its_columns_is_refused():
    with pytest.raises(ManifestError, match="PairFrames reads frame_embedding"):
        PairFrames(recipe="r")(frames(3).drop_columns(["frame_embedding"]))
