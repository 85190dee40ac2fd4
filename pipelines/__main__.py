"""The console command `bernini`. Each subcommand is imported only when it is called."""

from __future__ import annotations

import errno
import os
import sys
from pkgutil import resolve_name

# command -> (function, one line of help, group)
COMMANDS = {
    "run": ("pipelines.command:run", "run a recipe: raw videos in, manifests and a report out", "make"),
    "recipes": ("pipelines.command:recipes", "every recipe: what it makes, needs and costs", "make"),
    "sample-film": ("datagen.samples:main", "make the built-in sample film with known cuts and moves", "make"),
    "measure": ("pipelines.measure:main", "add further measures to the rows of a manifest", "make"),
    "filter": ("pipelines.filter_rows:main", "drop rows by rules over any columns, and by their licences", "make"),
    "dedupe": ("pipelines.dedupe:main", "near-duplicates of a whole corpus: groups, and the one to keep", "make"),
    "import": ("pipelines.datasets.command:main", "open data sets and pairs of your own as pairs and samples", "make"),
    "mix": ("pipelines.mix:main", "weights of a training stage's mixture, and what it will draw", "make"),
    "decide": ("pipelines.command:decide_again", "other thresholds for finished measures; no GPU, no media", "make"),
    "estimate": ("pipelines.estimate:estimate", "yield, requests, tokens and time of a run, from a sample", "make"),
    "encode": ("pipelines.encode_samples:main", "samples → latents, ViT features, text embeddings; resumes", "make"),
    "export": ("manifests.export:export", "write rows as csv, jsonl or the released trainer's form", "make"),
    "import-trainer": ("manifests.trainer_import:import_trainer", "samples from the released trainer's form", "make"),
    "trainer-latents": ("bernini.preprocessed_form:main", "latents to and from the released preprocessed form", "make"),
    "show": ("manifests.inspect:show", "what a manifest or an output folder holds", "look"),
    "head": ("manifests.inspect:head", "the first rows", "look"),
    "stats": ("manifests.inspect:stats", "distribution of every measure", "look"),
    "drops": ("manifests.inspect:drops", "why rows were dropped, with examples", "look"),
    "why": ("manifests.why:why", "the whole story of one row", "look"),
    "account": ("manifests.inspect:account", "accepted, rejected, failed, pending: item by item", "look"),
    "validate": ("manifests.inspect:validate", "check a manifest's parts, keys and counts", "look"),
    "report": ("manifests.report:main", "one HTML page: funnel, distributions, gallery of pairs", "look"),
    "serve-check": ("annotators.serve_check:main", "one real request of each annotator to a model server", "model"),
    "generate": ("bernini.generate.command:main", "generate or edit images and videos with a checkpoint", "model"),
    "model": ("bernini.model_command:main", "inspect, convert or verify a checkpoint", "model"),
    "convert": ("pipelines.command:convert_model", "rewrite a checkpoint in another layout (model convert)", "model"),
    "train": ("pipelines.train_on_ray:main", "train planner and renderer, all stages; resumes exactly", "model"),
    "demo": ("bernini.generate.demo:main", "a web page to try a checkpoint", "model"),
}
TAKES_ARGV = {"run", "decide", "report", "generate", "model", "convert", "demo", "estimate", "serve-check", "encode",
              "train", "trainer-latents", "measure", "filter", "dedupe", "import", "mix"}  # they parse their own words
GROUPS = {"make": "Make data", "look": "Look into manifests", "model": "Use the model"}


def usage() -> str:
    lines = ["usage: bernini COMMAND ...", "",
             "From raw videos to training pairs for instruction-driven video editing.", ""]
    for group, title in GROUPS.items():
        lines.append(f"{title}:")
        lines += [f"  {name:<15} {text}" for name, (_, text, g) in COMMANDS.items() if g == group]
        lines.append("")
    return "\n".join([*lines, "Start here:", "  bernini run video-pairs --input VIDEOS --output OUT",
                      "  bernini show OUT", "  bernini COMMAND --help   explains a command and its settings", ""])


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if argv else 2
    if argv[0] not in COMMANDS:
        print(f"error: no command {argv[0]!r}; known: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    return call(argv[0], argv[1:])


def call(name: str, argv: list[str]) -> int:
    from manifests.errors import BerniniError

    try:
        function = resolve_name(COMMANDS[name][0])
        if name in TAKES_ARGV:
            return function(argv)
        from manifests.settings import parse

        return parse(function, argv, prog=f"bernini {name}", description=function.__doc__) or 0
    except BerniniError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        return _missing_package(error)
    except OSError as error:
        return _broken_storage(error)
    except KeyboardInterrupt:
        print("\nstopped; finished work is kept, the same command resumes", file=sys.stderr)
        return 130


EXTRAS = {"ray": "ray", "torch": "models", "transformers": "models", "skimage": "samples", "httpx": "openai",
          "open_clip": "models", "faiss": "dedupe", "onnxruntime": "onnx"}


def _missing_package(error: ModuleNotFoundError) -> int:
    extra = EXTRAS.get((error.name or "").split(".")[0])
    if extra is None:
        raise error
    print(f"error: this needs the package {error.name}, which is not installed: pip install -e '.[{extra}]'",
          file=sys.stderr)
    return 2


# errno -> what to do, as the beginning of "... and run the same command again"
ADVICE = {
    errno.ENOSPC: "free some space", errno.EDQUOT: "free some of your quota", errno.EIO: "check the disk",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)", errno.EPERM: "check the permissions",
    errno.EROFS: "name an output that can be written", errno.EACCES: "name an output that can be written",
    errno.EEXIST: "name an output folder where no file lies", errno.ENOENT: "name a path that exists or can be made",
    errno.ENOTDIR: "name a path of which no part is a file", errno.EISDIR: "name a file where no folder lies",
}


def _broken_storage(error: OSError) -> int:
    if isinstance(error, BrokenPipeError):  # the reader of our output went away, e.g. `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if error.errno not in ADVICE:
        raise error
    where = f" ({error.filename})" if error.filename else ""
    print(f"error: {os.strerror(error.errno)}{where}: {ADVICE[error.errno]} and run the same command again; "
          f"finished work is kept. [{error}]", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
