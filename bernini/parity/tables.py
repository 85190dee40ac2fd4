"""Recorded tables: sizes, frames, ids, schedules, chat layouts, training noise."""

import math
from collections.abc import Iterator

import torch

from bernini import flow
from bernini.conditions import Sources
from bernini.geometry import fit_size, renderer_frames, snap, vision_frames
from bernini.parity.records import Record, Result
from bernini.planner.chat import Special as ChatSpecial
from bernini.planner.chat import Visual, build, runs
from bernini.planner.masks import visible
from bernini.planner.plan import still_masked


def tables(record: Record) -> Iterator[Result]:
    meta = record.meta
    for w, h, most, least, *new in meta["resize"]["rows"]:
        ours = fit_size(w, h, max_size=most, min_size=least)
        yield record.exact(f"resize_{w}x{h}_{most}_{least}", "size", list(ours), new)
    for value, snapped in meta["snap_to_16"]["rows"]:
        yield record.exact(f"snap_{value}", "value", snap(value), snapped)
    for row in meta["frame_choice"]["rows"]:
        yield from _frames(record, row)
    for row in meta["source_ids"]["rows"]:
        yield _ids(record, row, meta["source_ids"]["max_trained"])
    for row in meta["unipc"]:
        yield from _unipc(record, row)
    for row in meta["planning_schedule"]["rows"]:
        ours = still_masked(row["N"], row["K"])
        yield record.exact(f"planning_{row['N']}_{row['K']}", "masked", ours, row["masked_after_step"])
    for steps, row in meta["decoder_schedule"]["steps"].items():
        ours = flow.decoder_schedule(int(steps))
        yield record.exact(f"decoder_{steps}", "sigmas", ours.sigmas[:-1].tolist(), row["sigmas"])
        yield record.exact(f"decoder_{steps}", "timesteps", ours.timesteps.tolist(), row["timesteps"])


def _frames(record: Record, row: dict) -> Iterator[Result]:
    asked = (row["total_frames"], row["video_fps"], row["fps"], row["num_frames"])
    ours = {
        "renderer": renderer_frames(*asked),
        "planner_vae": renderer_frames(*asked, reduce_equal_fps=False),
        "planner_vit": vision_frames(*asked),
    }
    for rule, indices in ours.items():
        recorded = row["renderer"] if row[rule] == "same" else row[rule]
        if isinstance(recorded, dict):  # a string names an exception of the reference
            yield record.exact("frames_" + "_".join(map(str, asked)), rule, indices, recorded["indices"])


def _ids(record: Record, row: dict, max_trained: int) -> Result:
    def latents(count: int) -> list[torch.Tensor]:
        return [torch.zeros(1, 1, 1, 2, 2)] * count

    sources = Sources.of(
        latents(row["n_videos"]),
        latents(row["n_images"]),
        max_trained=max_trained,
        renumber_images=True,
        first_video_only=True,
    )
    ids = {which: [i for _, i in sources.visible(which)] for which in ("all", "images", "video")}
    recorded = (
        row["videos"] + row["images"],
        row["images_in_image_only_branch"],
        row["video_in_video_only_branch"],
    )
    return record.exact(f"ids_{row['n_videos']}_{row['n_images']}", "ids", tuple(ids.values()), recorded)


def _unipc(record: Record, row: dict) -> Iterator[Result]:
    case, ours = f"unipc_{row['steps']}_{row['shift']}", flow.unipc_schedule(row["steps"], row["shift"])
    yield record.exact(case, "timesteps", ours.timesteps.tolist(), row["timesteps"])
    yield record.result(case, "sigmas", ours.sigmas, torch.tensor(row["sigmas"]), 1e-6)
    high = int((ours.timesteps >= 875).sum())
    counted = (row["high_steps_at_0875"], row["low_steps_at_0875"])
    yield record.exact(case, "experts", (high, row["steps"] - high), counted)


