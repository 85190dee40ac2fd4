"""Agreement of motion (D10) of a drawn walker with videos that follow it, and with videos that do not.

    python -m benchmarks.motion_agreement

A textured figure of ten limbs walks before a photograph; its poses are drawn from the joints that it was drawn by.
Reference videos of the same poses must agree, others must not: the default of `--agreement-min` lies between.
Measured: benchmarks/results/motion_agreement.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from datagen.backends import Poses
from datagen.flow import DenseFlow
from datagen.pose_drawing import draw_poses
from datagen.render_motion import agreement
from datagen.samples_photos import photograph

LIMBS = ((0, 1), (1, 2), (2, 3), (1, 4), (4, 5), (1, 6), (6, 7), (7, 8), (6, 9), (9, 10))
SWINGS = ((1, 2, 3, 1, 0.28), (1, 4, 5, -1, 0.28), (6, 7, 8, -1, 0.42), (6, 9, 10, 1, 0.42))  # joints, side, length
NUM = 17  # frames
FOLLOWS = ("drawn", "drawn, unsure", "another film", "flat colours")


@dataclass(frozen=True, kw_only=True)
class Walk:
    """`speed` in picture widths a frame, `period` of the limbs in frames, `start` of the walk in frames."""

    height: int
    speed: float
    period: float
    start: float = 0.0

    @property
    def size(self) -> tuple[int, int]:
        return self.height, self.height * 4 // 3

    def joints(self, t: float) -> np.ndarray:
        """float64 `(11, 2)` in pixels: head, neck, arms, hip, legs."""
        height, width = self.size
        phase, tall, at = 2 * np.pi * (t + self.start) / self.period, height / 2.4, np.zeros((11, 2))
        at[0], at[1], at[6] = ((width * (0.3 + self.speed * t), height * 0.5 - up * tall) for up in (0.85, 0.6, 0.0))
        for a, b, c, side, length in SWINGS:
            upper = side * 0.6 * np.sin(phase)
            lower = upper + 0.3 * np.sin(phase + 1)
            at[b] = at[a] + length * tall * np.array([np.sin(upper), np.cos(upper)])
            at[c] = at[b] + length * tall * np.array([np.sin(lower), np.cos(lower)])
        return at

    def drawn(self, unsure_px: float = 0.0) -> np.ndarray:
        """uint8 `(T, H, W, 3)`: the poses, with keypoints that wander by so much."""
        rng = np.random.default_rng(1)
        found = [np.float32([self.joints(t) + rng.normal(0, unsure_px, (11, 2))]) for t in range(NUM)]
        return np.stack([draw_poses(Poses(keypoints=at, scores=np.ones((1, 11), np.float32)), LIMBS, self.size)[0]
                         for at in found])

    def film(self, background: str, colour: tuple[int, int, int], *, every: float = 1.0) -> np.ndarray:
        """uint8 `(T, H, W, 3)`: the figure before a photograph; "" = flat colours. `every` is its pace."""
        height, width = self.size
        rng, texture, scene = np.random.default_rng(5), np.full((*self.size, 3), colour, np.uint8), None
        if background:
            grain = cv2.GaussianBlur(rng.normal(0, 90, self.size), (0, 0), 1.5 * height / 240)[..., None] * height / 240
            texture = np.clip(texture + grain, 0, 255).astype(np.uint8)
            photo = np.ascontiguousarray(photograph(background))
            scene = cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA)
        frames = []
        for t in range(NUM):
            frame = np.full_like(texture, 150) if scene is None else scene.copy()
            _figure(frame, texture, self.joints(t * every))
            frames.append(np.clip(frame + rng.normal(0, 2, frame.shape), 0, 255).astype(np.uint8))
        return np.stack(frames)


def _figure(frame: np.ndarray, texture: np.ndarray, joints: np.ndarray) -> None:
    """Ten limbs, each with the texture turned and moved as the limb is."""
    height, width = frame.shape[:2]
    for number, (a, b) in enumerate(LIMBS):
        (x, y), ends = joints[b] - joints[a], [tuple(int(16 * v) for v in joints[k]) for k in (a, b)]
        turn = cv2.getRotationMatrix2D((50, 50), -np.degrees(np.arctan2(y, x)), 1)
        turn[:, 2] += (joints[a] + joints[b]) / 2 - 50
        limb = np.zeros((height, width), np.uint8)
        cv2.line(limb, *ends, 255, int(height * (0.09 if (a, b) == (1, 6) else 0.06)), cv2.LINE_AA, 4)
        moved = cv2.warpAffine(np.roll(texture, 17 * number, 1), turn, (width, height), borderMode=cv2.BORDER_REFLECT)
        frame[limb > 127] = moved[limb > 127]


def references(walk: Walk) -> dict[str, np.ndarray]:
    """Videos uint8 `(T, H, W, 3)` by name, those of FOLLOWS first."""
    height, speed, period = walk.height, walk.speed, walk.period
    other = Walk(height=height, speed=-speed, period=2 * period)
    film = walk.film("rocket", (60, 90, 170))
    return {"drawn": walk.drawn(), "drawn, unsure": walk.drawn(height / 480), "another film": film,
            "flat colours": walk.film("", (200, 30, 30)), "still": np.repeat(film[:1], NUM, axis=0),
            "half the pace": walk.film("rocket", (60, 90, 170), every=0.5),
            "another walk": other.film("rocket", (60, 90, 170)),
            "noise": np.random.default_rng(0).integers(0, 255, film.shape).astype(np.uint8)}


def measure(walk: Walk) -> dict[str, float]:
    target, shown, flow = walk.film("coffee", (150, 90, 60)), walk.drawn().any(axis=3), DenseFlow()
    return {name: agreement(target, made, shown, flow) for name, made in references(walk).items()}


def main() -> None:
    names = list(references(Walk(height=144, speed=0.0, period=16)))
    print(f"| lines | widths a frame | period | {' | '.join(names)} |\n|{'---|' * (3 + len(names))}")
    for height in (144, 320, 480):
        for speed, period in ((0.004, 24), (0.01, 16), (0.0, 16)):
            found = measure(Walk(height=height, speed=speed, period=period))
            print(f"| {height} | {speed} | {period} | {' | '.join(f'{value:.2f}' for value in found.values())} |")


if __name__ == "__main__":
    main()
