"""What should move in an edited picture when it becomes a video (D4)."""

from __future__ import annotations

import pyarrow as pa

from manifests.columns import column

from .ask import Annotator, Question
from .parsing import obj, text
from .pictures import View

PROMPT = """
You see a picture that was edited as the edit_prompt says. It will be the first frame of a video of
five seconds. Write what moves in that video: first the main subject and what it does, then what
moves around it, then the camera. Choose motion that suits what is seen and that can be done in
the time; what the edit brought in must stay in view and keep its looks. Do not repeat the edit.
"""


class WriteMotionPrompt(Annotator):
    """Edited pictures with their `edit_prompt` → `motion_prompt`. A still picture shows no motion to measure."""

    question = Question(
        name="motion_prompt", prompt=PROMPT, schema=obj(subject=text(300), surroundings=text(200), camera=text(150)),
        texts=("edit_prompt",), views=(View(label="edited picture", path="edited_path"),),
        parse=lambda answer, row: {"motion_prompt": " ".join(part.strip() for part in answer.values())},
        adds=(column("motion_prompt", pa.string(), "what moves in the video that starts with the edited picture"),),
    )
