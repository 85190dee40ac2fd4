"""One thread, no network, tiny models and small clips for all tests of the model."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
torch = pytest.importorskip("torch", reason="needs the extra 'models': pip install 'bernini[models]'")

GOLDEN = Path(__file__).parents[3] / "shared" / "golden"


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def golden() -> Path:
    """Recorded numbers of the reference."""
    if not GOLDEN.is_dir():
        pytest.skip("../shared/golden is absent: the recorded numbers of the reference are not here")
    return GOLDEN


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Folder of a tiny model by layout, made once."""
    from bernini.tiny import write_tiny

    made: dict[str, Path] = {}

    def get(layout: str = "full") -> Path:
        if layout not in made:
            made[layout] = write_tiny(tmp_path_factory.mktemp("tiny") / layout, layout)
        return made[layout]

    return get


@pytest.fixture(scope="session")
def media(tmp_path_factory) -> dict[str, Path]:
    """A clip of 24 frames with sound, a second one without, and two pictures."""
    import numpy as np
    from PIL import Image

    from bernini.video_io import write

    folder = tmp_path_factory.mktemp("media")
    rng = np.random.default_rng(0)
    base = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
    frames = np.stack([np.roll(base, 2 * i, axis=1) for i in range(24)])
    silent = write(folder / "silent.mp4", frames, 16)
    paths = {"silent": silent, "sound": _with_sound(folder / "sound.mp4", frames)}
    paths["reversed"] = write(folder / "reversed.mp4", frames[::-1], 16)
    for name, size in (("wide", (64, 40)), ("tall", (40, 64))):
        paths[name] = folder / f"{name}.png"
        Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)).save(paths[name])
    return paths


def _with_sound(path: Path, frames) -> Path:
    import av
    import numpy as np

    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=16)
        video.height, video.width, video.pix_fmt = *frames.shape[1:3], "yuv420p"
        audio = container.add_stream("aac", rate=16000)
        for frame in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        tone = (np.sin(np.arange(24000) / 16000 * 2 * np.pi * 440) * 0.3).astype(np.float32)[None]
        sound = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        sound.sample_rate = 16000
        container.mux(audio.encode(sound))
        for stream in (video, audio):
            container.mux(stream.encode())
    return path
