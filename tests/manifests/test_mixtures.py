"""Tables 1 and 2 against what is there."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from manifests.errors import ConfigError
from manifests.mixtures import MIXTURES, TABLE_1, TABLE_2, Mixture, mixture
from manifests.sample_size import latent_frames, sample_tokens, target_seconds
from manifests.schema import VIDEO_ITEM
from manifests.tasks import TASKS

FULL = {(name, {"T2I": "t2i", "T2V": "t2v", "I2I": "i2i", "I2V": "r2v", "V2V": "v2v", "IV2V": "vr2v"}[group]): 100
        for name, (group, _) in TABLE_1.items()}


def test_with_every_set_of_table_1_its_weights_come_out():
    shares = mixture("IIb").weights(FULL)
    for (name, _), share in shares.items():
        assert 100 * share == pytest.approx(TABLE_1[name][1], rel=0.02)  # Table 1's groups are rounded in Table 2
    assert sum(shares.values()) == pytest.approx(1)


@pytest.mark.parametrize("stage", TABLE_2)
def test_group_shares_are_those_of_table_2(stage):
    counts = FULL | {("video-pairs", "v2v"): 10, ("image-pairs", "i2i"): 10, ("interleaved-web", "interleaved"): 10,
                     ("own-understanding", "understanding"): 10, ("reasoning-text", "v2v"): 10}
    shares, groups = mixture(stage).weights(counts), TABLE_2[stage]
    for group, weight in groups.items():
        mine = sum(s for (name, task), s in shares.items() if group in (TABLE_1.get(name, ("",))[0], {
            "video-pairs": "V.P.", "image-pairs": "I.P.", "interleaved-web": "Int.", "own-understanding": "Und.",
            "reasoning-text": "CoT"}.get(name)))
        assert mine == pytest.approx(weight / sum(groups.values())), group


def test_pair_data_decay_linearly_to_nothing():
    counts = {("video-pairs", "v2v"): 1, ("inhouse-t2v", "t2v"): 1}
    raw = [mixture("IIa").weights(counts, p) for p in (0.0, 0.5, 1.0)]
    odds = [s["video-pairs", "v2v"] / s["inhouse-t2v", "t2v"] for s in raw]
    assert odds == pytest.approx([11 / 42, 5.5 / 42, 0.0])
    with pytest.raises(ConfigError, match="progress is 1.5"):
        mixture("IIa").weights(counts, 1.5)


def test_even_draws_each_sample_equally_often():
    shares = mixture("even").weights({("a", "v2v"): 30, ("uniredit-100k", "i2i"): 10, ("c", "t2v"): 60})
    assert list(shares.values()) == pytest.approx([0.3, 0.1, 0.6])


def test_a_propagation_model_is_trained_on_edited_first_frames_alone():
    counts = {("propagation", "vi2v"): 30, ("own-propagation", "vi2v"): 10, ("propagation-based-editing", "v2v"): 60}
    assert mixture("propagation").weights(counts) == pytest.approx(dict(zip(counts, (0.75, 0.25, 0.0), strict=True)))
    with pytest.raises(ConfigError, match="propagation gives no weight to any of the data sets a; its groups are vi2v"):
        mixture("propagation").weights({("a", "v2v"): 1})


def test_an_override_that_fits_nothing_is_refused():
    blend = Mixture(name="x", groups=MIXTURES["IIb"].groups, overrides={"pico": 1.0})
    with pytest.raises(ConfigError, match="weight is given for 'pico', but no samples"):
        blend.weights({("pico-banana-400k", "i2i"): 1})


def test_tokens_are_those_of_the_latents():
    """performance.md B.0: 81 frames at 480 x 832 have 32,760 tokens; 97 frames 39,000."""
    assert (latent_frames(np.array([81 / 16, 97 / 16, 60.0, 17 / 16, 0.1])) * 1560).tolist() == [
        32_760, 39_000, 39_000, 7_800, 1_560]
    item = {"video_path": "a", "duration": 81 / 16, "crop_method": "center", "start_s": 0.0, "end_s": 81 / 16}
    videos = pa.chunked_array([pa.array([[item, item], None, [item]], pa.list_(VIDEO_ITEM))])
    images = pa.chunked_array([pa.array([["r.png"], ["a", "b"], []], pa.list_(pa.string()))])
    assert (sample_tokens(images, videos) - 512).tolist() == [2 * 32_760 + 1560, 2 * 1560, 32_760]
    assert target_seconds(videos, np.array([True, False, True])).tolist() == pytest.approx([81 / 16, 0, 81 / 16])
    assert all(task.group for task in TASKS.values())
