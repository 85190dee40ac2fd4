"""What the renderer is shown beside the noise: sources, their ids, and which branch sees which.

For the samplers and the training loader. A *segment* is one visual stream: a whole source video,
or one reference image. Segment ids start at 1, the target is 0 (paper, section 2.1.2).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

MAX_TRAINED_SOURCE_ID = 5


def source_ids(
    count: int, *, max_trained: int = MAX_TRAINED_SOURCE_ID, interpolate: bool = True
) -> list[float]:
    """Ids 1, 2, … of `count` sources; beyond `max_trained` they are spread evenly over the trained range."""
    if count > max_trained and interpolate:
        return torch.linspace(1, max_trained, count, device="cpu").tolist()
    return [float(i + 1) for i in range(count)]


@dataclass(frozen=True)
class Source:
    """A clean source: `latent` float `[1, C, T, Y, X]`, normalised; `kind` is "video" or "image"."""

    latent: Tensor
    kind: str


@dataclass(frozen=True)
class Sources:
    """All sources of a clip in the released order (videos, then images) and how ids are given.

    `renumber_images` and `first_video_only` are rules of the renderer-only release; the planner
    release shows all videos and never renumbers.
    """

    items: tuple[Source, ...] = ()
    max_trained: int = MAX_TRAINED_SOURCE_ID
    interpolate: bool = True
    renumber_images: bool = False
    first_video_only: bool = False

    @classmethod
    def of(cls, videos: Sequence[Tensor] = (), images: Sequence[Tensor] = (), **rules) -> "Sources":
        """From latents; an image of several frames becomes one source a frame."""
        frames = [f for image in images for f in image.split(1, dim=2)]
        items = [Source(v, "video") for v in videos] + [Source(f, "image") for f in frames]
        return cls(tuple(items), **rules)

    def to(self, device: str) -> "Sources":
        """The same with latents on a device."""
        return replace(self, items=tuple(Source(s.latent.to(device), s.kind) for s in self.items))

    def visible(self, which: str) -> tuple[tuple[int, float], ...]:
        """`(index, id)` of the sources that a branch sees: none, video, images or all.

        Two branches that see the same get equal answers, which is how duplicates are found.
        """
        videos = [i for i, s in enumerate(self.items) if s.kind == "video"]
        images = [i for i, s in enumerate(self.items) if s.kind == "image"]
        ids = self._ids(len(self.items))
        if which == "none":
            return ()
        if which == "all":
            return tuple(zip(videos + images, ids, strict=True))
        if which == "video":
            shown = videos[:1] if self.first_video_only else videos
            return tuple((i, ids[i]) for i in shown)
        if which == "images":
            numbers = self._ids(len(images)) if self.renumber_images else [ids[i] for i in images]
            return tuple(zip(images, numbers, strict=True))
        raise ValueError(f"unknown visibility {which!r}; known: none, video, images, all")

    def _ids(self, count: int) -> list[float]:
        return source_ids(count, max_trained=self.max_trained, interpolate=self.interpolate)
