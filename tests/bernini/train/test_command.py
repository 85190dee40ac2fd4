"""`bernini train` as a user has it: manifests in, checkpoints, curves, a model that generates."""

import json
import shutil
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from bernini.encoder_parts import fingerprints
from bernini.layouts import open_model
from bernini.train.parallel import World
from bernini.train.stages import preset
from bernini.train.start import open_loader, plan
from bernini.weights import read_tensors
from tests.bernini.train.latents import write_latents

DATA = {("edits", "v2v"): 12, ("pictures", "t2i"): 12}
SMALL = ("--mixture", "even", "--tokens", "150", "--steps", "3", "--log-every", "1", "--save-every", "3", "--workers", "0",
         "--lr", "1e-2", "--warmup", "0", "--activations", "keep")


@pytest.fixture(scope="module")
def latents(tmp_path_factory, tiny):
    """`latents(layout)` → manifest as if encoded by the tiny model of that layout."""
    @cache
    def of(layout: str) -> str:
        return write_latents(tmp_path_factory.mktemp("data"), DATA, widths=(64, 32), encoders=encoders(tiny(layout))).path

    return of


def encoders(model: Path) -> dict[str, str]:
    folder = open_model(model)
    return fingerprints(folder, ("latent", "text", "vit") if folder.has_planner else ("latent", "text"))


@pytest.fixture
def train(bernini, latents, tiny, tmp_path):
    """`train("--stage", "IIb", layout="diffusers")` → code, out, err; output in tmp_path/out."""
    def call(*words: str, layout: str = "diffusers"):
        return bernini("train", "--model", tiny(layout), "--data", latents(layout), "--output", tmp_path / "out", *SMALL, *words)

    return call


def generate(bernini, model: Path, output: Path):
    return bernini("generate", "--model", model, "--prompt", "a red ball", "--task", "t2i", "--height", "32", "--width", "32",
                   "--num_inference_steps", "2", "--planning-step", "2", "--output", output, "--quiet")


def weights_of(model: Path, part: str) -> dict[str, torch.Tensor]:
    return dict(read_tensors(open_model(model).part(part).entries))


def test_help_teaches(bernini):
    code, out, _ = bernini("train", "--help")
    assert code == 0
    assert "--stage IIb" in out and "torchrun --nproc-per-node 8" in out and "--lora-rank" in out and "--drop-plan" in out and "bernini generate" in out


