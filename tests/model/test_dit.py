"""The network as a whole: the released defects, their corrections, guidance and condition dropout."""

from dataclasses import replace

import pytest
import torch
from helpers.core_toys import RELEASED, toy_batch, toy_config, toy_model, toy_noise, with_garbage

from diff_v2m.model.dit import LatentDiffusion, at_times
from diff_v2m.model.streams import Stream, Streams

FRAME_RATE = 16000 / 1024


@pytest.fixture(scope="module")
def corrected() -> LatentDiffusion:
    return toy_model()


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def denoise(model: LatentDiffusion, batch, t: float = 0.5, **options) -> torch.Tensor:
    x = toy_noise(len(batch))
    return model.model(x, torch.full((len(batch),), t), model.condition(batch), **options)


# --- corrections


@pytest.mark.parametrize("t", [0.05, 0.5, 0.95])
def test_colour_reaches_the_output(corrected, t):
    batch = toy_batch((30,))
    other = replace(batch, color=batch.color.flip(-1))
    assert (denoise(corrected, batch, t) - denoise(corrected, other, t)).abs().max() > 1e-2


def test_as_released_colour_does_not_reach_the_output():
    model, batch = toy_model(**RELEASED), toy_batch((30,))
    assert torch.equal(denoise(model, batch), denoise(model, replace(batch, color=batch.color.flip(-1))))


def test_as_released_the_colour_slot_holds_the_rhythm():
    """Rhythm then acts at every t, although FiLM_choose would keep it for t ≤ 0.2."""
    batch, leaks = toy_batch((30,)), {}
    for name, switches in (("released", RELEASED), ("corrected", RELEASED | {"color_attention": True})):
        model = toy_model(attention_weight_type="FiLM_choose", **switches)
        conditions = model.condition(batch)
        x, t = toy_noise(1), torch.tensor([0.8])
        predicted, true = (model.model(x, t, conditions.with_rhythm(torch.tensor([use]))) for use in (False, True))
        leaks[name] = (predicted - true).abs().max()
    assert leaks["released"] > 1e-2 and leaks["corrected"] == 0


def change_by_swap(model: LatentDiffusion, first: int = 5, second: int = 20) -> torch.Tensor:
    """How much each second of the output moves when two seconds of rhythm change places, (29,)."""
    conditions = model.condition(toy_batch((30,)))
    rhythm = conditions.streams.rhythm
    tokens = rhythm.tokens.clone()
    tokens[:, [first, second]] = tokens[:, [second, first]]
    swapped = replace(conditions, streams=conditions.streams._replace(rhythm=rhythm._replace(tokens=tokens)))
    x, t = toy_noise(1), torch.tensor([0.5])
    moved = (model.model(x, t, conditions) - model.model(x, t, swapped)).square().mean((0, 1))  # (N,)
    second_of_frame = ((torch.arange(len(moved)) + 0.5) / FRAME_RATE).long()
    return torch.stack([moved[second_of_frame == s].mean() for s in range(29)]).sqrt()


def only_the_aligned_path(model: LatentDiffusion) -> LatentDiffusion:
    """Zero self- and cross-attention: what remains is local in time."""
    for name, parameter in model.model.named_parameters():
        if "attn" in name and "to_out" in name:
            parameter.zero_()
    return model


def test_aligned_input_adds_each_second_to_its_frames():
    change = change_by_swap(only_the_aligned_path(toy_model()))
    assert set(change.topk(2).indices.tolist()) == {5, 20}
    assert change[12] == 0 and change[5] > 1e-2 and change[20] > 1e-2
    assert change[[4, 6, 19, 21]].min() > 0  # interpolated: half a second beyond on both sides
    assert not change[[0, 1, 2, 8, 12, 17, 23, 28]].any()


def test_with_everything_on_the_swapped_seconds_still_move_most():
    change = change_by_swap(toy_model())
    assert set(change.topk(2).indices.tolist()) == {5, 20}
    assert change[[5, 20]].min() > 1.5 * change[12]


def test_time_aligned_attention_alone_depends_on_the_order_of_seconds():
    quiet = {"aligned_input": False}
    assert change_by_swap(toy_model(**quiet)).min() > 1e-4
    assert change_by_swap(toy_model(time_aligned_attention=False, **quiet)).max() < 1e-4


def test_as_released_the_order_of_seconds_has_no_effect():
    assert change_by_swap(toy_model(**RELEASED)).max() < 1e-4


def test_aligned_input_starts_at_zero_and_is_zero_without_conditions(corrected):
    torch.manual_seed(0)
    dit = LatentDiffusion(toy_config()).model.model
    assert not dit.aligned_input.weight.any()
    dit = corrected.model.model
    nothing = streams(corrected).map(lambda s: s._replace(tokens=torch.zeros_like(s.tokens)))
    assert not dit.align(nothing.map(dit.embed), torch.arange(5) + 0.5).any()


def test_the_ablation_without_rhythm_is_one_with_the_aligned_path_too():
    model = toy_model(attention_weight_type="none")
    assert change_by_swap(model).max() == 0


