"""The motion of a clip without its looks: a reference video, and a frame of the clip beside it (D10).

Paper section 3.5: DWPose is extracted from real videos, and pose-to-video generation makes a reference video with
the same motion; the reference image is a random frame of the target. Three forms, named in `motion_form`:

    generated   a video editor made a video of somebody else from the drawn poses
    pose        the drawn poses themselves
    silhouette  no poses: the outline of the tracked object, coloured by its optical flow. A stand-in where no
                pose model is at hand: it shows where and how fast the object moves, not its limbs.

Whether the reference video that was made moves as the target does is measured on its own optical flow
(`motion_agreement`): an editor may ignore the poses.
"""

from __future__ import annotations

import cv2
import numpy as np
import pyarrow as pa

from manifests.columns import column, map_rows
from manifests.errors import BackendError
from manifests.ids import digest
from manifests.media_store import MediaStore
from manifests.messages import condition
from manifests.schema import PAIRS
from manifests.spans import read_span

from .backends import EditRequest, open_backend
from .edit_clip import SIDES
from .flow import DenseFlow, visible
from .pose_drawing import draw_poses
from .track_object import read_masks

# Somebody else, somewhere else, for the generated reference: nothing of the target may be in it.
ACTORS = ("a dancer in a plain red suit", "an old man in a grey coat", "a girl in a yellow dress",
          "a wooden jointed doll", "a runner in blue sportswear", "a woman in a white lab coat")
STAGES = ("in an empty hall", "on a beach", "before a plain grey wall", "in a snowy field", "on a wooden stage")
PROMPTS = ("Let what the picture shows move as in the video.",
           "Animate the picture with the motion of the video; looks and place are those of the picture.",
           "Transfer the motion of the video to the subject of the picture.",
           "The subject of the picture does what is done in the video.")
BASE = 60            # of 255: brightness of what does not move
PERCENTILE = 95      # of the speeds of a clip, which gets full brightness
STILL_PX = 0.25      # mean pixels a frame below which flow is its own error


class RenderMotion:
    """Tracked clips → motion reference (source), a frame of the clip (condition), the clip (target), instruction.

    `pose` names a `PoseEstimator`, "" = silhouettes of the track. `editor` names a `VideoEditor` that turns drawn
    poses into a video, "" = they stay drawings.
    """

    reads = ("clip_id", "work_path", "work_end_s", "track_path")
    adds = (
        *SIDES, PAIRS.schema.field("conditions"),
        column("instruction", pa.string(), "what the model is told to do"),
        column("reference_time_s", pa.float64(), "moment of the target that the reference image shows", "s"),
        column("motion_form", pa.string(), "generated, pose or silhouette"),
        column("motion_presence", pa.float32(), "share of frames in which somebody, or the object, was drawn"),
        column("motion_amount", pa.float32(), "mean speed of what was drawn against what surrounds it",
               "frame heights / s"),
        column("motion_agreement", pa.float32(), "optical flow of the reference video against the target's, where "
               "something was drawn: 1 = equal, 0 = still or opposite; null = neither moves", "0 to 1"),
        column("pair_num_frames", pa.int32(), "frames of motion reference and of target"),
    )
    neutral = ("media",)

    def __init__(self, media: str, *, pose: str = "", pose_options: dict | None = None, editor: str = "",
                 editor_options: dict | None = None, fps: float = 16.0, seed: int = 0):
        self.store, self.fps, self.seed = MediaStore(media), fps, seed
        self.pose = open_backend("pose", pose, **(pose_options or {})) if pose else None
        self.editor = open_backend("video-editor", editor, **(editor_options or {})) if editor else None
        self.flow, self.fine = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST), DenseFlow()

    @classmethod
    def owners(cls, pose: str = "", pose_options: dict | None = None, editor: str = "",
               editor_options: dict | None = None, **_: object) -> dict[str, dict]:
        by = {"op": "datagen.render_motion:RenderMotion",
              "pose": {"backend": pose, **(pose_options or {})} if pose else "silhouette",
              "editor": {"backend": editor, **(editor_options or {})} if editor else None}
        return {field.name: by for field in cls.adds}

    def __call__(self, table: pa.Table) -> pa.Table:
        return map_rows(table, self, self._render)

    def _render(self, row: dict) -> dict:
        if not row["work_path"]:
            raise BackendError("there is no clip")
        frames = np.stack(list(read_span(row["work_path"], 0.0, row["work_end_s"])))
        flows = self._flows(frames)
        drawn = self._poses(frames) if self.pose is not None else self._silhouettes(row, frames, flows)
        form, shown = "pose" if self.pose is not None else "silhouette", drawn.any(axis=3)
        if self.editor is not None:
            drawn, form = self._generated(row, drawn), "generated"
        video = self.store.video(drawn, fps=self.fps)
        seconds = {f"{side}_{name}": value for side in ("source", "target")
                   for name, value in (("start_s", 0.0), ("end_s", video.end_s), ("duration_s", video.end_s))}
        number = self._number(row, "frame") % len(frames)
        return {**seconds, "source_path": video.path, "target_path": row["work_path"],
                "conditions": [condition("reference", self.store.image(frames[number]))],
                "instruction": PROMPTS[self._number(row, "prompt") % len(PROMPTS)],
                "reference_time_s": number / self.fps, "motion_form": form, "pair_num_frames": len(frames),
                "motion_presence": float(shown.any(axis=(1, 2)).mean()),
                "motion_amount": amount(flows, shown) * self.fps / frames.shape[1],
                "motion_agreement": agreement(frames, drawn, shown, self.fine)}

    def _number(self, row: dict, what: str) -> int:
        return int(digest(self.seed, what, row["clip_id"], length=12), 16)

    def _flows(self, frames: np.ndarray) -> np.ndarray:
        """float32 `(T, H, W, 2)`: from each frame to the next, in pixels; the last one repeated."""
        greys = [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in frames]
        flows = [self.flow.calc(a, b, None) for a, b in zip(greys, greys[1:], strict=False)]
        return np.stack([*flows, flows[-1]])

    def _poses(self, frames: np.ndarray) -> np.ndarray:
        found = self.pose.estimate(frames)
        return np.stack([draw_poses(poses, self.pose.skeleton, frames.shape[1:3])[0] for poses in found])

    def _silhouettes(self, row: dict, frames: np.ndarray, flows: np.ndarray) -> np.ndarray:
        if not row["track_path"]:
            raise BackendError("no object was tracked, and nobody looks for poses")
        masks = read_masks(row["track_path"], frames.shape[2:0:-1])
        flows = np.stack([against_rest(flow, mask) for flow, mask in zip(flows, masks, strict=True)])
        speeds = np.linalg.norm(flows, axis=3)
        top = max(float(np.percentile(speeds[masks], PERCENTILE)) if masks.any() else 0.0, 0.5)
        return np.stack([coloured(flow, mask, top) for flow, mask in zip(flows, masks, strict=True)])

    def _generated(self, row: dict, drawn: np.ndarray) -> np.ndarray:
        actor = ACTORS[self._number(row, "actor") % len(ACTORS)]
        stage = STAGES[self._number(row, "stage") % len(STAGES)]
        request = EditRequest(instruction=f"A real video of {actor} {stage}, moving exactly as the skeleton does.",
                              kind="pose", seed=self._number(row, "seed") % 2**31)
        made = self.editor.edit(drawn, request)
        if made.shape != drawn.shape:
            raise BackendError(f"the editor gave {made.shape} for poses of {drawn.shape}")
        return made