def test_a_dry_run_says_what_would_happen_and_trains_nothing(train, tmp_path):
    code, out, err = train("--stage", "IIIa", "--dry-run", layout="full")
    assert code == 0, err
    assert "memory a process: weights" in out and "losses: text 0.2, visual 1, dit 1" in out
    assert "expert high: noise levels 0.875 to 1" in out
    row = next(line.split() for line in out.splitlines() if line.startswith("edits"))
    assert row[:4] == ["edits", "v2v", "12", "50.0%"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stage, expected", [("I", (0.0, 0.0)), ("IIb", (0.0, 0.0)), ("IIIa", (0.1, 0.3))])
def test_the_plan_is_dropped_only_where_it_conditions_the_renderer(tiny, latents, stage, expected):
    config = preset(stage, model=str(tiny("full")), data=(latents("full"),), mixture="even", drop_plan=0.3)
    draws = open_loader(plan(config, World()), World()).config.draws
    assert (draws.drop_vit, draws.drop_plan) == expected


def test_joint_training_logs_and_its_export_generates(train, bernini, tiny, tmp_path):
    code, out, err = train("--stage", "IIIa", "--export", "full", layout="full")
    assert code == 0, err
    assert "planner.connector.proj_gen" in out and "step 3/3  loss" in out and "v2v/dit" in out
    rows = [json.loads(t) for t in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == [1, 2, 3] and rows[0]["loss/visual"] > 0 and rows[0]["time"]["tokens_per_s"] > 0
    assert list((tmp_path / "out" / "tensorboard").iterdir())
    exported = tmp_path / "out" / "export-full"
    for part in ("planner", "high", "low"):
        before, after = weights_of(tiny("full"), part), weights_of(exported, part)
        assert before.keys() == after.keys()
        changed = [n for n in before if not torch.equal(before[n], after[n])]
        assert changed and not any(".visual." in n for n in changed), part
    code, out, err = generate(bernini, exported, tmp_path / "o.png")
    assert code == 0 and (tmp_path / "o.png").exists(), err


def test_one_expert_alone_leaves_the_other(train, bernini, tiny, tmp_path):
    code, out, err = train("--stage", "IIb", "--experts", "low", "--export", "diffusers")
    assert code == 0, err
    exported = tmp_path / "out" / "export-diffusers"
    same = {p: all(torch.equal(a, b) for a, b in zip(weights_of(tiny("diffusers"), p).values(),
                                                     weights_of(exported, p).values(), strict=True)) for p in ("high", "low")}
    assert same == {"high": True, "low": False}
    code, _, err = bernini("train", "--model", tiny("diffusers"), "--output", tmp_path / "out", "--export", "experts", "--export-only")
    assert code == 0, err
    names = load_file(next((tmp_path / "out" / "export-experts" / "bernini_renderer_low").glob("*.safetensors")))
    assert all(n.startswith("ema.diff_dec.transformer_2.") for n in names)


def test_adapters_train_alone_and_merge_into_a_model_that_generates(train, bernini, tiny, tmp_path):
    pytest.importorskip("peft", reason="needs the extra 'train'")
    code, out, err = train("--stage", "IIb", "--lora-rank", "2", "--export", "diffusers")
    assert code == 0, err
    exported = tmp_path / "out" / "export-diffusers"
    before, after = weights_of(tiny("diffusers"), "high"), weights_of(exported, "high")
    changed = {n for n in before if not torch.equal(before[n], after[n])}
    assert changed and all(".attn" in n or ".ffn." in n for n in changed) and not any("norm" in n or "bias" in n for n in changed)
    adapters = load_file(exported / "lora" / "high" / "pytorch_lora_weights.safetensors")
    a = adapters["transformer.blocks.0.attn1.to_q.lora_A.weight"]
    b = adapters["transformer.blocks.0.attn1.to_q.lora_B.weight"]
    name = "blocks.0.attn1.to_q.weight"
    torch.testing.assert_close(after[name], before[name] + b @ a)
    code, _, err = generate(bernini, exported, tmp_path / "o.png")
    assert code == 0, err


def test_samples_are_generated_while_it_trains(train, tmp_path):
    cases = tmp_path / "cases.jsonl"
    cases.write_text(json.dumps({"task_type": "t2i", "prompt": "a ball", "output": "ball.png"}) + "\n")
    code, out, err = train("--stage", "IIb", "--sample-every", "2", "--sample-cases", str(cases), "--sample-steps", "1")
    assert code == 0, err + out
    assert [p.parent.name for p in (tmp_path / "out" / "samples").glob("*/*.png")] == ["step-00000002"], out


def comparable(output: Path) -> list[dict]:
    rows = [json.loads(t) for t in (output / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "time"} for row in rows]


def stored(checkpoint: Path) -> dict[str, torch.Tensor]:
    (file,) = checkpoint.glob("*.safetensors")
    return load_file(file)


def test_a_stopped_run_goes_on_bit_for_bit_with_other_workers(train, tmp_path):
    """The real loader on the real manifest; the run is stopped by taking its last checkpoint away."""
    code, _, err = train("--stage", "IIb", "--steps", "6", "--save-every", "2")
    assert code == 0, err
    output, newest = tmp_path / "out", tmp_path / "out" / "checkpoints" / "step-00000006"
    rows, tensors, own = comparable(output), stored(newest), (newest / "rank-00000.json").read_text()
    for step in (4, 6):
        shutil.rmtree(output / "checkpoints" / f"step-{step:08d}")
    code, out, err = train("--stage", "IIb", "--steps", "6", "--save-every", "2", "--workers", "3")
    assert code == 0 and "resumed at step 2" in out and "changed since then: workers: 0 -> 3" in out, err
    assert comparable(output) == rows
    again = stored(newest)
    assert [n for n in tensors if not torch.equal(tensors[n], again[n])] == [] and tensors.keys() == again.keys()
    assert (newest / "rank-00000.json").read_text() == own


@pytest.mark.parametrize("first, then, change", [
    (("--lora-rank", "2"), ("--lora-rank", "4"), "lora_rank: 2 -> 4"), (("--lora-rank", "2"), (), "lora_rank: 2 -> 0"),
    ((), ("--experts", "high"), "experts: both -> high"), (("--experts", "high"), (), "experts: high -> both"),
])
def test_a_run_goes_on_only_with_the_modules_that_it_was_begun_with(train, tmp_path, first, then, change):
    if first[:1] == ("--lora-rank",):
        pytest.importorskip("peft", reason="needs the extra 'train'")
    assert train("--stage", "IIb", *first)[0] == 0
    code, _, err = train("--stage", "IIb", *then, "--steps", "6")
    assert code == 2 and "Traceback" not in err
    assert "holds other tensors than this run trains" in err and change in err and "another --output" in err
    assert [p.name for p in (tmp_path / "out" / "checkpoints").iterdir()] == ["step-00000003"]


def test_an_export_is_replaced_by_a_later_one_and_never_half_written(train, bernini, tiny, tmp_path, monkeypatch):
    assert train("--stage", "IIb", "--export", "diffusers")[0] == 0
    exported = tmp_path / "out" / "export-diffusers"
    first = weights_of(exported, "high")
    code, _, err = train("--stage", "IIb", "--export", "diffusers", "--steps", "4")
    assert code == 0, err
    second = weights_of(exported, "high")
    assert not all(torch.equal(first[n], second[n]) for n in first)

    def full(*args, **kwargs):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    words = ("--model", tiny("diffusers"), "--output", tmp_path / "out", "--export", "diffusers", "--export-only")
    code, _, err = bernini("train", *words)
    assert code == 2 and "No space left on device" in err and "--export-only" in err and "Traceback" not in err
    assert all(torch.equal(t, second[n]) for n, t in weights_of(exported, "high").items())
    monkeypatch.undo()
    assert bernini("train", *words)[0] == 0
    assert not list((tmp_path / "out").glob(".aside*"))


def test_a_dry_run_shows_what_the_run_would_skip(train):
    code, out, err = train("--stage", "IIb", "--tokens", "40", "--dry-run")
    assert code == 0 and "of edits have more than 40 tokens and will be skipped: raise --tokens" in out, err


@pytest.mark.parametrize("words", [("--dry-run",), ()])
def test_data_and_entries_of_the_mixture_that_are_never_drawn_are_told(bernini, tiny, tmp_path, words):
    data = write_latents(tmp_path, {("video-pairs", "v2v"): 4, ("edits", "v2v"): 4}, widths=(64, 32),
                         encoders=encoders(tiny("diffusers"))).path
    call = ("train", "--model", tiny("diffusers"), "--data", data, "--output", tmp_path / "out", *SMALL, "--steps", "1")
    code, out, err = bernini(*call, "--mixture", "IIb", *words)
    assert code == 0, err
    assert "no data for T2I (20), T2V (30), I2I (40), I2V (3.5), IV2V (3.2); their share goes to the others" in out
    assert "mixture IIb: video-pairs (v2v) has weight 0: it is never drawn" in out and "edits (v2v) has weight" not in out
    assert "never drawn" not in bernini(*call, *words)[1]  # even: all is drawn


def test_a_dry_run_of_pair_data_alone_shows_the_end_of_its_decay(bernini, tiny, tmp_path):
    data = write_latents(tmp_path, {("video-pairs", "v2v"): 4}, widths=(64, 32), encoders=encoders(tiny("diffusers"))).path
    code, out, err = bernini("train", "--model", tiny("diffusers"), "--data", data, *SMALL, "--stage", "IIa", "--mixture", "IIa",
                             "--dry-run", "--output", tmp_path / "out")
    assert code == 0 and "mixture IIa at 100% of the run" in out, err


def test_other_packs_a_step_do_not_bring_pair_data_back(bernini, tiny, tmp_path):
    data = write_latents(tmp_path, {("video-pairs", "v2v"): 8, ("edits", "v2v"): 8}, widths=(64, 32),
                         encoders=encoders(tiny("diffusers"))).path
    words = ("train", "--model", tiny("diffusers"), "--data", data, "--output", tmp_path / "out", *SMALL, "--stage", "IIa",
             "--mixture", "IIa", "--steps", "4", "--save-every", "2")
    assert bernini(*words)[0] == 0
    shutil.rmtree(tmp_path / "out" / "checkpoints" / "step-00000004")
    code, out, err = bernini(*words, "--accumulate", "2")
    assert code == 0 and "changed since then: accumulate: 1 -> 2" in out, err
    own = json.loads((tmp_path / "out" / "checkpoints" / "step-00000004" / "rank-00000.json").read_text())["loader"]
    assert own["packs"] == 6  # two steps of one, two of two
    assert own["pace"] == {"total": 4, "accumulate": 2, "packs": 2, "steps": 2.0, "progress": 0.5}


@pytest.mark.parametrize("words, said", [
    (("--stage", "IV"), "no stage 'IV'; known: I, IIa, IIb, IIIa, IIIb"),
    (("--stage", "I"), "has no planner; known parts: high, low, text, vae"),
    (("--experts", "none"), "nothing is trained: --experts none without --planner"),
    (("--tokens", "0"), "--tokens 0 must be at least 1"),
    (("--activations", "some"), "--activations 'some' unknown; known: keep, recompute, offload"),
    (("--sample-every", "5"), "--sample-every and --sample-cases go together"),
    (("--attention", "warp"), "unknown attention kernel 'warp'"),
    (("--sequence-parallel", "2"), "1 processes do not divide by --sequence-parallel 2"),
    (("--mixture", "V"), "no mixture 'V'"),
    (("--lr", "nan"), "--lr nan must be above 0"), (("--lr", "-1"), "--lr -1.0 must be above 0"),
    (("--workers", "-1"), "--workers -1 must be 0 or more"), (("--lora-rank", "-2"), "--lora-rank -2 must be 0 or more"),
    (("--stage", "I", "--export", "diffusers"), "--export diffusers has no place for the trained planner; give --export full"),
    (("--export", "full", "--export-only", "--dry-run"), "--dry-run shows a training"),
    (("--wandb", "project"), "--wandb needs the package wandb"),
    (("--export", "full", "--export-only"), "holds no checkpoint; train first"),
    (("--stage", "IIb", "--lambda-dit", "0"), "nothing is learned: all weights of the losses are 0; give --lambda-dit above 0"),
    (("--stage", "I", "--lambda-text", "0", "--lambda-visual", "0"),
     "nothing is learned: all weights of the losses are 0; give --lambda-text or --lambda-visual above 0"),
    (("--stage", "IIIa", "--lambda-dit", "0"), "--lambda-dit 0 with --experts both: the experts would learn nothing"),
    (("--seed", "99999999999999999999999"), "--seed 99999999999999999999999 must lie between -2^63 and 2^63 - 1"),
    (("--lora-alpha", "4"), "--lora-alpha has no effect in this run: all weights are trained: give --lora-rank too"),
    (("--lambda-text", "0.2"), "--lambda-text has no effect in this run: the planner is not trained"),
    (("--lambda_visual=1",), "--lambda-visual has no effect in this run: the planner is not trained"),
    (("--vit-noises", "4"), "--vit-noises has no effect in this run: the planner is not trained"),
    (("--drop-plan", "0.2"), "--drop-plan has no effect in this run: the planner is not trained"),
    (("--stage", "I", "--drop-vit", "0.2"), "--drop-vit has no effect in this run: no expert of the renderer is trained"),
    (("--max-size", "480"), "--max-size has no effect in this run: --data are latents"),
    (("--fps", "8"), "--fps has no effect in this run: --data are latents"),
    (("--stage", "I", "--fps", "8"), "--fps has no effect in this run: the planner alone reads no VAE latents"),
    (("--sample-steps", "4"), "--sample-steps has no effect in this run: no samples are generated"),
])
def test_mistakes_are_told_in_one_line(train, words, said):
    code, _, err = train(*words)
    assert code == 2 and said in err and "Traceback" not in err


def test_an_output_that_cannot_be_a_folder_is_told_in_one_line(bernini, tiny, latents, tmp_path):
    (tmp_path / "file").touch()
    words = ("train", "--model", tiny("diffusers"), "--data", latents("diffusers"), *SMALL, "--output")
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        code, _, err = bernini(*words, output)
        assert code == 2 and f"--output {output} cannot be made: {tmp_path / 'file'} is a file" in err and "Traceback" not in err
    code, _, err = bernini(*words, tmp_path / ("x" * 300))
    assert code == 2 and "cannot be made (" in err and "name another folder" in err and "Traceback" not in err


def test_a_stop_says_what_the_same_command_will_do(train, tmp_path, monkeypatch):
    def stop(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("bernini.train.loop.Trainer.train_step", stop)
        code, _, err = train("--stage", "IIb")
        assert code == 130 and "stopped before the first checkpoint; the same command begins anew" in err
    assert train("--stage", "IIb")[0] == 0
    monkeypatch.setattr("bernini.train.loop.Trainer.train_step", stop)
    code, _, err = train("--stage", "IIb", "--steps", "4")
    assert code == 130 and "stopped; the same command resumes from the newest checkpoint" in err


def test_a_finished_run_says_that_nothing_is_left(train):
    assert train("--stage", "IIb")[0] == 0
    code, out, _ = train("--stage", "IIb", "--steps", "2")
    assert code == 0 and "nothing is left to train: the run is at step 3 of --steps 2; give a larger --steps" in out


def test_what_is_missing_is_named(bernini, tiny, tmp_path):
    assert "--model is missing" in bernini("train", "--data", "x")[2]
    assert "--data is missing" in bernini("train", "--model", tiny("diffusers"))[2]


def test_latents_of_another_model_stop_the_run(bernini, tiny, tmp_path):
    data = write_latents(tmp_path, {("pictures", "t2i"): 4}, widths=(64, 5), encoders=encoders(tiny("diffusers"))).path
    words = [*SMALL, "--steps", "20"]
    code, out, err = bernini("train", "--model", tiny("diffusers"), "--data", data, "--output", tmp_path / "out", *words)
    assert code == 3 and "text embedding is 5 wide, the renderer wants 32" in out
    assert "8 packs in a row have no sample that can be used" in err


def test_latents_of_another_encoder_are_refused_before_training(bernini, tiny, tmp_path):
    data = write_latents(tmp_path, {("pictures", "t2i"): 4}, widths=(64, 32)).path
    code, _, err = bernini("train", "--model", tiny("diffusers"), "--data", data, "--output", tmp_path / "out", *SMALL)
    assert code == 2 and "made by another vae encoder (aaaa)" in err and "bernini encode" in err


def test_a_run_that_cannot_fit_is_refused_with_the_option_that_would(train):
    code, _, err = train("--stage", "IIb", "--max-reserved-gib", "0.06", "--tokens", "3000")
    assert code == 2 and "--activations recompute would fit" in err
    code, _, err = train("--stage", "IIb", "--max-reserved-gib", "0.0025", "--tokens", "10")
    assert code == 2 and "torchrun with" in err


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)  # three interpreters with torch on a busy machine
def test_two_ray_workers_train_and_resume_from_their_checkpoints(train, tmp_path):
    code, out, err = train("--stage", "IIb", "--ray", "2")
    assert code == 0, err
    index = json.loads((tmp_path / "out" / "checkpoints" / "step-00000003" / "checkpoint.json").read_text())
    assert index["processes"] == 2 and index["config"]["ray"] == 0
