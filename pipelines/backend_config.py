"""Settings of the models that recipes share: who finds objects and poses, who edits and inpaints.

Each is a part of a recipe's `Config`: what a user calls a model and its weights, and the arguments that its backend is
then built with (`datagen/backends/`). What a backend cannot do without is asked for before anything is read.
"""

from __future__ import annotations

from dataclasses import dataclass

from datagen.backends import check_backend
from manifests.errors import ConfigError

from .recipe import AskConfig, RunConfig


@dataclass(frozen=True, kw_only=True)
class SegmenterConfig(RunConfig):
    """Who finds and follows objects."""

    segmenter: str = "classical"
    """Finds and follows objects: classical (no weights), grounded-sam2 (the paper's), or module:Class."""
    segmenter_model: str = "IDEA-Research/grounding-dino-base"
    """grounded-sam2: folder or hub id of the GroundingDINO model."""
    sam_model: str = "facebook/sam2.1-hiera-large"
    """grounded-sam2: folder or hub id of the SAM2 video model."""
    segmenter_gpus: float = 0.0
    """Share of a GPU that a worker takes for the segmenter."""

    def __post_init__(self):
        super().__post_init__()
        check_backend("segmenter", self.segmenter, self.segmenter_options,
                      {"model": "--segmenter-model", "sam_model": "--sam-model"})

    @property
    def segmenter_options(self) -> dict:
        models = {"model": self.segmenter_model, "sam_model": self.sam_model}
        return models if self.segmenter == "grounded-sam2" else {}


@dataclass(frozen=True, kw_only=True)
class PoseConfig(RunConfig):
    """Who finds skeletons."""

    pose: str = ""
    """Finds skeletons: dwpose (the paper's), or module:Class; empty = nobody, because nothing without weights does."""
    pose_model: str = ""
    """dwpose: ONNX file of its keypoints, e.g. dw-ll_ucoco_384.onnx."""
    pose_detector: str = ""
    """dwpose: ONNX file of its person detector, e.g. yolox_l.onnx."""

    def __post_init__(self):
        super().__post_init__()
        check_backend("pose", self.pose, self.pose_options, {"model": "--pose-model", "detector": "--pose-detector"})

    @property
    def pose_options(self) -> dict:
        given = {"model": self.pose_model, "detector": self.pose_detector}
        return {name: value for name, value in given.items() if value}


@dataclass(frozen=True, kw_only=True)
class ImageEditorConfig(RunConfig):
    """Who edits pictures."""

    image_editor: str = "classical"
    """Edits pictures: classical (no weights), qwen-image-edit, flux-kontext, openai, or module:Class."""
    image_editor_model: str = ""
    """Folder, hub id, or a server's name of its model; empty = its own default."""
    image_editor_url: str = ""
    """openai: the server of images, e.g. http://127.0.0.1:8001/v1."""
    image_editor_gpus: float = 0.0
    """GPUs that a worker takes for the image editor."""

    def __post_init__(self):
        super().__post_init__()
        if self.image_editor_url and self.image_editor in ("qwen-image-edit", "flux-kontext"):
            raise ConfigError(f"--image-editor-url is for image editor openai; {self.image_editor} runs in the workers")
        check_backend("image-editor", self.image_editor, self.image_editor_options,
                      {"model": "--image-editor-model", "url": "--image-editor-url"})

    @property
    def image_editor_options(self) -> dict:
        given = {"model": self.image_editor_model, "url": self.image_editor_url}
        return {name: value for name, value in given.items() if value}


@dataclass(frozen=True, kw_only=True)
class MeasuredEditConfig(AskConfig, ImageEditorConfig):
    """Pictures edited by what is measured in them, or as a model asks for it."""

    def __post_init__(self):
        super().__post_init__()
        if self.measured != (self.image_editor == "classical"):
            raise ConfigError("the classical image editor does measured edits, and models need a model's prompt: "
                              f"annotator {self.annotator} does not go with image editor {self.image_editor}")


@dataclass(frozen=True, kw_only=True)
class InpainterConfig(RunConfig):
    """Who removes objects."""

    inpainter: str = "classical"
    """Who removes: classical, wan-vace, diffusers, or module:Class; empty = the video editor, by the instruction."""
    inpainter_model: str = ""
    """Folder or hub id of its model; empty = its own default."""

    def __post_init__(self):
        super().__post_init__()
        check_backend("inpainter", self.inpainter, self.inpainter_options, {"model": "--inpainter-model"})

    @property
    def inpainter_options(self) -> dict:
        return {"model": self.inpainter_model} if self.inpainter_model else {}
