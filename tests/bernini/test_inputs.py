"""Files, sizes, prompts and processors: what each part of the model is shown."""

import struct
import subprocess
import sys
import zlib

import av
import numpy as np
import pytest
import torch
from PIL import Image

from bernini.errors import CaseError, MediaError
from bernini.geometry import fit_size
from bernini.prompts import clean_prompt, planner_system_prompt, text_system_prompt
from bernini.text import context, positive_text
from bernini.vae import resize, to_frames, to_pixels
from bernini.video_io import probe, read_frames, read_image, write


def test_importing_bernini_imports_no_torch():
    code = "import sys, bernini, bernini.errors, bernini.generate.command; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_public_names_are_there():
    import bernini

    assert all(callable(getattr(bernini, name)) for name in bernini.__all__)
    with pytest.raises(AttributeError, match="Pipeline"):
        getattr(bernini, "pipeline_of_dreams")  # noqa: B009


def test_bernini_imports_none_of_the_other_packages():
    code = (
        "import sys, pkgutil, importlib, bernini\n"
        "for m in pkgutil.walk_packages(bernini.__path__, 'bernini.'):\n"
        "    importlib.import_module(m.name)\n"
        "found = {'datagen', 'filters', 'annotators', 'pipelines', 'ray'} & set(sys.modules)\n"
        "assert not found, found"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_written_video_is_read_back_nearly_equal(tmp_path):
    y, x = np.mgrid[0:48, 0:64]
    frames = np.stack([np.stack([x * 4, y * 5, x * 0 + 20 * i], -1) for i in range(6)]).astype(np.uint8)
    info = probe(write(tmp_path / "a" / "clip.mp4", frames, 12))
    assert info.fps == pytest.approx(12) and info.num_frames == 6 and not info.has_audio
    assert (
        np.abs(read_frames(info.path, range(6)).astype(int) - frames).mean() < 4
    )  # crf 8 and half-resolution colour


def test_one_frame_becomes_a_picture_whatever_the_suffix(tmp_path):
    frame = np.random.default_rng(0).integers(0, 255, (1, 16, 24, 3), dtype=np.uint8)
    path = write(tmp_path / "still.mp4", frame, 16)
    assert path.name == "still.png" and np.array_equal(np.asarray(read_image(path)), frame[0])


def test_a_large_generated_film_tells_players_its_colours(tmp_path):
    red = np.full((2, 720, 64, 3), (200, 30, 30), np.uint8)
    path = write(tmp_path / "red.mp4", red, 16)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    assert (frame.colorspace, frame.color_range) == (6, 1)  # BT.601, limited: not the BT.709 that players guess
    assert np.abs(read_frames(path, [0])[0].astype(int) - (200, 30, 30)).max() <= 4


def test_rotated_phone_video_is_turned_upright(tmp_path, media):
    """Displays turned by 90 degrees are stored lying; the reader must give them standing."""
    path = tmp_path / "phone.mp4"
    with av.open(str(media["silent"])) as source, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        if not hasattr(stream, "set_display_rotation"):
            pytest.skip("this PyAV cannot write a display matrix")
        stream.set_display_rotation(90)
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    assert read_frames(path, [0]).shape[1:3] == (64, 48)


def test_frames_come_in_the_asked_order_and_one_past_the_end_is_the_last(media):
    whole = read_frames(media["silent"], range(24))
    assert np.array_equal(read_frames(media["silent"], [5, 0, 23, 24]), whole[[5, 0, 23, 23]])


def test_a_cut_off_file_gives_its_last_good_frame_again(tmp_path, media):
    path = tmp_path / "cut.mkv"
    with av.open(str(media["silent"])) as source, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.9)])
    frames = read_frames(path, range(24))
    assert frames.shape[0] == 24 and np.array_equal(frames[-1], frames[-2])


