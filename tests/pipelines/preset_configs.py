"""Settings of recipes by preset, with the weights and servers that a user of the preset would name."""

from __future__ import annotations

from pkgutil import resolve_name

from pipelines.pairs import PIPELINES

# Weights and servers that a user of the preset names; everything else has a default.
GIVEN = {"url": ("http://127.0.0.1:9/v1",), "video_editor_model": "RENDERER", "animate_model": "RENDERER",
         "pose_model": "pose.onnx", "pose_detector": "people.onnx", "face_model": "face.onnx", "face_detector": "faces.onnx"}
NAMED = {"video_editor_model": "video_editor", "animate_model": "animate", "pose_model": "pose", "pose_detector": "pose",
         "face_model": "face", "face_detector": "face", "url": "annotator"}


def config_of(name: str, preset: str, **more):
    recipe = resolve_name(PIPELINES[name])
    settings = {"input": "in", "output": "out", **recipe.PRESETS[preset], **more}
    asked = {flag: value for flag, value in GIVEN.items() if settings.get(NAMED[flag], "classical") not in ("classical", "")}
    return recipe.Config(**asked | settings)