def chat_layout(record: Record) -> Iterator[Result]:
    """One token a character, special tokens whole, as recorded."""
    prompt, negative = record.meta["prompt"], record.meta["negative_prompt"]
    for case in record.meta["cases"]:
        counts: dict[str, list[int]] = {}  # tokens of the recorded visuals, by role and kind
        for what, value in case["runs"]:
            counts.setdefault(what, []).append(value)
        bare = case["branch"] != "cond"
        sources = (
            []
            if bare
            else [
                _visual(kind, "source", counts[f"source {kind}"][i])
                for kind, many in (("video", case["videos"]), ("image", case["images"]))
                for i in range(many)
            ]
        )
        kind = "image" if case["num_frames"] == 1 else "video"
        target = _visual(kind, "target", counts[f"target {kind}"][0])
        text = {"uncond": negative, "uncond_without_negative": ""}.get(case["branch"], prompt)
        layout = runs(case["task"], text, sources, target)
        name = f"{case['task']}.{case['branch']}"
        yield record.exact(name, "runs", _merged(layout), case["runs"])
        chat = build(layout, _characters, ChatSpecial(merge=1))
        yield record.exact(name, "length", len(chat.ids), case["length"])
        pairs = int(visible(chat.token_type, chat.segment_id).sum())
        yield record.exact(name, "visible_pairs", pairs, case["visible_pairs"])


def _visual(kind: str, role: str, tokens: int) -> Visual:
    return Visual(kind, role, (1, 1, tokens))


def _merged(layout: list) -> list:
    out: list = []
    for run in layout:
        if isinstance(run, Visual):
            out.append([f"{run.role} {run.kind}", run.num_tokens(1)])
        elif out and out[-1][0] == "text":
            out[-1][1] += run
        else:
            out.append(["text", run])
    return out


def _characters(text: str) -> list[int]:
    ids: list[int] = []
    while text:
        special = text.startswith("<|") and "|>" in text
        head = text[: text.index("|>") + 2] if special else text[0]
        ids.append(hash(head) % 1000)
        text = text[len(head) :]
    return ids


def noise_training(record: Record) -> Iterator[Result]:
    for shift, row in record.meta["sigma_tables"].items():
        table = flow.training_table(float(shift))
        for end, where in (("first5", slice(0, 5)), ("last5", slice(-6, -1))):
            yield record.exact(f"table_{shift}", end, table.sigmas[where].tolist(), row[end])
        yield record.exact(
            f"table_{shift}", "timesteps_first5", table.timesteps[:5].tolist(), row["timesteps_first5"]
        )
        yield record.exact(
            f"table_{shift}", "timesteps_last5", table.timesteps[-5:].tolist(), row["timesteps_last5"]
        )
        distinct = len(set(table.sigmas[:-1].tolist()))
        yield record.exact(f"table_{shift}", "distinct_values", distinct, row["distinct_values"])
    for row in record.meta["sampled_sigma"]:
        yield from _drawn(record, row)


def _drawn(record: Record, row: dict) -> Iterator[Result]:
    case, table = f"{row['task']}.{row['expert']}", flow.training_table(row["shift"])
    yield record.exact(case, "shift", flow.TRAINING_SHIFT.get(row["task"], 5.0), row["shift"])
    ours = flow.index_range(row["shift"], *row["noise_interval"])
    yield record.exact(case, "index_range", list(ours), row["index_range"])
    u = flow.draw_uniform(row["task"], 8 * row["draws"], torch.Generator().manual_seed(row["torch_seed"]))
    low, high = row["u_range"]
    index = (1000 * u[(u >= low) & (u <= high)][: row["draws"]]).long().clamp_max(999)
    sigmas = _first_of_equal(table)[index].sort().values
    for percent, recorded in row["quantiles"].items():
        at = sigmas[min(len(sigmas) - 1, math.ceil(int(percent) / 100 * len(sigmas)) - 1)]
        tolerance = 0.02 if percent in ("1", "5") else 0.008
        yield Result(f"{record.name}/{case}", f"q{percent}", abs(float(at) - recorded), tolerance)


def _first_of_equal(table: flow.Schedule) -> torch.Tensor:
    """For each row, the sigma of the first row with the same rounded timestep."""
    first: dict[float, float] = {}
    for t, s in zip(table.timesteps.tolist(), table.sigmas.tolist(), strict=False):
        first.setdefault(t, s)
    return torch.tensor([first[t] for t in table.timesteps.tolist()])
