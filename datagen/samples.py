"""The built-in sample film: raw videos with known cuts, camera moves and people, made on the spot.

For `make demo`, the tests and anyone who wants a first run without videos of their own. Real
photographs (samples_photos.py) are filmed by a virtual camera (samples_camera.py) after a fixed
script (samples_shots.py): clips of 2 to 10 s and a few outside of that, pairs of all degrees of
similarity, portraits and things. `film.json` beside the videos holds the ground truth, and the last
video, broken.mp4, breaks off in the middle.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from datagen.samples_camera import MOVES, Shot, Take
from datagen.samples_shots import SCRIPT, Plan
from manifests.video_writer import write_video

VERSION = 2  # raise it whenever a frame or a field changes: older films are then made anew
KEPT = 0.6  # share of broken.mp4 that is left


@dataclass(frozen=True, kw_only=True)
class FilmShot:
    """What is true of one shot; shots follow each other without gap or overlap.

    A transition is centred on `start_s`: a dissolve mixes the two shots for `transition_s`, a fade
    spends half of it on the way to black and half on the way back (the first shot has only the latter).
    """

    start_s: float
    end_s: float
    transition: str  # into this shot: cut, dissolve, fade; "start" for a first shot that begins at once
    transition_s: float
    subject: str
    move: str  # of the camera; "pan right" moves the picture to the left
    speed: float
    speed_unit: str
    sway: float  # amplitude of the hand-held sway, fraction of the frame's width
    grade: str
    moving: tuple[str, ...]  # what moves in the scene by itself
    has_people: bool
    frozen: bool
    black: bool


@dataclass(frozen=True, kw_only=True)
class FilmVideo:
    """One file; `num_frames` and `duration_s` are what its header promises, true unless `broken`."""

    file: str
    width: int
    height: int
    fps: int
    num_frames: int
    duration_s: float
    num_bytes: int
    broken: bool
    shots: tuple[FilmShot, ...]


@dataclass(frozen=True, kw_only=True)
class Film:
    """The sample film in `folder`; `videos` are in the order of the script."""

    folder: Path
    version: int
    seed: int
    videos: tuple[FilmVideo, ...]

    @property
    def videos_folder(self) -> Path:
        """What a pipeline takes as input: the videos and nothing else."""
        return self.folder / "videos"

    def path(self, video: FilmVideo) -> Path:
        return self.videos_folder / video.file


def main(folder: Path, /, seed: int = 0) -> int:
    """Make the built-in sample film: raw videos with known cuts, camera moves and people.

    The videos lie in FOLDER/videos, the truth about them in FOLDER/film.json.

    Args:
        folder: where to write it; a complete film that is there is kept.
        seed: changes grain and hand-held sway, never the script.
    """
    film = write_sample_film(folder, seed=seed)
    for video in film.videos:
        print(f"{film.path(video)}  {video.width}x{video.height}  {video.duration_s:.1f} s  {len(video.shots)} shots")
    return 0


def write_sample_film(folder: Path, *, seed: int = 0, quiet: bool = False) -> Film:
    """Make the sample film in `folder`, or return at once the complete one that is there.

    The seed changes grain and hand-held sway, never the script. film.json is written last, so a folder
    without it is not a film.
    """
    folder = Path(folder)
    film = read_film(folder)
    if film and (film.version, film.seed) == (VERSION, seed) and _is_complete(film):
        return film
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "film.json").unlink(missing_ok=True)
    shooting = tqdm(SCRIPT, desc="sample film", unit="video", disable=quiet)
    videos = tuple(_shoot(plan, folder / "videos", (seed, number)) for number, plan in enumerate(shooting))
    film = Film(folder=folder, version=VERSION, seed=seed, videos=videos)
    _write_truth(film)
    return film


def read_film(folder: Path) -> Film | None:
    """The film described by `folder`/film.json; None where there is none of this version."""
    path = Path(folder) / "film.json"
    if not path.exists():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    if found["version"] != VERSION:
        return None
    videos = tuple(
        FilmVideo(**video | {"shots": tuple(_read_shot(shot) for shot in video["shots"])})
        for video in found["videos"]
    )
    return Film(folder=Path(folder), version=found["version"], seed=found["seed"], videos=videos)


def _read_shot(found: dict) -> FilmShot:
    return FilmShot(**found | {"moving": tuple(found["moving"])})


def _is_complete(film: Film) -> bool:
    paths = [(film.path(video), video.num_bytes) for video in film.videos]
    return all(path.is_file() and path.stat().st_size == num_bytes for path, num_bytes in paths)


def _write_truth(film: Film) -> None:
    fields = asdict(film)
    del fields["folder"]  # the folder may be moved
    draft = film.folder / "film.json.part"
    draft.write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")
    os.replace(draft, film.folder / "film.json")


def _shoot(plan: Plan, folder: Path, key: tuple[int, int]) -> FilmVideo:
    """Write one video of the script; `key` is (seed, number of the video)."""
    takes = [Take(shot, plan.size, plan.fps, (*key, number)) for number, shot in enumerate(plan.shots)]
    path = folder / plan.file
    write_video(str(path), cut_together(takes), fps=plan.fps, crf=20)
    if plan.broken:
        os.truncate(path, int(path.stat().st_size * KEPT))
    num_frames = sum(take.num_frames for take in takes)
    return FilmVideo(
        file=plan.file,
        width=plan.size[0],
        height=plan.size[1],
        fps=plan.fps,
        num_frames=num_frames,
        duration_s=round(num_frames / plan.fps, 4),
        num_bytes=path.stat().st_size,
        broken=plan.broken,
        shots=_truth(takes),
    )


def cut_together(takes: list[Take]) -> Iterator[np.ndarray]:
    """All frames of a video in order, RGB uint8 (H, W, 3), transitions included."""
    for number, take in enumerate(takes):
        before, after = _half(take), _half(takes[number + 1]) if number + 1 < len(takes) else 0
        for k in range(take.num_frames):
            picture = take.frame(k)
            left = take.num_frames - k
            if k < before:
                neighbour = takes[number - 1].frame(takes[number - 1].num_frames + k) if number else picture
                picture = _mix(neighbour, picture, (before + k + 0.5) / (2 * before), take.shot.transition)
            elif left <= after:
                following = takes[number + 1]
                share = (after - left + 0.5) / (2 * after)
                picture = _mix(picture, following.frame(-left), share, following.shot.transition)
            yield picture


def _half(take: Take) -> int:
    """Half the length of the transition into a shot, in frames."""
    return round(take.shot.transition_s * take.fps / 2)


def _mix(old: np.ndarray, new: np.ndarray, share: float, transition: str) -> np.ndarray:
    """The picture `share` (0 to 1) of the way through a transition."""
    if transition == "dissolve":
        mixed = old * np.float32(1 - share) + new * np.float32(share)
    else:  # fade: the old one is black at 0.5, from where the new one comes
        mixed = (old if share < 0.5 else new) * np.float32(abs(1 - 2 * share))
    return mixed.round().astype(np.uint8)


def _truth(takes: list[Take]) -> tuple[FilmShot, ...]:
    shots, start = [], 0
    for take in takes:
        end = start + take.num_frames
        shots.append(_describe(take.shot, round(start / take.fps, 4), round(end / take.fps, 4)))
        start = end
    return tuple(shots)


def _describe(shot: Shot, start_s: float, end_s: float) -> FilmShot:
    opens = start_s == 0 and shot.transition == "cut"
    return FilmShot(
        start_s=start_s,
        end_s=end_s,
        transition="start" if opens else shot.transition,
        transition_s=shot.transition_s,
        subject=shot.subject,
        move=shot.move,
        speed=shot.speed,
        speed_unit=MOVES[shot.move].unit,
        sway=shot.sway,
        grade=shot.grade,
        moving=tuple(extra.cutout for extra in shot.extras if extra.start != extra.end),
        has_people=shot.has_people,
        frozen=shot.frozen,
        black=not shot.photo,
    )
