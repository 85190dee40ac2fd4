"""Texts that the released weights were trained with: system prompts and negative prompts.

For the text encoder of the renderer and for the planner's chat. The wording is data, not prose:
other words are another condition (spec 3.7).
"""

import html
import re

from bernini.errors import CaseError

SYSTEM_PROMPTS = {
    "default": "You are a helpful assistant.",
    "t2i": "You are a helpful assistant specialized in text-to-image generation.",
    "t2v": "You are a helpful assistant specialized in text-to-video generation.",
    "i2i": "You are a helpful assistant specialized in image editing.",
    "r2i": "You are a helpful assistant specialized in subject-to-image generation.",
    "i2v": "You are a helpful assistant specialized in image-to-video generation.",
    "v2v": "You are a helpful assistant specialized in video editing.",
    "r2v": "You are a helpful assistant specialized in subject-to-video generation.",
    "vi2v": "You are a helpful assistant specialized in video editing on content propagation.",
    "rv2v": "You are a helpful assistant specialized in video editing with reference.",
    "vr2v": "You are a helpful assistant specialized in video editing with reference.",
    "ads2v": "You are a helpful assistant specialized in ads insertion.",
    "vrc2v": (
        "You are a helpful assistant for editing. You may need to adjust the subject's action or position."
    ),
    "mv2v": (
        "You are a helpful assistant for editing. You might need to adjust the video's style, lighting, "
        "colors, textures, and the subject's pose or action."
    ),
}
# The planner knows fewer tasks than the text encoder; all others use the default sentence. vr2v is what training calls
# rv2v: what is learned must be what is asked.
PLANNER_TASKS = ("t2i", "t2v", "i2i", "v2v", "r2v", "rv2v", "vr2v")

NEGATIVE_PROMPT = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，"
    "JPEG压缩残留，丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，"
    "形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"
)
NEGATIVE_PROMPT_ENGLISH = (
    "Vibrant colors, overexposed, static, blurry details, subtitles, style, work, painting, picture, still, "
    "overall gray, worst quality, low quality, JPEG compression residue, ugly, incomplete, extra fingers, "
    "poorly drawn hands, poorly drawn face, deformed, disfigured, malformed limbs, fused fingers, "
    "motionless picture, messy background, three legs, many people in the background, walking backwards"
)


def text_system_prompt(task: str) -> str:
    """Sentence that is glued to the prompt for the text encoder."""
    return SYSTEM_PROMPTS.get(task, SYSTEM_PROMPTS["default"])


def planner_system_prompt(task: str) -> str:
    """Sentence of the system message in the planner's chat."""
    return SYSTEM_PROMPTS[task] if task in PLANNER_TASKS else SYSTEM_PROMPTS["default"]


def clean_prompt(text: str) -> str:
    """Mends broken characters, undoes HTML escapes twice, folds whitespace."""
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return re.sub(r"\s+", " ", text).strip()


def require_prompt(text: str) -> str:
    """The cleaned prompt; an empty one is refused."""
    cleaned = clean_prompt(text or "")
    if not cleaned:
        raise CaseError("the prompt is empty; say in words what to make or to change")
    return cleaned
