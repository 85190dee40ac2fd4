"""Settings of a generation and their defaults by preset and task (paper, Table 5; spec 4.3).

Presets: `paper` (Table 5, four increments with projected guidance), `released_v1` and
`released_v2` (scripts and demo of the two weight releases). A model without planner always uses
the defaults of the renderer-only release, whatever the preset: there is only one set of them.
"""

from dataclasses import dataclass, fields, replace

from bernini.errors import CaseError

TASKS = ("t2i", "i2i", "t2v", "i2v", "v2v", "mv2v", "vi2v", "r2v", "rv2v", "ads2v")
IMAGE_TASKS = ("t2i", "i2i")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that can be set for one generation; the command line is made from this."""

    num_frames: int = 81  # frames of a video; cut to 4k + 1
    fps: float = 16.0  # frames a second, of the output and of the sampled sources
    max_image_size: int = 848  # longest side of sources and references, px
    height: int = 0  # px; 0 takes the first source's size, else 480
    width: int = 0  # px; 0 takes the first source's size, else 848
    num_inference_steps: int = 40  # denoising steps
    guidance_mode: str = ""  # empty: the preset's for the task
    omega_vid: float = 1.25  # guidance scale of the source video
    omega_img: float = 4.5  # guidance scale of the source images
    omega_txt: float = 4.0  # guidance scale of the prompt
    omega_tgt: float = 0.5  # guidance scale of the planned target
    omega_scale: float = 0.8  # all four times this on the low-noise expert
    planning_step: int = 25  # steps of the planner
    vit_denoising_step: int = 5  # decoder steps in each planning step
    vit_txt_cfg: float = 1.2  # planner guidance; scales the sources' increment, despite its name
    vit_img_cfg: float = 1.0  # planner guidance; scales the prompt's increment, despite its name
    alpha: float = 0.5  # dual-branch: share of the image-to-video branch; 0 keeps the source's motion
    alpha_schedule: str = "constant"  # dual-branch: constant, falling or rising from noise to picture
    dual_weights: str = "table5"  # dual-branch: named guidance weights of equation 4
    flow_shift: float = 5.0  # shift of the noise levels
    solver: str = "unipc"  # unipc or euler
    seed: int = 42  # seed of all noise
    eta: float = 0.5  # *_apg modes of the renderer alone: share of the parallel part
    norm_threshold: tuple[float, ...] = (50.0, 50.0, 50.0)  # the same: largest norm of an increment
    momentum: float = 0.0  # the same: share of earlier increments
    neg_prompt: str = ""  # empty: the Wan list
    system_prompt: str = ""  # empty: chosen by task
    interpolate_src_id: bool = True  # spread more than max_trained_src_id sources over the trained ids
    max_trained_src_id: int = 5  # largest source id in training


# What differs from the fields above, by task. Renderer alone: scripts of Bernini-R.
RENDERER = {
    "t2i": dict(guidance_mode="t2v_apg"),
    "t2v": dict(guidance_mode="t2v_apg"),
    "i2i": dict(guidance_mode="v2v"),
    "i2v": dict(guidance_mode="v2v"),
    "v2v": dict(guidance_mode="v2v_apg"),
    "mv2v": dict(guidance_mode="v2v_apg"),
    "r2v": dict(guidance_mode="r2v_apg"),
    "rv2v": dict(guidance_mode="rv2v"),
    "vi2v": dict(guidance_mode="rv2v"),
    "ads2v": dict(guidance_mode="rv2v"),
}


def _full(
    mode: str, steps: int, txt: float, tgt: float, img: float, vid: float, scale: float, **more
) -> dict:
    return dict(
        guidance_mode=mode,
        num_inference_steps=steps,
        omega_txt=txt,
        omega_tgt=tgt,
        omega_img=img,
        omega_vid=vid,
        omega_scale=scale,
        **more,
    )


WAPG, SQUARE = "vae_txt_vit_wapg", dict(height=512, width=512)
V2 = dict(planning_step=50, vit_denoising_step=1)
ADS = dict(num_frames=121, fps=24.0, max_image_size=1280)
_v1_edit = _full(WAPG, 40, 4, 0.5, 1.25, 1.25, 0.75)
_v2_edit = _full(WAPG, 40, 4, 1.2, 1.25, 1.25, 0.75, **V2)
_paper_edit = _full("paper", 40, 4, 0.5, 1.25, 1.25, 1)

PRESETS = {
    "released_v1": {
        "t2i": _full(WAPG, 50, 4, 0.5, 1, 1, 1, **SQUARE),
        "t2v": _full(WAPG, 50, 4, 0.5, 1, 1, 1),
        "i2i": _v1_edit | SQUARE,
        "i2v": _v1_edit,
        "v2v": _v1_edit,
        "mv2v": _v1_edit,
        "r2v": _full(WAPG, 40, 4, 1.5, 4.5, 1.25, 0.8),
        "rv2v": _full("rv2v_wapg", 40, 4, 1.5, 3, 0.75, 0.75),
        "ads2v": _v1_edit | ADS,
    },
    "released_v2": {
        "t2i": _full(WAPG, 50, 5, 1.2, 1, 1, 1, **SQUARE),
        "t2v": _full(WAPG, 50, 5, 1.2, 1, 1, 1, **V2),
        "i2i": _full(WAPG, 40, 4, 1.2, 1.25, 1.25, 0.75, **SQUARE),
        "i2v": _v2_edit,
        "v2v": _v2_edit,
        "mv2v": _v2_edit,
        "ads2v": _v2_edit | ADS,
        "r2v": _full(WAPG, 40, 4.5, 1.5, 3, 1, 0.75, **V2),
        "rv2v": _full("rv2v_wapg", 40, 5.5, 1.5, 4, 1.75, 0.75, **V2),
    },
    "paper": {
        "t2i": _full("paper", 60, 4, 1, 1, 0, 1, **SQUARE),
        "t2v": _full("paper", 60, 4, 1, 1, 0, 1),
        "i2i": _paper_edit | SQUARE,
        "i2v": _paper_edit,
        "v2v": _paper_edit,
        "mv2v": _paper_edit,
        "ads2v": _paper_edit | ADS,
        "r2v": _full("paper", 40, 4, 1.5, 2.5, 1.25, 1),
        "rv2v": _full("paper", 40, 4, 1.5, 3, 1.25, 1),
    },
}
for _tasks in PRESETS.values():  # the releases name the task in their table of prompts and give it no weights
    _tasks["vi2v"] = _tasks["rv2v"]
DEFAULT_PRESET = "released_v2"


def settings_for(preset: str, task: str, *, planner: bool, given: dict | None = None) -> Settings:
    """Defaults of a preset and task for a kind of model, with what the user has `given` on top."""
    if preset not in PRESETS:
        raise CaseError(f"unknown preset {preset!r}; known: {', '.join(PRESETS)}")
    if task not in TASKS:
        raise CaseError(f"unknown task {task!r}; known: {', '.join(TASKS)}")
    table = PRESETS[preset][task] if planner else RENDERER[task] | (ADS if task == "ads2v" else {})
    given = {k: v for k, v in (given or {}).items() if v is not None}
    unknown = given.keys() - {f.name for f in fields(Settings)}
    if unknown:
        raise CaseError(f"unknown setting {sorted(unknown)[0]!r}")
    settings = replace(Settings(), **(table | given))
    return replace(settings, num_frames=1) if task in IMAGE_TASKS else settings
