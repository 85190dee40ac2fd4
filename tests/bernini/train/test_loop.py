"""What the loop promises: stages, averages, clipping, bad gradients, metrics."""

import json
import shutil
import sys
from dataclasses import replace

import pytest
import torch

from bernini.planner.model import Planner
from bernini.tiny import tiny_planner, tiny_renderer
from bernini.train.budget import Decoder, Network, check, estimate
from bernini.train.cost import CostModel
from bernini.train.ema import Average
from bernini.train.flops import TRAINING
from bernini.train.stages import STAGES, freeze, preset, trained_table
from manifests.errors import ConfigError, RunStopped
from manifests.mixtures import MIXTURES, TABLE_2
from tests.bernini.train.conftest import pack
from tests.bernini.train.tiny_run import MemoryLoader, config_of, trainer_of


def test_the_stages_are_those_of_table_2():
    rows = {n: (s.planner, s.experts, s.ema_decay, s.lr, s.mixture) for n, s in STAGES.items()}
    assert rows == {"I": (True, "none", 0.999, 1e-5, "I"), "IIa": (False, "both", 0.9995, 1e-5, "IIa"),
                    "IIb": (False, "both", 0.9999, 1e-5, "IIb"), "IIIa": (True, "both", 0.9995, 1e-5, "IIIa"),
                    "IIIb": (True, "both", 0.999, 1e-5, "IIIb"),
                    "propagation": (False, "both", 0.9999, 1e-5, "propagation")}
    assert set(STAGES) == {*TABLE_2, "propagation"} == set(MIXTURES)  # section 3.3: a model that makes data
    weights = STAGES["IIIa"].weights
    assert (weights.text, weights.visual, weights.dit) == (0.2, 1.0, 1.0)
    assert (STAGES["I"].weights.dit, STAGES["IIb"].weights.visual) == (0.0, 0.0)


def trained(stage: str, **changes) -> set[str]:
    config = preset(stage, **changes)
    planner: Planner = tiny_planner()
    expert = tiny_renderer().requires_grad_(False)
    freeze(planner, {"high": expert} if config.experts != "none" else {}, config)
    table = trained_table({"planner": planner, "high": expert}).splitlines()[1:-1]
    return {line.split()[0] for line in table if line.split()[1] != "0"}


def test_what_a_stage_does_not_train_is_frozen():
    first = trained("I")
    assert {"planner.language.layers", "planner.connector.pred_vit", "planner.vit_decoder", "planner.mask_tokens"} <= first
    assert not {"planner.connector.proj_gen", "planner.vision.blocks", "high.blocks"} & first
    assert "planner.connector.proj_gen" in trained("IIIa") and "high.blocks" in trained("IIIa")
    assert "planner.mllm.lm_head" not in trained("I", lambda_text=0.0)
    assert all(n.startswith("high") for n in trained("IIb", planner=False))


def test_the_average_warms_up_and_follows_its_formula():
    weights = {"w": torch.zeros(3)}
    average = Average(weights, decay=0.9)
    assert [round(average.decay_at(k), 4) for k in (0, 1, 10**6)] == [0.1, 0.1818, 0.9]
    expected = 0.0
    for k, value in enumerate((1.0, 2.0, 4.0)):
        weights["w"].fill_(value)
        average.update(weights, k)
        d = min(0.9, (1 + k) / (10 + k))
        expected = d * expected + (1 - d) * value
    torch.testing.assert_close(average.tensors["w"], torch.full((3,), expected))


def test_a_step_is_adamw_on_the_clipped_mean_over_samples(tmp_path):
    config = config_of(tmp_path, 1, warmup=0, lr=1e-3, clip=0.05, accumulate=2, weight_decay=0.1)
    ours, reference = trainer_of(config), trainer_of(config)
    ours.train_step(iter(ours.loader))
    loader, count = iter(reference.loader), 0
    for _ in range(2):
        batch = reference._next(loader)
        reference.model.total(reference.model(batch)).backward()
        count += len(batch.names)
    parameters = list(reference.model.parameters())
    for p in parameters:
        p.grad = torch.zeros_like(p) if p.grad is None else p.grad / count
    norm = torch.nn.utils.clip_grad_norm_(parameters, 0.05)
    torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.1).step()
    assert float(norm) > 0.05
    assert float(ours.records[-1].norm) == pytest.approx(float(norm), rel=1e-5)
    for p, q in zip(ours.model.parameters(), parameters, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-7)


