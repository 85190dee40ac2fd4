"""`bernini serve-check URL`: does this server answer every annotator, how fast and at what cost?

One real request of each goes out, on frames of a video that is given or drawn here. A server
that ignores JSON schemas, has too short a context or takes too few pictures shows it at once,
and not after a night's run.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pkgutil import resolve_name

import cv2
import numpy as np
import pyarrow as pa

from manifests.columns import ISSUES
from manifests.errors import BerniniError
from manifests.media import probe
from manifests.spans import read_frames
from manifests.video_writer import write_video

from . import ANNOTATORS
from .ask import Annotator

S, F, LIST = pa.string(), pa.float64(), pa.list_(pa.string())
TYPES = {"start_s": F, "end_s": F, "time_s": F, "source_start_s": F, "source_end_s": F, "target_start_s": F,
         "target_end_s": F, "source_time_s": F, "target_time_s": F, "key_times_s": pa.list_(F), "images": LIST,
         "caption_times_s": pa.list_(F), "object_names": LIST, "object_places": LIST,
         "candidates": LIST, "reference_paths": LIST, "texts": LIST, "camera_speed": F, "target_face_height": F,
         "edited_share": F,
         "possible_edits": pa.list_(pa.struct([(name, S) for name in ("prompt", "kind", "object")])),
         **dict.fromkeys(("camera_pan", "camera_tilt", "camera_zoom", "camera_roll", "camera_fit"), F)}


def main(argv: list[str] | None = None) -> int:
    """Exit code 0 when every annotator got a valid answer, 1 when one did not, 2 when no server can be asked."""
    options = _parse(argv)
    backend = {"backend": "openai", "urls": options.url, "model": options.model, "timeout_s": options.timeout_s,
               "wait_s": options.wait_s, "attempts": 1}
    with tempfile.TemporaryDirectory() as folder:
        try:
            table = sample_table(folder, options.video)
            results = list(check(table, options.only or list(ANNOTATORS), folder, backend))
        except BerniniError as error:
            print(f"error: {error}", file=sys.stderr)
            return error.exit_code
    num_valid = sum(results)
    print(f"{num_valid} of {len(results)} annotators got a valid answer")
    return 0 if num_valid == len(results) else 1


main.takes_argv = True


def check(table: pa.Table, names: list[str], folder: str, backend: dict) -> Iterator[bool]:
    """Ask for each annotator in turn and print a line; yields whether the answer was valid."""
    print(f"{'annotator':<16}{'seconds':>8}{'tokens in':>11}{'out':>7}  answer")
    for name in names:
        op = open_annotator(name, folder, **backend)
        if name == names[0]:
            print(f"(model {op.backend.model})")
        started = time.monotonic()
        row = op(table).to_pylist()[0]
        seconds = time.monotonic() - started
        prefix, issue = op.question.name, "; ".join(row["issues"] or [])
        tokens = (row[f"{prefix}_tokens_in"], row[f"{prefix}_tokens_out"])
        told = issue or " ".join(str(row[op.question.adds[0].name]).split())
        print(f"{name:<16}{seconds:>8.2f}{_number(tokens[0]):>11}{_number(tokens[1]):>7}  "
              f"{'NOT VALID' if issue else 'valid'}: {_plain(told)}")
        op.backend.close()
        yield not issue


def open_annotator(name: str, folder: str, **options: object) -> Annotator:
    """The annotator `name`; one that needs a prompt bank gets an empty one below `folder`."""
    more = {"bank": os.path.join(folder, "bank")} if name == "invent-edit" else {}
    return resolve_name(ANNOTATORS[name])(**more, **options)


def sample_table(folder: str, video: str = "") -> pa.Table:
    """One row with every column that any annotator reads, made of one video."""
    video = video or draw_video(os.path.join(folder, "sample.mp4"))
    length = probe(video).duration_s or 4.0
    times = [length * share for share in (0.1, 0.3, 0.5, 0.7, 0.9)]
    pictures = [os.path.join(folder, f"picture{i}.png") for i in range(3)]
    for path, image in zip(pictures, read_frames(video, times[:3], long_px=448), strict=True):
        cv2.imwrite(path, image[..., ::-1])
    row = {
        "pair_id": "p-0", "frame_id": "f-0", "clip_id": "c-0", "edit": "removal", "path": video,
        "start_s": 0.0, "end_s": length, "time_s": times[1],
        "source_path": video, "source_start_s": 0.0, "source_end_s": length / 2, "source_time_s": times[0],
        "target_path": video, "target_start_s": length / 2, "target_end_s": length, "target_time_s": times[4],
        "key_times_s": times, "images": pictures[:2], "text": "A short film and two of its pictures.",
        "texts": ["A ball rolls ,  through a room.", "Share this", "It passes a table ."],
        "frame_path": pictures[0], "edited_path": pictures[1], "reference_path": pictures[2],
        "reference_paths": pictures[:2],
        "transition": "The view changes a little.", "instruction": "Make the scene look like evening.",
        "forward_instruction": "Remove the ball from the video.", "edit_prompt": "Paint the wall green.",
        "caption_times_s": times[2:], "object_names": ["the ball", "the table"],
        "object_places": [" on the left", None],
        "object_name": "the ball", "candidates": ["Turn day into night.", "Remove the car.", "Add a hat."],
        "possible_edits": [{"prompt": "Remove the red ball.", "kind": "remove", "object": "the red ball"}],
        "camera_move": "zoom in", "camera_speed": 0.03, "target_face_height": 0.2, "edited_share": 0.1,
        **dict.fromkeys(("camera_pan", "camera_tilt", "camera_zoom", "camera_roll"), 0.0), "camera_fit": 0.9,
    }
    schema = pa.schema([(name, TYPES.get(name, S)) for name in row])
    return pa.Table.from_pylist([row], schema).append_column(ISSUES, pa.nulls(1, ISSUES.type))


def draw_video(path: str) -> str:
    """Four seconds of a ball that rolls through a room with a table in it."""
    def frames() -> Iterator[np.ndarray]:
        for i in range(48):
            image = np.full((240, 320, 3), (190, 200, 210), np.uint8)
            cv2.rectangle(image, (0, 180), (320, 240), (110, 80, 50), -1)
            cv2.rectangle(image, (200, 120), (290, 132), (80, 50, 30), -1)
            cv2.circle(image, (20 + 6 * i, 165), 16, (200, 40, 40), -1)
            yield image

    write_video(path, frames(), fps=12)
    return path


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _plain(text: str, longest: int = 90) -> str:
    """A model's words for a terminal: no control characters, not too long."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bernini serve-check", description=main.__doc__)
    parser.add_argument("url", nargs="+", help="address of the server, e.g. http://127.0.0.1:8000/v1")
    parser.add_argument("--model", default="", help="name as the server lists it; not needed where it has only one")
    parser.add_argument("--video", default="", help="a video of your own instead of the one drawn here")
    parser.add_argument("--only", nargs="*", choices=list(ANNOTATORS), help="these annotators and no others")
    parser.add_argument("--timeout-s", type=float, default=300.0, help="longest wait for one answer")
    parser.add_argument("--wait-s", type=float, default=30.0, help="longest wait for the server to be there")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
