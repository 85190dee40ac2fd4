"""Fixtures of the tests of manifests and their pages."""

from __future__ import annotations

import pytest

from manifests.manifest import Manifest

from .report_pages import film, pair, write


@pytest.fixture
def chain(tmp_path) -> Manifest:
    """VIDEOS → CLIPS → CANDIDATES → PAIRS with a rejected or failed row at each of the first three."""
    path = film(tmp_path / "walk.mp4")
    write(tmp_path, "videos", [
        {"video_id": "v-1", "path": path, "relative_path": "walk.mp4", "verdict": "good", "decoded_s": 8.0},
        {"video_id": "v-2", "path": "gone.mp4", "relative_path": "gone.mp4", "verdict": "empty",
         "issues": ["the file has 0 bytes"], "drop_reason": "failed: empty"}])
    clips = [{"clip_id": f"c-{i}", "video_id": "v-1", "path": path, "start_s": float(i), "end_s": i + 2.0,
              "duration_s": 2.0 + i / 10, "sharpness": 30.0 * i, "drop_reason": "sharpness<20" if i == 0 else None}
             for i in range(5)]
    write(tmp_path, "clips", clips, ["../../videos/demo-0123abcd"])
    candidates = [pair(path, i, "video_similarity>0.95" if i >= 3 else None) for i in range(5)]
    write(tmp_path, "candidates", candidates, [str(tmp_path / "clips" / "demo-0123abcd")])
    return write(tmp_path, "pairs", [pair(path, i) for i in range(3)], ["../../candidates/demo-0123abcd"])
