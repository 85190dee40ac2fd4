"""What the instructions of transforms say, in varied words.

A row draws its sentence by its id, so that a repeated run writes the same. `{...}` are filled by the
transform. Subtitles are removed, masks drawn, frames filled in: the text names the task and never the
content, which no op here has seen.
"""

from __future__ import annotations

import numpy as np

from manifests.errors import ConfigError

PROMPTS: dict[str, tuple[str, ...]] = {
    "video-extension": (
        "Continue this video.", "Extend the video: show what happens next.",
        "Generate the next {seconds:.1f} seconds of this clip, starting right after its last frame.",
        "Carry on from where the video stops, keeping scene, subjects and motion consistent.",
        "Predict how this shot goes on.", "Keep the camera rolling: continue the shot without a cut."),
    "video-completion": (
        "Two parts of a shot are given. Generate the part that is missing between them.",
        "Fill the gap between the first and the second clip so that they become one continuous shot.",
        "Complete the video: create the {seconds:.1f} seconds that lie between these two clips.",
        "Connect the end of the first video with the beginning of the second one by a smooth middle part.",
        "Write the missing middle of this video."),
    "frame-to-video first": (
        "Animate this picture.", "Generate a video that starts with this frame.",
        "Bring the picture to life: it is the first frame of a {seconds:.1f} second video.",
        "Use the image as the first frame and continue with natural motion."),
    "frame-to-video first-last": (
        "Generate a video that starts with the first picture and ends with the second.",
        "The two images are the first and the last frame. Create the motion between them.",
        "Make a {seconds:.1f} second video that leads smoothly from image 1 to image 2."),
    "frame-to-video first-middle-last": (
        "Generate a video that begins with the first picture, passes through the second and ends with the third.",
        "The three images are the first, the middle and the last frame of a video. Create it.",
        "Make a {seconds:.1f} second video that runs through these three frames in order."),
    "sketch-to-video": (
        "Turn this edge sketch into a realistic video.", "Generate a natural video that follows these outlines.",
        "The video shows Canny edges. Render the full scene with colour, light and texture.",
        "Colour and shade this line drawing so that it becomes real footage, keeping every contour in place."),
    "colorization": (
        "Colorize this black-and-white video.", "Add natural colours to the video.",
        "Restore the colours of this greyscale clip and change nothing else.",
        "Make the video colourful, with realistic and steady colours throughout."),
    "movie-with-subtitles": (
        "Remove the subtitles.", "Erase the burned-in subtitles and restore what lies behind them.",
        "Clean the video of all text overlaid at the {place}, leaving the rest as it is.",
        "Take the captions out of this clip.", "Delete the subtitle text from every frame of the video."),
    "inpainting-nomask black": (
        "Fill in the area that is blacked out in the video.", "A part of the picture is covered in black. Restore it.",
        "Inpaint the black region with plausible content that moves with the scene."),
    "inpainting-nomask grey": (
        "Fill in the area that is covered by grey.",
        "A grey patch hides a part of the video. Restore what is below it.",
        "Inpaint the grey region so that the clip looks complete."),
    "inpainting-nomask noise": (
        "Replace the noisy area by what belongs there.", "A region of the video is destroyed by noise. Restore it.",
        "Repair the part of the picture that shows nothing but noise."),
    "inpainting-nomask blur": (
        "Restore the area that was blurred beyond recognition.",
        "Give the smeared region of the video its details back.",
        "One part of the clip is hidden by a strong blur. Rebuild it."),
    "inpainting-nomask-ref": (
        "Fill the {fill} area of the video with the object of the reference image.",
        "Put the subject of the picture into the {fill} region, following the motion of the video.",
        "Restore the hidden part of the clip: it shows the object of the reference image."),
    "video2mask": (
        "Segment the {phrase}.", "Generate the mask video of the {phrase}: white where it is, black elsewhere.",
        "Show the {phrase} as a white silhouette on black.", "Turn the video into a binary mask of the {phrase}."),
    "pose2video": (
        "Generate a video of a person who moves like this skeleton.",
        "Turn the pose sequence into realistic footage.", "Animate real people after these body poses.",
        "The video shows human keypoints. Render the scene with people in exactly these poses."),
    "propagation": (
        "Edit the whole video as its first frame was edited in the picture.",
        "The image is the edited first frame. Carry the edit through the video.",
        "Propagate the change shown in the reference frame to all frames.",
        "Apply to every frame what was done to the first one, keeping the motion of the video."),
    "opens2v-affine": (
        "Generate a video of the {phrase} of the reference image.",
        "Make a video in which the subject of the picture appears.",
        "Create a natural scene with the {phrase} shown in the image; ignore the picture's background and tilt.",
        "Use the {phrase} of the picture as the main subject of a new video."),
}


def write_prompt(kind: str, rng: np.random.Generator, **values: object) -> str:
    """A sentence of the pool `kind`; values that it does not name are left out."""
    if kind not in PROMPTS:
        raise ConfigError(f"no prompts for {kind!r}; known: {', '.join(PROMPTS)}")
    return PROMPTS[kind][rng.integers(len(PROMPTS[kind]))].format(**values)
