"""Model folders: every released layout, conversion, inspection, and clear refusals."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from bernini import model_command
from bernini.errors import CheckpointError, MemoryRefused
from bernini.geometry import OutputSize
from bernini.layouts import open_model
from bernini.memory import GIB, MemorySettings, check_fits, estimate
from bernini.weights import prefer_ema, read_tensors, save_sharded, under

SIZE = OutputSize(width=848, height=480, num_frames=81)


def opened(tiny, layout):
    folder = tiny(layout)
    return open_model(folder, folder / "base" if layout == "experts" else None)


def state(model, part):
    return dict(read_tensors(model.part(part).entries))


@pytest.mark.parametrize(
    "layout, parts, boundary",
    [
        ("full", {"high", "low", "planner", "text", "vae"}, 0.875),
        ("diffusers", {"high", "low", "text", "vae"}, 0.875),
        ("one_expert", {"high", "text", "vae"}, 0.0),
        ("experts", {"high", "low", "text", "vae"}, 0.875),
    ],
)
def test_every_layout_is_recognised_and_fits(tiny, layout, parts, boundary):
    model = opened(tiny, layout)
    assert set(model.parts) == parts and model.boundary == boundary
    for part in model.parts.values():
        difference = part.compare()
        assert not difference.missing and not difference.unexpected and not difference.misshapen
        module = part.load()
        assert not any(t.is_meta for t in (*module.parameters(), *module.buffers()))


def test_experts_hold_the_tensors_of_their_prefixes(tiny):
    model = opened(tiny, "full")
    high, low = state(model, "high"), state(model, "low")
    assert high.keys() == low.keys() and not torch.equal(high["proj_out.weight"], low["proj_out.weight"])


def test_averaged_copy_wins_and_prefixes_are_tried_in_order(tmp_path):
    from bernini.weights import read_entries

    save_file(
        {
            "diff_dec.transformer.a": torch.zeros(1),
            "ema.diff_dec.transformer.a": torch.ones(1),
            "transformer.a": torch.ones(2),
        },
        tmp_path / "m.safetensors",
    )
    found = under(prefer_ema(read_entries(tmp_path)), ("diff_dec.transformer.", "transformer.", ""))
    assert float(dict(read_tensors(found))["a"]) == 1.0


def test_old_flat_qwen_configuration_is_read(tiny, tmp_path):
    """The released mllm/config.json has the language model's sizes at its top level."""
    folder = shutil.copytree(tiny(), tmp_path / "m")
    config = json.loads((folder / "mllm" / "config.json").read_text())
    text = config.pop("text_config")
    rope = text.pop("rope_parameters")
    flat = {k: v for k, v in text.items() if k not in ("model_type", "layer_types", "dtype", "architectures")}
    flat |= {
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]},
    }
    (folder / "mllm" / "config.json").write_text(json.dumps(config | flat))
    planner = open_model(folder).part("planner").load()
    assert planner.language.config.num_hidden_layers == 3
    assert list(planner.language.rotary_emb.mrope_section) == rope["mrope_section"]


@pytest.mark.parametrize("layout", ["diffusers", "experts", "full"])
def test_conversion_keeps_every_tensor(tiny, tmp_path, capsys, layout):
    assert model_command.main(["convert", str(tiny()), str(tmp_path / "out"), "--to", layout]) == 0
    base = tiny("diffusers") if layout == "experts" else None
    before, after = open_model(tiny()), open_model(tmp_path / "out", base)
    for part in ("high", "low") + (("planner",) if layout == "full" else ()):
        old, new = state(before, part), state(after, part)
        assert old.keys() == new.keys() and all(torch.equal(old[k], new[k]) for k in old)
    if layout != "experts":
        assert state(before, "vae").keys() == state(after, "vae").keys()


def test_conversion_there_and_back_through_a_planner_of_another_folder(tiny, tmp_path, capsys):
    argv = ["convert", str(tiny("diffusers")), str(tmp_path / "out"), "--to", "full"]
    assert model_command.main(argv) == 2 and "--planner" in capsys.readouterr().err
    assert model_command.main([*argv, "--planner", str(tiny())]) == 0
    joined = open_model(tmp_path / "out")
    assert torch.equal(
        state(joined, "high")["proj_out.weight"], state(opened(tiny, "diffusers"), "high")["proj_out.weight"]
    )