@pytest.mark.parametrize("value", [7.0, float("nan")])
def test_padded_seconds_have_no_effect(corrected, value):
    batch = toy_batch((21,))
    for scale in (1.0, 3.0):
        clean = denoise(corrected, batch, guidance_scale=scale)
        assert torch.equal(denoise(corrected, with_garbage(batch, value), guidance_scale=scale), clean)


def test_a_clip_alone_is_the_clip_in_a_batch(corrected):
    together = denoise(corrected, toy_batch((30, 21, 9)), guidance_scale=3.0)
    assert torch.allclose(denoise(corrected, toy_batch((30,)), guidance_scale=3.0)[0], together[0], atol=1e-4)


# --- guidance and dropout


def streams(model: LatentDiffusion, valid: tuple[int, ...] = (30, 21)) -> Streams:
    return model.model.color_slot(model.condition(toy_batch(valid)).streams)


def test_guidance_extrapolates_from_unconditional_to_conditional(corrected):
    batch = toy_batch((30, 21))
    conditional = denoise(corrected, batch)
    unconditional = denoise(corrected, batch, joint_dropout=1.0)
    guided = denoise(corrected, batch, guidance_scale=3.0)
    assert torch.allclose(guided, unconditional + 3 * (conditional - unconditional), atol=1e-4)
    assert torch.allclose(denoise(corrected, batch, guidance_scale=0.0), unconditional, atol=1e-4)


def test_global_conditions_are_never_dropped(corrected):
    batch = toy_batch((30,))
    later = replace(batch, seconds_total=torch.tensor([9.0]))
    assert not torch.allclose(
        denoise(corrected, batch, joint_dropout=1.0), denoise(corrected, later, joint_dropout=1.0), atol=1e-3
    )


# --- the rest


def test_at_times_interpolates_holds_and_ends():
    tokens = torch.arange(5.0)[None, :, None] + 1  # 1, 2, 3, 4, 5
    times = torch.tensor([0.5, 1.5, 2.5, 3.5, float("nan")])  # the last token is timeless
    stream = Stream(tokens, torch.tensor([[True, True, True, False, True]]), times)
    at = torch.tensor([0.0, 0.5, 1.0, 1.75, 2.9, 3.6])
    assert torch.allclose(at_times(stream, at)[0, :, 0], torch.tensor([1, 1, 1.5, 2.25, 3, 0]), atol=1e-5)


@pytest.mark.parametrize("frames", [469, 10, 1])
@pytest.mark.parametrize("patch_size", [1, 2])
def test_any_number_of_frames(frames, patch_size):
    model = toy_model(patch_size=patch_size)
    x = toy_noise(1, frames)
    out = model.model(x, torch.tensor([0.5]), model.condition(toy_batch((30,))))
    assert out.shape == x.shape and out.isfinite().all()


def test_projected_condition_tokens():
    model = toy_model(project_cond_tokens=True)
    assert model.model.model.to_cond_embed[0].weight.shape == (64, 32)
    assert denoise(model, toy_batch((30,))).isfinite().all()


def test_half_precision_weights_take_and_give_float32():
    model, batch = toy_model().to(torch.bfloat16), toy_batch((30, 21))
    out, exact = denoise(model, batch, guidance_scale=2.0), denoise(toy_model(), batch, guidance_scale=2.0)
    assert out.dtype == torch.float32
    assert (out - exact).square().mean() < 0.05 * exact.square().mean()


def test_released_start_is_at_half_size_and_corrected_is_not():
    torch.manual_seed(0)
    assert LatentDiffusion(toy_config(**RELEASED)).model.model.transformer.layers[0].ff_norm.gamma.unique() == 0.5
    assert LatentDiffusion(toy_config()).model.model.transformer.layers[0].ff_norm.gamma.unique() == 1


def test_a_new_network_ignores_its_conditions():
    """Every branch starts at zero, so training begins without noise from the conditions."""
    torch.manual_seed(0)
    model = LatentDiffusion(toy_config()).eval()
    batch = toy_batch((30,))
    assert torch.equal(denoise(model, batch), denoise(model, replace(batch, semantic=torch.ones(1, 30, 512))))


def test_audio_becomes_latents_becomes_audio(corrected):
    audio = 0.1 * torch.randn(2, 1, 16000)
    latents = corrected.encode(audio, torch.Generator().manual_seed(0))
    assert latents.shape == (2, 64, 16)  # 15.6 frames, the last one padded
    assert torch.equal(latents, corrected.encode(audio, torch.Generator().manual_seed(0)))
    assert corrected.decode(latents).shape == (2, 1, 16 * 1024)
    assert torch.allclose(corrected.decode(latents)[1:], corrected.decode(latents[1:]), atol=1e-5)


def test_can_be_built_without_memory():
    with torch.device("meta"):
        assert LatentDiffusion(toy_config()).model.model.to_timestep_embed[0].weight.is_meta
