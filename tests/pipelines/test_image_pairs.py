"""Image pairs from files to samples: the numbers hold when they are worked out again by other means."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import av
import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from manifests.columns import FAILED
from manifests.errors import ConfigError, RunStopped
from pipelines.pairs.image_pairs import Config, run_steps
from tests.conftest import moving_frames
from tests.filters.test_frames import tiny_clip  # noqa: F401  a fixture

from .test_video_pairs import frame as rows_of


def run(config: Config) -> dict:
    """All stops of the recipe by name."""
    return dict(run_steps(config))


@pytest.fixture
def stops(image_run):
    return image_run


def good(table: pd.DataFrame) -> pd.DataFrame:
    return table[table.drop_reason.isna()]


def decoded(path: str, time_s: float) -> np.ndarray:
    """The frame on screen then, read by PyAV alone."""
    with av.open(path) as container:
        last = None
        for image in container.decode(video=0):
            if image.time - (container.start_time or 0) / av.time_base > time_s + 1e-6:
                break
            last = image
        return last.to_ndarray(format="rgb24")


def test_films_are_not_decoded_again_for_another_recipe(film_run, stops):
    assert Path(stops["videos"].path).name == Path(film_run["videos"].path).name


def test_every_shot_has_key_frames_evenly_spread(stops):
    frames, videos = rows_of(stops["frames"]), rows_of(stops["videos"])
    assert set(frames.video_id) == set(good(videos).video_id)
    for video in good(videos).itertuples():
        times = frames[frames.video_id == video.video_id].time_s.to_numpy()
        assert (np.diff(times) > 0).all() and len(times) <= 60
        for clip in video.clips:
            inside = times[(times > clip["start_s"]) & (times < clip["end_s"])]
            assert len(inside) == max(1, round((clip["end_s"] - clip["start_s"]) / 2.0))
            assert inside.max() < clip["end_s"] - 0.2 * (clip["end_s"] - clip["start_s"]) / len(inside)
    own = frames.groupby("video_id").time_s.shift()
    assert own.equals(frames.neighbour_s) and (frames.num_siblings == frames.groupby("video_id").transform("size")).all()


def test_accepted_frames_obey_the_rules_and_measures_can_be_repeated(stops):
    frames = rows_of(stops["frames"])
    kept = good(frames)
    assert (kept.sharpness >= 20).all() and (kept.dark_area <= 0.9).all()
    assert not (kept.neighbour_motion < 0.004).any() and not (kept.neighbour_scaling > 0.5).any()
    dropped = frames[frames.drop_reason.notna()]
    assert {"neighbour_scaling>0.5", "neighbour_motion<0.004"} <= set(dropped.drop_reason)
    failed = dropped[dropped.drop_reason.str.startswith(FAILED)]
    assert (failed.issues.str.len() > 0).all()
    for row in kept.iloc[::15].itertuples():
        grey = cv2.cvtColor(decoded(row.path, row.time_s), cv2.COLOR_RGB2GRAY)
        scale = min(1, 480 / min(grey.shape))
        own = cv2.Laplacian(cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), cv2.CV_64F).var()
        assert row.sharpness == pytest.approx(own * (219 / 255) ** 2, rel=0.15)  # luma has 219 steps, RGB 255


def test_zooms_of_the_film_are_scaling_dominated_and_pans_are_not(film, stops):
    truth, frames = {v.file: v for v in film.videos}, rows_of(stops["frames"])
    zoomed = frames[frames.neighbour_scaling > 0.5]
    assert len(zoomed)
    for row in zoomed.itertuples():
        shots = [s for s in truth[Path(row.path).name].shots if s.start_s <= row.time_s < s.end_s]
        assert abs(row.neighbour_scale - 1) > 0.002 and shots


def test_accepted_pairs_obey_the_band_the_cap_and_the_frames(stops):
    frames, pairs = rows_of(stops["frames"]).set_index("frame_id"), rows_of(stops["pairs"])
    kept = good(pairs)
    assert len(kept) > 10 and kept.frame_similarity.between(0.75, 0.95).all() and kept.pair_id.is_unique
    assert kept.groupby("video_id").size().max() == 5
    assert pairs.drop_reason.str.contains("pairs of this video>5", na=False).any()
    source, target = frames.loc[kept.source_frame_id], frames.loc[kept.target_frame_id]
    assert source.drop_reason.isna().all() and target.drop_reason.isna().all()
    assert np.array_equal(source.video_id, target.video_id) and np.array_equal(source.video_id, kept.video_id)
    cosine = (np.stack(source.frame_embedding) * np.stack(target.frame_embedding)).sum(1)
    assert np.allclose(cosine, kept.frame_similarity, atol=1e-5)
    assert np.allclose(target.time_s.to_numpy() - source.time_s.to_numpy(), kept.gap_s)
    accepted = good(frames).groupby("video_id").size()
    assert len(rows_of(stops["candidates"])) == (accepted * (accepted - 1) // 2).sum()


def test_pairs_are_spread_over_the_film_and_not_only_neighbours(stops):
    frames, kept = rows_of(stops["frames"]).set_index("frame_id"), good(rows_of(stops["pairs"]))
    steps = frames.loc[kept.target_frame_id].frame_index.to_numpy() - frames.loc[kept.source_frame_id].frame_index.to_numpy()
    assert (steps > 1).mean() > 0.5 and (kept.gap_share > 0.5).any() and kept.gap_share.between(0, 1).all()


def test_only_accepted_pairs_have_pictures_and_they_are_the_frames(stops):
    frames, pairs = rows_of(stops["frames"]).set_index("frame_id"), rows_of(stops["pairs"])
    kept, rest = good(pairs), pairs[pairs.drop_reason.notna()]
    stored = {str(p) for p in (Path(stops["pairs"].path).parents[1] / "media").rglob("*.jpg")}
    assert stored == set(kept.source_path) | set(kept.target_path)
    assert kept.source_time_s.isna().all() and kept.source_start_s.isna().all()
    assert rest.source_time_s.notna().all() and rest.source_path.str.endswith(".mp4").all()
    for row in kept.iloc[::10].itertuples():
        for path, frame_id in ((row.source_path, row.source_frame_id), (row.target_path, row.target_frame_id)):
            film = frames.loc[frame_id]
            picture, own = np.asarray(Image.open(path)).astype(int), decoded(film.path, film.time_s).astype(int)
            assert picture.shape == own.shape
            assert np.abs(picture - own).mean() < 3  # JPEG at quality 92


def test_samples_are_image_to_image_with_the_prompt(stops):
    pairs = rows_of(stops["pairs"]).set_index("pair_id")
    samples = rows_of(stops["samples"])
    assert len(samples) == len(good(pairs)) and set(samples.task) == {"i2i"} and set(samples.source_name) == {"image-pairs"}
    for row in samples.itertuples():
        messages = json.loads(row.inputs)
        assert [(m["type"], m["has_loss"]) for m in messages] == [("image", 0), ("text", 0), ("image_gen", 1)]
        assert messages[1]["text"] == pairs.loc[row.pair_id].instruction and len(messages[1]["text"]) > 30
        assert list(row.images) == [pairs.loc[row.pair_id].source_path, pairs.loc[row.pair_id].target_path]


def test_a_finished_run_is_noticed_and_a_changed_band_redoes_only_pairs(film, stops, monkeypatch):
    out = str(Path(stops["pairs"].path).parents[1])
    config = {"input": str(film.videos_folder), "output": out, "engine": "local", "quiet": True}
    monkeypatch.setattr("manifests.media.VideoReader.__enter__", lambda self: pytest.fail("a film was opened again"))
    again = run(Config(**config, max_pairs_per_video=5))
    assert {n: m.path for n, m in again.items()} == {n: m.path for n, m in stops.items()}
    monkeypatch.undo()
    changed = run(Config(**config, max_pairs_per_video=2, similarity_max=0.85))
    assert changed["frames"].path == stops["frames"].path and changed["pairs"].path != stops["pairs"].path
    assert good(rows_of(changed["pairs"])).frame_similarity.max() <= 0.85
    assert good(rows_of(changed["pairs"])).groupby("video_id").size().max() <= 2


@pytest.fixture(scope="module")
def mixed_run(tmp_path_factory):
    """Pictures, a film, and files of which nothing can be read."""
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "in").mkdir()
    from manifests.video_writer import write_video

    def film():
        for shot in range(4):
            yield from moving_frames(50, seed=7, step=0.4 + 0.2 * shot)

    write_video(str(folder / "in" / "film.mp4"), film(), fps=25)
    picture = next(moving_frames(1, size=(400, 300), seed=3))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    for name, options in (("a.png", {}), ("b.jpg", {"quality": 95}), ("turned.jpg", {"exif": exif}), ("c.webp", {}), ("d.bmp", {})):
        Image.fromarray(picture).save(folder / "in" / name, **options)
    Image.fromarray(picture[:100, :100]).save(folder / "in" / "small.png")
    (folder / "in" / "broken.png").write_bytes((folder / "in" / "a.png").read_bytes()[:200])
    (folder / "in" / "empty.jpg").write_bytes(b"")
    (folder / "in" / "notes.txt").write_text("no picture")
    return run(Config(input=str(folder / "in"), output=str(folder / "out"), engine="local", quiet=True,
                      min_frame_motion=0.0, similarity_max=0.999))


def test_every_file_is_accounted_for_and_pictures_are_frames_without_a_time(mixed_run):
    videos, frames = rows_of(mixed_run["videos"]), rows_of(mixed_run["frames"])
    assert len(videos) == 10
    failed = videos[videos.drop_reason.notna()].set_index("relative_path")
    assert set(failed.index) == {"broken.png", "empty.jpg", "notes.txt"} and (failed.issues.str.len() > 0).all()
    assert set(frames.video_id) == set(good(videos).video_id)
    pictures = frames[frames.time_s.isna()]
    names = pictures.path.map(lambda p: Path(p).name)
    assert set(names) == {"a.png", "b.jpg", "turned.jpg", "c.webp", "d.bmp", "small.png"}
    assert pictures.drop_reason.fillna("").tolist() == ["width<240" if n == "small.png" else "" for n in names]
    assert pictures.neighbour_motion.isna().all() and (pictures.num_siblings == 1).all()
    sizes = dict(zip(names, zip(pictures.width, pictures.height, strict=True), strict=True))
    assert sizes["a.png"] == (400, 300) and sizes["turned.jpg"] == (300, 400)


def test_the_story_of_a_picture_breaks_no_rule_about_neighbours(mixed_run, bernini):
    frames = rows_of(mixed_run["frames"])
    picture = frames[frames.path.str.endswith("/a.png")].frame_id.iloc[0]
    code, out, _ = bernini("why", mixed_run["frames"].path, picture)
    assert code == 0 and f"frame {picture}: accepted" in out
    assert "rule holds  neighbour_scaling <= 0.5: null" in out and "BROKEN" not in out


def test_open_clip_takes_the_place_of_classical(tiny_clip, mixed_run, tmp_path):  # noqa: F811
    """Equal key frames, other embeddings; the header says whose."""
    source = str(Path(rows_of(mixed_run["videos"]).path.iloc[0]).parent)
    stops = run(Config(input=source, output=str(tmp_path), engine="local", quiet=True, min_frame_motion=0.0,
                       frame_embedder="open_clip", frame_embedder_model=str(tiny_clip), similarity_min=-1.0,
                       similarity_max=1.0))
    frames, classical = rows_of(stops["frames"]), rows_of(mixed_run["frames"])
    assert frames.frame_id.tolist() == classical.frame_id.tolist() and frames.sharpness.equals(classical.sharpness)
    assert set(frames.frame_embedding.str.len()) == {24} != set(classical.frame_embedding.str.len())
    assert str(tiny_clip) in stops["pairs"].header["owners"]["frame_similarity"]["backend"]
    assert mixed_run["pairs"].header["owners"]["frame_similarity"]["backend"] == "classical"


def test_pictures_make_no_pairs(mixed_run):
    assert rows_of(mixed_run["pairs"]).video_id.nunique() == 1


def test_a_film_that_is_gone_is_an_issue_of_its_rows(film, film_run, tmp_path):
    """The films vanish between the scan and the frames."""
    (tmp_path / "in").mkdir()
    for video in film.videos[:2]:
        shutil.copy(film.path(video), tmp_path / "in" / video.file)
    config = Config(input=str(tmp_path / "in"), output=str(tmp_path / "out"), engine="local", quiet=True,
                    max_failed_share=1.0)
    from pipelines.key_frames import find_frames
    from pipelines.recipe import Steps

    steps = Steps(config, "image-pairs")
    videos = steps.videos()
    (tmp_path / "in" / film.videos[0].file).unlink()
    frames = rows_of(find_frames(steps, videos))
    gone = frames[frames.path.str.endswith("/" + film.videos[0].file)]
    assert len(gone) and gone.drop_reason.str.startswith(FAILED).all()
    assert gone.issues.str[0].str.contains("cannot open").all()
    assert frames[~frames.index.isin(gone.index)].sharpness.notna().any()


def test_nothing_accepted_says_why(make_video, tmp_path):
    make_video("a.mp4", num_frames=100, folder=tmp_path)
    with pytest.raises(RunStopped, match="no row of pairs"):
        run(Config(input=str(tmp_path), output=str(tmp_path / "out"), engine="local", quiet=True, similarity_min=-1.0,
                   similarity_max=-0.5, min_frame_motion=0.0))


@pytest.mark.parametrize("settings, words", [
    ({"similarity_min": 0.9, "similarity_max": 0.8}, "similarity_min 0.9 must be below similarity_max 0.8"),
    ({"picture_kind": "gif"}, "no picture_kind 'gif'; known: jpg, png"),
    ({"frame_every_s": 0}, "frame_every_s is 0"),
    ({"annotator": "openai"}, "needs --url"),
])
def test_wrong_settings_are_refused_before_anything_runs(settings, words):
    with pytest.raises(ConfigError, match=words):
        Config(input="a", output="b", **settings)


def test_the_console_decides_again(stops, bernini):
    code, out, _ = bernini("decide", stops["pairs"].path, "--similarity-min", "0.8")
    kept = good(rows_of(stops["pairs"])).frame_similarity.ge(0.8).sum()
    assert code == 0 and int(out.split(" rows, ")[1].split()[0]) >= kept
