"""Recorded numbers of the planner: heads, masks, vision and language states, the planning loop."""

from collections.abc import Iterator

import torch
from torch import Tensor

from bernini.config import HeadsConfig
from bernini.parity.heads import BRANCHES
from bernini.parity.records import FORWARD, LOOP, Record, Result, relative_rms
from bernini.planner.chat import Chat, Visual, positions
from bernini.planner.masks import SOURCE, TARGET, visible
from bernini.planner.model import Planner, new_keys
from bernini.planner.plan import Plan, Planning, PlanSettings, leaving


def mllm_config(sizes: dict):
    """A transformers configuration of recorded sizes."""
    from transformers import Qwen2_5_VLConfig

    vision = sizes["vision"]
    return Qwen2_5_VLConfig(
        text_config=dict(
            vocab_size=sizes["vocab_size"],
            hidden_size=sizes["hidden_size"],
            num_hidden_layers=sizes["layers"],
            num_attention_heads=sizes["heads"],
            num_key_value_heads=sizes["kv_heads"],
            intermediate_size=sizes["intermediate"],
            rms_norm_eps=sizes["rms_norm_eps"],
            bos_token_id=None,
            eos_token_id=None,
            rope_parameters=dict(
                rope_type="default", rope_theta=sizes["rope_theta"], mrope_section=sizes["mrope_section"]
            ),
        ),
        vision_config=dict(
            depth=vision["depth"],
            hidden_size=vision["hidden"],
            num_heads=vision["heads"],
            intermediate_size=vision["intermediate"],
            patch_size=vision["patch_size"],
            temporal_patch_size=vision["temporal_patch_size"],
            spatial_merge_size=vision["spatial_merge_size"],
            window_size=vision["window_size"],
            fullatt_block_indexes=vision["full_attention_blocks"],
            tokens_per_second=vision["tokens_per_second"],
            hidden_act=vision["hidden_act"],
            out_hidden_size=sizes["hidden_size"],
        ),
        image_token_id=sizes["image_token_id"],
        video_token_id=sizes["video_token_id"],
        vision_start_token_id=sizes["vision_start_token_id"],
        vision_end_token_id=sizes["vision_end_token_id"],
    )


def build(record: Record, dtype: torch.dtype = torch.float32) -> Planner:
    """A planner of recorded sizes and weights."""
    sizes = record.meta["config"]
    decoder = sizes["decoder"]
    config = HeadsConfig(
        hidden=sizes["hidden_size"],
        context_dim=sizes["connector"]["context_dim"],
        vit_dim=sizes["connector"]["vit_dim"],
        decoder_width=decoder["width"],
        decoder_depth=decoder["depth"],
        decoder_shift=decoder["shift"],
        num_mask_tokens=sizes["num_mask_tokens"],
    )
    planner = Planner(mllm_config(sizes), config)
    weights = record.weights("w.")
    renamed = new_keys(weights)
    planner.load_state_dict({renamed[k]: v for k, v in weights.items()})
    return planner.to(dtype).eval()


def recorded_chat(record: Record, scene: str, branch: str) -> Chat:
    """A chat from recorded ids; its visuals are found as runs of visual tokens."""
    ids, types, segments = (
        record.tensors[f"{scene}.in.{branch}.{k}"] for k in ("ids", "token_type", "segment_id")
    )
    visuals = record.meta["scenes"][scene]["visuals"]
    wanted = [(i, v) for i, v in enumerate(visuals) if branch == "cond" or v["role"] == "target"]
    starts = [i for i in range(len(types)) if types[i] in (SOURCE, TARGET) and (i == 0 or types[i - 1] == 0)]
    placed = [
        Visual(v["kind"], v["role"], tuple(v["grid_thw"]), index, start)
        for (index, v), start in zip(wanted, starts, strict=True)
    ]
    return Chat(ids, types, segments, tuple(placed))


@torch.no_grad()
def planner(record: Record) -> Iterator[Result]:
    model = build(record)
    for scene, meta in record.meta["scenes"].items():
        features = _see(record, model, scene)
        for i, ours in enumerate(features):
            theirs = record.tensors.get(f"{scene}.mid.vit{i}")
            if theirs is not None:
                yield record.result(scene, f"vit{i}", ours, theirs, FORWARD)
        yield from _states(record, model, scene, features)
        for run, settings in meta["runs"].items():
            yield from _run(record, model, scene, run, settings, features)
        for variant, info in meta["precision_variants"].items():
            yield from _variant(record, scene, variant, info)


def _see(record: Record, model: Planner, scene: str) -> list[Tensor]:
    visuals = record.meta["scenes"][scene]["visuals"]
    pixels = [record.tensors[f"{scene}.in.pixels{i}"] for i in range(len(visuals))]
    return [model.see(p, tuple(v["grid_thw"])) for p, v in zip(pixels, visuals, strict=True)]


