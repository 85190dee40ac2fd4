"""Reading video: presentation time, rotation, damage, limits; writing it back."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from manifests.errors import ConfigError, MediaError
from manifests.media import Limits, VideoReader, probe
from manifests.planes import fit, shrink
from manifests.spans import read_frames, read_span
from manifests.video_writer import write_video


def counted_frames(num: int, size=(64, 48)):
    """Frames whose brightness tells their number: 3 levels a step, from 16 up."""
    for i in range(num):
        yield np.full((size[1], size[0], 3), 16 + 3 * i, np.uint8)


def number_of(image: np.ndarray) -> int:
    return round((float(image.mean()) - 16) / 3)


def test_what_is_written_is_read_frame_for_frame(tmp_path):
    path = str(tmp_path / "a.mp4")
    assert write_video(path, counted_frames(60), fps=30) == 60
    found = probe(path)
    assert (found.width, found.height, found.fps, found.num_frames_header) == (64, 48, 30.0, 60)
    assert found.pixel_format == "yuv420p" and found.video_codec == "h264"
    with VideoReader(path) as reader:
        seen = [(f.index, round(f.time_s * 30), number_of(f.rgb())) for f in reader]
    assert seen == [(i, i, i) for i in range(60)]


def test_equal_frames_give_equal_bytes(tmp_path):
    for name in "ab":
        write_video(str(tmp_path / f"{name}.mp4"), counted_frames(20), fps=24)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_frames_are_chosen_by_presentation_time_on_variable_rate(tmp_path):
    """40 ms steps, then 200 ms: index / fps would return wrong frames."""
    path, times = tmp_path / "vfr.mp4", [i * 40 for i in range(20)] + [800 + i * 200 for i in range(20)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for image, pts in zip(counted_frames(40), times, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = pts, stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    asked = [0.0, 0.05, 0.76, 0.999, 1.0, 1.3, 3.0, 4.6]
    expected = [max(i for i, t in enumerate(times) if t <= s * 1000 + 0.001) for s in asked]
    assert [number_of(f) for f in read_frames(str(path), asked)] == expected


def test_a_seek_reads_the_same_frames_as_reading_from_the_start(tmp_path):
    path = str(tmp_path / "a.mp4")
    write_video(path, counted_frames(75), fps=25)
    from_start = read_frames(path, [0.0, 2.0, 2.5])[1:]
    assert np.array_equal(from_start, read_frames(path, [2.0, 2.5]))


@pytest.mark.parametrize("ending", ["mp4", "mkv", "mpg", "ts", "avi"])
def test_a_part_is_found_in_every_container_however_far_its_key_frame_lies(tmp_path, ending):
    """One key frame and frames that refer to later ones. AVI holds no times, and its first frame is one frame late."""
    path, late = str(tmp_path / f"a.{ending}"), ending == "avi"
    with av.open(path, "w") as container:
        options = {"g": "1000", "sc_threshold": "0", "bf": "2" if ending == "mpg" else "3"}
        stream = container.add_stream("mpeg1video" if ending == "mpg" else "libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 64, 48, "yuv420p", 4_000_000
        for image in counted_frames(75):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    whole = [number_of(f) for f in read_span(path, 0.0, 4.0)]
    assert whole == sorted(whole) and (whole[0], whole[-1], len(whole)) == (0, 74, 75)
    for start, end in ((1.2, 2.0), (2.4, 2.8)):
        first, after = (round(25 * t) - late for t in (start, end))
        assert [number_of(f) for f in read_span(path, start, end)] == list(range(first, after))


def test_an_unknown_decoder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no decoder 'decord'; known: pyav, torchcodec"):
        read_frames(str(tmp_path / "a.mp4"), [0.0], decoder="decord")


def test_times_after_the_end_repeat_the_last_frame(tmp_path):
    path = str(tmp_path / "a.mp4")
    write_video(path, counted_frames(10), fps=10)
    assert [number_of(f) for f in read_frames(path, [0.85, 5.0, 6.0])] == [8, 9, 9]


def test_rotation_is_applied(media):
    with VideoReader(str(media / "odd" / "rotated_90.mov")) as reader:
        frame = next(iter(reader))
        assert frame.shown_size == (320, 568)
        assert frame.rgb().shape == (568, 320, 3)
        assert frame.bgr(fit(frame.shown_size, long_px=128)).shape == (128, 72, 3)
        upright = np.rot90(frame.image.to_ndarray(format="rgb24"), -1)  # the matrix asks for 90 degrees clockwise
        assert np.array_equal(frame.rgb(), upright)


def test_damage_is_told_apart_until_the_next_key_frame(media):
    with VideoReader(str(media / "odd" / "corrupt_frames.mp4")) as reader:
        clean = [f.clean for f in reader]
    assert (reader.num_decoded, reader.num_corrupt, reader.num_errors) == (49, 1, 1)
    assert clean[:28] == [True] * 28 and not any(clean[28:])  # the file has one key frame, its first


@pytest.mark.parametrize("name, words", [
    ("zero_byte.webm", "cannot open"), ("bad_chunk_table.mp4", "Invalid data"), ("audio_only.mp4", "holds audio"),
])
def test_what_is_no_video_says_why(media, name, words):
    with pytest.raises(MediaError, match=words):
        probe(str(media / "odd" / name))


def test_text_and_playlists_are_no_videos(tmp_path):
    (tmp_path / "notes.txt").write_text("hello " * 100)
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n/etc/passwd\n#EXT-X-ENDLIST\n")
    (tmp_path / "list.ffconcat").write_text("ffconcat version 1.0\nfile /etc/passwd\n")
    for path in tmp_path.iterdir():
        with pytest.raises(MediaError):
            probe(str(path))


def test_limits_are_kept(tmp_path):
    path = str(tmp_path / "a.mp4")
    write_video(path, counted_frames(70), fps=10)
    for limits, words in ((Limits(max_side_px=32), "64x48"), (Limits(max_duration_s=2), "lasts 7 s"),
                          (Limits(max_decode_s=-1), "took more than")):
        with pytest.raises(MediaError, match=words), VideoReader(path, limits=limits) as reader:
            list(reader)


def test_shrinking_keeps_the_mean_and_does_not_alias():
    stripes = np.zeros((512, 512), np.uint8)
    stripes[:, ::2] = 255  # at a quarter of the size only the mean may be left
    small = shrink(stripes, (128, 128))
    assert small.shape == (128, 128) and abs(float(small.mean()) - 127.5) < 2 and small.std() < 2


def test_odd_sizes_lose_one_pixel_not_the_file(tmp_path):
    path = str(tmp_path / "odd.mp4")
    write_video(path, counted_frames(5, size=(65, 49)), fps=5)
    assert (probe(path).width, probe(path).height) == (64, 48)


def test_an_empty_video_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(MediaError, match="no frames to write"):
        write_video(str(tmp_path / "a.mp4"), [], fps=25)
    assert list(tmp_path.iterdir()) == []


COLORS = np.array([(200, 30, 30), (30, 200, 30), (30, 30, 200), (220, 200, 40)], np.uint8)
MATRIX = {1: (0.2126, 0.0722), 6: (0.299, 0.114)}  # Kr, Kb of ITU-T H.273: BT.709 and BT.601


def film_of_colors(path, space: int) -> None:
    """Four bars of COLORS, 80 px wide, in limited range, written by the definition of the colour space."""
    kr, kb = MATRIX[space]
    red, green, blue = COLORS.astype(float).T
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    numbers = 16 + luma * 219 / 255, 128 + (blue - luma) / (2 - 2 * kb) * 224 / 255, 128 + (red - luma) / (2 - 2 * kr) * 224 / 255
    planes = [np.tile(np.repeat(n.round().astype(np.uint8), width), (height, 1)).ravel()
              for n, width, height in zip(numbers, (80, 40, 40), (96, 48, 48), strict=True)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=16, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 320, 96, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = space, 1
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.concatenate(planes).reshape(144, 320), format="yuv420p")))
        container.mux(stream.encode(None))


def bars(image: np.ndarray) -> np.ndarray:
    """The colours in the middle of the bars."""
    height, width = image.shape[:2]
    return image[height // 2, [width * (2 * i + 1) // 8 for i in range(4)]].astype(int)


@pytest.mark.parametrize("space", [1, 6])
def test_colours_are_those_of_the_films_colour_space_at_every_size(tmp_path, space):
    film_of_colors(tmp_path / "film.mp4", space)
    path = str(tmp_path / "film.mp4")
    for image in (read_frames(path, [0.0])[0], read_frames(path, [0.0], long_px=100)[0],
                  next(read_span(path, 0, 1)), next(read_span(path, 0, 1, short_px=48))):
        assert np.abs(bars(image) - COLORS).max() <= 3  # rounding to limited range and crf 1; the wrong matrix is off by 29


@pytest.mark.parametrize("size", [(320, 96), (1280, 720)])
def test_players_are_told_the_colours_of_a_made_film(tmp_path, size):
    """Without a tag they take large pictures for BT.709. PyAV's own conversion honours the tag."""
    image = np.repeat(COLORS[None], size[0] // 4, axis=1).repeat(size[1], axis=0)
    write_video(str(tmp_path / "made.mp4"), [image] * 3, fps=16, crf=1)
    with av.open(str(tmp_path / "made.mp4")) as container:
        frame = next(container.decode(video=0))
        assert (frame.colorspace, frame.color_range) == (6, 1)
        assert np.abs(bars(frame.to_ndarray(format="rgb24")) - COLORS).max() <= 4