def test_conversion_casts_on_request_and_refuses_a_full_folder(tiny, tmp_path, capsys):
    out = tmp_path / "out"
    assert model_command.main(["convert", str(tiny()), str(out), "--to", "diffusers", "--dtype", "bf16"]) == 0
    assert {e.dtype for e in open_model(out).part("high").entries.values()} == {"BF16"}
    assert model_command.main(["convert", str(tiny()), str(out), "--to", "diffusers"]) == 2
    assert "not empty" in capsys.readouterr().err


def test_diffusers_itself_loads_what_we_convert(tiny, tmp_path, capsys):
    from diffusers import WanTransformer3DModel

    model_command.main(["convert", str(tiny()), str(tmp_path / "out"), "--to", "diffusers"])
    theirs = WanTransformer3DModel.from_pretrained(tmp_path / "out" / "transformer")
    ours = state(open_model(tiny()), "high")
    assert all(torch.equal(v, ours[k]) for k, v in theirs.state_dict().items())


def test_inspect_says_what_it_is(tiny, capsys):
    assert model_command.main(["inspect", str(tiny())]) == 0
    out = capsys.readouterr().out
    assert "layout full, planner and renderer, two noise experts, switch at 0.875" in out
    assert out.count("missing 0, unexpected 0, other shape 0") == 5


@pytest.fixture
def broken(tiny, tmp_path):
    return shutil.copytree(tiny("one_expert"), tmp_path / "broken")