def _states(record: Record, model: Planner, scene: str, features: list[Tensor]) -> Iterator[Result]:
    tensors = record.tensors
    for branch in BRANCHES:
        chat, mid = recorded_chat(record, scene, branch), f"{scene}.mid.{branch}"
        x, case = model.embed(chat, features), f"{scene}.{branch}"
        yield record.exact(case, "positions", positions(chat, model.special), tensors[f"{mid}.position_ids"])
        yield record.exact(
            case, "visible", visible(chat.token_type, chat.segment_id), tensors[f"{mid}.visible"]
        )
        yield record.result(case, "inputs_embeds", x, tensors[f"{mid}.inputs_embeds"], FORWARD)
        states = model.hidden_states(chat, x)
        yield record.result(case, "hidden_first", states[-2], tensors[f"{mid}.hidden_first"], FORWARD)
        if f"{mid}.all_hidden" in tensors:
            yield record.result(
                case, "all_hidden", torch.stack(states), tensors[f"{mid}.all_hidden"], FORWARD
            )


def _plan(
    record: Record, model: Planner, scene: str, run: str, settings: dict, features
) -> tuple[Planning, Plan]:
    tensors, name = record.tensors, f"{scene}.{run}"
    chats = {ours: recorded_chat(record, scene, theirs) for theirs, ours in BRANCHES.items()}
    planning = Planning(
        model,
        chats,
        features,
        PlanSettings(
            num_steps=settings["planning_steps"],
            decoder_steps=settings["denoising_steps"],
            source_guidance=settings["txt_cfg"],
            prompt_guidance=settings["img_cfg"],
            skip_lone_index0=True,
        ),
    )
    steps = [s for s, indices in enumerate(settings["predicted_indices_per_step"]) if indices]
    steps = [s for s in steps if s not in settings["index0_skipped_at_step"]]
    noises = iter([tensors[f"{name}.step{s}.noise"] for s in steps])
    return planning, planning.run(tensors[f"{name}.order"].tolist(), lambda n: next(noises))


def _run(record: Record, model: Planner, scene: str, run: str, settings: dict, features) -> Iterator[Result]:
    tensors, name = record.tensors, f"{scene}.{run}"
    order = tensors[f"{name}.order"].tolist()
    chosen = list(leaving(order, settings["planning_steps"]))
    yield record.exact(name, "predicted_indices", chosen, settings["predicted_indices_per_step"])
    planning, plan = _plan(record, model, scene, run, settings, features)
    uncond = planning.in_chat_order("nothing", planning.target_hidden(["nothing"])["nothing"])
    cond = recorded_chat(record, scene, "cond")
    for quantity, ours in (
        ("target_embeds", plan.target),
        ("hidden_cond", plan.hidden["cond"]),
        ("hidden_uncond", uncond),
        ("context_wtxt_wvit", plan.with_target),
        ("context_wtxt_wovit", plan.without_target),
        ("context_wotxt_wovit", plan.unconditional),
        ("context_wotxt_wvit", plan.with_target[cond.target]),
    ):
        yield record.result(name, quantity, ours, tensors[f"{name}.{quantity}"], LOOP)
    branches = 3 if any(v["role"] == "source" for v in record.meta["scenes"][scene]["visuals"]) else 2
    yield Result(
        f"{record.name}/{name}", "prefix_passes_over_branches", max(0, plan.num_prefix_passes - branches), 0
    )


def _variant(record: Record, scene: str, variant: str, info: dict) -> Iterator[Result]:
    """Rounded rotary buffers (compared as numbers), or all in bfloat16 (by its distance to float32)."""
    half = variant == "bf16"
    model = build(record, torch.bfloat16 if half else torch.float32).round_rotary()
    tensors, name = record.tensors, f"{scene}.{variant}"
    features = _see(record, model, scene)
    _, plan = _plan(
        record, model, scene, info["run"], record.meta["scenes"][scene]["runs"][info["run"]], features
    )
    ours = {
        "target_embeds": plan.target,
        "context_wtxt_wvit": plan.with_target,
        "context_wotxt_wovit": plan.unconditional,
        "vit0": features[0],
    }
    for branch in BRANCHES:
        chat = recorded_chat(record, scene, branch)
        ours[f"{branch}.hidden_first"] = model.hidden_states(chat, model.embed(chat, features))[-2]
    for quantity, value in ours.items():
        if not half and f"{name}.{quantity}" in tensors:
            yield record.result(name, quantity, value, tensors[f"{name}.{quantity}"], LOOP)
    exact = {
        "target_embeds": f"{scene}.{info['run']}.target_embeds",
        "vit0": f"{scene}.mid.vit0",
        "context_wtxt_wvit": f"{scene}.{info['run']}.context_wtxt_wvit",
        "hidden_first_cond": f"{scene}.mid.cond.hidden_first",
    }
    ours["hidden_first_cond"] = ours["cond.hidden_first"]
    for quantity, allowed in info["relative_rms_difference_to_float32"].items():
        error = relative_rms(ours[quantity], tensors[exact[quantity]])
        yield Result(f"{record.name}/{name}", f"{quantity}_rms", error, 1.5 * allowed)
