"""GroundingDINO finds what phrases name, SAM2 follows it through the clip: the paper's segmenter (Table 1).

Both are the classes of transformers, not the packages `groundingdino-py` and `sam2`: the former fails
on transformers 5, which the rest of the house needs; the latter wants hydra, iopath and a build without
isolation for the same network; and transformers loads both from a plain folder of safetensors with
its processors. Folders as published: IDEA-Research/grounding-dino-base, facebook/sam2.1-hiera-large.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import transformers
from torchvision.ops import nms
from transformers import AutoProcessor, GroundingDinoForObjectDetection, Sam2VideoModel, Sam2VideoProcessor

from manifests.errors import BackendError

from . import Track

ANYTHING = ("person", "animal", "vehicle", "object")  # what is looked for when nothing is named
MOMENTS = (0.0, 0.5, 1.0)                             # of the clip, at which is looked
NMS_OVERLAP = 0.7


class GroundedSam2:
    """`model` and `sam_model` are folders (or hub ids). Thresholds are those of GroundingDINO's demonstration."""

    def __init__(self, *, model: str, sam_model: str, device: str = "auto", box_threshold: float = 0.35,
                 text_threshold: float = 0.25, max_objects: int = 5):
        self._device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self._dtype = torch.bfloat16 if self._device == "cuda" else torch.float32
        self._finder, self._finder_processor = _load(GroundingDinoForObjectDetection, AutoProcessor, model,
                                                     torch.float32, "GroundingDINO", "--segmenter-model")
        self._tracker, self._tracker_processor = _load(Sam2VideoModel, Sam2VideoProcessor, sam_model,
                                                       self._dtype, "SAM2 video", "--sam-model")
        self._finder, self._tracker = self._finder.to(self._device), self._tracker.to(self._device)
        self._box, self._text, self._max_objects = box_threshold, text_threshold, max_objects
        self.version = f"{model} + {sam_model} (transformers {transformers.__version__})"

    def segment(self, frames: np.ndarray, phrases: Sequence[str] = ()) -> list[Track]:
        """Up to `max_objects` tracks, best found first; none where nothing reaches the threshold."""
        phrases = tuple(phrases) or ANYTHING
        looks = {round(m * (len(frames) - 1)) for m in MOMENTS}
        found = max(((t, *self._find(frames[t], phrases)) for t in sorted(looks)),
                    key=lambda look: float(look[2].max()) if len(look[2]) else -1.0)
        start, boxes, scores, labels = found
        if not len(boxes):
            return []
        masks = self._follow(frames, start, boxes)
        return [Track(phrase=label, score=round(float(score), 4), masks=mask)
                for label, score, mask in zip(labels, scores, masks, strict=True)]

    @torch.inference_mode()
    def _find(self, frame: np.ndarray, phrases: Sequence[str]) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """`boxes (N, 4)` in pixels, `scores (N,)` and what each shows, best first."""
        text = " ".join(f"{p.lower().strip('. ')}." for p in phrases)  # the form that the model was trained on
        inputs = self._finder_processor(images=frame, text=text, return_tensors="pt").to(self._device)
        found = self._finder_processor.post_process_grounded_object_detection(
            self._finder(**inputs), inputs["input_ids"], threshold=self._box, text_threshold=self._text,
            target_sizes=[frame.shape[:2]])[0]
        keep = nms(found["boxes"].float(), found["scores"].float(), NMS_OVERLAP)[: self._max_objects].cpu()
        labels = [_phrase(found["text_labels"][i], phrases) for i in keep.tolist()]
        return found["boxes"].cpu()[keep].numpy(), found["scores"].cpu()[keep].numpy(), labels

    @torch.inference_mode()
    def _follow(self, frames: np.ndarray, start: int, boxes: np.ndarray) -> np.ndarray:
        """bool `(N, T, H, W)`: the objects of `boxes` in frame `start`, followed to both ends."""
        session = self._tracker_processor.init_video_session(
            video=list(frames), inference_device=self._device, dtype=self._dtype,
            processing_device="cpu", video_storage_device="cpu")
        self._tracker_processor.add_inputs_to_inference_session(
            session, frame_idx=start, obj_ids=list(range(len(boxes))), input_boxes=[boxes.tolist()])
        masks = np.zeros((len(boxes), *frames.shape[:3]), bool)
        self._tracker(inference_session=session, frame_idx=start)
        for reverse in (False, True) if start else (False,):
            for out in self._tracker.propagate_in_video_iterator(session, start_frame_idx=start, reverse=reverse):
                big = self._tracker_processor.post_process_masks([out.pred_masks], [frames.shape[1:3]])[0]
                masks[list(out.object_ids), out.frame_idx] = big[:, 0].cpu().numpy()
        return masks


def _load(model_class, processor_class, folder: str, dtype: torch.dtype, what: str, flag: str):
    try:
        return (model_class.from_pretrained(folder, dtype=dtype).eval(), processor_class.from_pretrained(folder))
    except (OSError, ValueError) as error:
        raise BackendError(f"cannot load a {what} model from {folder!r}: {error}. Give a folder that holds "
                           f"config.json, the weights and the processor with {flag}") from None


def _phrase(label: str, phrases: Sequence[str]) -> str:
    """The phrase that a label means; the model answers with the tokens that it matched, often a part."""
    words = set(label.lower().split())
    best = max(phrases, key=lambda p: len(words & set(p.lower().split())))
    return best if words & set(best.lower().split()) else (label.strip() or phrases[0])
