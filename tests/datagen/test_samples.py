"""The sample film as its users see it: files that decode as promised, cuts and faces where film.json says."""

import builtins
import json

import av
import cv2
import numpy as np
import pytest

pytest.importorskip("skimage", reason='needs the photographs of scikit-image: pip install "bernini[samples]"')

from scenedetect import ContentDetector, detect  # noqa: E402

from datagen import samples, samples_photos  # noqa: E402
from datagen.samples import read_film, write_sample_film  # noqa: E402

GOOD = ["portrait", "launch_day", "interview_vertical", "cafe", "garage", "deep_space", "cat"]


@pytest.fixture(scope="session")
def film(tmp_path_factory):
    return write_sample_film(tmp_path_factory.mktemp("film"), quiet=True)


def named(film, name):
    return next(video for video in film.videos if video.file == f"{name}.mp4")


def grey_frames(path):
    """All frames that decode, uint8 (T, H, W)."""
    frames = []
    with av.open(str(path)) as container:
        try:
            frames.extend(frame.to_ndarray(format="gray") for frame in container.decode(video=0))
        except av.error.InvalidDataError:
            pass
    return np.stack(frames)


def test_film_holds_the_listed_videos(film):
    assert [video.file for video in film.videos] == [f"{name}.mp4" for name in [*GOOD, "broken"]]
    assert {video.fps for video in film.videos} == {24, 25, 30}
    assert [video.file for video in film.videos if video.height > video.width] == ["interview_vertical.mp4"]


