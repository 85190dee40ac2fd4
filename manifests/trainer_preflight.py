"""What the released trainer can read (spec: model.md, 6; peers.md, 1).

A task that it knows and whose inputs fit, `has_loss` on every message, a target at the end, at least 17 frames at
16 fps, a crop that it has. What breaks a rule it drops without a word, or learns wrongly.
"""

from __future__ import annotations

from collections.abc import Mapping

from .errors import MediaError
from .messages import MIN_FRAMES, TRAINER_FPS
from .samples import TEXT_MESSAGES, SampleMedia, read_messages
from .tasks import TASKS

CROPS = ("left", "right", "center")


def preflight(row: Mapping) -> None:
    """Raise `MediaError` for what the released trainer could not read, or would read wrongly."""
    task = TASKS.get(row["task"])
    if task is None:  # its name selects prompt, weighting and shift; a wrong one raises no error there
        raise MediaError(f"no task {row['task']!r}; known: {', '.join(TASKS)}")
    if not task.released:
        raise MediaError(f"the released trainer does not know the task {task.name}; it knows "
                         f"{', '.join(t.name for t in TASKS.values() if t.released)}")
    messages = read_messages(row)
    media = SampleMedia.of(row, messages)
    if any(m.get("has_loss") not in (0, 1) for m in messages):
        raise MediaError("a message has no has_loss of 0 or 1: the trainer's code and documentation differ on its "
                         "default")
    if not any((m.get("text") or "").strip() for m in messages if m["type"] in TEXT_MESSAGES):
        raise MediaError("there is no text")
    _check_target(task, messages, media)
    for m in media:
        if m.kind == "video" and (m.end_s - m.start_s) * TRAINER_FPS < MIN_FRAMES:
            raise MediaError(f"a video has fewer than {MIN_FRAMES} frames at {TRAINER_FPS:g} fps "
                             f"({MIN_FRAMES / TRAINER_FPS:.2f} s)")
    for item in row["videos"]:
        if item["crop_method"] not in CROPS:
            raise MediaError(f"crop_method {item['crop_method']!r} is none of {', '.join(CROPS)}")


def _check_target(task, messages: list[dict], media: list[SampleMedia]) -> None:
    targets = [m.is_target for m in media]
    if not targets or targets != sorted(targets) or not messages[-1]["type"].endswith("_gen"):
        raise MediaError("the target is not the one last message")
    if [m.kind for m in media[:-1] if m.is_target] not in ([], ["image"]):
        raise MediaError("before the target only one picture can be made, an edited first frame")
    if not messages[-1]["has_loss"]:
        raise MediaError("the target has has_loss 0: nothing would be learned")
    if media[-1].kind != task.output:
        raise MediaError(f"the target is of the kind {media[-1].kind}, the task {task.name} makes a target of the kind "
                         f"{task.output}")
    kinds = tuple(m.kind for m in media if not m.is_target)
    if not task.takes(kinds):
        raise MediaError(f"the inputs {', '.join(kinds) or '(none)'} do not fit the task {task.name}, which takes "
                         f"{', '.join(task.inputs) or 'none'}")
