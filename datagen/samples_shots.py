"""The script of the sample film: which videos it has and the plan of each shot, in order.

For samples.py. Similar shots of a subject never stand side by side: a hard cut between them
would be invisible to any shot detector, and to the eye. Positions and widths are fractions of the
photograph (samples_camera.Shot says which), so a crop can be checked by eye against the photograph.
"""

from dataclasses import dataclass

from datagen.samples_camera import Extra, Shot


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One video to shoot; a `broken` one loses the tail of its file after it has been written."""

    file: str
    size: tuple[int, int] = (480, 270)  # width, height in pixels
    fps: int = 25
    shots: tuple[Shot, ...]
    broken: bool = False


MEDIUM = dict(photo="astronaut", at=(0.5, 0.30), width=0.96, has_people=True)
CLOSE = dict(photo="astronaut", at=(0.44, 0.25), width=0.66, has_people=True)
PORTRAIT = Plan(
    file="portrait.mp4",
    shots=(
        Shot(subject="astronaut, medium shot", seconds=3.6, sway=0.004, **MEDIUM),
        Shot(subject="astronaut, close", seconds=3.0, move="zoom in", speed=1.05, grade="cool", **CLOSE),
        Shot(
            subject="astronaut before a brick wall", seconds=4.0, photo="bricks", width=0.9, defocus=2.0,
            move="pan right", speed=0.02, grade="warm", has_people=True,
            extras=(Extra(cutout="astronaut", start=(0.42, 0.53), end=(0.50, 0.53), size=0.54),),
        ),
        Shot(subject="astronaut, medium shot mirrored", seconds=3.2, move="handheld", sway=0.008, flip=True,
             **MEDIUM | dict(width=0.90)),
        Shot(subject="astronaut, close", seconds=1.4, sway=0.003, grade="bright", **CLOSE),
        Shot(subject="astronaut, medium shot", seconds=4.0, move="tilt up", speed=0.03, grade="faded",
             transition="dissolve", transition_s=0.8, **MEDIUM | dict(at=(0.46, 0.29), width=0.80)),
        Shot(subject="astronaut, medium shot", seconds=3.6, move="zoom out", speed=1.03, grade="dim",
             **MEDIUM | dict(width=0.88)),
    ),
)  # fmt: skip

PAD = dict(photo="rocket", at=(0.5, 0.52), width=0.90)
LAUNCH = Plan(
    file="launch_day.mp4",
    fps=24,
    shots=(
        Shot(subject="rocket on its pad", seconds=4.0, move="zoom in", speed=1.03,
             transition="fade", transition_s=1.5, **PAD),
        Shot(
            subject="astronaut before the launch pad", seconds=4.0, photo="rocket", at=(0.42, 0.56),
            width=0.75, move="handheld", sway=0.006, defocus=1.2, has_people=True,
            extras=(Extra(cutout="astronaut", start=(0.30, 0.60), end=(0.34, 0.60), size=0.42),),
        ),
        Shot(subject="rocket, nearer", seconds=4.0, photo="rocket", at=(0.5, 0.5), width=0.62,
             move="tilt up", speed=0.06),
        Shot(subject="astronaut, medium shot", seconds=2.75, sway=0.004, grade="cool", **MEDIUM),
        Shot(
            subject="rocket lifting off", seconds=5.0, **PAD | dict(photo="empty pad"),
            extras=(Extra(cutout="flame", start=(0.504, 1.03), end=(0.504, 0.03), size=0.036),
                    Extra(cutout="rocket", start=(0.504, 0.60), end=(0.504, -0.40), size=0.0375)),
        ),
        Shot(subject="black", seconds=1.5, transition="fade", transition_s=0.75),
        Shot(subject="rocket on its pad", seconds=4.0, move="zoom out", speed=1.03, grade="sunset",
             transition="fade", transition_s=0.75, **PAD),
        Shot(subject="empty launch pad", seconds=3.0, photo="empty pad", at=(0.5, 0.52), width=0.75,
             move="pan right", speed=0.05, grade="bright", transition="dissolve", transition_s=0.75),
    ),
)  # fmt: skip

TALL = dict(photo="astronaut", at=(0.44, 0.5), width=0.54, has_people=True)
VERTICAL = Plan(
    file="interview_vertical.mp4",
    size=(270, 480),
    shots=(
        Shot(subject="astronaut", seconds=3.2, sway=0.004, **TALL),
        Shot(
            subject="astronaut in a garage", seconds=3.6, photo="motorcycle", width=0.36, defocus=3.0,
            move="pan right", speed=0.04, has_people=True,
            extras=(Extra(cutout="astronaut", start=(0.48, 0.68), end=(0.56, 0.68), size=0.46),),
        ),
        Shot(subject="astronaut", seconds=4.0, move="pan right", speed=0.06, grade="cool",
             **TALL | dict(at=(0.46, 0.48), width=0.50)),
        Shot(
            subject="astronaut among galaxies", seconds=3.6, photo="galaxies", width=0.30, move="handheld",
            sway=0.008, grade="night", has_people=True,
            extras=(Extra(cutout="astronaut", start=(0.50, 0.62), end=(0.52, 0.62), size=0.35),),
        ),
        Shot(subject="astronaut, close", seconds=3.0, move="zoom in", speed=1.04, grade="bright",
             **TALL | dict(at=(0.44, 0.42), width=0.42)),
        Shot(subject="astronaut", seconds=3.2, move="roll clockwise", speed=1.2, grade="mono",
             transition="fade", transition_s=0.8, **TALL | dict(width=0.48)),
    ),
)  # fmt: skip

CUP = dict(photo="coffee", at=(0.5, 0.43), width=0.90)
CUP_CLOSE = dict(photo="coffee", at=(0.52, 0.42), width=0.66)
CAFE = Plan(
    file="cafe.mp4",
    fps=30,
    shots=(
        Shot(subject="cup of coffee", seconds=3.0, **CUP),
        Shot(subject="cup of coffee, close", seconds=3.4, move="zoom in", speed=1.04, grade="cool",
             **CUP_CLOSE),
        Shot(subject="cup of coffee and a coin, mirrored", seconds=3.0, flip=True, **CUP | dict(width=0.88),
             extras=(Extra(cutout="coin", start=(0.86, 0.36), end=(0.86, 0.36), size=0.10),)),
        Shot(subject="cup of coffee", seconds=2.4, grade="mono", frozen=True,
             **CUP | dict(at=(0.48, 0.40), width=0.80)),
        Shot(subject="cup of coffee, a coin slides past", seconds=4.0, **CUP | dict(at=(0.5, 0.52)),
             extras=(Extra(cutout="coin", start=(-0.03, 0.79), end=(1.03, 0.81), size=0.10, spin=70),)),
        Shot(subject="cup of coffee, mirrored", seconds=3.2, flip=True, move="roll clockwise", speed=2.0,
             grade="bright", transition="dissolve", transition_s=0.8, **CUP | dict(width=0.78)),
        Shot(subject="cup of coffee", seconds=4.0, move="pan left", speed=0.06, grade="dim",
             **CUP | dict(at=(0.5, 0.40), width=0.75)),
        Shot(subject="cup of coffee, close", seconds=1.2, **CUP_CLOSE | dict(width=0.62)),
    ),
)  # fmt: skip

GARAGE = Plan(
    file="garage.mp4",
    shots=(
        Shot(subject="motorcycle", seconds=4.4, photo="motorcycle", width=0.70, move="pan right", speed=0.08),
        Shot(subject="motorcycle, engine", seconds=3.0, photo="motorcycle", at=(0.55, 0.62), width=0.56,
             move="handheld", sway=0.006, grade="cool"),
        Shot(subject="motorcycle seen past a post", seconds=4.0, photo="motorcycle", width=0.92,
             extras=(Extra(cutout="post", start=(-0.10, 0.5), end=(1.10, 0.5), size=0.15),)),
        Shot(subject="motorcycle, headlight", seconds=3.0, photo="motorcycle", at=(0.70, 0.42), width=0.54,
             move="tilt down", speed=0.05, grade="bright"),
        Shot(subject="motorcycle", seconds=4.0, photo="motorcycle", width=0.70, move="pan left", speed=0.07,
             grade="warm"),
        Shot(subject="motorcycle, rear wheel", seconds=1.6, photo="motorcycle", at=(0.34, 0.62), width=0.62,
             grade="faded"),
        Shot(subject="motorcycle", seconds=4.0, photo="motorcycle", width=0.80, move="zoom out", speed=1.04,
             grade="dim", transition="dissolve", transition_s=1.0),
    ),
)  # fmt: skip

SPACE = Plan(
    file="deep_space.mp4",
    size=(640, 360),
    fps=24,
    shots=(
        Shot(subject="galaxies", seconds=10.5, photo="galaxies", width=0.66, move="pan right", speed=0.025,
             grade="night", transition="fade", transition_s=1.5),
        Shot(subject="moon before galaxies", seconds=3.5, photo="galaxies", at=(0.4, 0.45), width=0.64,
             move="zoom in", speed=1.03, grade="blue night",
             extras=(Extra(cutout="moon", start=(0.36, 0.50), end=(0.42, 0.47), size=0.33),)),
        Shot(subject="red planet crossing galaxies", seconds=4.5, photo="galaxies", at=(0.55, 0.5),
             width=0.70, flip=True, grade="brown night",
             extras=(Extra(cutout="planet", start=(0.12, 0.42), end=(0.95, 0.56), size=0.20),)),
        Shot(subject="galaxies", seconds=3.5, photo="galaxies", at=(0.55, 0.45), width=0.68,
             move="zoom out", speed=1.05, grade="blue night", transition="dissolve", transition_s=1.0),
        Shot(subject="moon before galaxies", seconds=3.0, photo="galaxies", at=(0.4, 0.45), width=0.66,
             move="handheld", sway=0.004, grade="brown night",
             extras=(Extra(cutout="moon", start=(0.38, 0.48), end=(0.40, 0.47), size=0.30),)),
    ),
)  # fmt: skip

CAT = Plan(
    file="cat.mp4",
    shots=(
        Shot(subject="cat", seconds=3.4, photo="cat", width=0.95, sway=0.003),
        Shot(subject="cat, eyes", seconds=3.0, photo="cat", at=(0.54, 0.34), width=0.72, move="zoom in",
             speed=1.04, grade="warm"),
        Shot(subject="cat, mirrored, a ball rolls past", seconds=4.0, photo="cat", width=0.92, flip=True,
             extras=(Extra(cutout="ball", start=(-0.10, 0.80), end=(1.10, 0.82), size=0.16),)),
        Shot(subject="cat", seconds=2.6, photo="cat", width=0.92, move="handheld", sway=0.006, grade="mono"),
        Shot(subject="cat", seconds=4.0, photo="cat", width=0.85, move="pan right", speed=0.03, grade="dim"),
        Shot(subject="cat", seconds=3.6, photo="cat", width=0.88, move="zoom out", speed=1.02, grade="bright",
             transition="dissolve", transition_s=0.8),
    ),
)  # fmt: skip

BROKEN = Plan(
    file="broken.mp4",
    broken=True,
    shots=(
        Shot(subject="motorcycle", seconds=4.0, photo="motorcycle", width=0.72, move="pan left", speed=0.05),
        Shot(subject="motorcycle, engine", seconds=2.5, photo="motorcycle", at=(0.55, 0.62), width=0.56),
    ),
)

SCRIPT = (PORTRAIT, LAUNCH, VERTICAL, CAFE, GARAGE, SPACE, CAT, BROKEN)