def test_the_rate_warms_up_from_seven_hundredths():
    trainer = trainer_of(config_of("unused", 1, warmup=10, lr=1e-5))
    rates = [trainer.rate(step) for step in (0, 5, 10, 20)]
    assert rates == pytest.approx([7.1e-7, 5.355e-6, 1e-5, 1e-5])


class Overflowing(MemoryLoader):
    """The second pack has a latent so large that its loss is infinite; it is finite itself."""

    def __iter__(self):
        for number, made in enumerate(super().__iter__()):
            if number == 1:
                bad = made.examples[0]
                huge = replace(bad.visuals[-1], latent=torch.full_like(bad.visuals[-1].latent, 3e38))
                made = replace(made, examples=[replace(bad, visuals=(*bad.visuals[:-1], huge)), *made.examples[1:]])
            yield made


def test_a_loss_that_is_no_number_moves_nothing_and_is_named(tmp_path):
    said = []
    trainer = trainer_of(config_of(tmp_path, 3, log_every=3, save_every=9), Overflowing(tasks=(("v2v",),)), say=said.append)
    packs = iter(trainer.loader)
    trainer.train_step(packs)
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    trainer.train_step(packs)
    assert all(torch.equal(p, before[n]) for n, p in trainer.model.named_parameters())
    trainer.train_step(packs)
    assert any(not torch.equal(p, before[n]) for n, p in trainer.model.named_parameters())
    trainer._collect()
    assert any(s.startswith("skipped s3: dit loss is ") and "the step was not taken" in s for s in said)
    assert trainer.interval.skipped == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_no_number_moves_nothing_and_is_told(tmp_path, value):
    """The losses are finite: nobody knows which sample it was, so the step and all of its samples are named."""
    said, steps = [], []
    trainer = trainer_of(config_of(tmp_path, 3, log_every=1, save_every=9, accumulate=2), say=said.append)
    for expert in (trainer.model.high, trainer.model.low):
        expert.proj_out.weight.register_hook(lambda g: g * value if trainer.step == 1 else g)
    step = trainer.train_step

    def watched(packs):
        before = {n: t.clone() for n, t in trainer.state().items()}
        step(packs)
        steps.append([n for n, t in trainer.state().items() if not torch.equal(t, before[n])])

    trainer.train_step = watched
    trainer.run()
    assert steps[1] == [] and any(n.startswith("ema.") for n in steps[0]) and any(n.startswith("ema.") for n in steps[2])
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(t, parse_constant=lambda name: pytest.fail(f"{name} is no JSON")) for t in lines]
    assert [r["steps_not_taken"] for r in rows] == [0, 1, 0] and [r["skipped"] for r in rows] == [0, 0, 0]
    assert rows[1]["grad_norm"] is None and rows[0]["grad_norm"] > 0 and rows[2]["grad_norm"] > 0
    told = [s for s in said if "not taken" in s]
    assert told[0].startswith("skipped step 2: the norm of its gradient is ") and "Its samples here: s6, s7, s9" in told[0]
    assert told[1].startswith("step 2/3") and told[1].endswith("steps not taken 1") and len(told) == 2


def test_a_step_without_a_sample_moves_nothing(tmp_path):
    """Neither momentum nor weight decay goes on."""
    class SecondUnreadable(MemoryLoader):
        def __iter__(self):
            for number, made in enumerate(super().__iter__()):
                nan = [replace(e, text_embedding=torch.full_like(e.text_embedding, float("nan"))) for e in made.examples]
                yield replace(made, examples=nan) if number == 1 else made

    trainer = trainer_of(config_of(tmp_path, 3, weight_decay=0.5), SecondUnreadable())
    packs, states = iter(trainer.loader), []
    for _ in range(3):
        trainer.train_step(packs)
        states.append({n: t.clone() for n, t in trainer.state().items()})
    assert [n for n, t in states[1].items() if not torch.equal(t, states[0][n])] == []
    assert any(not torch.equal(t, states[1][n]) for n, t in states[2].items())


def test_skipped_samples_are_counted_in_the_metrics(tmp_path):
    class WithNaN(MemoryLoader):
        def __iter__(self):
            for made in super().__iter__():
                nan = torch.full_like(made.examples[0].text_embedding, float("nan"))
                yield replace(made, examples=[replace(made.examples[0], text_embedding=nan), *made.examples[1:]])

    said = []
    trainer_of(config_of(tmp_path, 2, log_every=2), WithNaN(tasks=(("v2v", "t2i"),)), say=said.append).run()
    row = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert row["skipped"] == 2 and row["samples"] == 2 and "loss/t2i/dit" in row and "loss/v2v/dit" not in row
    assert "skipped s0: NaN or infinity in the text embedding" in said
    assert any("skipped 2" in s for s in said if s.startswith("step 2/2"))


