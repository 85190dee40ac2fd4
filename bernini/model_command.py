"""`bernini model inspect | verify | convert`: what a folder is, whether our numbers match, other layouts.

For users with a checkpoint in hand.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bernini.errors import BerniniError

GIB = 1024**3


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="bernini model", description="Look at, check and convert model folders.")
    verbs = p.add_subparsers(dest="verb", required=True)
    inspect = verbs.add_parser("inspect", help="layout, sizes, missing and unexpected tensors")
    inspect.add_argument("folder")
    inspect.add_argument("--base", help="diffusers folder beside a folder with the two experts only")
    verify = verbs.add_parser("verify", help="recorded numbers through our code; exit 1 when one is out")
    verify.add_argument("folder", help="folder with NAME.json and NAME.safetensors records")
    verify.add_argument(
        "--attention", default="sdpa", help="kernel of the renderer, or module:function of a new one"
    )
    verify.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    verify.add_argument("--failures-only", action="store_true", help="print only what is out of tolerance")
    convert = verbs.add_parser("convert", help="write a model in another layout")
    convert.add_argument("folder")
    convert.add_argument("output")
    convert.add_argument(
        "--to", required=True, choices=("diffusers", "experts", "full"), help="layout to write"
    )
    convert.add_argument("--base", help="diffusers folder beside a folder with the two experts only")
    convert.add_argument(
        "--planner", help="full model whose planner a renderer is joined with (for --to full)"
    )
    convert.add_argument(
        "--dtype", choices=("keep", "bf16", "fp32"), default="keep", help="of experts and planner"
    )
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """0, or 1 when a check is out, or 2 for a mistake of the user."""
    args = parser().parse_args(argv)
    try:
        return {"inspect": inspect, "verify": verify, "convert": convert}[args.verb](args)
    except BerniniError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def verify(args: argparse.Namespace) -> int:
    """One line a quantity: case, quantity, error, tolerance, ok or FAIL."""
    import torch

    from bernini.parity.verify import verify as results

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    failed = count = 0
    for result in results(Path(args.folder), args.attention, args.device):
        count, failed = count + 1, failed + (not result.ok)
        if not result.ok or not args.failures_only:
            print(result)
    print(f"{count} compared, {failed} out of tolerance", file=sys.stderr)
    return 1 if failed else 0


def inspect(args: argparse.Namespace) -> int:
    """What a model folder holds; exit 1 when tensors are missing or misshapen."""
    from bernini.layouts import open_model

    model = open_model(args.folder, args.base)
    kind = "planner and renderer" if model.has_planner else "renderer only"
    experts = "two noise experts" if "low" in model.parts else "one expert"
    print(f"{model.path}: layout {model.layout}, {kind}, {experts}, switch at {model.boundary:g}")
    wrong = 0
    for name, part in model.parts.items():
        difference, types = part.compare(), sorted({e.dtype for e in part.entries.values()})
        print(
            f"  {name}: {len(part.entries)} tensors, {part.num_values / 1e6:.2f} M values, "
            f"{part.num_bytes / GIB:.3f} GiB, {'/'.join(types)}; missing {len(difference.missing)}, "
            f"unexpected {len(difference.unexpected)}, other shape {len(difference.misshapen)}"
        )
        for key in difference.missing[:5]:
            print(f"    missing {key}")
        for key in difference.unexpected[:5]:
            print(f"    unexpected {key}")
        for key, have, want in difference.misshapen[:5]:
            print(f"    {key} is {list(have)}, should be {list(want)}")
        wrong += len(difference.missing) + len(difference.misshapen)
    return 1 if wrong else 0


def convert(args: argparse.Namespace) -> int:
    from bernini.convert import convert as write
    from bernini.layouts import open_model

    model = open_model(args.folder, args.base)
    planner = open_model(args.planner) if args.planner else None
    write(model, Path(args.output), args.to, dtype=args.dtype, planner=planner)
    print(args.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
