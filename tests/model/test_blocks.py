"""Positions, attention, blocks and fusions, each for the property it exists for."""

import math
from typing import get_args

import pytest
import torch

from diff_v2m.config.model import FusionName
from diff_v2m.model.blocks import (
    CrossAttention,
    Encoder,
    FeedForward,
    HierarchicalBlock,
    HierarchicalTransformer,
    LayerNorm,
    SelfAttention,
)
from diff_v2m.model.fusion import FUSIONS
from diff_v2m.model.rotary import Rotary, RotaryEmbedding, time_rotary
from diff_v2m.model.streams import Stream, Streams

DIM, HEAD, WIDTH, TOKENS, ROWS = 64, 32, 32, 10, 6


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def opened(module: torch.nn.Module) -> torch.nn.Module:
    """The module with random values where it starts at zero."""
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.normal_(std=0.2)
    return module


def stream(tokens: torch.Tensor, mask: torch.Tensor | None = None, rotary: Rotary | None = None) -> Stream:
    mask = torch.ones(tokens.shape[:2], dtype=torch.bool) if mask is None else mask
    return Stream(tokens, mask, torch.arange(tokens.shape[1]) + 0.5, rotary)


def streams(count: int = 2, *, color: bool = True) -> Streams:
    semantic, rhythm, third = (stream(torch.randn(count, ROWS, WIDTH)) for _ in range(3))
    return Streams(semantic, rhythm, third if color else None)


def block(fusion: str = "FiLM", **options) -> HierarchicalBlock:
    options = {"pre_norm": False, "fusion_switch_t": 0.2} | options
    return opened(HierarchicalBlock(DIM, HEAD, WIDTH, FUSIONS[fusion], **options))


def run(module: HierarchicalBlock, x: torch.Tensor, t: torch.Tensor, given: Streams) -> torch.Tensor:
    keys_values = module.keys_values(module.fusion.modulate(module, module.fusion.select(given), t))
    return module(x, t, keys_values, RotaryEmbedding(HEAD)(x.shape[1]))


def attend(module: CrossAttention, x: torch.Tensor, given: Stream, rotary: Rotary | None = None) -> torch.Tensor:
    return module(x, module.keys_values(given), rotary)


# --- positions


def test_rotary_scores_depend_on_the_distance_only():
    rotary = RotaryEmbedding(64)(50)
    q, k = torch.randn(64), torch.randn(64)
    scores = rotary(q.expand(1, 1, 50, 64))[0, 0] @ rotary(k.expand(1, 1, 50, 64))[0, 0].T
    assert torch.allclose(scores[3, 1], scores[40, 38], atol=1e-4)
    assert not torch.allclose(scores[3, 1], scores[3, 2], atol=1e-2)


def test_half_a_head_rotates_but_at_least_32_dimensions():
    assert [RotaryEmbedding(head)(1).cos.shape[-1] for head in (16, 32, 40, 64, 128)] == [16, 32, 32, 32, 64]


def test_time_rotary_separates_neighbouring_seconds_up_to_half_a_minute():
    times = torch.arange(30) + 0.5
    rotary = time_rotary(times, 64)
    ones = rotary(torch.ones(1, 1, 30, 64))[0, 0]
    scores = ones @ ones.T
    assert (scores.argmax(1) == torch.arange(30)).all()
    nearest_rival = scores.masked_fill(torch.eye(30).bool(), -math.inf).amax(1)
    assert (scores.diagonal() - nearest_rival > 4).all()  # a softmax over them is all but decided


def test_timeless_tokens_attend_alike_at_all_times():
    rotary = time_rotary(torch.tensor([0.5, 29.5, math.nan]), 64)
    q, k = torch.randn(64), torch.randn(64)
    q, k = rotary(q.expand(1, 1, 3, 64))[0, 0], rotary(k.expand(1, 1, 3, 64))[0, 0]
    scores = q @ k.T
    assert torch.allclose(scores[:, 2], scores[0, 2].expand(3))
    assert torch.allclose(scores[2], scores[2, 0].expand(3))
    assert scores[2, 2] != 0


# --- attention


def test_a_masked_token_is_not_attended_to():
    attention = opened(CrossAttention(DIM, WIDTH, HEAD))
    x, tokens, mask = torch.randn(1, TOKENS, DIM), torch.randn(1, ROWS, WIDTH), torch.ones(1, ROWS, dtype=torch.bool)
    mask[:, 4:] = False
    with_padding = attend(attention, x, stream(tokens, mask))
    tokens[:, 4:] = 1e3
    assert torch.equal(attend(attention, x, stream(tokens, mask)), with_padding)
    assert torch.allclose(attend(attention, x, stream(tokens[:, :4], mask[:, :4])), with_padding, atol=1e-5)


def test_attention_to_zero_tokens_is_exactly_zero():
    attention = opened(CrossAttention(DIM, WIDTH, HEAD))
    silence = stream(torch.zeros(1, ROWS, WIDTH))
    assert not attend(attention, torch.randn(1, TOKENS, DIM), silence).any()


