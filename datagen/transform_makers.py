"""The transforms themselves (paper, Table 1; recipe D13): one function each, from a job to its columns.

Where the inverse is exact the target is the frames of the clip and nothing else: decoded again it
equals them within what H.264 loses, frame for frame.
"""

from __future__ import annotations

from dataclasses import asdict

import cv2
import numpy as np

from manifests.messages import condition

from .affine import BACKGROUNDS, cut_out, draw_affine, set_before, transform
from .planes import FILLS, fill_region, grey, luma, sketch, stack_rgb
from .pose_drawing import draw_poses
from .subtitles import choose, make_cues
from .transform_job import Change, Job

FORMS = {"first": (0.0,), "first-last": (0.0, 1.0), "first-middle-last": (0.0, 0.5, 1.0)}
ROLES = {0.0: "first_frame", 0.5: "middle_frame", 1.0: "last_frame"}
SHAPES = ("outline", "box")  # of what is taken away for inpainting
POSE_BATCH = 16


def video_extension(job: Job) -> dict:
    """Two parts; the target begins one frame after the last of the source."""
    frames = job.frames()
    source, target = job.part(frames), job.part(frames)
    return job.filled("video-extension", source=source, target=target)


def video_completion(job: Job) -> dict:
    """Three parts; the middle one is the target, the others are given in order."""
    frames = job.frames()
    first, middle, last = job.part(frames), job.part(frames), job.part(frames)
    return job.filled("video-completion", source=first, target=middle,
                      conditions=[condition("part", last.path, 0.0, last.end_s)])


def frame_to_video(job: Job) -> dict:
    """First frame; first and last; first, middle and last."""
    form = list(FORMS)[job.rng.integers(len(FORMS))]
    job.params["form"] = form
    wanted = {round(place * (job.num_frames - 1)): ROLES[place] for place in FORMS[form]}
    conditions = []
    with job.writer() as writer:
        for i, planes in enumerate(job.frames()):
            writer.push(planes)
            if i in wanted:
                conditions.append(condition(wanted[i], job.picture(planes)))
    return job.filled(f"frame-to-video {form}", target=writer.stored, conditions=conditions)


def sketch_to_video(job: Job) -> dict:
    source, target = job.change(job.frames(), _sketching(job))
    return job.filled("sketch-to-video", source=source, target=target)


def colorization(job: Job) -> dict:
    source, target = job.change(job.frames(), lambda i, planes: grey(planes))
    return job.filled("colorization", source=source, target=target)


def movie_with_subtitles(job: Job) -> dict:
    look = choose(job.rng, job.tools.fonts)
    writing: list = []

    def draw(i: int, planes: np.ndarray) -> np.ndarray:
        if not i:
            writing.extend(make_cues(look, job.rng, num_frames=job.num_frames, fps=job.tools.fps,
                                     size=luma(planes).shape[::-1]))
        cue = next((c for c in writing if c.first <= i < c.end), None)
        if cue is None:
            return planes
        written = planes.copy()
        cue.draw(written)
        return written

    source, target = job.change(job.frames(), draw)
    job.params |= asdict(look) | {"cues": [{"first": c.first, "end": c.end, "text": c.text,
                                            "box": [c.x, c.y, c.x + c.keep_y.shape[1], c.y + c.keep_y.shape[0]]}
                                           for c in writing]}
    return job.filled("movie-with-subtitles", source=source, target=target, place="top" if look.at_top else "bottom")


def inpainting_nomask(job: Job) -> dict:
    """A region that follows an object is taken away; the target has it still."""
    frames = list(job.frames())
    source, target, mask, fill = _taken_away(job, frames, job.track(frames).masks)
    return job.filled(f"inpainting-nomask {fill}", source=source, target=target, mask=mask)


def inpainting_nomask_ref(job: Job) -> dict:
    """The same, with the object itself as the reference: cut out of the first frame that shows it well."""
    frames = list(job.frames())
    masks = job.track(frames).masks
    areas = masks.sum((1, 2))
    first = int(np.argmax(areas >= 0.6 * areas.max()))
    source, target, mask, fill = _taken_away(job, frames, masks)
    job.params["reference_frame"] = first
    picture = set_before(cut_out(job.rgb(frames[first]), masks[first]), "white", job.rng)
    words = {"black": "black", "grey": "grey", "noise": "noisy", "blur": "blurred"}
    return job.filled("inpainting-nomask-ref", source=source, target=target, mask=mask, fill=words[fill],
                      conditions=[condition("reference", job.tools.store.image(picture))])


