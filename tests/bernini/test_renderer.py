"""The renderer against diffusers, packed against single, and what it must not store per token."""

import pytest
import torch

from bernini.conditions import Sources, source_ids
from bernini.config import RendererConfig
from bernini.renderer.attention import KERNELS, kernel
from bernini.renderer.experts import Branch, Clip, Experts
from bernini.renderer.rope import rotate, segment_rope
from bernini.renderer.transformer import Renderer, SequenceInputs, patchify, unpatch
from bernini.tiny import RENDERER, tiny_renderer

FORWARD = 1e-5  # float32 sums in another order; a wrong phase or norm gives 1e-3 and more


def relative(ours, theirs):
    return float((ours - theirs).abs().max() / theirs.abs().max())


def inputs(model, latents, ids, target, text):
    segments = [(tuple(x.shape[2:]), i) for x, i in zip(latents, ids, strict=True)]
    tokens = torch.cat([torch.zeros(0, model.config.inner_dim), *(model.embed(x) for x in latents)])
    return SequenceInputs(
        tokens, model.rope([*segments, (tuple(target.shape[2:]), 0.0)]), model.embed_context(text)
    )


@pytest.fixture
def model():
    torch.manual_seed(0)
    return tiny_renderer().eval().requires_grad_(False)


@pytest.mark.parametrize("thw", [(1, 4, 4), (3, 6, 8)])
@pytest.mark.parametrize("heads, head_dim, layers", [(2, 24, 2), (3, 32, 1)])
def test_without_sources_it_equals_diffusers_on_the_same_weights(thw, heads, head_dim, layers):
    from diffusers import WanTransformer3DModel

    config = RendererConfig(
        num_attention_heads=heads,
        attention_head_dim=head_dim,
        text_dim=32,
        freq_dim=32,
        ffn_dim=64,
        num_layers=layers,
    )
    torch.manual_seed(1)
    theirs = WanTransformer3DModel.from_config(config.to_json()).eval()
    ours = Renderer(config).eval()
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    ours.load_state_dict(theirs.state_dict())
    latent, text = torch.randn(1, 16, *thw), torch.randn(1, 7, 32)
    with torch.no_grad():
        expected = theirs(latent, torch.tensor([500]), text, return_dict=False)[0]
        tokens = ours([ours.embed(latent)], torch.tensor([500]), [inputs(ours, [], [], latent, text)])[0]
    assert relative(ours.unpatch(tokens, thw), expected) < FORWARD


def test_a_pack_equals_its_sequences_one_by_one(model):
    first, second = torch.randn(1, 16, 2, 4, 4), torch.randn(1, 16, 1, 6, 4)
    image, text = torch.randn(1, 16, 1, 4, 4), torch.randn(1, 5, 32)
    jobs = [(first, [image], 100.0, text), (second, [], 900.0, torch.randn(1, 3, 32))]
    sequences = [inputs(model, s, [1.0] * len(s), t, c) for t, s, _, c in jobs]
    packed = model([model.embed(j[0]) for j in jobs], torch.tensor([j[2] for j in jobs]), sequences)
    for job, sequence, together in zip(jobs, sequences, packed, strict=True):
        alone = model([model.embed(job[0])], torch.tensor([job[2]]), [sequence])[0]
        assert relative(together, alone) < FORWARD


def test_sources_change_the_target_and_their_ids_matter(model):
    target, image, text = (torch.randn(1, 16, 1, 4, 4) for _ in range(2)), None, torch.randn(1, 5, 32)
    target, image = target

    def run(latents, ids):
        return model(
            [model.embed(target)], torch.tensor([500.0]), [inputs(model, latents, ids, target, text)]
        )[0]

    alone, one, two = run([], []), run([image], [1.0]), run([image], [2.0])
    assert relative(one, alone) > 1e-2
    assert relative(two, one) > 1e-3


def test_modulation_is_kept_per_sequence_not_per_token(model):
    shapes = []
    model.blocks[0].register_forward_hook(lambda module, args, out: shapes.append(args[1].shape))
    target = torch.randn(1, 16, 4, 8, 8)
    model(
        [model.embed(target)], torch.tensor([500.0]), [inputs(model, [], [], target, torch.randn(1, 4, 32))]
    )
    assert shapes == [(1, 6, RENDERER.inner_dim)]


def test_target_segment_has_the_plain_rope_and_positions_restart():
    first, second = segment_rope((2, 2, 3), 0.0, 24), segment_rope((1, 2, 3), 3.0, 24)
    assert torch.equal(first[0], torch.ones(12, dtype=torch.complex128))
    turn = second[0]  # position (0, 0, 0): only the segment's phase is left
    torch.testing.assert_close(second, first[:6] * turn)


