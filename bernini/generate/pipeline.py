"""Case in, video out: the whole of Bernini (paper, figure 3).

    text encoder → planner → autoencoder (sources) → guided denoising, two experts → autoencoder

Each arrow is one method of `Pipeline`; progress is told to a listener, which may stop the run.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bernini.conditions import Sources
from bernini.generate.cases import Case
from bernini.generate.dual_branch import dual_contexts, dual_inputs, mode_of
from bernini.generate.guidance import DUAL_BRANCH, Omegas, Projection
from bernini.generate.inputs import Inputs, read_inputs
from bernini.generate.parts import LazyExperts, Parts
from bernini.generate.planning import contexts, make_plan, text_features
from bernini.generate.presets import DEFAULT_PRESET, Settings, settings_for
from bernini.generate.sample import Denoiser, initial_noise
from bernini.generate.solver import solver_named
from bernini.layouts import ModelFolder
from bernini.memory import Estimate, MemorySettings, available, check_fits
from bernini.renderer.attention import kernel
from bernini.video_io import probe, write

Progress = Callable[[str, int, int], None]  # stage, steps done, steps in all; may raise Cancelled


@dataclass(frozen=True)
class Generated:
    """Frames uint8 `[F, H, W, 3]`, and what it took."""

    frames: np.ndarray
    fps: float
    num_forwards: int
    latent_hash: str
    notes: list[str] = field(default_factory=list)


def quiet(stage: str, done: int, total: int) -> None:
    """A listener that does nothing."""


class Pipeline:
    """A model ready to generate cases."""

    def __init__(
        self,
        model: ModelFolder,
        memory: MemorySettings | None = None,
        *,
        preset: str = DEFAULT_PRESET,
        attention: str = "auto",
        say: Callable[[str], None] = lambda text: None,
    ):
        self.model, self.preset, self.say = model, preset, say
        self.memory = (memory or MemorySettings()).resolved()
        kernel(attention)  # an unknown one is refused now, not after the planning
        # The released pipelines round the planner's rotary tables to bfloat16; the paper has no such thing.
        self.parts = Parts(model, self.memory, attention=attention, round_rotary=preset != "paper", say=say)

    def settings(self, case: Case, given: dict | None = None) -> Settings:
        """Preset and task defaults, the case's own mode, then what the user has `given`."""
        own = {"guidance_mode": case.guidance_mode or None}
        return settings_for(
            self.preset, case.task_type, planner=self.model.has_planner, given=own | (given or {})
        )

    def check(self, inputs: Inputs) -> Estimate:
        """Memory estimate, or a refusal."""
        return check_fits(
            self.model, self.memory, inputs.size, inputs.num_source_tokens, available(self.memory.device)
        )

    def generate(self, case: Case, settings: Settings | None = None, progress: Progress = quiet) -> Generated:
        """One case from prompt to frames; mistakes of the user are found before anything loads."""
        case, settings = case.checked(), settings or self.settings(case)
        self.denoiser(settings, progress)
        solver_named(settings.solver, settings.num_inference_steps, settings.flow_shift)
        inputs = read_inputs(case, settings, planner=self.model.has_planner)
        return self.render(case, settings, inputs, progress)

    def render(self, case: Case, settings: Settings, inputs: Inputs, progress: Progress = quiet) -> Generated:
        """The same from `inputs` that are in memory; of the case only prompts and task count."""
        if settings.guidance_mode == DUAL_BRANCH:
            inputs = dual_inputs(inputs)
        denoiser = self.denoiser(settings, progress)
        solver = solver_named(settings.solver, settings.num_inference_steps, settings.flow_shift)
        self.say(str(self.check(inputs)))
        texts = self.contexts(case, settings, inputs, progress)
        sources = self.encode(inputs, settings, progress).to(self.memory.device)
        texts = {name: rows.to(self.memory.device) for name, rows in texts.items()}
        latent = denoiser(self.noise(settings, inputs), sources, texts, solver).cpu()
        progress("decoding", 0, 1)
        frames = self.parts["vae"].decode(latent)
        progress("decoding", 1, 1)
        digest = hashlib.sha256(latent.numpy().tobytes()).hexdigest()[:16]
        return Generated(frames, settings.fps, denoiser.num_forwards, digest)

    def contexts(self, case: Case, settings: Settings, inputs: Inputs, progress: Progress) -> dict:
        """`[1, rows, text_dim]` of each context that the guidance mode names."""
        progress("text", 0, 1)

        def plan(case: Case, inputs: Inputs):
            if not self.model.has_planner:
                return None
            return make_plan(case, settings, inputs, self.parts, lambda i, n: progress("planning", i + 1, n))

        if settings.guidance_mode == DUAL_BRANCH:
            return dual_contexts(case, settings, inputs, self.parts, plan)
        text = text_features(case, settings, self.parts)
        return contexts(text, plan(case, inputs))

    def encode(self, inputs: Inputs, settings: Settings, progress: Progress) -> Sources:
        """Source latents with the rules of this model's release."""
        rules = dict(
            max_trained=settings.max_trained_src_id,
            interpolate=settings.interpolate_src_id,
            # The image-to-video branch sees the picture alone: it is source 1 there.
            renumber_images=not self.model.has_planner or settings.guidance_mode == DUAL_BRANCH,
            first_video_only=not self.model.has_planner,
        )
        if not inputs.videos and not inputs.images:
            return Sources(**rules)
        progress("encoding", 0, 1)
        vae = self.parts["vae"]
        return Sources.of(
            [vae.encode(f) for f in inputs.videos], [vae.encode(f) for f in inputs.images], **rules
        )

    def denoiser(self, settings: Settings, progress: Progress) -> Denoiser:
        """The loop with its guidance; experts are loaded when it reaches them."""
        s = settings
        return Denoiser(
            LazyExperts(self.parts),
            mode_of(s, planner=self.model.has_planner),
            Omegas(vid=s.omega_vid, img=s.omega_img, txt=s.omega_txt, tgt=s.omega_tgt),
            s.omega_scale,
            Projection(eta=s.eta, norm_threshold=tuple(s.norm_threshold), momentum=s.momentum),
            on_step=lambda step: progress("denoising", step.index + 1, step.total),
        )

    def noise(self, settings: Settings, inputs: Inputs):
        """Start of the loop, on the device."""
        channels = self.model.part("high").config["in_channels"]
        return initial_noise(inputs.size.latent_shape, settings.seed, channels).to(self.memory.device)

    def save(self, case: Case, generated: Generated, *, keep_audio: bool = False) -> Path:
        """Writes the result; `keep_audio` takes the sound of the first source video."""
        sound = case.videos[0] if keep_audio and case.videos and probe(case.videos[0]).has_audio else None
        return write(case.output, generated.frames, generated.fps, sound)
