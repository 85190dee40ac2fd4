"""`bernini run` and `bernini decide`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
import typing
from pkgutil import resolve_name

from filters.rules import Decisions
from manifests import storage
from manifests.columns import FAILED
from manifests.errors import ConfigError, ManifestError, RunStopped
from manifests.inspect import clean
from manifests.manifest import HEADER, Manifest, ManifestWriter, find_manifests
from manifests.provenance import plain
from manifests.settings import parse

from .decide import Decided, decide
from .pairs import PIPELINES


def run(argv: list[str]) -> int:
    if not argv or argv[0].startswith("-"):
        known = "\n".join(f"  {name:<18} {resolve_name(module).WHY}" for name, module in PIPELINES.items())
        print(f"usage: bernini run RECIPE [--preset laptop|cluster] [--help] [settings]\n\nRecipes:\n{known}\n")
        return 0 if argv and argv[0] in ("-h", "--help") else 2
    if argv[0] not in PIPELINES:
        raise ConfigError(f"no recipe {argv[0]!r}; known: {', '.join(PIPELINES)}")
    recipe = resolve_name(PIPELINES[argv[0]])
    arguments, with_report = _report_flag(argv[1:])
    config = parse_config(recipe, arguments, f"bernini run {argv[0]}")
    started, done = time.monotonic(), []
    try:
        for _, manifest in recipe.run_steps(config):
            done.append(manifest)
    finally:
        print_funnel(done)
    pairs = next((m for m in done if m.stop.name == "pairs"), done[-1])
    print(f"manifest  {pairs.path}\nsamples   {done[-1].path}")
    if with_report:
        from manifests.report import build_report

        print(f"report    {build_report(pairs)}")
    print(f"took      {time.monotonic() - started:.1f} s")
    return 0


def recipes(recipe: str = "", /) -> int:
    """List every recipe with what it makes, needs and costs; name one to read it in full.

    Args:
        recipe: name of a recipe; empty = all of them.
    """
    if recipe and recipe not in PIPELINES:
        raise ConfigError(f"no recipe {recipe!r}; known: {', '.join(PIPELINES)}")
    for name, module in PIPELINES.items():
        if recipe in ("", name):
            found = resolve_name(module)
            print(f"{name}\n  {found.WHY}")
            for title in ("makes", "laptop", "cluster", "cost"):
                print(f"  {title:<8} {getattr(found.NEEDS, title)}")
            print(f"\n{found.__doc__}" if recipe else "")
    return 0


def parse_config(recipe, arguments: list[str], prog: str):
    """A recipe's settings: the preset's, overridden by what is given."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset", default="laptop")
    known, rest = parser.parse_known_args(arguments)
    if known.preset not in recipe.PRESETS:
        raise ConfigError(f"no preset {known.preset!r} of {recipe.RECIPE}; known: {', '.join(recipe.PRESETS)}")
    return parse(preset_type(recipe, known.preset), rest, prog=prog, description=recipe.__doc__)


def preset_type(recipe, preset: str) -> type:
    """The recipe's `Config` with the preset's values as defaults, so that `--help` shows them."""
    values = recipe.PRESETS[preset]
    if not values:
        return recipe.Config
    fields = {f.name: f.type for f in dataclasses.fields(recipe.Config)}
    hints = typing.get_type_hints(recipe.Config)
    made = dataclasses.make_dataclass("Config", [(n, hints.get(n, fields[n]), dataclasses.field(default=v))
                                                 for n, v in values.items()],
                                      bases=(recipe.Config,), frozen=True, kw_only=True)
    made.__doc__ = recipe.Config.__doc__
    return made


def _report_flag(argv: list[str]) -> tuple[list[str], bool]:
    """`--no-report` belongs to the command, not to the recipe."""
    return [a for a in argv if a not in ("--report", "--no-report")], "--no-report" not in argv