def coloured(flow: np.ndarray, mask: np.ndarray, top: float) -> np.ndarray:
    """uint8 `(H, W, 3)`: inside the mask the hue is the direction of motion, the brightness its speed; else black."""
    angle = np.mod(np.degrees(np.arctan2(flow[..., 1], flow[..., 0])) / 2, 180)
    speed = np.clip(np.linalg.norm(flow, axis=2) / top, 0, 1)
    hsv = np.dstack([angle, 230 * np.sqrt(speed), BASE + (255 - BASE) * speed]).astype(np.uint8)
    hsv[~mask] = 0
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def against_rest(flow: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Flow less the median motion outside of `where`: the camera's share is taken off."""
    return flow - np.median(flow[~where], axis=0).astype(np.float32) if (~where).any() else flow


def amount(flows: np.ndarray, shown: np.ndarray) -> float:
    """Mean speed in pixels a frame of what is shown, after the median motion of the rest is taken off."""
    speeds = []
    for flow, where in zip(flows, shown, strict=True):
        if where.any():
            speeds.append(float(np.linalg.norm(against_rest(flow, where)[where], axis=1).mean()))
    return float(np.mean(speeds)) if speeds else 0.0


def agreement(target: np.ndarray, made: np.ndarray, shown: np.ndarray, flow: DenseFlow) -> float | None:
    """How far `made` moves as `target` does where bool `(T, H, W)` `shown` holds: 0 to 1, None where neither moves.

    One less the difference of the two flows over the sum of their lengths, in pixels that both frames of the target
    show: 1 = equal everywhere, 0 = still, or opposite; half the speed gives 2/3, a right angle about 0.3. Motion is
    that of the picture, the camera's included: poses are drawn where they are seen, and what is made of them may
    stand before any background. Slow and fast pixels count by their speed.
    """
    apart = length = num = 0.0
    for t in range(len(target) - 1):
        wanted = flow(target[t], target[t + 1])
        where = shown[t] & visible(wanted, flow(target[t + 1], target[t]))
        wanted, got = wanted[where], flow(made[t], made[t + 1])[where]
        apart += float(np.linalg.norm(got - wanted, axis=1).sum())
        length += float(np.linalg.norm(got, axis=1).sum() + np.linalg.norm(wanted, axis=1).sum())
        num += len(wanted)
    return None if length <= 2 * STILL_PX * num else max(0.0, 1 - apart / length)
