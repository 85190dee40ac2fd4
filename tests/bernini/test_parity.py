"""The recorded numbers of the reference through our code, and that the check can fail."""

import json
import shutil
from pkgutil import resolve_name

import pytest
from safetensors.torch import load_file, save_file

from bernini import model_command
from bernini.parity.records import Record
from bernini.parity.verify import CHECKS, checked


@pytest.mark.parametrize("name", CHECKS)
def test_every_recorded_quantity_is_within_its_tolerance(golden, name):
    results = list(checked(Record.read(golden / f"{name}.json"), resolve_name(CHECKS[name])))
    assert results
    assert [str(r) for r in results if not r.ok] == []


def copy(golden, tmp_path, *names):
    for name in names:
        for suffix in (".json", ".safetensors"):
            if (golden / (name + suffix)).exists():
                shutil.copy(golden / (name + suffix), tmp_path)
                (tmp_path / (name + suffix)).chmod(0o644)


def test_command_prints_one_line_a_quantity_and_returns_0(golden, tmp_path, capsys):
    copy(golden, tmp_path, "guidance_full", "attention_mask")
    assert model_command.main(["verify", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 20
    assert all(len(line.split()) == 5 and line.endswith(" ok") for line in lines)


@pytest.mark.parametrize(
    "name, tensor, scale",
    [
        ("guidance_full", "out.rv2v_wapg", 1e-4),
        ("rope", "d24.g1x4x4.s5.real", 1e-9),
        ("dit_tiny", "out.video", 1e-4),
    ],
)
def test_a_small_change_of_a_recorded_tensor_is_found(golden, tmp_path, capsys, name, tensor, scale):
    copy(golden, tmp_path, name)
    tensors = load_file(tmp_path / f"{name}.safetensors")
    tensors[tensor] = tensors[tensor] + scale * tensors[tensor].abs().max()
    save_file(tensors, tmp_path / f"{name}.safetensors")
    assert model_command.main(["verify", str(tmp_path), "--failures-only"]) == 1
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_changed_table_entry_is_found(golden, tmp_path, capsys):
    copy(golden, tmp_path, "tables")
    table = json.loads((tmp_path / "tables.json").read_text())
    table["resize"]["rows"][3][4] += 16
    (tmp_path / "tables.json").write_text(json.dumps(table))
    assert model_command.main(["verify", str(tmp_path), "--failures-only"]) == 1
    assert "resize" in capsys.readouterr().out


def test_a_wrong_attention_kernel_is_found(golden, tmp_path, capsys):
    copy(golden, tmp_path, "dit_tiny")
    kernel = "tests.bernini.test_parity:forgetful"
    assert model_command.main(["verify", str(tmp_path), "--attention", kernel, "--failures-only"]) == 1
    assert "dit_tiny/packed" in capsys.readouterr().out


def forgetful(q, k, v, q_lengths, k_lengths):
    """A kernel with the usual mistake: sequences of a pack see each other."""
    from bernini.renderer.attention import sdpa

    return sdpa(q, k, v, [sum(q_lengths)], [sum(k_lengths)])


@pytest.mark.parametrize(
    "file, text, line",
    [
        ("x.json", '{"name": "novel"}', "novel no-check-of-this-name inf 0e+00 FAIL"),
        ("rope.json", '{"name": "rope"}', "rope KeyError:'cases' inf 0e+00 FAIL"),
        ("rope.json", '{"cases": [{"key": "k"}]}', "rope KeyError:'latent_thw' inf 0e+00 FAIL"),
    ],
)
def test_records_that_cannot_be_checked_fail_and_do_not_stop_the_others(
    golden, tmp_path, capsys, file, text, line
):
    copy(golden, tmp_path, "guidance_full")
    (tmp_path / file).write_text(text)
    assert model_command.main(["verify", str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert line in lines and sum(found.endswith(" ok") for found in lines) == 11


@pytest.mark.parametrize(
    "prepare, message",
    [
        (lambda p: None, "holds no .json record"),
        (lambda p: (p / "x.json").write_text("{"), "cannot be read as JSON"),
    ],
)
def test_unusable_folders_are_one_line(tmp_path, capsys, prepare, message):
    prepare(tmp_path)
    assert model_command.main(["verify", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_second_set_with_other_sizes_runs(tmp_path, capsys):
    """Heads of another width, another depth, another grid; what is expected comes from diffusers."""
    import torch
    from diffusers import WanTransformer3DModel

    config = dict(
        patch_size=[1, 2, 2], num_attention_heads=3, attention_head_dim=20, in_channels=16, out_channels=16,
        text_dim=24, freq_dim=16, ffn_dim=72, num_layers=3, cross_attn_norm=True, eps=1e-6,
        qk_norm="rms_norm_across_heads", rope_max_seq_len=1024,
    )  # fmt: skip
    torch.manual_seed(9)
    theirs, thw = WanTransformer3DModel.from_config(config).eval(), (3, 6, 10)
    latent, text = torch.randn(1, 16, *thw), torch.randn(1, 5, 24)
    with torch.no_grad():
        spatial = theirs(latent, torch.tensor([321]), text, return_dict=False)[0]
    from bernini.renderer.transformer import patchify

    tensors = {f"w.{k}": v for k, v in theirs.state_dict().items()}
    tensors |= {
        "in.target": latent,
        "in.text_z": text,
        "out.none": patchify(spatial)[None],
        "out.none.spatial": spatial,
    }
    save_file({k: v.contiguous() for k, v in tensors.items()}, tmp_path / "dit_tiny.safetensors")
    case = {"segments": [{"source_id": 0, "latent_thw": list(thw)}], "timestep": 321, "text": "text_z"}
    meta = {"name": "dit_tiny", "config": config, "cases": {"none": case}}
    (tmp_path / "dit_tiny.json").write_text(json.dumps(meta))
    assert model_command.main(["verify", str(tmp_path)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
