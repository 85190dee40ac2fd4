"""The cluster presets of the recipes with generators, over real clips, with small models of the real architectures.

GroundingDINO, SAM2, Qwen-Image-Edit, DWPose and our renderer have random weights and are loaded by the code that loads the
published ones; a server speaks for the vision-language model. What such models make is noise: so every op runs and every
medium is made, and then the recipes' own rules say what is wrong with it.
"""

from __future__ import annotations

import av
import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="needs the extra 'models': pip install 'bernini[models]'")
pytest.importorskip("diffusers", reason="needs the extra 'models': pip install 'bernini[models]'")

from pkgutil import resolve_name  # noqa: E402

from bernini.tiny import write_tiny  # noqa: E402
from manifests.errors import RunStopped  # noqa: E402
from manifests.manifest import Manifest  # noqa: E402
from pipelines.pairs import PIPELINES, transforms  # noqa: E402
from tests.annotators.chat_server import chat_server  # noqa: E402
from tests.datagen.tiny_editors import qwen_image_edit  # noqa: E402
from tests.datagen.tiny_models import write_dwpose, write_grounding_dino, write_sam2  # noqa: E402

from .small_clips import SMALL  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
# Random masks and noise keep no bound; what the rules of consistency ask for stays as it is.
LOOSE = {"score_min": 0.0, "object_min": 0.0, "object_max": 1.0, "min_mask_score": 0.0, "min_mask_area": 0.0, "max_mask_area": 1.0,
         "min_mask_stability": 0.0, "object_score_min": 0.0, "object_share_max": 1.0, "object_cut_max": 1.0,
         "object_solid_min": 0.0, "object_contrast_min": 0.0, "edited_min": 0.0, "edited_max": 1.0, "gap_max": 1e9,
         "presence_min": 0.0, "motion_min": 0.0, "agreement_min": 0.0, "min_pose_presence": 0.0, "min_objects": 1, "people_only": False,
         "judge_min": 1.0, "video_start_min_db": 0.0}  # the server gives the lowest mark
NO_GPU = {"gpus": 0.0, "gpus_per_worker": 0.0, "segmenter_gpus": 0.0, "image_editor_gpus": 0.0, "animate_gpus": 0.0,
          "embedder": "classical", "frame_embedder": "classical"}
QUICK = {"num_steps": 1, "per_clip": 1, "attempts": 1, "rounds": 1, "seconds": 1.1, "video_short_px": 96, "image_px": 192,
         "num_key_frames": 1, "max_objects": 1, "max_failed_share": 1.0}
UNMEASURED = "failed: background_similarity was not measured"  # scattered random masks leave no background
# Recipe: its settings here, the stop in which all models have run, and what the row then has.
RUNS = {
    "diverse-edits": ({"mechanisms": ("pool",)}, "edited", ("edited_path", "video_path")),
    "propagation-based-editing": ({"edits": ("replacement",), "swap": False}, "candidates", ("edited_path", "target_path")),
    "motion-aware-editing": ({}, "candidates", ("edited_path", "target_path")),
    "general-r2v": ({}, "references", ("mask_path", "reference_path")),
    "motion-transfer": ({}, "pairs", ("source_path", "target_path")),
    "transforms": ({"transforms": ("video2mask", "pose2video"), "per_clip": 2}, "pairs", ("source_path", "target_path")),
    "person-rv2v": ({}, "candidates", ("target_path", "track_path")),
    "reasoning-vision-text": ({}, "pairs", ("edited_path",)),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict:
    """Weights by the flag that names them."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("models")
    pose, people = write_dwpose(root / "dwpose")
    renderer, editor = write_tiny(root / "renderer", "diffusers"), qwen_image_edit(root / "qwen")
    return {"segmenter_model": write_grounding_dino(root / "dino", sure=True), "sam_model": write_sam2(root / "sam2"),
            "image_editor_model": editor, "video_editor_model": renderer, "animate_model": renderer, "model": renderer,
            "pose_model": pose, "pose_detector": people}


@pytest.fixture(scope="module")
def server():
    with chat_server() as served:
        yield served


@pytest.fixture(scope="module")
def inputs(small_clips, tmp_path_factory) -> dict:
    """What a recipe works on: films, or pairs that another one made without weights."""
    cut = transforms.Config(input=str(small_clips), output=str(tmp_path_factory.mktemp("r2v")), per_clip=2,
                            transforms=("opens2v-affine", "video2mask"), **SMALL)
    pairs = dict(transforms.run_steps(cut))["pairs"].path
    return dict.fromkeys(RUNS, str(small_clips)) | {"person-rv2v": pairs, "reasoning-vision-text": pairs}


def config_of(name: str, given: str, output, folders: dict, server):
    recipe = resolve_name(PIPELINES[name])
    fields = recipe.Config.__dataclass_fields__
    given = {"input": given, "output": str(output), "url": (server.url,), "annotator_model": "m", **SMALL, **QUICK, **LOOSE,
             **{flag: str(folder) for flag, folder in folders.items()}, **RUNS[name][0]}
    return recipe.Config(**recipe.PRESETS["cluster"] | {k: v for k, v in {**given, **NO_GPU}.items() if k in fields})


def run(name: str, config) -> dict[str, Manifest]:
    """The stops as far as they come: noise may end a run where a rule takes the last row."""
    made = {}
    try:
        for stop, manifest in resolve_name(PIPELINES[name]).run_steps(config):
            made[stop] = manifest
    except RunStopped as error:
        assert "no row of" in str(error)
    return made


def shape(path: str) -> tuple[int, ...]:
    if path.endswith(".mp4"):
        with av.open(path) as container:
            return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)]).shape
    return np.asarray(Image.open(path).convert("RGB")).shape


@pytest.mark.parametrize("name", RUNS)
def test_a_recipe_runs_through_its_models(name, inputs, folders, server, tmp_path):
    _, stop, columns = RUNS[name]
    config = config_of(name, inputs[name], tmp_path / "a", folders, server)
    made = run(name, config)
    rows = made[stop].table().to_pylist()
    failed = [r["issues"] for r in rows if (r["drop_reason"] or "").startswith("failed") and r["drop_reason"] != UNMEASURED]
    assert rows and not failed, failed
    whole = [row for row in rows if all(row.get(c) for c in columns)]
    assert whole, [(row["drop_reason"], row["issues"]) for row in rows]
    for row in whole:
        sizes = {column: shape(row[column]) for column in columns}
        videos = {s for s in sizes.values() if len(s) == 4}
        assert all(min(size) > 1 for size in sizes.values()), sizes
        assert len(videos) <= 1 and all(v[0] % 4 == 1 for v in videos), sizes  # both sides alike, 4 n + 1 frames
    again = run(name, config_of(name, inputs[name], tmp_path / "b", folders, server))
    assert {m.name for m in again.values()} == {m.name for m in made.values()}
    told = [column for column in whole[0] if column in columns or column in ("drop_reason", "instruction", "edit_prompt")]
    names = [[str(row[c]).rsplit("/", 1)[-1] for c in told] for row in rows]
    assert [[str(r[c]).rsplit("/", 1)[-1] for c in told] for r in again[stop].table().to_pylist()] == names  # media by content