@pytest.mark.parametrize("content", [b"", b"text", b"\x00" * 5000])
def test_unreadable_videos_and_images_are_media_errors_of_one_line(tmp_path, content):
    path = tmp_path / "x.mp4"
    path.write_bytes(content)
    for read in (probe, read_image):
        with pytest.raises(MediaError) as caught:
            read(path)
        assert "x.mp4" in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_lead_elsewhere_or_ask_for_too_much_are_refused(tmp_path, media):
    """A playlist that names another file, and a picture whose header asks for 10 GB."""
    playlist = tmp_path / "list.mp4"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{media['sound']}\n#EXT-X-ENDLIST\n")
    with pytest.raises(MediaError, match="list.mp4"):
        probe(playlist)
    picture = tmp_path / "bomb.png"
    Image.new("L", (8, 8)).save(picture)
    data = bytearray(picture.read_bytes())
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    picture.write_bytes(data)
    with pytest.raises(MediaError, match="bomb.png.*(60000|pixels)"):
        read_image(picture)


def test_audio_only_file_has_no_video_stream(tmp_path):
    path = tmp_path / "tone.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(MediaError, match="no video stream"):
        probe(path)


def test_pixels_and_frames_are_inverse_and_sizes_follow_the_rule():
    frames = np.arange(0, 256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    back = to_frames(to_pixels(frames))
    assert np.abs(back.astype(int) - frames).max() <= 1  # cut off, not rounded, as released
    assert resize(frames, 32, 48).shape == (1, 48, 32, 3)
    with pytest.raises(CaseError):
        fit_size(0, 10, max_size=100)


def test_prompts_are_cleaned_and_glued_to_the_system_prompt():
    assert clean_prompt("  a &amp;lt;b&amp;gt;\n\n c\u00a0d ") == "a <b> c d"
    assert positive_text("v2v", " go ") == "You are a helpful assistant specialized in video editing.go"
    assert positive_text("v2v", "go", "Be brief.") == "Be brief.go"
    assert planner_system_prompt("vr2v") == planner_system_prompt("rv2v")  # what is trained under one name is asked by the other
    assert text_system_prompt("unheard") == planner_system_prompt("mv2v") == "You are a helpful assistant."


def test_context_is_padded_to_512_rows_and_never_cut():
    assert context(torch.ones(7, 4)).shape == (1, 512, 4)
    joined = context(torch.ones(500, 4), torch.full((300, 4), 2.0))
    assert joined.shape == (1, 800, 4) and joined[0, 500:].eq(2).all()
    padded = context(torch.ones(5, 4), torch.ones(3, 4))
    assert padded[0, :8].eq(1).all() and padded[0, 8:].eq(0).all()


def test_text_encoder_gives_valid_tokens_only(tiny):
    from bernini.generate.parts import Parts
    from bernini.layouts import open_model
    from bernini.memory import MemorySettings

    encode = Parts(open_model(tiny()), MemorySettings())["text"]
    assert encode("abc").shape == (4, 32)  # three bytes and the end token
    assert encode("x" * 1000).shape == (512, 32)
    torch.testing.assert_close(encode("abc"), encode("abc"))


def test_planner_sees_within_the_released_pixel_limits(tiny):
    from bernini.tiny import tiny_mllm_config
    from bernini.vision import Eye

    eye = Eye.of(tiny_mllm_config().vision_config)
    pixels, grid = eye.video(np.zeros((10, 480, 848, 3), np.uint8))
    assert grid == (5, 12, 20) and pixels.shape == (5 * 12 * 20, 3 * 2 * 14 * 14)  # 300 tokens, spec 3.8
    _, small = eye.image(np.zeros((16, 16, 3), np.uint8))
    assert small == (1, 4, 4)


def test_png_with_alpha_and_palette_are_read_as_rgb(tmp_path):
    for mode in ("RGBA", "P", "L"):
        Image.new(mode, (5, 4)).save(tmp_path / f"{mode}.png")
        assert read_image(tmp_path / f"{mode}.png").mode == "RGB"
