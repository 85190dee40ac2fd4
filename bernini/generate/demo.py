"""`bernini demo`: a web page for one model: task, inputs, settings, live progress, cancel.

Gradio, because that is what people of this field know. One generation at a time; the page shows
stage, step and time left, and the cancel button stops at the next step.
"""

import argparse
import queue
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bernini.errors import BerniniError, Cancelled
from bernini.generate.cases import Case
from bernini.generate.presets import DEFAULT_PRESET, PRESETS, TASKS

ADVANCED = (  # setting, label, kind
    ("num_frames", "Frames", int),
    ("fps", "Frames a second", float),
    ("height", "Height, px", int),
    ("width", "Width, px", int),
    ("max_image_size", "Longest side of sources, px", int),
    ("num_inference_steps", "Denoising steps", int),
    ("omega_txt", "Guidance: prompt", float),
    ("omega_vid", "Guidance: source video", float),
    ("omega_img", "Guidance: images", float),
    ("omega_tgt", "Guidance: plan", float),
    ("omega_scale", "Guidance factor on low noise", float),
    ("planning_step", "Planning steps", int),
    ("vit_denoising_step", "Decoder steps", int),
    ("flow_shift", "Flow shift", float),
    ("seed", "Seed", int),
)


class Studio:
    """The model behind the page, and the generation that runs."""

    def __init__(self, pipeline, folder: Path):
        self.pipeline, self.folder = pipeline, folder
        self._stop = threading.Event()
        self._busy = threading.Lock()

    def cancel(self) -> None:
        """Asks the running generation to stop; it does at its next step."""
        self._stop.set()

    def run(
        self, case: Case, given: dict, reasoning: str, keep_audio: bool
    ) -> Iterator[tuple[str, Path | None]]:
        """(status, result) as it goes; the result comes with the last one."""
        if not self._busy.acquire(blocking=False):
            yield "another generation is running; wait or cancel it", None
            return
        try:
            yield from self._run(case, given, reasoning, keep_audio)
        finally:
            self._busy.release()

    def _run(
        self, case: Case, given: dict, reasoning: str, keep_audio: bool
    ) -> Iterator[tuple[str, Path | None]]:
        self._stop.clear()
        news: queue.Queue = queue.Queue()
        worker = threading.Thread(
            target=self._work, args=(case, given, reasoning, keep_audio, news), daemon=True
        )
        worker.start()
        started: dict[str, float] = {}
        while True:
            kind, value = newest(news)
            if kind == "progress":
                yield status(*value, started), None
            else:
                worker.join()
                yield (f"done in {value[1]:.1f} s", value[0]) if kind == "done" else (f"error: {value}", None)
                return

    def _work(self, case: Case, given: dict, reasoning: str, keep_audio: bool, news: queue.Queue) -> None:
        from bernini.generate.reasoning import prepare

        def progress(stage: str, done: int, total: int) -> None:
            if self._stop.is_set():
                raise Cancelled("cancelled")
            news.put(("progress", (stage, done, total)))

        began = time.monotonic()
        try:
            ready = prepare(case, self.pipeline, reasoning, given=given, progress=progress)
            made = self.pipeline.generate(ready, self.pipeline.settings(ready, given), progress)
            path = self.pipeline.save(ready, made, keep_audio=keep_audio)
            news.put(("done", (path, time.monotonic() - began)))
        except BerniniError as error:
            news.put(("error", str(error)))
        except BaseException as error:  # a bug: the page must not wait for ever, the log gets the rest
            news.put(("error", f"{type(error).__name__}: {error}"))
            raise


def newest(news: queue.Queue) -> tuple:
    """The last thing said; a page that lags behind must not replay every step."""
    item = news.get()
    time.sleep(0.05)
    while not news.empty():
        item = news.get()
    return item


def status(stage: str, done: int, total: int, started: dict[str, float]) -> str:
    """One line: stage, step, time left."""
    now = time.monotonic()
    elapsed = now - started.setdefault(stage, now)
    left = f", {elapsed / done * (total - done):.0f} s left" if done and elapsed else ""
    return f"{stage} {done}/{total}{left}"


