"""torchcodec in exact mode returns the frames that PyAV returns, also on variable frame rate."""

from __future__ import annotations

import numpy as np
import pytest

from manifests.errors import MediaError
from manifests.spans import read_frames


def need_torchcodec():
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, RuntimeError, OSError) as error:
        pytest.skip(f"torchcodec or a system FFmpeg is not there: {str(error).splitlines()[0]}")


@pytest.mark.parametrize("name", ["clips/multishot_bikes.mp4", "odd/vfr_traffic.mp4", "clips/squirrel_vp9.webm",
                                  "odd/nonzero_start.mp4", "clips/dog_handheld.mp4"])
def test_both_decoders_show_the_same_frames(media, name):
    need_torchcodec()
    times = [0.0, 0.1, 0.21] if "nonzero" in name else [0.03, 0.5, 1.27, 2.0]
    ours, theirs = (read_frames(str(media / name), times, long_px=160, decoder=d) for d in ("pyav", "torchcodec"))
    assert ours.shape == theirs.shape
    # Colour conversion and shrinking differ; a neighbouring frame of these clips differs by more.
    for a, b in zip(ours.astype(int), theirs.astype(int), strict=True):
        assert np.abs(a - b).mean() < 4


def test_what_cannot_be_read_is_a_media_error(media):
    need_torchcodec()
    with pytest.raises(MediaError):
        read_frames(str(media / "odd" / "truncated_after_moov.mp4"), [0.0], decoder="torchcodec")