def video2mask(job: Job) -> dict:
    frames = list(job.frames())
    track = job.track(frames)
    source, target = job.video(frames), job.mask_video(track.masks)
    return job.filled("video2mask", source=source, target=target, mask=target.path, phrase=track.phrase)


def pose2video(job: Job) -> dict:
    """Skeletons on black; the target is the film."""
    seen, held = [], []
    with job.writer() as source, job.writer() as target:
        def flush() -> None:
            for planes, poses in zip(held, job.tools.pose.estimate(stack_rgb(held)), strict=True):
                drawn, found = draw_poses(poses, job.tools.pose.skeleton, luma(planes).shape)
                seen.append(found)
                source.push(drawn)
            held.clear()

        for planes in job.frames():
            target.push(planes)
            held.append(planes)
            if len(held) == POSE_BATCH:
                flush()
        if held:
            flush()
    job.measures["pose_presence"] = float(np.mean(seen))
    return job.filled("pose2video", source=source.stored, target=target.stored)


def propagation(job: Job) -> dict:
    """A change of the whole film and the first frame of its result."""
    forward = {"colorization": lambda i, planes: grey(planes), "sketch-to-video": _sketching(job)}
    base = (*forward, "greyscale")[job.rng.integers(len(forward) + 1)]
    job.params["base"] = base
    first: list = []

    def noting(change: Change, keep_result: bool) -> Change:
        def noted(i: int, planes: np.ndarray) -> np.ndarray:
            made = change(i, planes)
            if not i:
                first.append(job.picture(made if keep_result else planes))
            return made
        return noted

    if base == "greyscale":
        target, source = job.change(job.frames(), noting(forward["colorization"], True))
    else:
        source, target = job.change(job.frames(), noting(forward[base], False))
    return job.filled("propagation", source=source, target=target, conditions=[condition("edited_frame", first[0])])


def opens2v_affine(job: Job) -> dict:
    """The subject, cut out, moved affinely and set before something else, is the reference of its film."""
    frames = list(job.frames())
    track = job.track(frames)
    best = int(np.argmax([_well_shown(m) for m in track.masks]))
    affine, kind = draw_affine(job.rng), BACKGROUNDS[job.rng.integers(len(BACKGROUNDS))]
    job.params |= asdict(affine) | {"background": kind, "frame": best}
    image = job.rgb(frames[best])
    picture = set_before(transform(cut_out(image, track.masks[best]), affine), kind, job.rng, image)
    target = job.video(frames)
    return job.filled("opens2v-affine", target=target, phrase=track.phrase,
                      conditions=[condition("reference", job.tools.store.image(picture, kind="jpg", quality=95))])


def _sketching(job: Job) -> Change:
    strength = float(job.rng.choice([0.75, 1.0, 1.4]))
    job.params["edge_strength"] = strength
    return lambda i, planes: sketch(planes, strength)


def _taken_away(job: Job, frames: list[np.ndarray], masks: np.ndarray):
    """`(source, target, mask path, fill)`: the region around `masks` replaced in the source."""
    fill, shape = FILLS[job.rng.integers(len(FILLS))], SHAPES[job.rng.integers(len(SHAPES))]
    job.params |= {"fill": fill, "shape": shape}
    regions = [_region(m, shape, max(2, masks.shape[1] // 80)) for m in masks]
    noise = np.random.default_rng(job.rng.integers(2**32))
    source, target = job.change(frames, lambda i, planes: fill_region(planes, regions[i], fill, noise))
    return source, target, job.mask_video(regions).path, fill


def _region(mask: np.ndarray, shape: str, reach: int) -> np.ndarray:
    """`mask` and `reach` pixels around it (the object's shadow and edge), or the box around that."""
    grown = np.zeros_like(mask)
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    if not width:
        return grown
    around = (slice(max(0, y - reach), y + height + reach), slice(max(0, x - reach), x + width + reach))
    if shape == "box":
        grown[around] = True
    else:  # round corners in two separable steps, where an ellipse would cost ten times as much
        part = cv2.dilate(mask[around].view(np.uint8), np.ones((2 * reach - 1,) * 2, np.uint8))
        grown[around] = cv2.dilate(part, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))).view(bool)
    return grown


def _well_shown(mask: np.ndarray) -> float:
    """Area, less what the border of the picture may cut off."""
    edge = mask[0].sum() + mask[-1].sum() + mask[:, 0].sum() + mask[:, -1].sum()
    area = float(mask.sum())
    return area * max(0.1, 1 - 2 * edge / np.sqrt(area)) if area else 0.0