def page(studio: Studio):
    """The Gradio page."""
    import gradio as gr

    with gr.Blocks(title="Bernini") as blocks:
        gr.Markdown("# Bernini\nText-driven generation and editing of images and videos.")
        with gr.Row():
            with gr.Column():
                task = gr.Dropdown(list(TASKS), value="t2v", label="Task")
                prompt = gr.Textbox(label="Prompt", lines=3, elem_id="prompt")
                videos = gr.File(label="Source videos", file_count="multiple")
                images = gr.File(label="Source and reference images", file_count="multiple")
                reasoning = gr.Dropdown(
                    ["none", "enhance", "self_text", "self_vision_text"], value="none", label="Reasoning"
                )
                keep_audio = gr.Checkbox(label="Keep the sound of the source", value=False)
                with gr.Accordion("Advanced settings (empty: the preset's for the task)", open=False):
                    mode = gr.Textbox(label="Guidance mode")
                    negative = gr.Textbox(label="Negative prompt")
                    numbers = [
                        gr.Textbox(label=label, elem_id=f"set-{name}", max_lines=1)
                        for name, label, _ in ADVANCED
                    ]
                with gr.Row():
                    go = gr.Button("Generate", variant="primary", elem_id="generate")
                    stop = gr.Button("Cancel", elem_id="cancel")
            with gr.Column():
                line = gr.Textbox(label="Progress", interactive=False, elem_id="progress")
                video_out = gr.Video(label="Video", elem_id="video-out")
                image_out = gr.Image(label="Image", type="filepath", elem_id="image-out")
        asked = [task, prompt, videos, images, reasoning, keep_audio, mode, negative, *numbers]

        def generate(*values):
            yield from answers(studio, *values)

        go.click(generate, asked, [line, video_out, image_out], api_name="generate")
        stop.click(studio.cancel, None, None, api_name="cancel", queue=False)
    return blocks


def answers(studio: Studio, task, prompt, videos, images, reasoning, keep_audio, mode, negative, *numbers):
    """What the page shows, from what was filled in: (progress line, video, image)."""
    try:
        given = read_numbers(numbers) | ({"guidance_mode": mode} if mode else {})
        given |= {"neg_prompt": negative} if negative else {}
        output = studio.folder / f"{int(time.time() * 1000)}.mp4"
        case = Case(
            prompt=prompt or "",
            task_type=task,
            videos=tuple(videos or ()),
            images=tuple(images or ()),
            output=str(output),
        ).checked()
    except BerniniError as error:
        yield f"error: {error}", None, None
        return
    for text, path in studio.run(case, given, reasoning, keep_audio):
        still = path is not None and path.suffix == ".png"
        yield text, None if path is None or still else str(path), str(path) if still else None


def read_numbers(values: Sequence[str]) -> dict:
    """Advanced settings that were filled in."""
    from bernini.errors import CaseError

    given = {}
    for (name, label, kind), value in zip(ADVANCED, values, strict=True):
        if value not in (None, ""):
            try:
                given[name] = kind(value)
            except ValueError:
                raise CaseError(f"{label}: {value!r} is not a number") from None
    return given


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="bernini demo", description="A web page for one model.")
    p.add_argument("--model", help="model folder; without it a tiny random model is made")
    p.add_argument("--base", help="diffusers folder beside a folder with the two experts only")
    p.add_argument("--preset", default=DEFAULT_PRESET, choices=PRESETS)
    p.add_argument("--host", default="127.0.0.1")
    p.add_argument("--port", type=int, default=7860)
    p.add_argument("--share", action="store_true", help="a public address through Gradio")
    p.add_argument("--save-dir", default="outputs/demo")
    p.add_argument("--device", default="auto")
    p.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16", "fp8"))
    p.add_argument("--offload", default="none", choices=("none", "sequential"))
    p.add_argument("--vae-tiling", action="store_true")
    return p


def build(args: argparse.Namespace):
    """The page of a parsed command line, not yet served."""
    from bernini.generate.pipeline import Pipeline
    from bernini.layouts import open_model
    from bernini.memory import MemorySettings
    from bernini.tiny import write_tiny

    folder = args.model or write_tiny(Path(tempfile.mkdtemp()) / "tiny")
    memory = MemorySettings(
        device=args.device, precision=args.precision, offload=args.offload, vae_tiling=args.vae_tiling
    )
    save = Path(args.save_dir).resolve()
    save.mkdir(parents=True, exist_ok=True)
    return page(Studio(Pipeline(open_model(folder, args.base), memory, preset=args.preset), save)), save


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until stopped."""
    args = parser().parse_args(argv)
    try:
        blocks, save = build(args)
    except BerniniError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ImportError as error:
        print(f"error: {error}; install it with: pip install 'bernini[models,demo]'", file=sys.stderr)
        return 2
    blocks.queue().launch(
        server_name=args.host, server_port=args.port, share=args.share, allowed_paths=[str(save)]
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