def print_funnel(manifests: list[Manifest]) -> None:
    """How many rows each stop had, how many it kept, and why the others went."""
    for m in manifests:
        print(f"{m.stop.name:<11}{m.num_rows:>9,} rows  {m.header['accepted']:>9,} accepted   ({m.stop.row})")
        for reason, num in sorted(m.header["drops"].items(), key=lambda item: (-item[1], item[0])):
            kind = "failed  " if reason.startswith(FAILED) else "rejected"
            print(f"{'':<11}{num:>9,} {kind}  {clean(reason.removeprefix(FAILED))}")
    sys.stdout.flush()


def decide_again(argv: list[str]) -> int:
    """Decide again over finished measures; settings that are not given are those of the manifest's own run."""
    parser = argparse.ArgumentParser(
        prog="bernini decide", add_help=False, description="Decide again over finished measures: what would other "
        "thresholds keep? Needs no GPU, no media and no Ray. To get prompts for pairs that come in new, give the same "
        "settings to `bernini run`: it finds all measures finished.")
    parser.add_argument("manifest", nargs="?", help="a candidates or pairs manifest, or an output root that holds one")
    parser.add_argument("--write", default="", help="folder: write the rows with their new drop_reason as a manifest")
    known, settings = parser.parse_known_args(argv)
    if known.manifest is None:
        parser.print_help()
        print("\nFurther settings are those of `bernini run`, e.g. --similarity-min 0.7 --no-human-balance")
        return 0 if set(argv) & {"-h", "--help"} else 2
    m = _decidable(known.manifest)
    if m.header.get("name") not in PIPELINES:
        raise ManifestError(f"{m.path} was made by {m.header.get('name')!r}, which is no recipe and has no settings to "
                            "decide with; `bernini filter` drops rows by rules over any columns")
    recipe = resolve_name(PIPELINES[m.header["name"]])
    if not hasattr(recipe.Config, "policy"):
        raise ManifestError(f"{recipe.RECIPE} decides while it runs: give `bernini run {recipe.RECIPE}` the other "
                            "settings, it finds the media made")
    stored = {k: tuple(v) if isinstance(v, list) else v for k, v in m.header["config"].items()}
    config = parse(recipe.Config, settings, default=recipe.Config(**stored), prog="bernini decide MANIFEST")
    decisions = decide(m, config.pair_rules(), config.policy())
    print(f"{m.num_rows:>9,} rows, {int(decisions.accepted.sum()):,} accepted")
    for code, reason in enumerate(decisions.reasons[1:], start=1):
        print(f"{int((decisions.codes == code).sum()):>9,} dropped: {reason}")
    if known.write:
        _write_decided(m, decisions, config, known.write)
    if not decisions.accepted.any():
        raise RunStopped("these settings accept no row")
    return 0


def _decidable(path: str) -> Manifest:
    below = [p for p in find_manifests(path) if "/candidates/" in p]
    m = Manifest.open(below[0] if len(below) == 1 else path)
    if m.stop.name not in ("candidates", "pairs"):
        raise ManifestError(f"{m.path} is a {m.stop.name} table; deciding again works on candidates and pairs")
    return m


def _write_decided(m: Manifest, decisions: Decisions, config: object, folder: str) -> None:
    if storage.exists(storage.join(folder, HEADER)):
        raise ConfigError(f"{folder} holds a finished manifest, which never changes: name another folder")
    with ManifestWriter(folder, m.stop, m.schema) as writer:
        for batch in Decided(m, decisions).batches():
            writer.append(batch)
        writer.commit(**{k: m.header[k] for k in ("name", "row", "versions", "owners")},
                      parents=[storage.relative(m.path, folder)], config=plain(config),
                      rules=plain(config.pair_rules()), policy=plain(config.policy()))
    print(f"manifest  {folder}")


def convert_model(argv: list[str]) -> int:
    """`bernini convert` is `bernini model convert`."""
    from bernini.model_command import main

    return main(["convert", *argv])