def test_unconditional_clips_get_what_zeros_would_give():
    """Clips beyond those of the stream: the same as zero tokens for them, without computing it."""
    attention, x = opened(CrossAttention(DIM, WIDTH, HEAD)), torch.randn(4, TOKENS, DIM)
    given = streams(2).semantic
    plain, skipped = (attend(attention, x, s) for s in (given.with_unconditional(), given))
    assert torch.allclose(skipped, plain, atol=1e-6) and not skipped[2:].any() and skipped[:2].any()


def test_attention_is_the_textbook_formula():
    attention = opened(SelfAttention(DIM, HEAD))
    x, rotary = torch.randn(1, TOKENS, DIM), RotaryEmbedding(HEAD)(TOKENS)
    q, k, v = (part.reshape(TOKENS, 2, HEAD).transpose(0, 1) for part in attention.to_qkv(x)[0].chunk(3, dim=-1))
    q, k = rotary(q[None])[0], rotary(k[None])[0]
    weights = (q @ k.transpose(1, 2) / HEAD**0.5).softmax(-1)
    expected = (weights @ v).transpose(0, 1).reshape(TOKENS, DIM) @ attention.to_out.weight.T
    assert torch.allclose(attention(x, rotary)[0], expected, atol=1e-5)


def test_time_aligned_attention_receives_each_second_at_its_time():
    """Queries and keys with a constant part, as training can make them: swapping two seconds changes the output at
    those two; without rotary positions in seconds it changes nothing."""
    attention = opened(CrossAttention(DIM, WIDTH, HEAD))
    with torch.no_grad():  # feature 0 is constant; it alone feeds the rotated half of queries and keys
        for linear, width in ((attention.to_q, DIM), (attention.to_kv, WIDTH)):
            rotated = torch.arange(width) % HEAD < HEAD // 2
            linear.weight[:width] = 0
            linear.weight[:width, 0] = 3.0 * rotated
    x, tokens = torch.randn(1, 300, DIM), torch.randn(1, 30, WIDTH)
    x[..., 0] = tokens[..., 0] = 1
    swapped = tokens.clone()
    swapped[:, [5, 20]] = tokens[:, [20, 5]]
    mask, frames = torch.ones(1, 30, dtype=torch.bool), (torch.arange(300) + 0.5) / 10
    keys, queries = time_rotary(torch.arange(30) + 0.5, HEAD), time_rotary(frames, HEAD)

    def change(keys, queries):
        first, second = (attend(attention, x, stream(each, mask, keys), queries) for each in (tokens, swapped))
        return (first - second).norm(dim=-1)[0].unflatten(0, (30, 10)).mean(1)  # (30 seconds,)

    timed = change(keys, queries)
    assert set(timed.topk(2).indices.tolist()) == {5, 20}
    assert timed[[5, 20]].min() > 20 * timed[12]
    assert change(None, None).max() < 1e-5


def test_encoder_ignores_masked_rows():
    encoder = opened(Encoder(16, DIM, 3, depth=2, heads=2))
    x, mask = torch.randn(2, ROWS, 16), torch.ones(2, ROWS, dtype=torch.bool)
    mask[1, 4:] = False
    before = encoder(x, mask)
    x[1, 4:] = 50
    assert torch.equal(encoder(x, mask)[1, :4], before[1, :4])
    assert not torch.allclose(encoder(x)[1, :4], before[1, :4], atol=1e-3)  # as released: no mask


# --- blocks


