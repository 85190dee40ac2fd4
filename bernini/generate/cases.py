"""What to generate: one case, or a file of many (spec 5).

A case is a JSON object with the released keys and one of ours: `task_type`, `guidance_mode`,
`prompt` (required), `motion_prompt` (dual-branch), `video` (path or list), `image`, `images` (list),
`output`. Batch files are a
JSON list or one object a line; relative paths are looked up beside the file.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from bernini.errors import CaseError
from bernini.generate.guidance import DUAL_BRANCH
from bernini.generate.presets import IMAGE_TASKS, TASKS
from bernini.prompts import require_prompt
from bernini.video_io import existing

KEYS = ("task_type", "guidance_mode", "prompt", "motion_prompt", "video", "image", "images", "output")
# Inputs by task: least and most of (videos, images); None: no limit.
INPUTS = {
    "t2i": ((0, 0), (0, 0)),
    "t2v": ((0, 0), (0, 0)),
    "i2i": ((0, 0), (1, None)),
    "i2v": ((0, 0), (1, None)),
    "v2v": ((1, 1), (0, 0)),
    "mv2v": ((1, None), (0, None)),
    "r2v": ((0, 0), (1, None)),
    "rv2v": ((1, None), (1, None)),
    "vi2v": ((1, 1), (1, 1)),  # a video and its edited first frame
    "ads2v": ((1, None), (0, None)),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One thing to generate, with the paths of its inputs."""

    prompt: str
    task_type: str = "v2v"
    guidance_mode: str = ""
    motion_prompt: str = ""  # dual-branch: prompt of the image-to-video branch; empty = `prompt`
    videos: tuple[str, ...] = ()
    image: str | None = None
    images: tuple[str, ...] = ()
    output: str = "outputs/output.mp4"

    @property
    def references(self) -> tuple[str, ...]:
        """The single image, then the list: the order of their ids."""
        return (*((self.image,) if self.image else ()), *self.images)

    def checked(self) -> "Case":
        """The case, if its prompt and inputs fit its task and the files exist."""
        if self.task_type not in TASKS:
            raise CaseError(f"unknown task {self.task_type!r}; known: {', '.join(TASKS)}")
        require_prompt(self.prompt)
        limits = zip(("video", "image"), (self.videos, self.references), INPUTS[self.task_type], strict=True)
        for what, have, (least, most) in limits:
            if len(have) < least:
                raise CaseError(f"task {self.task_type} needs at least {least} {what}, {len(have)} given")
            if most is not None and len(have) > most:
                raise CaseError(f"task {self.task_type} takes at most {most} {what}(s), {len(have)} given")
        if self.motion_prompt and self.guidance_mode != DUAL_BRANCH:
            raise CaseError("motion_prompt would be ignored: it belongs to guidance mode dual-branch")
        if self.guidance_mode == DUAL_BRANCH and (len(self.videos), len(self.references)) != (1, 1):
            raise CaseError(
                "guidance mode dual-branch needs one video and its edited first frame as the one picture (task "
                f"rv2v); {len(self.videos)} and {len(self.references)} given"
            )
        for what, paths in (("video", self.videos), ("image", self.references)):
            for path in paths:
                existing(path, what)
        return self

    @property
    def is_image(self) -> bool:
        return self.task_type in IMAGE_TASKS


def parse_case(values: object, where: str, base: Path = Path()) -> Case:
    """A case from a JSON object; `where` names it in messages, `base` is where its paths start."""
    if not isinstance(values, dict):
        raise CaseError(f"{where} is not a JSON object with the keys {', '.join(KEYS)}")
    unknown = sorted(values.keys() - set(KEYS))
    if unknown:
        raise CaseError(f"{where}: unknown key {unknown[0]!r}; known: {', '.join(KEYS)}")
    if not isinstance(values.get("prompt"), str):
        raise CaseError(f"{where}: 'prompt' (text) is required")
    videos = _texts(values.get("video"), where, "video")
    case = Case(
        prompt=values["prompt"],
        task_type=values.get("task_type", Case.task_type),
        guidance_mode=values.get("guidance_mode", ""),
        motion_prompt=values.get("motion_prompt", ""),
        videos=_resolved(videos, base),
        images=_resolved(_texts(values.get("images"), where, "images"), base),
        output=values.get("output", Case.output),
    )
    single = _texts(values.get("image"), where, "image")
    return replace(case, image=_resolved(single, base)[0]) if single else case


def _texts(value: object, where: str, key: str) -> list[str]:
    values = [] if value in (None, "") else [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
        raise CaseError(f"{where}: {key!r} must be a path or a list of paths")
    return values


def _resolved(paths: list[str], base: Path) -> tuple[str, ...]:
    """Paths as they are when they exist, else beside the case file."""
    return tuple(p if Path(p).exists() or not (base / p).exists() else str(base / p) for p in paths)


def read_case(path: str | Path) -> Case:
    """A case file."""
    return parse_case(_json(path, _text(path)), str(path), Path(path).parent)


def read_batch(path: str | Path) -> list[Case]:
    """A batch file: a JSON list, or JSON lines."""
    text, path = _text(path), Path(path)
    if text.lstrip().startswith("["):
        items = _json(path, text)
    else:
        items = [
            _json(f"{path}, line {i}", line) for i, line in enumerate(text.splitlines(), 1) if line.strip()
        ]
    if not items:
        raise CaseError(f"{path} holds no case")
    cases = [parse_case(item, f"{path}, case {i}", path.parent) for i, item in enumerate(items, 1)]
    return [
        c if "output" in item else _numbered(c, i)
        for i, (c, item) in enumerate(zip(cases, items, strict=True), 1)
    ]


def _numbered(case: Case, index: int) -> Case:
    """A file name of its own for a case that names none."""
    return replace(case, output=f"outputs/{index:04d}.{'png' if case.is_image else 'mp4'}")


def _text(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CaseError(f"{path} cannot be read: {error}") from None


def _json(where: str | Path, text: str):
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise CaseError(f"{where} is not JSON: {error}") from None
