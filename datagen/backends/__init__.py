"""Models, and measured stand-ins without weights, behind the ops that make pixels.

Every protocol is one or two methods over numpy arrays. Pictures are `(H, W, 3)` uint8 RGB, clips
`(T, H, W, 3)` uint8 RGB, masks `bool (T, H, W)`, boxes `(x0, y0, x1, y1)` in pixels. A backend
loads in `__init__`, on the worker that uses it, and is named by string: a key of `BACKENDS`,
or "module:Class". What fails for one row raises `BackendError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import Protocol

import numpy as np

from manifests.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Track:
    """One object through a clip. `masks` bool `(T, H, W)`; `score` in [0, 1]; `phrase` names it."""

    phrase: str
    score: float
    masks: np.ndarray


class Segmenter(Protocol):
    """Finds objects and follows them; most salient first. No phrases = whatever stands out."""

    def segment(self, frames: np.ndarray, phrases: Sequence[str] = ()) -> list[Track]: ...


@dataclass(frozen=True, kw_only=True)
class Poses:
    """People of one frame: `keypoints` float32 `(P, K, 2)` in pixels, `scores` float32 `(P, K)` in [0, 1]."""

    keypoints: np.ndarray
    scores: np.ndarray


class PoseEstimator(Protocol):
    """`skeleton` lists pairs of keypoint indices that are joined when a pose is drawn."""

    skeleton: tuple[tuple[int, int], ...]

    def estimate(self, frames: np.ndarray) -> list[Poses]: ...


@dataclass(frozen=True, kw_only=True)
class Face:
    """`embedding` float32 `(D,)` of unit length: the cosine of two tells whether they are one person."""

    box: tuple[int, int, int, int]
    score: float
    embedding: np.ndarray


class FaceEmbedder(Protocol):
    """Faces of one picture, largest first."""

    def faces(self, image: np.ndarray) -> list[Face]: ...


@dataclass(frozen=True, kw_only=True)
class EditRequest:
    """What to change. Models read `instruction`; classical editors read `kind`, `mask` and `params`.

    `kind` is one of recolour, remove, insert, replace, blur-background, swap-background, stylise, scene.
    `mask` is bool `(H, W)` or `(T, H, W)`: the object that is meant. `references` are pictures, for
    "insert" and "replace" with an alpha channel `(h, w, 4)` where it is known.
    """

    instruction: str
    kind: str
    mask: np.ndarray | None = None
    references: tuple[np.ndarray, ...] = ()
    params: Mapping[str, object] = field(default_factory=dict)
    seed: int = 0


class ImageEditor(Protocol):
    """Edited picture of equal size. An exact mask of what it changed may be had from the difference."""

    def edit(self, image: np.ndarray, request: EditRequest) -> np.ndarray: ...


class VideoEditor(Protocol):
    """Edited clip of equal size and length; `first_frame` is the edited first frame to be propagated."""

    def edit(self, frames: np.ndarray, request: EditRequest, first_frame: np.ndarray | None = None) -> np.ndarray: ...


class Inpainter(Protocol):
    """The clip with what lies under the masks replaced by background."""

    def inpaint(self, frames: np.ndarray, masks: np.ndarray) -> np.ndarray: ...


BACKENDS: dict[str, dict[str, str]] = {
    "segmenter": {
        "classical": "datagen.backends.classical_segment:ClassicalSegmenter",
        "grounded-sam2": "datagen.backends.grounded_sam2:GroundedSam2",
    },
    "pose": {"dwpose": "datagen.backends.dwpose:DWPose"},
    "face": {
        "classical": "datagen.backends.classical_face:CascadeFaces",
        "arcface": "datagen.backends.arcface:ArcFace",
    },
    "image-editor": {
        "classical": "datagen.backends.classical_edit:ClassicalImageEditor",
        "qwen-image-edit": "datagen.backends.diffusers_image:QwenImageEditor",
        "flux-kontext": "datagen.backends.diffusers_image:FluxKontextEditor",
        "openai": "datagen.backends.openai_images:OpenAIImageEditor",
    },
    "video-editor": {
        "classical": "datagen.backends.classical_video:ClassicalVideoEditor",
        "wan-vace": "datagen.backends.wan_vace:WanVACE",
        "bernini": "pipelines.editors:BerniniEditor",
    },
    "inpainter": {
        "classical": "datagen.backends.classical_video:ClassicalInpainter",
        "diffusers": "datagen.backends.diffusers_image:DiffusersInpainter",
        "wan-vace": "datagen.backends.wan_vace:WanVACE",
    },
}

# Arguments that a backend cannot do without: its weights or its server. A test holds it against the classes.
REQUIRED = {
    "segmenter": {"grounded-sam2": ("model", "sam_model")},
    "pose": {"dwpose": ("model", "detector")},
    "face": {"arcface": ("model", "detector")},
    "image-editor": {"openai": ("url", "model")},
    "video-editor": {"bernini": ("model",)},
    "inpainter": {"diffusers": ("model",)},
}


def check_backend(role: str, name: str, options: Mapping[str, object], flags: Mapping[str, str] | None = None) -> None:
    """`ConfigError` where a role has no backend `name` ("module:Class" is not looked into), where `options` lack what
    it needs. With `flags`, what a user calls each option, also where one is given to nobody: an empty name is no
    backend, and the classical ones load nothing."""
    known, spoken = BACKENDS[role], role.replace("-", " ")
    if flags and options and name in ("", "classical"):
        named = " and ".join(flags[o] for o in options if o in flags)
        raise ConfigError(f"{named} belongs to a model, and the {spoken} is {name or 'none'}")
    if not name:
        return
    if name not in known and ":" not in name:
        raise ConfigError(f"no {spoken} {name!r}; known: {', '.join(known)}, or module:Class")
    missing = [(flags or {}).get(o, o) for o in REQUIRED[role].get(name, ()) if not options.get(o)]
    if missing:
        raise ConfigError(f"{spoken} {name} needs {' and '.join(missing)}")


def open_backend(role: str, name: str, **options: object):
    """Build the backend `name` of a role. Unknown names list the known ones."""
    known = BACKENDS[role]
    if not name:
        raise ConfigError(f"no {role.replace('-', ' ')} is named; known: {', '.join(known)}, or module:Class")
    check_backend(role, name, options)
    return resolve_name(known.get(name, name))(**options)
