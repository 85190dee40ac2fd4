"""What the presets of every recipe build: ops with arguments that they take, and backends that are told where their
weights are. Only the loading of weights is left out."""

from __future__ import annotations

import inspect
from pkgutil import resolve_name

import pytest

import datagen.backends
from datagen.backends import BACKENDS, REQUIRED, check_backend
from manifests.errors import ConfigError
from pipelines.local import build as build_op
from pipelines.pairs import PIPELINES

from .preset_configs import config_of


def stages_of(name: str, config) -> list:
    recipe = resolve_name(PIPELINES[name])
    more = {"motion_aware": ("MODEL",), "reasoning_vision_text": (True,)}.get(recipe.__name__.rsplit(".", 1)[1], ())
    return [stage for stages in recipe.build(config, *more).values() for stage in stages]


class Taken:
    """Stands where a backend would be: it was given what its class takes. Weights are not to be had here."""

    version, skeleton = "", ()

    def __init__(self, spec: str):
        self.spec = spec

    def __call__(self, **options):
        inspect.signature(resolve_name(self.spec)).bind(**options)
        return self


@pytest.mark.parametrize("preset", ["laptop", "cluster"])
@pytest.mark.parametrize("name", PIPELINES)
def test_ops_of_a_preset_take_what_they_are_given(name, preset, monkeypatch, tmp_path):
    built = []
    monkeypatch.setattr(datagen.backends, "resolve_name", lambda spec: built.append(spec) or Taken(spec))
    for stage in stages_of(name, config_of(name, preset, output=str(tmp_path))):
        inspect.signature(resolve_name(stage.op)).bind(**stage.kwargs)
        if stage.op.startswith("datagen."):
            build_op(stage)
    if preset == "cluster" and name in ("transforms", "general-r2v", "propagation-based-editing", "person-rv2v",
                                        "motion-transfer", "motion-aware-editing"):
        assert BACKENDS["segmenter"]["grounded-sam2"] in built


@pytest.mark.parametrize(("role", "name"), [(role, name) for role in BACKENDS for name in BACKENDS[role]])
def test_what_a_backend_needs_is_what_its_class_has_no_default_for(role, name):
    parameters = inspect.signature(resolve_name(BACKENDS[role][name])).parameters.values()
    needs = {p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    assert needs == set(REQUIRED[role].get(name, ()))


@pytest.mark.parametrize(("name", "settings", "message"), [
    ("propagation-based-editing", {"video_editor": "bernini"}, "video editor bernini needs --video-editor-model"),
    ("propagation-based-editing", {"video_editor": "magic"}, "no video editor 'magic'; known: classical"),
    ("propagation-based-editing", {"num_steps": 9}, "num_steps is 9, and the video editor is classical"),
    ("propagation-based-editing", {"inpainter": "diffusers"}, "inpainter diffusers needs --inpainter-model"),
    ("person-rv2v", {"inpainter_model": "X"}, "--inpainter-model belongs to a model, and the inpainter is classical"),
    ("general-r2v", {"segmenter": "grounded-sam2", "sam_model": ""}, "segmenter grounded-sam2 needs --sam-model"),
    ("diverse-edits", {"annotator": "openai", "url": ("u",), "image_editor": "openai", "image_editor_model": "m"},
     "image editor openai needs --image-editor-url"),
    ("diverse-edits", {"image_editor_model": "X"}, "--image-editor-model belongs to a model, and the image editor is"),
    ("diverse-edits", {"animate_model": "X"}, "--animate-model belongs to a model, and the video editor is none"),
    ("motion-transfer", {"pose": "dwpose"}, "pose dwpose needs --pose-model and --pose-detector"),
    ("transforms", {"pose_model": "X"}, "--pose-model belongs to a model, and the pose is none"),
    ("reasoning-vision-text", {"annotator": "openai", "url": ("u",), "image_editor": "flux-kontext",
                               "image_editor_url": "u"}, "--image-editor-url is for image editor openai"),
])
def test_a_model_without_its_weights_is_refused_before_anything_is_read(name, settings, message):
    with pytest.raises(ConfigError, match=message):
        resolve_name(PIPELINES[name]).Config(input="in", output="out", **settings)


def test_a_backend_of_ones_own_is_named_by_its_class_and_gets_what_it_is_given():
    check_backend("segmenter", "my.module:Mine", {"model": "anything"}, {"model": "--segmenter-model"})


@pytest.mark.parametrize("preset", ["laptop", "cluster"])
@pytest.mark.parametrize("name", PIPELINES)
def test_workers_get_absolute_folders_and_a_moved_output_is_found_again(name, preset, monkeypatch, tmp_path):
    """Workers have other working folders; and where the output lies decides nothing that was made."""
    monkeypatch.chdir(tmp_path)
    relative, moved = (stages_of(name, config_of(name, preset, output=out)) for out in ("out", str(tmp_path / "moved")))
    assert [s.fingerprint() for s in relative] == [s.fingerprint() for s in moved]
    given = [value for stage in relative for value in stage.kwargs.values() if isinstance(value, str) and "out" in value]
    assert all(value.startswith(f"{tmp_path}/out") for value in given if "/" in value), given
    assert "out" not in given
