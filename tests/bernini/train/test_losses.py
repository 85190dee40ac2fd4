"""The losses: a pack is the sum of its samples; the renderer never sees what is masked."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bernini.planner.masks import TARGET
from bernini.tiny import _planner_tokenizer, tiny_planner, tiny_renderer
from bernini.train import decoding
from bernini.train.cost import CHAT_TOKENS, CostModel, ExampleTokens, VisualTokens
from bernini.train.example import Part
from bernini.train.losses import LossWeights, TrainModel
from bernini.train.passes import PassOptions
from bernini.train.prepare import Needs, prepare
from tests.bernini.train.conftest import TEXT, VIT, draws, example, pack, singles, visual

TASKS = ("t2i", "vr2v", "v2v", "i2i", "t2v")
BOTH = (("high", 0.5, 1.0), ("low", 0.0, 0.5))


def model_of(stage: str, options=None, weights=None) -> TrainModel:
    torch.manual_seed(0)
    planner = tiny_planner().double() if stage != "renderer" else None
    experts = [tiny_renderer().double() for _ in range(2)] if stage != "planner" else [None, None]
    weights = weights or LossWeights(dit=0.0 if stage == "planner" else 1.0)
    return TrainModel(planner, *experts, weights, options)


def batch_of(of, stage: str, noises: int = 2):
    needs = Needs(planner=stage != "renderer", renderer=stage != "planner", experts=BOTH, text_width=TEXT,
                  vit_width=VIT)
    tokenizer = _planner_tokenizer()
    special = tiny_planner().special if stage != "renderer" else None
    made = prepare(of, needs, lambda t: tokenizer(t, add_special_tokens=False)["input_ids"], special, noises)
    return made.to("cpu", torch.float64)


def gradients(model, batches) -> dict[str, torch.Tensor]:
    model.zero_grad()
    for batch in batches:
        model.total(model(batch)).backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("stage", ["renderer", "planner", "joint"])
def test_gradient_of_a_pack_is_the_sum_of_its_samples(stage):
    tasks = TASKS if stage == "renderer" else (*TASKS, "understanding", "cot")
    whole, model = pack(tasks), model_of(stage)
    together = gradients(model, [batch_of(whole, stage)])
    apart = gradients(model, [batch_of(single, stage) for single in singles(whole)])
    assert together.keys() == apart.keys() and len(together) > 50
    largest = max(float(g.abs().max()) for g in together.values())
    error = max(float((together[n] - apart[n]).abs().max()) for n in together)
    assert largest > 1e-3
    assert error <= 1e-10 * max(1.0, largest)


@pytest.mark.parametrize("activations", ["recompute", "offload"])
def test_recomputing_and_offloading_change_no_gradient(activations):
    batch = batch_of(pack(("vr2v", "cot")), "joint")
    kept = gradients(model_of("joint"), [batch])
    other = gradients(model_of("joint", PassOptions(activations)), [batch])
    assert all(torch.equal(kept[n], other[n]) for n in kept)


@pytest.mark.parametrize("rows", [1, 6, 14])  # of a run: less than a token, three tokens, seven
def test_the_decoders_runs_of_rows_change_no_gradient(rows, monkeypatch):
    batch = batch_of(pack(("vr2v", "i2i", "cot")), "joint")
    whole = gradients(model_of("joint"), [batch])
    monkeypatch.setattr(decoding, "ROWS", rows)
    apart = {a: gradients(model_of("joint", PassOptions(a)), [batch]) for a in ("keep", "recompute", "offload")}
    assert max(float((whole[n] - apart["keep"][n]).abs().max()) for n in whole) <= 1e-10
    for activations in ("recompute", "offload"):
        assert all(torch.equal(apart["keep"][n], apart[activations][n]) for n in whole)


def held_bytes(activations: str, noises: int) -> int:
    """What the forward pass leaves for the backward pass, weights and the batch itself aside."""
    model, batch = model_of("planner", PassOptions(activations)), batch_of(pack(("t2v", "v2v", "vr2v")), "planner", noises)
    given = {p.untyped_storage().data_ptr() for p in model.parameters()}
    for target in (d.target for d in batch.documents):
        given |= {t.untyped_storage().data_ptr() for t in (target.clean, target.noise, target.sigma)}
    sizes, alive = {}, []

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in given:
            sizes[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)  # else its address could be given again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model.total(model(batch))
    return sum(sizes.values())


def test_more_noises_a_token_leave_nothing_more_for_the_backward_pass():
    assert held_bytes("keep", 16) > held_bytes("keep", 1) + 2_000_000
    assert all(held_bytes(a, 16) == held_bytes(a, 1) for a in ("recompute", "offload"))


def cost_of(model: TrainModel, noises: int) -> CostModel:
    values = {"renderer_layers": 0}
    if model.high is not None:
        c = model.high.config
        values |= {"renderer_layers": c.num_layers, "renderer_width": c.inner_dim, "renderer_ffn": c.ffn_dim}
    if model.planner is not None:
        c, net = model.planner.language.config, model.planner.vit_decoder.net
        values |= {"planner_layers": c.num_hidden_layers, "planner_width": c.hidden_size, "planner_ffn": c.intermediate_size,
                   "planner_kv_width": c.hidden_size // c.num_attention_heads * c.num_key_value_heads,
                   "planner_words": c.vocab_size, "decoder_depth": len(net.res_blocks), "vit_noises": noises,
                   "decoder_width": net.input_proj.out_features, "vit_width": net.input_proj.in_features}
    return CostModel(**values)


def tokens_of(of, batch) -> ExampleTokens:
    """Tokens of a pack's one example, with those of the chats as the tiny tokenizer counts them."""
    (e,), (d,) = of.examples, of.draws
    planning = next((x for x in batch.documents if x.target is not None), None)
    writing = next((x for x in batch.documents if len(x.learned)), None)
    found = ExampleTokens(text=len(e.text_embedding), empty_text=len(e.empty_embedding), visuals=tuple(
        VisualTokens(kind=v.kind, is_target=v.is_target, latent=v.latent[0, 0].numel() // 4, vit=len(v.vit)) for v in e.visuals))
    if writing is not None:
        found = replace(found, written=len(writing.chat.ids) - CHAT_TOKENS, learned=len(writing.learned))
    left = found.dropped(**{n: getattr(d, f"drop_{n}") for n in ("text", "images", "videos", "vit", "plan")})
    if planning is not None:
        left = replace(left, planner_text=len(planning.chat.ids) - left.vit - CHAT_TOKENS)
    return left.hiding(d.mask_ratio)


def large(of):
    """The example with visuals of 256 latent and 128 ViT tokens, so that what grows with them decides."""
    g = torch.Generator().manual_seed(1)
    (e,) = of.examples
    return replace(of, examples=[replace(e, visuals=tuple(
        visual(g, v.kind, v.is_target, (4, 16, 16), (2, 16, 16)) for v in e.visuals))])


@pytest.mark.parametrize("stage, task, flags", [
    ("joint", "v2v", {}), ("joint", "t2v", {}), ("joint", "vr2v", {"drop_videos": True}), ("joint", "understanding", {}),
    ("joint", "cot", {}), ("joint", "vr2v", {"drop_vit": True, "drop_plan": True}), ("planner", "t2v", {}),
    ("planner", "cot", {"drop_videos": True}), ("planner", "understanding", {})])
def test_the_cost_of_an_example_is_what_torch_counts(stage, task, flags):
    """3 %: the connector, the embeddings of text and time and the patches are not in the formula."""
    model, of = model_of(stage), large(pack((task,), **flags))
    batch = batch_of(of, stage, noises=16)
    # The counter knows attention by its matrix products only.
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), FlopCounterMode(display=False) as counter, \
            torch.no_grad():
        model(batch)
    tokens, cost = tokens_of(of, batch), cost_of(model, 16)
    assert cost.flops(tokens) == pytest.approx(counter.get_total_flops(), rel=0.03)
    chats = sum(len(d.chat.ids) - CHAT_TOKENS for d in batch.documents)
    rendered = sum(sum(x[0, 0].numel() // 4 for x in (*i.sources, i.latent)) + len(i.text) for i in batch.items)
    assert cost.num_tokens(tokens) == chats + rendered


@pytest.mark.parametrize("flags", [{}, {"images": True}, {"videos": True}, {"images": True, "videos": True, "text": True},
                                   {"vit": True}, {"plan": True}])
def test_what_is_counted_is_what_is_rendered_and_planned(flags):
    """Also with two visuals to be generated: the earlier one, a finished frame, is a condition of the last."""
    g, one = torch.Generator().manual_seed(0), example(1, "vr2v")
    visuals = (*one.visuals[:2], replace(one.visuals[2], is_target=True), visual(g, "video", True))
    parts = (*(Part(visual=i) for i in range(2)), Part(text="make it so"), *(Part(visual=i, has_loss=True) for i in (2, 3)))
    drawn = draws(1, **{f"drop_{n}": True for n in flags})
    of = replace(pack(("vr2v",)), examples=[replace(one, visuals=visuals, parts=parts)], draws=[drawn])
    batch = batch_of(of, "joint")
    tokens, (item,), (document,) = tokens_of(of, batch), batch.items, batch.documents
    assert tokens.latent == sum(x[0, 0].numel() // 4 for x in (*item.sources, item.latent))
    assert tokens.vit == sum(len(f) for f in document.features) + len(document.target.clean)
    assert tokens.text == len(item.text) and tokens.masked == len(document.target.masked)
    hidden = tokens.masked if tokens.is_shown else len(document.target.clean)
    assert len(document.shown) == len(document.chat.ids) - hidden


@torch.no_grad()
def dit_loss(model, batch) -> float:
    return float(model(batch)["dit"].sum())


def test_the_renderer_sees_unmasked_target_tokens_and_no_masked_ones():
    model = model_of("joint")
    whole = replace(pack(("v2v",)), draws=[draws(0, mask_ratio=0.5)])
    batch = batch_of(whole, "joint")
    document = batch.documents[0]
    before = dit_loss(model, batch)
    assert len(document.target.masked) == len(document.target.visible) == 4
    assert len(document.shown) == len(document.chat.ids) - 4
    document.target.clean[document.target.masked] += 1.0  # what is masked reaches neither planner nor renderer
    assert dit_loss(model, batch) == before
    document.target.clean[document.target.visible] += 1.0
    assert dit_loss(model, batch) != before


def test_masked_states_do_not_condition_the_renderer():
    model = model_of("joint")
    batch = batch_of(replace(pack(("v2v",)), draws=[draws(0, mask_ratio=1.0)]), "joint")
    model.zero_grad()
    model(batch)["dit"].sum().backward()
    assert batch.documents[0].target.visible.numel() == 0
    # Text and sources do not see the target, so with all of it masked the mask token has no say.
    assert model.planner.mask_tokens.grad is None or not model.planner.mask_tokens.grad.any()


def test_one_document_gives_the_hidden_states_of_generation():
    from bernini.train.passes import planner_states

    model = model_of("planner")
    document = batch_of(replace(pack(("vr2v",)), draws=[draws(0, mask_ratio=1.0)]), "planner").documents[0]
    embedded = model.planner.embed(document.chat, document.features)
    packed = planner_states(model.planner, [document.chat] * 2, [embedded] * 2, PassOptions())
    alone = model.planner.hidden_states(document.chat, embedded)
    torch.testing.assert_close(packed.of(1, torch.arange(len(embedded))), alone[-2], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(packed.final()[: len(embedded)], alone[-1], rtol=1e-6, atol=1e-6)


def test_text_loss_is_the_cross_entropy_of_the_answer():
    model = model_of("planner")
    batch = batch_of(pack(("understanding",)), "planner")
    document = batch.documents[0]
    words = _planner_tokenizer().decode(document.labels)
    assert words == "because of 0<|im_end|>"
    states = model.planner.hidden_states(document.chat, model.planner.embed(document.chat, document.features))
    logits = model.planner.mllm.lm_head(states[-1])[document.learned - 1]
    expected = torch.nn.functional.cross_entropy(logits, document.labels)
    assert float(model(batch)["text"].detach()) == pytest.approx(float(expected.detach()), rel=1e-6)


def test_reasoning_text_is_learned_and_then_is_the_prompt():
    documents = batch_of(pack(("cot",)), "joint").documents
    said = [_planner_tokenizer().decode(d.chat.ids[d.chat.token_type == 0]) for d in documents]
    assert len(documents) == 2
    assert "Request: make it 0<|im_end|>" in said[0] and said[0].endswith("because of 0<|im_end|>")
    assert "because of 0" in said[1] and "make it" not in said[1]


def test_dropped_conditions_are_gone_and_ids_start_at_one_again():
    whole = pack(("vr2v",), drop_videos=True, drop_text=True)
    batch = batch_of(whole, "joint")
    assert [tuple(s.shape[2:]) for s in batch.items[0].sources] == [(1, 4, 4), (1, 4, 4)]
    assert batch.items[0].ids == [1.0, 2.0]
    assert torch.equal(batch.items[0].text.float(), whole.examples[0].empty_embedding)
    assert len(batch.documents[0].features) == 2
    assert "make it" not in _planner_tokenizer().decode(batch.documents[0].chat.ids)


def test_the_branches_of_guidance_are_trained():
    """Spec 4.2: prompt and sources without plan; sources in the renderer alone; nothing at all."""
    said = _planner_tokenizer()
    model, latents = model_of("joint"), 3  # a video and two images
    for flags, num_seen, num_sources in (({"drop_plan": True}, 3, latents), ({"drop_vit": True, "drop_text": True}, 0, latents),
                                         ({"drop_plan": True, "drop_text": True, "drop_images": True, "drop_videos": True}, 0, 0)):
        batch = batch_of(pack(("vr2v",), **flags), "joint")
        document, item = batch.documents[0], batch.items[0]
        assert len(document.features) == num_seen and len(item.sources) == num_sources
        assert ("make it" in said.decode(document.chat.ids)) == ("drop_text" not in flags)
        kinds = document.chat.token_type
        assert not (kinds[document.shown] == TARGET).any() and len(document.shown) == int((kinds != TARGET).sum())
        before = dit_loss(model, batch)
        document.target.clean += 1.0  # nothing of the target reaches the renderer
        assert dit_loss(model, batch) == before
        assert float(model(batch)["visual"].detach().sum()) > 0  # it is planned all the same


def test_without_sources_only_the_plan_itself_can_be_dropped():
    shown = [len(batch_of(pack(("t2v",), **flags), "joint").documents[0].shown)
             for flags in ({}, {"drop_vit": True}, {"drop_plan": True})]
    assert shown[0] == shown[1] > shown[2]


def bad_visual(which: str, value):
    good = example(1)
    return replace(good, visuals=(replace(good.visuals[0], **{which: value}), good.visuals[1]))


@pytest.mark.parametrize("change, why", [
    (lambda: bad_visual("latent", torch.full((1, 16, 2, 4, 4), float("nan"))), "NaN or infinity in the latent of visual 0"),
    (lambda: bad_visual("latent", None), "visual 0 has no latent"),
    (lambda: bad_visual("latent", torch.zeros(1, 4, 2, 4, 4)), "another autoencoder"),
    (lambda: bad_visual("vit", torch.zeros(8, 3)), "another vision tower"),
    (lambda: bad_visual("latent", torch.zeros(1, 16, 2, 5, 4)), "latent of visual 0 has the shape [1, 16, 2, 5, 4], not"),
    (lambda: bad_visual("latent", torch.zeros(1, 16, 0, 4, 4)), "latent of visual 0 has the shape [1, 16, 0, 4, 4], not"),
    (lambda: bad_visual("latent", torch.zeros(16, 2, 4, 4)), "latent of visual 0 has the shape [16, 2, 4, 4], not"),
    (lambda: bad_visual("vit", torch.zeros(0, 64)), "ViT features of visual 0 have the shape [0, 64], not"),
    (lambda: bad_visual("grid", None), "ViT features of visual 0 have no grid"),
    (lambda: bad_visual("grid", (1, 4, 4)), "ViT features of visual 0 have 8 rows, their grid [1, 4, 4] has 4"),
    (lambda: bad_visual("grid", (2, 3, 6)), "ViT features of visual 0 have the grid [2, 3, 6], not"),
    (lambda: bad_visual("grid", (2, 16)), "ViT features of visual 0 have the grid [2, 16], not"),
    (lambda: example(1, text_embedding=torch.zeros(32)), "text embedding has the shape [32], not [rows, 32]"),
    (lambda: example(1, text_embedding=torch.zeros(2, 5)), "text embedding is 5 wide"),
])
def test_a_bad_sample_is_skipped_and_named(change, why):
    whole = pack(("v2v", "v2v"))
    spoiled = replace(whole, examples=[whole.examples[0], change()])
    batch = batch_of(spoiled, "joint")
    assert batch.names == ["s0"]
    assert len(batch.skipped) == 1 and batch.skipped[0].startswith("s1: ") and why in batch.skipped[0]
    clean = batch_of(singles(whole)[0], "joint")
    model = model_of("joint")
    assert all(torch.equal(a, b) for a, b in zip(model(batch).values(), model(clean).values(), strict=True))


def test_a_level_outside_the_trained_expert_is_named():
    needs = Needs(planner=False, renderer=True, experts=(("high", 0.875, 1.0),), text_width=TEXT)
    batch = prepare(pack(("v2v",), sigma=0.5), needs, None, None, 1)
    assert "noise level 0.500 is in the range of no trained expert (high 0.875 to 1)" in batch.skipped[0]


def test_a_level_that_the_released_table_rounds_over_the_end_is_trained():
    needs = Needs(planner=False, renderer=True, experts=(("high", 0.875, 1.0),), text_width=TEXT)
    batch = prepare(pack(("v2v",), sigma=0.87109375), needs, None, None, 1)  # its first row below .875 in bfloat16
    assert batch.skipped == [] and batch.items[0].expert == "high"


def test_recorded_training_step_of_the_release(golden):
    """Loss and gradients of the recorded step through the training pass (limits of spec 13)."""
    from bernini.parity.records import Record, relative_error
    from bernini.parity.renderer import _unpack_noise, build
    from bernini.train.losses import _velocity_error
    from bernini.train.passes import RenderInput, velocities
    from bernini.train.prepare import RenderItem

    record = Record.read(golden / "train_step.json")
    tensors, model = record.tensors, build(record, record.meta["config"], record.weights("w."))
    items, inputs = [], []
    for sample in record.meta["samples"]:
        n, latents = sample["sample"], [tensors[f"in.{sample['sample']}.latent{i}"][None] for i in range(3)]
        noise = _unpack_noise(tensors[f"in.{n}.noise"], tuple(latents[-1].shape[2:]))
        sigma, time = torch.tensor(sample["sigma"]), torch.tensor(sample["timestep"])
        noisy = latents[-1] + sigma * (noise - latents[-1])
        ids = [float(i) for i in sample["source_ids"][:-1]]
        items.append(RenderItem(n, "high", latents[:-1], ids, latents[-1], noise, sigma, time, noise))
        inputs.append(RenderInput([*latents[:-1], noisy], ids, tensors[f"in.{n}.text"][0], time))
    found = velocities(model, inputs, PassOptions())
    losses = torch.stack([_velocity_error(i, v) for i, v in zip(items, found, strict=True)])
    losses.mean().backward()
    assert relative_error(losses.detach(), tensors["out.loss_per_sample"]) < 1e-5
    parameters = dict(model.named_parameters())
    recorded = {k.removeprefix("grad."): v for k, v in tensors.items() if k.startswith("grad.")}
    assert max(relative_error(parameters[k].grad, v) for k, v in recorded.items()) < 1e-4
