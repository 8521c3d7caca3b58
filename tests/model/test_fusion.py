"""Every fusion computes its formula, and attends to the streams that its entry names."""

from typing import get_args

import pytest
import torch
from helpers.toy_blocks import DIM, SECONDS, TOKENS, WIDTH, block, run, stack, streams

from diff_v2m.config.model import FusionName
from diff_v2m.model.blocks import HierarchicalBlock
from diff_v2m.model.fusion import FUSIONS


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


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
        other = given._replace(**{kind: getattr(given, kind)._replace(tokens=torch.randn(1, SECONDS, WIDTH))})
        changed = not torch.allclose(run(module, x, t, other), before, atol=1e-6)
        assert changed == getattr(FUSIONS[name], kind), kind


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
