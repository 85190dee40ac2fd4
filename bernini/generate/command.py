"""`bernini generate`: one case by flags or file, or a batch.

For users of the model. Heavy packages are imported only when something is generated.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields, replace

from bernini.errors import BerniniError, CaseError
from bernini.generate.presets import DEFAULT_PRESET, PRESETS, TASKS, Settings
from manifests.settings import refuse_repeated

REASONING = ("none", "enhance", "self_text", "self_vision_text")


def parser() -> argparse.ArgumentParser:
    """All flags; those of `Settings` are made from its fields and their comments."""
    p = argparse.ArgumentParser(prog="bernini generate", description="Generate or edit images and videos.")
    where = p.add_argument_group("model")
    where.add_argument("--model", required=True, help="model folder, of any released layout")
    where.add_argument(
        "--base", help="Wan2.2-T2V-A14B in diffusers' layout, for a folder with the two experts only"
    )
    where.add_argument("--preset", default=DEFAULT_PRESET, choices=PRESETS, help="defaults by task")
    where.add_argument(
        "--attention", default="auto", help="attention kernel (auto, sdpa, cudnn, varlen, flash2, flash3)"
    )
    what = p.add_argument_group("what")
    what.add_argument("--case", help="case file (JSON)")
    what.add_argument("--inputs", help="batch file: a JSON list or JSON lines of cases")
    what.add_argument("--prompt", help="what to make, or what to change")
    what.add_argument(
        "--task", "--task-type", "--task_type", dest="task_type", choices=TASKS, help="default v2v"
    )
    what.add_argument("--video", nargs="*", default=[], help="source video(s)")
    what.add_argument("--image", help="source image")
    what.add_argument(
        "--first-frame", help="edited first frame of --video: dual-branch sampling (paper, equation 4)"
    )
    what.add_argument(
        "--motion-prompt", default="", help="what moves after the edit, for its image-to-video branch"
    )
    what.add_argument(
        "--images", nargs="*", default=[], help="reference images, named image0, image1, … in the prompt"
    )
    what.add_argument("--output", help="file to write (default outputs/output.mp4)")
    what.add_argument("--keep-audio", action="store_true", help="take the sound of the first source video")
    what.add_argument("--reasoning", default="none", choices=REASONING, help="thinking before rendering")
    what.add_argument("--enhancer-model", default="", help="model of the prompt enhancer")
    what.add_argument("--enhancer-url", default="", help="its server; the key comes from the environment")
    what.add_argument("--quiet", action="store_true", help="no progress bar")
    memory = p.add_argument_group("memory")
    memory.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N")
    memory.add_argument(
        "--precision", default="auto", choices=("auto", "fp32", "bf16", "fp8"), help="of the weights"
    )
    memory.add_argument(
        "--offload", default="none", choices=("none", "sequential"), help="sequential: one part at a time"
    )
    memory.add_argument("--vae-tiling", action="store_true", help="encode and decode in tiles")
    memory.add_argument("--force", action="store_true", help="run although the memory estimate says no")
    memory.add_argument("--estimate-only", action="store_true", help="print the memory estimate and stop")
    _add_settings(p.add_argument_group("settings (default: the preset's for the task)"))
    return p


def _add_settings(group) -> None:
    for f in fields(Settings):
        names = [f"--{f.name.replace('_', '-')}"] + ([f"--{f.name}"] if "_" in f.name else [])
        kind = {"int": int, "float": float, "str": str}.get(getattr(f.type, "__name__", str(f.type)), str)
        if isinstance(f.default, bool):
            group.add_argument(*names, dest=f.name, action=argparse.BooleanOptionalAction, default=None)
        elif isinstance(f.default, tuple):
            group.add_argument(*names, dest=f.name, nargs="+", type=float, default=None, metavar="X")
        else:
            group.add_argument(*names, dest=f.name, type=kind, default=None, metavar=kind.__name__.upper())


def given_settings(args: argparse.Namespace) -> dict:
    """Settings that were written on the command line."""
    return {f.name: getattr(args, f.name) for f in fields(Settings) if getattr(args, f.name) is not None}


def cases_of(args: argparse.Namespace) -> list:
    """One case, or those of the batch file."""
    from bernini.generate.cases import read_batch, read_case

    if args.case and args.inputs:
        raise CaseError("--case and --inputs exclude each other; give one")
    named = ("prompt", "task_type", "video", "image", "images", "first_frame", "motion_prompt")
    written = [f for f in named if getattr(args, f)]
    if written and (args.case or args.inputs):
        raise CaseError(
            f"--{written[0].replace('_', '-')} would be ignored beside a case file; write it there"
        )
    if args.inputs:
        if args.output:
            raise CaseError("--output would be ignored beside --inputs; name it in each case")
        return read_batch(args.inputs)
    if args.case:
        case = read_case(args.case)
    elif args.prompt is None:
        raise CaseError("nothing to generate; give --prompt, --case or --inputs")
    else:
        case = _dual_branch(args) if args.first_frame else _written(args)
    return [replace(case, output=args.output) if args.output else case]


def _written(args: argparse.Namespace):
    from bernini.generate.cases import Case

    return Case(
        prompt=args.prompt,
        task_type=args.task_type or "v2v",
        guidance_mode=args.guidance_mode or "",
        motion_prompt=args.motion_prompt,
        videos=tuple(args.video),
        image=args.image,
        images=tuple(args.images),
    )


def _dual_branch(args: argparse.Namespace):
    """The case that `--first-frame` means."""
    from bernini.generate.guidance import DUAL_BRANCH

    for name, fits in (("task_type", "rv2v"), ("guidance_mode", DUAL_BRANCH)):
        if getattr(args, name) not in (None, fits):
            raise CaseError(f"--first-frame goes with {name.replace('_', ' ')} {fits} alone")
    if args.image:
        raise CaseError("--image would be one picture too many beside --first-frame")
    return replace(_written(args), task_type="rv2v", guidance_mode=DUAL_BRANCH, image=args.first_frame)


def main(argv: Sequence[str] | None = None) -> int:
    """0 when all was written, 1 when cases of a batch failed, 2 for a mistake of the user."""
    argv = sys.argv[1:] if argv is None else argv
    args = parser().parse_args(argv)
    try:
        refuse_repeated(argv, ("video", "images"))
        return run(args)
    except BerniniError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: stopped", file=sys.stderr)
        return 2


def run(args: argparse.Namespace) -> int:
    """Checks all inputs, loads the model once, generates case after case."""
    cases = [case.checked() for case in cases_of(args)]
    from bernini.generate.pipeline import Pipeline
    from bernini.layouts import open_model
    from bernini.memory import MemorySettings

    memory = MemorySettings(
        device=args.device,
        precision=args.precision,
        offload=args.offload,
        vae_tiling=args.vae_tiling,
        force=args.force,
    )
    pipeline = Pipeline(
        open_model(args.model, args.base), memory, preset=args.preset, attention=args.attention, say=_say
    )
    if args.estimate_only:
        return _estimate(pipeline, cases, given_settings(args))
    failed = 0
    for case in cases:
        try:
            print(_one(pipeline, case, args))
        except BerniniError as error:
            if len(cases) == 1:
                raise
            failed += 1
            print(f"error: {case.output}: {error}", file=sys.stderr)
    return 1 if failed else 0


def _estimate(pipeline, cases: list, given: dict) -> int:
    from bernini.generate.inputs import read_inputs

    for case in cases:
        inputs = read_inputs(case, pipeline.settings(case, given), planner=pipeline.model.has_planner)
        print(pipeline.check(inputs))
    return 0


def _one(pipeline, case, args: argparse.Namespace) -> str:
    """Generates a case; the path of the file."""
    from bernini.generate.progress import Bar
    from bernini.generate.reasoning import prepare

    given = given_settings(args)
    with Bar(disable=args.quiet) as bar:
        ready = prepare(
            case, pipeline, args.reasoning, given=given, server=_server(args), warn=_say, progress=bar
        )
        if ready.prompt != case.prompt:
            _say(f"prompt: {ready.prompt}")
        settings = pipeline.settings(ready, given)
        _warn_of_idle(pipeline, settings, given)
        generated = pipeline.generate(ready, settings, bar)
    return str(pipeline.save(ready, generated, keep_audio=args.keep_audio))


def _warn_of_idle(pipeline, settings: Settings, given: dict) -> None:
    from bernini.generate.dual_branch import mode_of
    from bernini.generate.guidance import without_effect

    planner = pipeline.model.has_planner
    mode = mode_of(settings, planner=planner)
    for name in without_effect(mode, given, planner=planner):
        flag = name.replace("_", "-")
        _say(f"warning: --{flag} has no effect here (guidance mode {settings.guidance_mode})")


def _server(args: argparse.Namespace):
    if args.reasoning != "enhance":
        return None
    from bernini.generate.enhancer import Server

    return Server.from_environment(args.enhancer_model, args.enhancer_url)


def _say(text: str) -> None:
    from tqdm import tqdm

    tqdm.write(text, file=sys.stderr)  # a plain print would break the bar


if __name__ == "__main__":
    sys.exit(main())