def test_rope_keeps_lengths_and_depends_on_distance_only():
    q, k = torch.randn(8, 1, 24), torch.randn(8, 1, 24)
    rope = segment_rope((8, 1, 1), 2.0, 24)
    torch.testing.assert_close(rotate(q, rope).norm(dim=-1), q.norm(dim=-1), atol=1e-5, rtol=1e-5)
    moved = rope * rope[3] / rope[0]  # all tokens three frames later
    scores = (rotate(q, rope) * rotate(k, rope)).sum(-1)
    torch.testing.assert_close((rotate(q, moved) * rotate(k, moved)).sum(-1), scores, atol=1e-4, rtol=1e-4)


def test_bfloat16_with_float32_parts_keeps_what_the_release_keeps(model):
    kept = {n for n, p in model.bfloat16().keep_in_float32().named_parameters() if p.dtype == torch.float32}
    assert "scale_shift_table" in kept and "blocks.0.norm2.weight" in kept
    assert "condition_embedder.time_embedder.linear_1.weight" in kept
    assert not any("attn" in n or "ffn" in n or "text_embedder" in n for n in kept)


def test_eight_bit_storage_is_close_and_half_the_size(model):
    from bernini.renderer.fp8 import store_in_fp8

    target, text = torch.randn(1, 16, 2, 4, 4), torch.randn(1, 5, 32)
    sequence = inputs(model, [], [], target, text)
    exact = model([model.embed(target)], torch.tensor([500.0]), [sequence])[0]
    store_in_fp8(model.blocks, torch.float32)
    sequence.keys_values = None
    stored = model([model.embed(target)], torch.tensor([500.0]), [sequence])[0]
    assert model.blocks[0].ffn.net[2].weight.dtype == torch.float8_e4m3fn
    error = float((stored - exact).norm() / exact.norm())
    assert 1e-4 < error < 0.1  # 3 mantissa bits: a few percent


def test_source_ids_spread_above_the_trained_range():
    assert source_ids(5) == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert source_ids(9) == [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0]
    assert source_ids(7, interpolate=False)[-1] == 7.0


def test_patching_is_undone():
    latent = torch.randn(1, 16, 3, 4, 6)
    assert torch.equal(unpatch(patchify(latent), (3, 4, 6)), latent)


def test_unknown_kernel_names_the_known_ones():
    from bernini.errors import CaseError

    with pytest.raises(CaseError, match="sdpa"):
        kernel("quick")
    assert set(KERNELS) == {"sdpa", "cudnn", "varlen", "flash2", "flash3"}


def test_experts_change_at_the_boundary_and_one_expert_never_does(model):
    pair, single = Experts(model, model, 0.875), Experts(model)
    assert [pair.name_for(t) for t in (999, 875, 874, 0)] == ["high", "high", "low", "low"]
    assert {single.name_for(t) for t in (999, 500, 0)} == {"high"}


def clip(model, pack):
    torch.manual_seed(3)
    sources = Sources.of([torch.randn(1, 16, 2, 4, 4)], [torch.randn(1, 16, 1, 4, 4)])
    texts = {name: torch.randn(1, 4, 32) for name in ("negative", "prompt", "plan")}
    return Clip(model, sources, texts, (2, 4, 4), pack=pack)


BRANCHES = [Branch(s, c) for s in ("none", "video", "all") for c in ("negative", "prompt", "plan")]


def test_packed_branches_equal_sequential_ones_and_are_one_call(model):
    latent = torch.randn(1, 16, 2, 4, 4)
    one, many = clip(model, True), clip(model, False)
    together = one.predict(latent, torch.tensor(500.0), BRANCHES)
    apart = many.predict(latent, torch.tensor(500.0), BRANCHES)
    assert (one.num_calls, one.num_forwards, many.num_calls) == (1, 9, 9)
    for branch in BRANCHES:
        assert relative(together[branch], apart[branch]) < FORWARD


def test_constants_of_a_clip_are_computed_once(model):
    calls = {"patch": 0, "text": 0, "keys": 0}
    model.condition_embedder.text_embedder.register_forward_hook(
        lambda *a: calls.__setitem__("text", calls["text"] + 1)
    )
    model.patch_embedding.register_forward_hook(lambda *a: calls.__setitem__("patch", calls["patch"] + 1))
    model.blocks[0].attn2.to_k.register_forward_hook(lambda *a: calls.__setitem__("keys", calls["keys"] + 1))
    work = clip(model, None)
    for step in range(4):
        work.predict(torch.randn(1, 16, 2, 4, 4), torch.tensor(500.0 - step), BRANCHES)
    # two sources once, the target every step; three contexts once
    assert calls == {"patch": 2 + 4, "text": 3, "keys": 3}
