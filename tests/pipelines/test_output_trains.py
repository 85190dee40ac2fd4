"""What the recipes write is what training reads: mixed, encoded, and trained on."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

torch = pytest.importorskip("torch", reason="needs the extra 'models': pip install 'bernini[models]'")

from bernini.tiny import write_tiny  # noqa: E402
from manifests.manifest import ManifestWriter  # noqa: E402
from manifests.schema import SAMPLES  # noqa: E402
from pipelines.pairs import (  # noqa: E402
    general_r2v,
    interleaved,
    motion_transfer,
    reasoning_text,
    reasoning_vision_text,
    rv2v,
    transforms,
)

from .small_clips import SMALL  # noqa: E402

PER_MANIFEST = 2  # samples of each recipe and task that are encoded
LEARNED = {"i2i", "i2v", "v2v", "mv2v", "vi2v", "vr2v", "vrc2v", "r2v", "r2i", "interleaved"}
DRAWN = ("frame-to-video", "video-completion", "propagation", "inpainting-nomask-ref", "opens2v-affine")


@pytest.fixture(scope="module")
def recipes(film, film_run, image_run, propagated, small_clips, slow_clips, tmp_path_factory):
    """Samples manifests of recipes with pictures, clips, first frames, references, parts, poses and reasoning."""
    out = str(tmp_path_factory.mktemp("trains"))
    shutil.copytree(Path(image_run["frames"].path).parents[1] / "videos", Path(out, "videos"))
    shutil.copytree(Path(image_run["frames"].path).parent, Path(out, "frames"))
    given = {"output": out, "engine": "local", "quiet": True}
    pairs, clips = given | {"input": propagated[1]["pairs"].path}, SMALL | given | {"input": str(small_clips)}
    cut = dict(transforms.run_steps(transforms.Config(**clips | {"input": str(slow_clips)}, transforms=DRAWN, per_clip=len(DRAWN),
                                                      min_mask_score=0.0)))
    triplets = rv2v.Config(**given, input=cut["pairs"].path, short_px=144, max_frames=17)
    objects = general_r2v.Config(**{k: v for k, v in clips.items() if k not in ("short_px", "max_frames")},
                                 **general_r2v.PRESETS["laptop"])
    return [film_run["samples"], image_run["samples"], propagated[1]["samples"], cut["samples"], *(
        dict(steps)["samples"] for steps in (
            rv2v.run_steps(triplets), general_r2v.run_steps(objects),
            motion_transfer.run_steps(motion_transfer.Config(**clips, people_only=False)),
            interleaved.run_steps(interleaved.Config(**given, input=str(film.videos_folder))),
            reasoning_text.run_steps(reasoning_text.Config(**pairs)),
            reasoning_vision_text.run_steps(reasoning_vision_text.Config(**pairs))))]


def few(manifest, folder):
    """The first samples of each task, as a manifest of their own."""
    rows, num = [], {}
    for row in manifest.table().to_pylist():
        num[row["task"]] = num.get(row["task"], 0) + 1
        rows += [row] if num[row["task"]] <= PER_MANIFEST else []
    with ManifestWriter(str(folder), SAMPLES, manifest.schema) as writer:
        writer.append(pa.Table.from_pylist(rows, manifest.schema))
        return writer.commit(name="few", row="", parents=[], config={}, versions={}, owners={}), rows


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_thirty_steps_over_all_recipes_give_each_task_a_finite_loss(recipes, bernini, tmp_path):
    model, tasks, given = str(write_tiny(tmp_path / "model")), set(), []
    for i, manifest in enumerate(recipes):
        small, rows = few(manifest, tmp_path / f"few-{i}")
        tasks |= {row["task"] for row in rows}
        given.append(small.path)
    assert tasks == LEARNED
    code, out, err = bernini("encode", *given, "--model", model, "--output", tmp_path / "out", "--engine", "local", "--quiet", "--stage", "II",
                             "--max-size", 48, "--min-size", 32, "--max-frames", 9)
    assert code == 0, err
    latents = sorted(str(p) for p in (tmp_path / "out" / "latents").iterdir())
    code, out, err = bernini("train", "--stage", "IIb", "--model", model, "--data", *latents, "--mixture", "even",
                             "--output", tmp_path / "run", "--steps", 30, "--warmup", 2, "--tokens", 1500, "--log-every", 1,
                             "--save-every", 30, "--workers", 0, "--no-tensorboard")
    assert code == 0, err
    seen = {}
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        seen |= {k.split("/")[1]: v for k, v in json.loads(line).items() if k.startswith("loss/") and k.endswith("/dit")
                 and k != "loss/dit"}
    assert set(seen) == tasks  # no task was left out in silence
    assert all(math.isfinite(value) for value in seen.values()), seen