class Seconds:
    """Stands for the clock of the machine: it goes on only when told."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr("bernini.train.metrics.time.perf_counter", lambda: self.now)

    def takes(self, seconds: float, what=None):
        """`what` with its time on this clock."""
        def timed(*args):
            self.now += seconds
            return what(*args) if what is not None else None

        return timed


def test_speed_is_that_of_training_alone_and_of_what_this_start_did(tmp_path, monkeypatch):
    """A resumed interval has the tokens of the run before in its sums; they took no time here."""
    seconds = Seconds(monkeypatch)
    for steps in (4, 6):
        trainer = trainer_of(config_of(tmp_path, steps, log_every=4, save_every=2))
        trainer.sample, trainer.config = seconds.takes(1000.0), replace(trainer.config, sample_every=2)
        trainer.train_step, trainer.save = seconds.takes(2.0, trainer.train_step), seconds.takes(100.0, trainer.save)
        trainer.run()
        if steps == 4:
            shutil.rmtree(tmp_path / "checkpoints" / "step-00000004")  # goes on at step 2, inside the interval
    rows = [json.loads(t) for t in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(r["step"], r["time"]["seconds_per_step"]) for r in rows] == [(4, 2.0), (6, 2.0)]
    assert [r["time"]["tokens_per_s"] for r in rows] == [300 / 4, 300 / 4]


def test_data_that_ends_is_a_clear_message(tmp_path):
    class Short(MemoryLoader):
        def __iter__(self):
            yield pack(("t2i",))

    with pytest.raises(RunStopped, match="the data ended at step 1 of 3"):
        trainer_of(config_of(tmp_path, 3), Short()).run()


def test_losses_fall(tmp_path):
    class Same(MemoryLoader):
        def __iter__(self):
            while True:
                yield pack(("v2v", "t2i", "cot"))

    config = config_of(tmp_path, 30, planner=True, lr=3e-3, warmup=0, log_every=10, save_every=99, keep=1)
    trainer_of(config, Same()).run()
    rows = [json.loads(t) for t in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for term in ("text", "visual", "dit"):
        assert rows[-1][f"loss/{term}"] < 0.9 * rows[0][f"loss/{term}"], term


def test_bfloat16_keeps_float32_weights_and_stays_near(tmp_path):
    config = config_of(tmp_path, 1, planner=True)
    half, exact = (trainer_of(replace(config, precision=p)) for p in ("bf16", "fp32"))
    for trainer in (half, exact):
        trainer.train_step(iter(trainer.loader))
        assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
        assert next(trainer.optimizer.state.values().__iter__())["exp_avg"].dtype == torch.float32
    for term, loss in exact.records[0].losses.items():
        torch.testing.assert_close(half.records[0].losses[term].float(), loss, rtol=0.05, atol=0.05)


def test_operations_of_a_pack_are_those_that_torch_counts():
    """Blocks of the renderer by the formula against torch's counter, forward and backward; 2 % for all else."""
    from torch.utils.flop_counter import FlopCounterMode

    from bernini.config import RendererConfig
    from bernini.renderer.transformer import Renderer
    from bernini.train.passes import PassOptions, RenderInput, velocities

    sizes = RendererConfig(num_attention_heads=4, attention_head_dim=24, text_dim=32, freq_dim=32, ffn_dim=256, num_layers=6)
    model = Renderer(sizes)
    shapes, context = [(4, 16, 16), (1, 8, 12)], 16
    inputs = [RenderInput([torch.randn(1, 16, *s)], [], torch.randn(context, 32), torch.tensor(500.0)) for s in shapes]
    # The counter knows attention by its matrix products only.
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss = sum(v.values.sum() for v in velocities(model, inputs, PassOptions()))
        forward = counter.get_total_flops()
        loss.backward()
    cost = CostModel(renderer_layers=6, renderer_width=96, renderer_ffn=256, context=context)
    formula = sum(cost.renderer_flops(t * y * x // 4) for t, y, x in shapes)
    assert forward == pytest.approx(formula, rel=0.02)
    assert counter.get_total_flops() == pytest.approx(TRAINING * formula, rel=0.02)


EXPERT = Network(name="high", num_weights=1.3e9, num_trained=1.3e9, layers=30, width=1536, ffn=8960)


def test_the_memory_estimate_names_the_mildest_option_that_fits():
    config = preset("IIb", tokens=32_760, activations="keep")
    gib = 2**30
    assert estimate([EXPERT], config, 1, True).parts["optimiser"] == 8 * 1.3e9
    now = estimate([EXPERT], config, 1, True).peak
    assert estimate([EXPERT], replace(config, activations="offload"), 1, True).peak < now
    for free, option in ((60 * gib, "--activations recompute would fit"), (10 * gib, "torchrun with 8 processes")):
        with pytest.raises(Exception, match=option):
            check([EXPERT], config, 1, True, free, "cuda")
    assert check([EXPERT], replace(config, force=True), 1, True, gib, "cuda").peak == now
    assert check([EXPERT], config, 1, True, 2 * now, "cuda").peak == now


DECODER = Decoder(width=4096, depth=16, vit=3584)
PLANNER = Network(name="planner", num_weights=8.5e9, num_trained=8.5e9, layers=28, width=3584, ffn=18944, decoder=DECODER)


def test_the_estimate_knows_what_the_decoder_leaves_for_the_backward_pass():
    """Counted at the released size, without the values themselves."""
    from bernini.config import HeadsConfig
    from bernini.planner.heads import DecoderNet

    rows, saved = 1000, {}
    with torch.device("meta"):
        net = DecoderNet(HeadsConfig()).bfloat16()
        x, condition = (torch.randn(rows, 3584, dtype=torch.bfloat16, requires_grad=r) for r in (False, True))

        def note(tensor):
            if tensor.ndim == 2 and len(tensor) == rows:  # no weight has so many
                saved[id(tensor.untyped_storage())] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            net(x, torch.rand(rows), condition)
    counted = sum(t.untyped_storage().nbytes() for t in saved.values()) / rows
    assert counted <= 2 * DECODER.row <= 1.1 * counted
    assert DECODER.num_weights == pytest.approx(sum(p.numel() for p in net.parameters()), rel=1e-3)


def test_the_noises_of_the_decoder_are_in_the_estimate_and_in_the_refusal():
    gib, config = 2**30, preset("I")
    parts = estimate([PLANNER], config, 64, True).parts
    # 150,000 tokens, 93 % of them masked: 16 noises of 3,584 float32 each, one run of rows, six tensors of the connector
    assert parts["ViT decoder"] / gib == pytest.approx(29.8 + 3.1 + 5.6, abs=0.2)
    assert estimate([PLANNER], replace(config, activations="keep"), 64, True).parts["ViT decoder"] > 3000 * gib
    assert estimate([PLANNER], preset("IIIa"), 64, True).parts["ViT decoder"] < parts["ViT decoder"] / 5
    for free, option in ((80, "--activations offload --vit-noises 8"), (60, "--activations offload --tokens 75000")):
        with pytest.raises(Exception, match=f"ViT decoder 38.* GiB.* {option} would fit"):
            check([PLANNER], config, 64, True, free * gib, "cuda")
    alone = replace(PLANNER, decoder=None)
    assert estimate([alone], config, 64, True).parts["ViT decoder"] == 0


def test_a_stage_without_anything_to_train_is_refused():
    with pytest.raises(ConfigError, match="no stage 'IV'"):
        preset("IV")
    with pytest.raises(ConfigError, match="--ema-decay 1.0 must lie in"):
        preset("I", ema_decay=1.0).checked()


class FakeWandb:
    """Keeps what a run was opened with."""

    def __init__(self):
        self.opened = []

    def init(self, **settings):
        self.opened.append(settings)
        return self

    def log(self, numbers, step):
        pass

    def finish(self):
        pass


def test_each_run_is_one_curve_whatever_its_folder_is_called(tmp_path, monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for folder, steps in (("a/run", 1), ("a/run", 2), ("b/run", 1)):
        trainer_of(config_of(tmp_path / folder, steps, save_every=1, wandb="project")).run()
    shutil.rmtree(tmp_path / "b" / "run" / "checkpoints")  # begins anew: another curve
    trainer_of(config_of(tmp_path / "b" / "run", 1, save_every=1, wandb="project")).run()
    ids = [o["id"] for o in fake.opened]
    assert ids[0] == ids[1] and len(set(ids)) == 3 and {o["name"] for o in fake.opened} == {"run"}
    assert all(o["project"] == "project" and o["resume"] == "allow" for o in fake.opened)
