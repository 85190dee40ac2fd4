"""The tasks that a sample can train, in the names of the released trainer (spec: model.md, 6).

A task's name selects its system prompt, its timestep weighting and its shift in training, so a
wrong name trains the wrong distribution without an error. `group` is the paper's task of
Tables 2 to 4 that it counts as.
"""

from __future__ import annotations

from dataclasses import dataclass

IMAGE, VIDEO, TEXT = "image", "video", "text"


@dataclass(frozen=True)
class Task:
    """`inputs` are the kinds of media that condition it; "image*" stands for one or more images.

    `group` is T2I, T2V, I2I, I2V, V2V, IV2V (Tables 2 to 4), Int. or Und. `released` is False
    for tasks that the released trainer does not know.
    """

    name: str
    inputs: tuple[str, ...]
    output: str
    group: str
    released: bool = True

    def takes(self, kinds: tuple[str, ...]) -> bool:
        """Do these input media, in this order, fit the task?"""
        if "any" in self.inputs:
            return True
        kinds, wanted = list(kinds), list(self.inputs)
        for want in wanted:
            kind = want.rstrip("*")
            if not kinds or kinds.pop(0) != kind:
                return False
            while want.endswith("*") and kinds and kinds[0] == kind:
                kinds.pop(0)
        return not kinds


TASKS = {
    task.name: task
    for task in (
        Task("t2i", (), IMAGE, "T2I"),
        Task("t2v", (), VIDEO, "T2V"),
        Task("i2i", ("image",), IMAGE, "I2I"),
        Task("r2i", ("image*",), IMAGE, "I2I"),
        Task("i2v", ("image*",), VIDEO, "I2V"),            # first frame; first and last; first, middle and last
        Task("r2v", ("image*",), VIDEO, "I2V"),            # pictures of the subjects
        Task("v2v", ("video",), VIDEO, "V2V"),
        Task("mv2v", ("video*",), VIDEO, "V2V"),           # several videos: parts, a motion and a camera
        Task("vi2v", ("video", "image"), VIDEO, "IV2V"),   # a video and its edited first frame
        Task("vr2v", ("video", "image*"), VIDEO, "IV2V"),  # a video and pictures of subjects (RV2V)
        Task("vrc2v", ("video", "image*"), VIDEO, "IV2V"),  # a video that lends its motion, and a picture
        Task("interleaved", ("any",), IMAGE, "Int.", released=False),
        Task("understanding", ("any",), TEXT, "Und.", released=False),
    )
}
