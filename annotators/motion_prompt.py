"""What should move in an edited picture when it becomes a video (D4)."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from manifests.columns import column
from manifests.errors import BackendError

from .ask import Annotator, Question
from .parsing import obj, text
from .pictures import View

PROMPT = """
You see a picture that was edited as the edit_prompt says. It will be the first frame of a video of
five seconds. Write what moves in that video: first the main subject and what it does, then what
moves around it, then the camera. Choose motion that suits what is seen and that can be done in
the time; what the edit brought in must stay in view and keep its looks. Do not repeat the edit.
"""


MOVES = {
    "zoom in": "The camera {pace} closes in on the scene.",
    "zoom out": "The camera starts close and {pace} draws back until the whole scene is in view.",
    "pan right": "The camera {pace} pans to the right.", "pan left": "The camera {pace} pans to the left.",
    "tilt up": "The camera {pace} tilts up.", "tilt down": "The camera {pace} tilts down.",
}
FAST = 0.035  # frame widths or magnification a second


def planned_move(row: Mapping[str, object]) -> dict:
    """Words for a camera move over a still picture that is planned in `camera_move` and `camera_speed`."""
    if row["camera_move"] not in MOVES:
        raise BackendError("a still picture shows no motion: plan a camera_move, or give backend='openai'")
    pace = "steadily" if (row["camera_speed"] or 0.0) >= FAST else "slowly"
    return {"motion_prompt": f"Everything in the scene stands still. {MOVES[row['camera_move']].format(pace=pace)}"}


class WriteMotionPrompt(Annotator):
    """Edited pictures with their `edit_prompt` → `motion_prompt`; without a model the words of a planned move."""

    question = Question(
        name="motion_prompt", prompt=PROMPT, schema=obj(subject=text(300), surroundings=text(200), camera=text(150)),
        texts=("edit_prompt",), views=(View(label="edited picture", path="edited_path"),),
        parse=lambda answer, row: {"motion_prompt": " ".join(part.strip() for part in answer.values())},
        adds=(column("motion_prompt", pa.string(), "what moves in the video that starts with the edited picture"),),
        measured=planned_move, measures=("camera_move", "camera_speed"),
    )