def silence(module: HierarchicalBlock) -> HierarchicalBlock:
    """Every branch at zero: nothing comes out of attention, FiLM's shift or feed-forward."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "to_out" in name or "ff.2" in name or ("FiLM_beta" in name and ".2." in name):
                parameter.zero_()
    return module


def test_pre_norm_block_without_branches_is_the_identity():
    x, t = 10 * torch.randn(2, TOKENS, DIM), torch.tensor([0.1, 0.9])
    assert torch.equal(run(silence(block(pre_norm=True)), x, t, streams()), x)


def test_released_block_overwrites_the_stream_by_its_norms():
    module, x, t = silence(block()), 10 * torch.randn(2, TOKENS, DIM), torch.tensor([0.1, 0.9])
    normed = module.cross_attend_norm(x)
    assert torch.allclose(run(module, x, t, streams(color=False)), normed, atol=1e-5)
    assert torch.allclose(run(module, x, t, streams()), module.color_norm(normed), atol=1e-5)


def test_layer_norm_is_the_usual_one():
    norm, x = LayerNorm(DIM), torch.randn(3, DIM)
    assert torch.allclose(norm(x), torch.nn.functional.layer_norm(x, (DIM,)))
    assert [name for name, _ in norm.named_parameters()] == ["gamma"]


# --- fusions


def test_config_and_network_know_the_same_fusions():
    assert set(FUSIONS) == set(get_args(FusionName))


def fused(name: str, t: float, **options) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, HierarchicalBlock]:
    module = block(name, **options)
    s, r = torch.randn(1, TOKENS, DIM), torch.randn(1, TOKENS, DIM)
    return FUSIONS[name].combine(module, s, r, torch.tensor([t])), s, r, module


@pytest.mark.parametrize(("t", "expected"), [(0.0, "r"), (0.2, "r"), (0.21, "s"), (1.0, "s")])
def test_choose_switches_above_two_tenths(t, expected):
    out, s, r, _ = fused("choose", t)
    assert torch.equal(out, {"s": s, "r": r}[expected])


def test_the_range_of_rhythm_is_a_config_number():
    out, _, r, _ = fused("choose", 0.6, fusion_switch_t=0.7)
    assert torch.equal(out, r)


def test_averages_and_semantics_alone():
    for name in ("sigmoid", "linear"):
        out, s, r, _ = fused(name, 0.5)
        assert torch.allclose(out, (s + r) / 2)
    for name in ("none", "only_clip"):
        out, s, _, _ = fused(name, 0.5)
        assert torch.equal(out, s)


def test_gate_weighs_by_time():
    out, s, r, module = fused("gate", 0.7)
    a = module.gate(torch.tensor([[0.7]])).sigmoid()
    assert torch.allclose(out, a * s + (1 - a) * r, atol=1e-6)


def test_film_sum_and_choice_share_their_formula():
    out, s, r, module = fused("FiLM", 0.7)
    te = module.t_linear(torch.tensor([[0.7]]))
    semantic = module.FiLM_gamma_sem(te) * s + module.FiLM_beta_sem(te)
    rhythm = module.FiLM_gamma_rhy(te) * r + module.FiLM_beta_rhy(te)
    assert torch.allclose(out, semantic + rhythm, atol=1e-5)
    assert (module.FiLM_gamma_sem(te) > 0).all() and (module.FiLM_gamma_sem(te) < 1).all()


@pytest.mark.parametrize("name", sorted(FUSIONS))
def test_streams_that_each_fusion_attends_to(name):
    """Semantics always; rhythm and colour as its entry says."""
    module, x, t = block(name), torch.randn(1, TOKENS, DIM), torch.tensor([0.1])
    given = streams(1)
    before = run(module, x, t, given)
    for kind in ("rhythm", "color"):
        other = given._replace(**{kind: getattr(given, kind)._replace(tokens=torch.randn(1, ROWS, WIDTH))})
        changed = not torch.allclose(run(module, x, t, other), before, atol=1e-6)
        assert changed == getattr(FUSIONS[name], kind), kind


def stack(fusion: str, depth: int = 3) -> HierarchicalTransformer:
    return opened(
        HierarchicalTransformer(8, DIM, depth, DIM // HEAD, WIDTH, FUSIONS[fusion], pre_norm=True, fusion_switch_t=0.2)
    )


def test_prefilm_compounds_over_the_layers_without_touching_what_it_was_given():
    transformer, given, t = stack("preFiLM"), streams(), torch.tensor([0.3, 0.8])
    tokens = given.semantic.tokens.clone()
    layers = transformer.keys_values(given, t)
    assert torch.equal(given.semantic.tokens, tokens)
    expected = tokens
    for layer, keys_values in zip(transformer.layers, layers, strict=True):
        te = layer.t_linear(t[:, None])[:, None]
        expected = layer.FiLM_gamma_sem(te) * expected + layer.FiLM_beta_sem(te)
        keys = layer.cross_attn1.keys_values(given.semantic._replace(tokens=expected)).keys
        assert torch.allclose(keys_values.semantic.keys, keys, atol=1e-5)


@pytest.mark.parametrize("fusion", ["FiLM_choose", "preFiLM_gate"])
def test_recomputing_layers_changes_no_gradient(fusion):
    transformer, given, t = stack(fusion).train(), streams(), torch.tensor([0.1, 0.8])
    x, token, gradients = torch.randn(2, TOKENS, 8), torch.randn(2, DIM), []
    rotary = transformer.rotary_pos_emb(1 + TOKENS)
    for transformer.gradient_checkpointing in (False, True):
        transformer.zero_grad()
        transformer(x, t, token, transformer.keys_values(given, t), rotary=rotary).square().sum().backward()
        gradients.append([p.grad.clone() for p in transformer.parameters() if p.grad is not None])
    assert len(gradients[0]) > 50
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.allclose(plain, recomputed, rtol=1e-4, atol=1e-5)


def test_feed_forward_in_place_is_the_plain_one_and_leaves_its_input():
    layer, x = opened(FeedForward(DIM)), torch.randn(2, TOKENS, DIM)
    before, plain = x.clone(), layer(x)
    with torch.no_grad():
        assert torch.allclose(layer(x), plain, atol=1e-6)
    assert torch.equal(x, before) and plain.requires_grad
