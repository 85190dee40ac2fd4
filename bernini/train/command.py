"""`bernini train`: manifests in, checkpoints and a model out."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bernini.errors import BerniniError, CheckpointError
from bernini.train.stages import TrainConfig, preset, trained_table
from manifests import settings
from manifests.errors import ConfigError

DESCRIPTION = """Train planner and renderer on manifests of latents (bernini encode) or raw samples.

Stages (paper, section 4.1): I planner; IIa, IIb renderer; IIIa, IIIb both together;
propagation is IIb on edited first frames alone. Each sets the
defaults below; any flag changes them. A second start with the same --output resumes, bit for bit.

  bernini train --stage IIb --model MODEL --data OUT/latents/encode-1a2b --dry-run
  bernini train --stage IIb --experts low --model MODEL --data OUT/latents/encode-1a2b --output run
  bernini train --stage IIb --lora-rank 32 ...            adapters instead of all weights
  torchrun --nproc-per-node 8 -m pipelines train ...      eight processes, weights sharded
  torchrun --nproc-per-node 8 -m pipelines train --sequence-parallel 8 ...   one long pack for all
  bernini train --ray 8 ...                               the same as a Ray Train job
  bernini train --output run --model MODEL --export diffusers --export-only
  bernini generate --model run/export-diffusers ...       uses the result