@pytest.mark.parametrize("name", GOOD)
def test_video_decodes_with_the_stated_frames(film, name):
    video = named(film, name)
    with av.open(str(film.path(video))) as container:
        stream = container.streams.video[0]
        assert (stream.codec.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == video.fps
        frames = list(container.decode(video=0))
    assert len(frames) == video.num_frames
    assert (frames[0].width, frames[0].height) == (video.width, video.height)
    assert frames[-1].time == pytest.approx(video.duration_s - 1 / video.fps, abs=1e-3)
    assert 15 <= video.duration_s <= 30


@pytest.mark.parametrize("name", [*GOOD, "broken"])
def test_shots_tile_the_video(film, name):
    video = named(film, name)
    assert video.shots[0].start_s == 0
    assert video.shots[-1].end_s == video.duration_s
    for before, after in zip(video.shots, video.shots[1:], strict=False):
        assert before.end_s == after.start_s > before.start_s


def test_film_has_short_long_frozen_and_black_shots(film):
    shots = [shot for video in film.videos for shot in video.shots]
    lengths = [shot.end_s - shot.start_s for shot in shots]
    assert min(lengths) < 2 and max(lengths) > 10
    assert {shot.transition for shot in shots} == {"start", "cut", "dissolve", "fade"}
    assert sum(shot.frozen for shot in shots) == 1
    assert [shot.end_s - shot.start_s >= 1 for shot in shots if shot.black] == [True]
    assert any(shot.moving for shot in shots)


@pytest.mark.parametrize("name", GOOD)
def test_hard_cuts_are_found_and_nothing_else(film, name):
    video = named(film, name)
    found = [start.seconds for start, _ in detect(str(film.path(video)), ContentDetector())[1:]]
    cuts = [shot.start_s for shot in video.shots if shot.transition == "cut"]
    listed = [shot.start_s for shot in video.shots]
    for cut in cuts:
        assert min(abs(cut - time) for time in found) <= 0.2
    for time in found:  # a soft transition may be found, but none that is not listed
        assert min(abs(time - start) for start in listed) <= 0.5


@pytest.mark.parametrize("name", GOOD)
def test_faces_are_where_people_are(film, name):
    video = named(film, name)
    frames = grey_frames(film.path(video))
    faces = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")
    for shot in video.shots:
        for share in (0.25, 0.5, 0.75):
            frame = frames[int((shot.start_s + share * (shot.end_s - shot.start_s)) * video.fps)]
            found = len(faces.detectMultiScale(frame, 1.1, 5, minSize=(30, 30))) > 0
            assert found == shot.has_people, (shot.subject, share)


@pytest.mark.parametrize("name", GOOD)
def test_only_frozen_and_black_shots_stand_still(film, name):
    video = named(film, name)
    frames = grey_frames(film.path(video))
    for shot in video.shots:
        middle = slice(int((shot.start_s + 0.5) * video.fps), int((shot.end_s - 0.5) * video.fps))
        steps = [cv2.absdiff(a, b).mean() for a, b in zip(frames[middle], frames[middle][1:], strict=False)]
        if shot.frozen or shot.black:
            assert np.median(steps) < 0.02, shot.subject
        else:
            assert np.median(steps) > 0.3, shot.subject
        assert (frames[middle].mean() < 2) == shot.black


def shift(old, new):
    """How far the picture moved from `old` to `new`, in pixels (x, y)."""
    window = cv2.createHanningWindow(old.shape[::-1], cv2.CV_32F)
    return cv2.phaseCorrelate(old.astype(np.float32), new.astype(np.float32), window)[0]


@pytest.mark.parametrize(
    ("name", "move", "axis", "sign"),
    [("garage", "pan right", 0, -1), ("garage", "pan left", 0, 1), ("garage", "tilt down", 1, -1),
     ("launch_day", "tilt up", 1, 1)],
)  # fmt: skip
def test_camera_moves_at_the_listed_speed(film, name, move, axis, sign):
    video = named(film, name)
    shot = next(shot for shot in video.shots if shot.move == move)
    middle = int((shot.start_s + shot.end_s) / 2 * video.fps)
    frames = grey_frames(film.path(video))
    moved = shift(frames[middle], frames[middle + 12])
    expected = sign * shot.speed * video.width * 12 / video.fps
    assert moved[axis] == pytest.approx(expected, abs=1.0)
    assert moved[1 - axis] == pytest.approx(0, abs=1.0)


def test_front_of_broken_video_decodes(film):
    video = named(film, "broken")
    with av.open(str(film.path(video))) as container:
        assert container.streams.video[0].frames == video.num_frames
    decoded = len(grey_frames(film.path(video)))
    assert video.num_frames / 3 < decoded < video.num_frames


def test_second_call_keeps_the_files(film):
    before = {path.name: path.stat().st_mtime_ns for path in film.folder.iterdir()}
    assert write_sample_film(film.folder) == film == read_film(film.folder)
    assert {path.name: path.stat().st_mtime_ns for path in film.folder.iterdir()} == before


@pytest.fixture
def short_script(monkeypatch):
    """Only the last video of the script: one second of work instead of fifteen."""
    monkeypatch.setattr(samples, "SCRIPT", samples.SCRIPT[-1:])


def test_same_seed_gives_the_same_bytes(short_script, tmp_path):
    first, again = (write_sample_film(tmp_path / name) for name in "ab")
    other = write_sample_film(tmp_path / "c", seed=1)
    as_bytes = [film.path(film.videos[0]).read_bytes() for film in (first, again, other)]
    assert as_bytes[0] == as_bytes[1] != as_bytes[2]
    assert other.videos[0].shots == first.videos[0].shots


def test_unfinished_or_different_film_is_made_anew(short_script, tmp_path):
    film = write_sample_film(tmp_path)
    path = film.path(film.videos[0])
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    assert write_sample_film(tmp_path) == film and path.read_bytes() == whole
    assert write_sample_film(tmp_path, seed=1).seed == 1 == read_film(tmp_path).seed
    truth = json.loads((tmp_path / "film.json").read_text())
    (tmp_path / "film.json").write_text(json.dumps(truth | {"version": 0}))
    assert write_sample_film(tmp_path) == film


def test_missing_photographs_say_what_to_install(monkeypatch, tmp_path):
    real = builtins.__import__

    def without_skimage(name, *args, **kwargs):
        if name == "skimage":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    samples_photos.photograph.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without_skimage)
    with pytest.raises(ImportError, match=r'pip install "bernini\[samples\]"'):
        write_sample_film(tmp_path)
