"""Batch → conditions: streams, masks, the rhythm predictor, and the corrections of the conditioning."""

from dataclasses import replace

import pytest
import torch
from helpers.core_toys import SECONDS, toy_batch, toy_config, toy_model, with_garbage

from diff_v2m.common.errors import InputError
from diff_v2m.config import parse_model_config
from diff_v2m.model.conditioners import Conditioners, standardize
from diff_v2m.training.losses import rhythm_loss

AS_RELEASED = {
    "mask_padding": False,
    "restandardize_rhythm": False,
    "rhythm_gradient": False,
    "unused_projections": True,
}


def built(raw: dict) -> Conditioners:
    config = parse_model_config(raw)
    return Conditioners(config.model, latent_rate=config.latent_rate)


@pytest.fixture(scope="module")
def corrected() -> Conditioners:
    return toy_model().conditioner


@pytest.fixture(scope="module")
def released() -> Conditioners:
    return toy_model(conditioning=AS_RELEASED).conditioner


# --- streams


def test_streams_their_masks_and_their_times(corrected):
    conditions = corrected(toy_batch((30, 21)))
    assert conditions.streams.semantic.tokens.shape == conditions.streams.rhythm.tokens.shape == (2, SECONDS + 2, 32)
    assert conditions.streams.color.tokens.shape == (2, SECONDS, 32)
    assert conditions.global_cond.shape == (2, 3 * 32)
    assert conditions.streams.semantic.mask.sum(1).tolist() == [
        32,
        23,
    ]  # the two tokens of start and length always count
    assert conditions.streams.color.mask.sum(1).tolist() == [30, 21]
    assert conditions.streams.semantic.times[:2].tolist() == [0.5, 1.5]
    assert conditions.streams.semantic.times[SECONDS:].isnan().all()


def test_semantics_as_a_global_condition_are_the_mean_over_the_clip():
    raw = toy_config().raw
    raw["model"]["diffusion"]["global_cond_ids"] = ["class", "semantic"]
    raw["model"]["diffusion"]["config"]["global_cond_dim"] = 2 * 32
    batch = toy_batch((30, 21))
    conditions = built(raw)(with_garbage(batch, 7.0))
    mean = conditions.streams.semantic.tokens[1, :21].mean(0)
    assert torch.allclose(conditions.global_cond[1, 32:], mean, atol=1e-5)


def test_conditioners_that_no_id_list_names_are_not_built():
    raw = toy_config().raw
    raw["model"]["conditioning"]["configs"].append({"id": "prompt", "type": "t5", "config": {"max_length": 128}})
    raw["model"]["diffusion"]["cross_attention_cond_ids"] = ["semantic", "rhythm"]
    module = built(raw)
    assert set(module.conditioners) == {"semantic", "rhythm", "class", "seconds_start", "seconds_total"}
    conditions = module(toy_batch())
    assert conditions.streams.color is None and conditions.streams.semantic.tokens.shape[1] == SECONDS


def test_without_the_rhythm_id_the_rhythm_stream_holds_only_the_seconds_tokens():
    raw = toy_config().raw
    raw["model"]["diffusion"]["cross_attention_cond_ids"].remove("rhythm")
    conditions = built(raw)(toy_batch())
    assert conditions.streams.rhythm.tokens.shape[1] == 2 and conditions.streams.rhythm.mask.all()
    assert conditions.predicted_rhythm.shape == (2, SECONDS, 1)


def test_missing_colour_is_an_error_that_names_the_clip(corrected):
    with pytest.raises(InputError, match=r"clip0.*video_color"):
        corrected(replace(toy_batch((30,)), color=None))


def test_generating_needs_no_soundtrack(corrected):
    conditions = corrected(replace(toy_batch(), rhythm=None))
    assert conditions.true_rhythm is None
    with pytest.raises(ValueError, match="rhythm targets"):
        conditions.with_rhythm(torch.tensor([True, False]))


def test_true_or_predicted_rhythm_is_chosen_per_clip(corrected):
    batch = toy_batch((30, 21))
    batch.rhythm_mask = torch.arange(SECONDS).expand(2, -1) < 12
    conditions = corrected(batch)
    mixed = conditions.with_rhythm(torch.tensor([True, False]))
    assert torch.equal(mixed.streams.rhythm.tokens[0], conditions.true_rhythm_stream.tokens[0])
    assert mixed.streams.rhythm.mask[0].sum() == 12 + 2
    assert torch.equal(mixed.streams.rhythm.tokens[1], conditions.streams.rhythm.tokens[1])
    assert mixed.streams.rhythm.mask[1].sum() == 21 + 2


def test_numbers_and_classes_out_of_range_are_clamped(corrected):
    far = replace(toy_batch((30,)), seconds_total=torch.tensor([99.0]), class_label=torch.tensor([2]))
    edge = replace(toy_batch((30,)), seconds_total=torch.tensor([30.0]), class_label=torch.tensor([2]))
    assert torch.equal(corrected(far).global_cond, corrected(edge).global_cond)


def test_unused_projections_exist_only_as_released(corrected, released):
    names = [name for name, _ in released.named_parameters() if ".proj_out." in name]
    assert len(names) == 6
    assert not [name for name, _ in corrected.named_parameters() if ".proj_out." in name]