"""


def parse(argv: Sequence[str]) -> TrainConfig:
    """Settings from flags; `--stage` decides the defaults of all others."""
    stage = "IIb"
    for at, word in enumerate(argv):
        if word == "--stage" and at + 1 < len(argv):
            stage = argv[at + 1]
        elif word.startswith("--stage="):
            stage = word.partition("=")[2]
    return settings.parse(TrainConfig, argv, prog="bernini train", description=DESCRIPTION, default=preset(stage))


def main(argv: Sequence[str] | None = None, launch: Callable[[TrainConfig], None] | None = None) -> int:
    """0 when the run ended, 2 for a mistake of the user. `launch` starts a run on other machines (`--ray`)."""
    argv, config = sys.argv[1:] if argv is None else argv, None
    try:
        config = parse(argv).checked()
        if not config.export_only:
            refuse_idle(config, argv)
            check_output(Path(config.output))
        if config.ray and launch is None:
            raise ConfigError("--ray is known to the command `bernini train` only")
        if config.export_only:
            export_newest(config)
        elif config.ray and not config.dry_run:
            launch(config)
        else:
            run(config)
    except BerniniError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\nstopped" + _what_is_left(config), file=sys.stderr)
        return 130
    return 0


def refuse_idle(config: TrainConfig, argv: Sequence[str]) -> None:
    """A setting that was given and changes nothing is a mistake; it is told before the run, not after it."""
    from manifests.manifest import Manifest

    given = settings.given(argv)
    if why := config.without_effect(given):
        raise ConfigError(why)
    names = [n for n in ("max_size", "fps") if n in given]
    if names and config.data and all(Manifest.open(path).stop.name == "latents" for path in config.data):
        raise ConfigError(f"{settings.flag(names[0])} has no effect in this run: --data are latents, whose size and "
                          "rate are those of their `bernini encode`")  # fmt: skip


def check_output(folder: Path) -> None:
    """`ConfigError` where the folder of the run cannot be made or written; nothing is made."""
    there = next((p for p in (folder, *folder.parents) if os.path.exists(p)), Path())
    if not os.path.isdir(there):
        raise ConfigError(f"--output {folder} cannot be made: {there} is a file; name a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"--output {folder} cannot be made: {there} is not writable; name another folder")


def _what_is_left(config: TrainConfig | None) -> str:
    """What the same command will do after a stop."""
    if config is None or config.export_only or config.dry_run:
        return ""
    if any(Path(config.output, "checkpoints").glob("step-*")):
        return "; the same command resumes from the newest checkpoint"
    return " before the first checkpoint; the same command begins anew"


def run(config: TrainConfig) -> None:
    """One process of a run: all that torchrun or Ray started call this."""
    import torch.distributed as dist

    from bernini.train.parallel import join
    from bernini.train.start import build, plan

    ours = not dist.is_initialized()  # Ray makes the process group, and ends it
    world = join(config.sequence_parallel)

    def say(text: str) -> None:
        # A skipped sample is known to the process that met it; all else the first one says.
        if world.is_first or text.startswith("skipped "):
            print(text, flush=True)

    what = plan(config, world)
    say(str(what.estimate))
    if config.dry_run:
        if world.is_first:
            dry_run(what, world)
        return
    trainer = build(what, world, say=say)
    for note in mixture_notes(trainer.loader):
        say(note)
    say(trained_table({n: getattr(trainer.model, n) for n in ("planner", "high", "low")}))
    trainer.run()
    if config.export and world.is_first:
        export_newest(config)
    world.wait()
    if ours and dist.is_initialized():
        dist.destroy_process_group()


def dry_run(what, world) -> None:
    """Prints stage, modules, mixture in tokens; trains nothing."""
    from bernini.train.pace import LAST
    from bernini.train.start import modules, open_loader

    config = what.config
    loader = open_loader(what, world)
    weights = config.weights
    print(f"\nstage {config.stage}: {config.steps:,} steps of {config.accumulate * world.data_size} pack(s) of at most "
          f"{config.tokens:,} tokens, lr {config.lr:g}, average {config.ema_decay:g}\nlosses: "
          f"text {weights.text:g}, visual {weights.visual:g}, dit {weights.dit:g}")  # fmt: skip
    for name, low, high in what.experts:
        print(f"expert {name}: noise levels {low:g} to {high:g}")
    print("\n" + trained_table(modules(what)) + "\n")
    for progress in (0.0, LAST) if config.mixture == "IIa" else (0.0,):
        print(mixture_table(loader, progress, config))
    for note in mixture_notes(loader):
        print(note)


def mixture_notes(loader) -> list[str]:
    """Groups of the mixture without data, and data sets without weight: neither is drawn."""
    return loader.config.mix.notes(loader.dataset.counts)


def mixture_table(loader, progress: float, config: TrainConfig) -> str:
    """Data sets with their samples, share of draws, of tokens and of work, and tokens in the whole run."""
    rows = loader.mixture_table(progress)
    total = float(config.steps) * config.accumulate * config.tokens * loader.config.fill
    lines = [f"mixture {loader.config.mix.name} at {progress:.0%} of the run",
             f"{'data set':<28} {'task':<14} {'samples':>10} {'draws':>7} {'tokens':>7} {'work':>7} "
             f"{'tokens/sample':>13} {'tokens a rank':>14}"]  # fmt: skip
    for r in rows:
        lines.append(f"{r['source_name']:<28} {r['task']:<14} {r['samples']:>10,} {r['weight']:>7.1%} "
                     f"{r['token_share']:>7.1%} {r['flop_share']:>7.1%} {r['mean_tokens']:>13,.0f} "
                     f"{total * r['token_share']:>14.3g}")  # fmt: skip
        if r["too_long"]:
            lines.append(f"  {r['too_long']:.0%} of {r['source_name']} have more than {config.tokens:,} tokens and "
                         "will be skipped: raise --tokens, or encode with a smaller --max-size or --max-frames")
    return "\n".join(lines) + "\n"


def export_newest(config: TrainConfig) -> Path:
    """Writes the newest checkpoint's averaged weights as a model folder."""
    from bernini.layouts import open_model
    from bernini.train.checkpoint import Checkpoints
    from bernini.train.export import export
    from bernini.train.parallel import World

    if not config.export:
        raise ConfigError("--export-only needs --export diffusers, experts or full")
    if not config.model:
        raise ConfigError("--model is missing: the folder that the training started from")
    saved = Checkpoints(Path(config.output), config.keep, World()).newest()
    if saved is None:
        raise CheckpointError(f"{config.output} holds no checkpoint; train first, or name the --output of a run")
    if saved.index["config"]["planner"] and config.export != "full":
        raise ConfigError(f"--export {config.export} has no place for the planner that {config.output} trained; give "
                          "--export full")  # fmt: skip
    folder = Path(config.output) / f"export-{config.export}"
    aside = folder.with_name(f".aside-{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        export(saved, open_model(config.model, config.base), aside, config.export)
        shutil.rmtree(folder, ignore_errors=True)
        aside.replace(folder)
    except OSError as error:
        raise CheckpointError(f"{folder} could not be written ({error}); the checkpoint is intact: free some space and "
                              "run the same command with --export-only") from None  # fmt: skip
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    print(f"step {saved.step} exported to {folder}; try: bernini generate --model {folder} ...")
    return folder
