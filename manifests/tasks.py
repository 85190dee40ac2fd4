"""The tasks that a sample can train, in the names of the released trainer (spec: model.md, 6).

`inputs` are the roles of the media that condition it, `output` the kind of its target.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    name: str
    inputs: tuple[str, ...]  # "image" or "video" each
    output: str


TASKS = {
    task.name: task
    for task in (
        Task("t2i", (), "image"),
        Task("t2v", (), "video"),
        Task("i2i", ("image",), "image"),
        Task("i2v", ("image",), "video"),
        Task("v2v", ("video",), "video"),
    )
}
