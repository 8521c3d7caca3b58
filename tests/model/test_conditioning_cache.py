"""Sampling from a conditioning cache equals computing everything for both halves at every step."""

import pytest
import torch
from helpers.core_toys import RELEASED, toy_batch, toy_model, toy_noise
from torch.utils.flop_counter import FlopCounterMode

from diff_v2m.model.dit import LatentDiffusion
from diff_v2m.model.fusion import FUSIONS
from diff_v2m.model.streams import Stream

FRAMES = 40
COLORS = {"released": RELEASED, "corrected": {}}


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def plain(model: LatentDiffusion, x: torch.Tensor, t: torch.Tensor, conditions, scale: float) -> torch.Tensor:
    """Guidance by the book: one batch of two halves, the second with zero tokens, nothing skipped."""
    dit, streams = model.model.model, model.model.color_slot(conditions.streams)
    both = streams.map(lambda s: Stream(torch.cat([s.tokens, 0 * s.tokens]), s.mask.repeat(2, 1), s.times))
    cache = dit.precompute(both, conditions.global_cond.repeat(2, 1), x.shape[-1])
    conditional, unconditional = dit(x.repeat(2, 1, 1), t.repeat(2), cache).chunk(2)
    return unconditional + scale * (conditional - unconditional)


def close(ours: torch.Tensor, expected: torch.Tensor) -> bool:
    """Within 1e-5 of the output's size; outputs of these random weights reach 20."""
    return (ours - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("switches", COLORS)
@pytest.mark.parametrize("fusion", sorted(FUSIONS))
def test_one_cache_serves_every_step(fusion, switches):
    model = toy_model(attention_weight_type=fusion, **COLORS[switches])
    conditions, x = model.condition(toy_batch((30, 21))), toy_noise(2, FRAMES)
    cache = model.model.precompute(conditions, FRAMES)
    for time in (1.0, 0.21, 0.2, 0.0):
        t = torch.full((2,), time)
        for scale in (1.0, 3.0):
            expected = plain(model, x, t, conditions, scale)
            ours = model.model.denoise(x, t, cache, guidance_scale=scale)
            assert close(ours, expected), (time, scale)
            assert close(model.model(x, t, conditions, guidance_scale=scale), expected), (time, scale)


@pytest.mark.parametrize("fusion", ["FiLM_choose", "choose"])
def test_clips_on_both_sides_of_fusion_switch_t_take_their_own_side(fusion):
    model = toy_model(attention_weight_type=fusion)
    conditions, x, t = model.condition(toy_batch((30, 21))), toy_noise(2, FRAMES), torch.tensor([0.1, 0.7])
    ours = model.model.denoise(x, t, model.model.precompute(conditions, FRAMES), guidance_scale=3.0)
    assert close(ours, plain(model, x, t, conditions, 3.0))


def work(model: LatentDiffusion, t: float, scale: float = 1.0) -> int:
    """Multiplications of one denoising step, as torch counts them."""
    cache = model.model.precompute(model.condition(toy_batch((30,))), FRAMES)
    with FlopCounterMode(display=False) as counter:
        model.model.denoise(toy_noise(1, FRAMES), torch.tensor([t]), cache, guidance_scale=scale)
    return counter.get_total_flops()


def test_a_step_computes_only_what_it_needs():
    """Of three cross-attentions in two halves two remain in one, and none of them makes keys and values."""
    model = toy_model(attention_weight_type="FiLM_choose", **RELEASED)
    layers = model.model.model.transformer.layers
    made = []
    for layer in layers:
        for name in ("cross_attn0", "cross_attn1", "cross_attn2"):
            attention = getattr(layer, name)
            attention.to_q.register_forward_hook(lambda _, args, __, n=name: made.append((n, len(args[0]))))
            attention.to_kv.register_forward_hook(lambda *_: made.append("keys and values"))
    cache = model.model.precompute(model.condition(toy_batch((30, 21))), FRAMES)
    assert made == ["keys and values"] * 3 * len(layers)
    for t, branch in ((1.0, "cross_attn1"), (0.2, "cross_attn2")):
        made.clear()
        model.model.denoise(toy_noise(2, FRAMES), torch.full((2,), t), cache, guidance_scale=3.0)
        assert made == [("cross_attn0", 2), (branch, 2)] * len(layers)


def test_guidance_that_has_no_effect_costs_nothing():
    model = toy_model()
    assert work(model, 0.5, scale=1.0) < 0.6 * work(model, 0.5, scale=3.0)


def test_lower_precision_keeps_angles_exact():
    model, exact = toy_model(), toy_model()
    model.model.lower_precision(torch.bfloat16)
    dit = model.model.model
    assert {p.dtype for p in dit.parameters()} == {torch.bfloat16, torch.float32}
    assert torch.equal(dit.timestep_features.weight, exact.model.model.timestep_features.weight)
    assert torch.equal(dit.transformer.rotary_pos_emb.inv_freq, exact.model.model.transformer.rotary_pos_emb.inv_freq)
    x, t = toy_noise(2, FRAMES), torch.full((2,), 0.5)
    ours, theirs = (
        m.model.denoise(x, t, m.model.precompute(m.condition(toy_batch((30, 21))), FRAMES), guidance_scale=2.0)
        for m in (model, exact)
    )
    assert ours.dtype == torch.float32
    assert (ours - theirs).square().mean() < 0.01 * theirs.square().mean()