def edit(folder, change):
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def test_inspect_names_missing_unexpected_and_misshapen_tensors(broken, capsys):
    def change(t):
        t["extra"] = t.pop("proj_out.bias")
        t["proj_out.weight"] = torch.zeros(3, 3)

    edit(broken, change)
    assert model_command.main(["inspect", str(broken)]) == 1
    out = capsys.readouterr().out
    assert "missing proj_out.bias" in out and "unexpected extra" in out and "proj_out.weight is [3, 3]" in out


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: t.pop("proj_out.bias"), "proj_out.bias missing"),
        (lambda t: t.update({"proj_out.weight": torch.zeros(3, 3)}), "has shape [3, 3]"),
    ],
)
def test_a_wrong_checkpoint_is_refused_by_name(broken, change, message):
    edit(broken, change)
    with pytest.raises(CheckpointError) as caught:
        open_model(broken).part("high").load()
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda f: (f / "vae" / "config.json").unlink(), "is missing"),
        (lambda f: (f / "vae" / "config.json").write_text("{"), "is not JSON"),
        (lambda f: shutil.rmtree(f / "text_encoder"), "is missing"),
        (lambda f: (f / "transformer" / "diffusion_pytorch_model.safetensors").unlink(), "no .safetensors"),
        (
            lambda f: (f / "transformer" / "diffusion_pytorch_model.safetensors").write_bytes(b"1234"),
            "cannot be read",
        ),
        (lambda f: _config(f, image_dim=1280), "image embedder"),
    ],
)
def test_incomplete_folders_are_refused_in_one_line(broken, capsys, spoil, message):
    spoil(broken)
    assert model_command.main(["inspect", str(broken)]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def _config(folder, **changes):
    file = folder / "transformer" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_missing_shard_is_named(tiny, tmp_path, capsys):
    folder = shutil.copytree(tiny(), tmp_path / "m")
    shard = sorted((folder / "bernini").glob("*.safetensors"))[0]
    shard.unlink()
    assert model_command.main(["inspect", str(folder)]) == 2
    assert shard.name in capsys.readouterr().err


def test_two_experts_without_a_base_ask_for_it(tiny):
    with pytest.raises(CheckpointError, match="--base"):
        open_model(tiny("experts"))


def test_shards_get_the_usual_names_and_an_index(tmp_path):
    tensors = {f"t{i}": torch.full((4,), float(i)) for i in range(5)}
    save_sharded(tensors.items(), tmp_path, "model", shard_bytes=33)
    assert sorted(p.name for p in tmp_path.glob("*.safetensors"))[0] == "model-00001-of-00003.safetensors"
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == tensors.keys()
    for name, file in index["weight_map"].items():
        assert torch.equal(load_file(tmp_path / file)[name], tensors[name])


# Memory


def big(tiny):
    """The full model with the released sizes: only its headers' numbers are scaled."""
    from dataclasses import replace

    model = opened(tiny, "full")
    billions = {"high": 14.3e9, "low": 14.3e9, "planner": 10.5e9, "text": 6.7e9, "vae": 0.13e9}
    config = dict(model.part("high").config, num_attention_heads=40, attention_head_dim=128, ffn_dim=13824)

    class Sized(type(model.part("high"))):
        num_values = property(lambda self: billions[self.name])

    parts = {
        n: Sized(**{**vars(p), "config": config if n in ("high", "low") else p.config})
        for n, p in model.parts.items()
    }
    return replace(model, parts=parts)


def test_estimate_of_the_released_model_is_near_its_published_size(tiny):
    memory = MemorySettings(device="cuda", precision="bf16")
    weights = sum(estimate(big(tiny), memory, SIZE).weights.values()) / GIB
    assert 80 < weights < 90  # a bfloat16 repack of v2 is 83.03 GiB


@pytest.mark.parametrize(
    "free, flag", [(200, None), (60, "--offload sequential"), (22, "--precision fp8 --offload sequential")]
)
def test_refusal_names_the_flag_that_would_fit(tiny, free, flag):
    memory = MemorySettings(device="cuda", precision="bf16")
    if flag is None:
        assert check_fits(big(tiny), memory, SIZE, 0, free * GIB).peak < free * GIB
        return
    with pytest.raises(MemoryRefused) as caught:
        check_fits(big(tiny), memory, SIZE, 0, free * GIB)
    assert flag in str(caught.value) and "would fit" in str(caught.value)


def test_when_nothing_fits_it_says_so_and_force_overrides(tiny):
    memory = MemorySettings(device="cuda", precision="bf16")
    with pytest.raises(MemoryRefused, match="no option fits"):
        check_fits(big(tiny), memory, SIZE, 0, 1 * GIB)
    check_fits(big(tiny), MemorySettings(device="cuda", precision="bf16", force=True), SIZE, 0, 1 * GIB)


# Released sizes, without any weights


def counted(module):
    """(tensors, float32 gigabytes)"""
    state = module.state_dict()
    return len(state), sum(v.numel() for v in state.values()) * 4 / 1e9


QWEN_7B = dict(
    hidden_size=3584, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4,
    intermediate_size=18944, vocab_size=152064, rope_theta=1e6,
    rope_scaling={"type": "mrope", "mrope_section": [16, 24, 24]},
    vision_config=dict(
        depth=32, hidden_size=1280, intermediate_size=3420, num_heads=16, out_hidden_size=3584,
        fullatt_block_indexes=[7, 15, 23, 31], window_size=112,
    ),
)  # fmt: skip
UMT5_XXL = dict(vocab_size=256384, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64)


@pytest.mark.filterwarnings("ignore")
def test_released_sizes_have_the_published_tensor_counts_and_bytes():
    """Counts and sizes by prefix as they were read from the published files (spec 2.1)."""
    from accelerate import init_empty_weights

    from bernini.layouts import make_planner, make_renderer, make_text

    with init_empty_weights():
        expert, text = make_renderer({}), make_text(UMT5_XXL)
        planner = make_planner({"mllm": QWEN_7B, "heads": {}})
    whole = {"diff_dec": expert, "t5_text_encoder": text, "mllm": planner.mllm}
    whole |= {"connector": planner.connector, "vit_decoder": planner.vit_decoder}
    assert {name: (n, round(gb, 2)) for name, (n, gb) in ((k, counted(m)) for k, m in whole.items())} == {
        "diff_dec": (1095, 57.15), "t5_text_encoder": (243, 26.92), "mllm": (729, 33.17),
        "connector": (12, 0.28), "vit_decoder": (140, 5.75),
    }  # fmt: skip
    assert tuple(planner.mask_tokens.shape) == (1, 4096, 3584)
