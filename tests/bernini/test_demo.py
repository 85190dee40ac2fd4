"""The web demo on a tiny model: its logic, and the page itself in a headless browser."""

import gc
import sys
import threading

import pytest

from bernini.generate import demo
from tests.chromium import browser

pytest.importorskip("gradio", reason="needs the extra 'demo': pip install 'bernini[demo]'")

SMALL = {
    "num_frames": "5", "height": "32", "width": "48", "max_image_size": "48", "num_inference_steps": "3",
    "planning_step": "2", "vit_denoising_step": "1",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _loops_end_here():
    """Gradio leaves its event loops to the garbage collector; their complaint must not hit another test."""
    yield
    hook, sys.unraisablehook = sys.unraisablehook, lambda *args: None
    gc.collect()
    sys.unraisablehook = hook


@pytest.fixture(scope="module")
def studio(tiny, tmp_path_factory):
    from bernini.generate.pipeline import Pipeline
    from bernini.layouts import open_model

    return demo.Studio(Pipeline(open_model(tiny())), tmp_path_factory.mktemp("demo"))


def asked(studio, prompt="a red car", task="t2v", videos=None, images=None, **numbers):
    values = [(SMALL | numbers).get(name, "") for name, _, _ in demo.ADVANCED]
    return demo.answers(studio, task, prompt, videos, images, "none", False, "", "", *values)


def test_progress_goes_through_the_stages_to_a_video(studio):
    lines = list(asked(studio))
    texts = [text for text, _, _ in lines]
    assert len(texts) > 1 and any(t.startswith(("text", "planning", "denoising", "decoding")) for t in texts)
    text, video, image = lines[-1]
    assert text.startswith("done in") and video.endswith(".mp4") and image is None


def test_image_tasks_give_an_image(studio, media):
    text, video, image = list(asked(studio, task="i2i", images=[str(media["wide"])]))[-1]
    assert video is None and image.endswith(".png"), text


@pytest.mark.parametrize(
    "change, message",
    [
        ({"prompt": " "}, "the prompt is empty"),
        ({"task": "v2v"}, "needs at least 1 video"),
        ({"seed": "many"}, "'many' is not a number"),
    ],
)
def test_mistakes_are_shown_in_the_progress_line(studio, change, message):
    lines = list(asked(studio, **change))
    assert len(lines) == 1 and lines[0][0].startswith("error: ") and message in lines[0][0]


def test_cancel_stops_a_running_generation_and_the_next_one_runs(studio):
    running = asked(studio, num_inference_steps="400")
    while not next(running)[0].startswith("denoising"):
        pass
    studio.cancel()
    assert list(running)[-1][0] == "error: cancelled"
    assert list(asked(studio))[-1][0].startswith("done in")


def test_a_second_request_is_told_to_wait(studio):
    running = asked(studio, num_inference_steps="400")
    next(running)
    assert "another generation is running" in list(asked(studio))[0][0]
    studio.cancel()
    list(running)


@pytest.fixture
def served(studio):
    """Address of the page, served from this process."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the web framework, not of ours
        blocks = demo.page(studio)
        _, url, _ = blocks.queue().launch(
            server_name="127.0.0.1",
            server_port=None,
            prevent_thread_lock=True,
            quiet=True,
            allowed_paths=[str(studio.folder)],
        )
    yield url
    blocks.close()


PROGRESS = "(document.querySelector('#progress textarea') || {}).value"
ADVANCED = "[...document.querySelectorAll('button')].find(b => b.textContent.includes('Advanced'))"


@pytest.mark.browser
@pytest.mark.filterwarnings("ignore")
def test_the_page_generates_shows_progress_and_cancels(served, tmp_path):
    with browser(tmp_path / "profile") as chromium:
        chromium.open(served)
        chromium.fill("#prompt textarea", "a red car")
        chromium.wait(f"!!{ADVANCED}")  # the page comes piece by piece
        chromium.value(f"{ADVANCED}.click()")
        for name, value in SMALL.items():
            chromium.fill(f"#set-{name} :is(input, textarea)", value)
        chromium.click("#generate")
        chromium.wait(f"{PROGRESS} && {PROGRESS}.startsWith('done in')")
        address = chromium.wait("(document.querySelector('#video-out video') || {}).src")
        size = chromium.value(f"fetch({address!r}).then(r => r.blob()).then(b => b.size)")
        assert size > 500
        chromium.fill("#set-num_inference_steps :is(input, textarea)", "3000")
        chromium.click("#generate")
        chromium.wait(f"{PROGRESS}.startsWith('denoising') && {PROGRESS}.includes(' left')")
        chromium.click("#cancel")
        chromium.wait(f"{PROGRESS} === 'error: cancelled'")


def test_command_without_a_model_folder_is_one_line(tmp_path, capsys):
    assert demo.main(["--model", str(tmp_path / "nowhere"), "--save-dir", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert threading.active_count() < 50