def test_hellinger_gives_histograms_unit_scale(corrected):
    seen = []
    handle = corrected.conditioners["color"].proj_out1.register_forward_hook(lambda _, args, __: seen.append(args[0]))
    corrected(toy_batch((30,)))
    handle.remove()
    assert torch.allclose(seen[0].square().mean(-1), torch.ones(1, SECONDS), atol=1e-4)


# --- standardisation


def test_standardize_over_valid_seconds():
    values, mask = torch.randn(2, 10, 3) * 5 + 2, torch.ones(2, 10, dtype=torch.bool)
    mask[1, 6:] = False
    z = standardize(values, mask)
    assert torch.allclose(z[1, :6].mean(), torch.tensor(0.0), atol=1e-5)
    assert torch.allclose(z[1, :6].std(), torch.tensor(1.0), atol=1e-4)
    assert not z[1, 6:].any()
    assert torch.allclose(standardize(values)[0], (values[0] - values[0].mean()) / (values[0].std() + 1e-6), atol=1e-5)


@pytest.mark.parametrize("values", [torch.zeros(1, 5, 1), torch.full((1, 5, 1), 0.3)])
def test_a_flat_rhythm_has_finite_values_and_gradients(values):
    values.requires_grad_()
    for mask in (None, torch.tensor([[True, False, False, False, False]])):
        z = standardize(values, mask)
        z.sum().backward()
        assert z.abs().max() < 0.1 and values.grad.isfinite().all()


# --- corrections


@pytest.mark.parametrize("value", [7.0, float("nan")])
def test_padded_seconds_have_no_effect(corrected, value):
    batch = toy_batch((30, 21, 1))
    clean, dirty = corrected(batch), corrected(with_garbage(batch, value))
    valid = batch.mask[..., None]
    streams = zip((*clean.streams, clean.true_rhythm_stream), (*dirty.streams, dirty.true_rhythm_stream), strict=True)
    for ours, theirs in streams:
        assert torch.equal(ours.tokens[:, :SECONDS] * valid, theirs.tokens[:, :SECONDS] * valid)
    assert torch.equal(clean.predicted_rhythm * valid, dirty.predicted_rhythm * valid)
    assert torch.equal(clean.true_rhythm, dirty.true_rhythm)


def test_as_released_padding_changes_the_predicted_rhythm(released):
    batch = toy_batch((21,))
    clean, dirty = released(batch), released(with_garbage(batch, 7.0))
    assert (clean.predicted_rhythm - dirty.predicted_rhythm)[:, :21].abs().max() > 1e-2


def test_how_far_a_clip_is_padded_does_not_matter(corrected):
    batch = toy_batch((21,))
    fields = ("semantic", "color", "scene_cut", "pseudo_beats", "mask", "rhythm")
    short = replace(batch, **{name: getattr(batch, name)[:, :21] for name in fields})
    long, short = corrected(batch), corrected(short)
    assert torch.allclose(long.predicted_rhythm[:, :21], short.predicted_rhythm, atol=1e-5)


def test_a_clip_alone_is_the_clip_in_a_batch(corrected):
    together, alone = corrected(toy_batch((30, 21, 9))), corrected(toy_batch((21,), seed=1))
    alone_again = corrected(replace(toy_batch((21,), seed=1), class_label=torch.tensor([1])))
    assert torch.allclose(together.predicted_rhythm[1], alone_again.predicted_rhythm[0], atol=1e-5)
    assert torch.allclose(together.streams.semantic.tokens[1], alone.streams.semantic.tokens[0], atol=1e-5)
    assert torch.allclose(together.streams.color.tokens[1], alone.streams.color.tokens[0], atol=1e-5)


def test_predicted_rhythm_is_restandardised(corrected):
    seen = []
    handle = corrected.conditioners["rhythm"].register_forward_hook(lambda _, args, __: seen.append(args[0]))
    conditions = corrected(toy_batch((21,)))
    handle.remove()
    received = seen[0][0, :21]
    assert received.mean().abs() < 1e-5 and abs(received.std() - 1) < 1e-4
    assert abs(conditions.predicted_rhythm[0, :21].std() - 1) > 1e-2  # what the loss sees is the raw prediction


def test_every_clip_of_a_batch_trains_the_predictor(corrected):
    batch = toy_batch((30, 21, 25))
    batch.semantic.requires_grad_()
    rhythm_loss(corrected(batch)).backward()
    assert (batch.semantic.grad.abs().amax((1, 2)) > 0).all()
    assert not batch.semantic.grad[~batch.mask].any()


@pytest.mark.parametrize("enabled", [True, False])
def test_the_generator_trains_the_predictor_only_with_rhythm_gradient(enabled):
    module = toy_model(conditioning={"rhythm_gradient": enabled}).conditioner
    module(toy_batch()).streams.rhythm.tokens.square().sum().backward()
    for parameter in (
        module.conditioners["semantic"].extractor.transformer.project_out.weight,
        module.conditioners["rhythm"].proj_out1.weight,
    ):
        assert (parameter.grad is not None and bool(parameter.grad.any())) == enabled
