"""Properties of attention, feed-forward and blocks."""

import pytest
import torch
from helpers.toy_blocks import DIM, HEAD, SECONDS, TOKENS, WIDTH, attend, block, opened, run, stack, stream, streams

from diff_v2m.model.blocks import CrossAttention, Encoder, FeedForward, HierarchicalBlock, LayerNorm, SelfAttention
from diff_v2m.model.rotary import RotaryEmbedding, time_rotary


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_a_masked_token_is_not_attended_to():
    attention = opened(CrossAttention(DIM, WIDTH, HEAD))
    x, tokens = torch.randn(1, TOKENS, DIM), torch.randn(1, SECONDS, WIDTH)
    mask = torch.arange(SECONDS)[None] < 4
    with_padding = attend(attention, x, stream(tokens, mask))
    tokens[:, 4:] = 1e3
    assert torch.equal(attend(attention, x, stream(tokens, mask)), with_padding)
    assert torch.allclose(attend(attention, x, stream(tokens[:, :4], mask[:, :4])), with_padding, atol=1e-5)


def test_attention_to_zero_tokens_is_exactly_zero():
    attention = opened(CrossAttention(DIM, WIDTH, HEAD))
    silence = stream(torch.zeros(1, SECONDS, WIDTH))
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
    those two; without rotary positions in seconds it changes nothing.
    """
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
    keys, queries = time_rotary(torch.arange(30) + 0.5, HEAD, 2.0), time_rotary(frames, HEAD, 2.0)

    def change(keys, queries):
        first, second = (attend(attention, x, stream(each, mask, keys), queries) for each in (tokens, swapped))
        return (first - second).norm(dim=-1)[0].unflatten(0, (30, 10)).mean(1)  # (30 seconds,)

    timed = change(keys, queries)
    assert set(timed.topk(2).indices.tolist()) == {5, 20}
    assert timed[[5, 20]].min() > 20 * timed[12]
    assert change(None, None).max() < 1e-5


def test_encoder_ignores_masked_tokens():
    encoder = opened(Encoder(16, DIM, 3, depth=2, heads=2))
    x, mask = torch.randn(2, SECONDS, 16), torch.ones(2, SECONDS, dtype=torch.bool)
    mask[1, 4:] = False
    before = encoder(x, mask)
    x[1, 4:] = 50
    assert torch.equal(encoder(x, mask)[1, :4], before[1, :4])
    assert not torch.allclose(encoder(x)[1, :4], before[1, :4], atol=1e-3)  # as released: no mask


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
