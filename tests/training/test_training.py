"""The training objective, its schedules and the moving average, by their numbers."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.data_folder import dataset_config
from helpers.toys import ROOT
from helpers.training_toys import TheSet, make_place, raw_config

from diff_v2m.config import InverseLRConfig, OptimizerConfig, RhythmCurriculum, load_model_config, parse_model_config
from diff_v2m.data.loader import build_dataloader
from diff_v2m.training.diffusion_module import DiffusionModule, probability_of_true_rhythm
from diff_v2m.training.losses import LossByTime, Losses, rhythm_correlation, rhythm_loss, training_losses
from diff_v2m.training.optim import build_optimizer, cosine_lr, inverse_lr

RELEASED_KEYS = ROOT / "tests/reference/a_state_dict/released_config_lightning_state_dict_keys.json"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return make_place(tmp_path_factory.mktemp("training"))


# ------------------------------------------------------------------------------------------------- objective


@pytest.mark.parametrize(("epoch", "expected"), [(0, 1), (9, 1), (10, 1), (15, 0.75), (20, 0.5), (30, 0), (40, 0)])
def test_curriculum_moves_from_true_to_predicted_rhythm(epoch, expected):
    assert probability_of_true_rhythm(epoch, RhythmCurriculum()) == pytest.approx(expected)


def test_a_curriculum_without_length_changes_at_once():
    curriculum = RhythmCurriculum(start_epoch=3, end_epoch=3)
    assert [probability_of_true_rhythm(epoch, curriculum) for epoch in (2, 3, 4)] == [1, 0, 0]
    assert probability_of_true_rhythm(0, RhythmCurriculum(start_epoch=0, end_epoch=0)) == 0


def test_a_curriculum_may_keep_a_share_of_true_rhythm():
    curriculum = RhythmCurriculum(start_epoch=10, end_epoch=30, true_share=0.4)
    assert [probability_of_true_rhythm(epoch, curriculum) for epoch in (0, 20, 30, 40)] == pytest.approx(
        [1, 0.7, 0.4, 0.4]
    )
    assert probability_of_true_rhythm(0, RhythmCurriculum(start_epoch=0, end_epoch=0, true_share=0.4)) == 0.4


def with_rhythm(predicted, true, mask) -> SimpleNamespace:
    """Conditions of which only the rhythm loss is of interest."""
    return SimpleNamespace(predicted_rhythm=predicted, true_rhythm=true, true_rhythm_mask=mask)


@pytest.mark.parametrize("dims", [1, 16])
def test_every_clip_trains_the_rhythm_predictor_and_padding_does_not(dims):
    predicted = torch.randn(4, 30, dims, requires_grad=True)
    true = torch.randn(4, 30, dims)
    mask = torch.arange(30) < torch.tensor([30, 21, 1, 12])[:, None]
    loss = rhythm_loss(with_rhythm(predicted, true, mask))
    loss.backward()
    assert loss.item() == pytest.approx(float((predicted - true).detach()[mask].square().mean()))
    assert predicted.grad[mask].abs().min() > 0 and predicted.grad[~mask].abs().max() == 0


def test_rhythm_loss_without_a_valid_second_is_zero():
    ones = torch.ones(1, 30, 1)
    assert rhythm_loss(with_rhythm(ones, -ones, torch.zeros(1, 30, dtype=torch.bool))) == 0


def test_rhythm_correlation_is_averaged_over_clips():
    true, mask = torch.randn(3, 30, 2), torch.arange(30) < torch.tensor([30, 7, 12])[:, None]
    predicted = torch.stack([2 * true[0] + 1, -true[1], torch.randn(30, 2)]).masked_fill(~mask[..., None], 9.0)
    last = np.corrcoef(predicted[2][mask[2]].flatten(), true[2][mask[2]].flatten())[0, 1]
    expected = (1 - 1 + last) / 3
    assert float(rhythm_correlation(with_rhythm(predicted, true, mask))) == pytest.approx(expected, abs=1e-5)
    flat = with_rhythm(torch.ones(1, 30, 2), true[:1], mask[:1])
    assert float(rhythm_correlation(flat)) == pytest.approx(0, abs=1e-5)


def test_loss_by_time_sorts_clips_into_fifths():
    by_time = LossByTime(torch.device("cpu"))
    output = torch.tensor([1.0, 2.0, 3.0])[:, None, None].expand(3, 4, 5)
    losses = Losses(*torch.zeros(3), output, torch.zeros(3, 4, 5))
    by_time.add(losses, torch.tensor([0.0, 0.19, 0.99999994]))
    by_time.add(losses, torch.tensor([0.5, 0.5, 0.5]))
    assert by_time.take(lambda sums: 2 * sums) == pytest.approx(
        {"train/mse_t0.1": 2.5, "train/mse_t0.5": 14 / 3, "train/mse_t0.9": 9}
    )
    assert by_time.take(lambda sums: sums) == {}


def test_timesteps_are_uniform_or_logit_normal():
    def draw(sampler: str) -> torch.Tensor:
        raw = raw_config()
        raw["training"]["timestep_sampler"] = sampler
        module = DiffusionModule(parse_model_config(raw), seed=3)
        module.on_train_start()
        return module.draw_timesteps(1024)

    uniform, normal = draw("uniform"), draw("logit_normal")
    module = DiffusionModule(parse_model_config(raw_config()), seed=3)
    module.on_train_start()
    drawn = torch.cat([module.draw_timesteps(2, skipped=1), module.draw_timesteps(2)])
    assert drawn.equal(uniform[[0, 1, 3, 4]]) and module.timesteps_drawn == 5
    assert torch.histc(uniform, 8, 0, 1).tolist() == [128] * 8
    assert float(torch.logit(normal).mean()) == pytest.approx(0, abs=0.02)
    assert float(torch.logit(normal).std()) == pytest.approx(1, abs=0.02)


def test_loss_is_the_error_of_v_plus_the_error_of_rhythm(place):
    module = DiffusionModule(load_model_config(place / "model.json"))
    batch = next(iter(build_dataloader(dataset_config(TheSet(place)), module.config, batch_size=2)))
    conditions = module.diffusion.condition(batch)
    latents, noise, t = torch.randn(2, 64, 63), torch.randn(2, 64, 63), torch.tensor([0.0, 1.0])
    losses = training_losses(module.diffusion.model, conditions, latents, noise, t)
    # at t = 0 there is no noise and v = ε, at t = 1 nothing but noise and v = −z
    assert torch.allclose(losses.target, torch.stack([noise[0], -latents[1]]), atol=1e-6)
    assert losses.mse.item() == pytest.approx(float((losses.output - losses.target).square().mean()), rel=1e-5)
    assert float(losses.total) == pytest.approx(float(losses.mse + losses.rhythm))
    losses.total.backward()
    assert all(parameter.grad is None for parameter in module.diffusion.pretransform.parameters())
    predictor = module.diffusion.conditioner.conditioners["semantic"].extractor
    assert predictor.transformer.project_out.weight.grad.any()


# -------------------------------------------------------------------------------------------------- schedules


def test_released_learning_rate():
    """As released: 1e-4 · (1 − .99^(k+1)) / √(1 + k/1e6)."""
    released = load_model_config(ROOT / "configs/model/diff_v2m.json").training.optimizer_configs["diffusion"]
    settings = build_optimizer([torch.nn.Parameter(torch.zeros(1))], released, total_steps=10)
    optimizer, schedule = settings["optimizer"], settings["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(1001):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates[0] == pytest.approx(1e-6) and rates[1] == pytest.approx(1.99e-6)
    assert rates[1000] == pytest.approx(9.9946e-5, rel=1e-5)
    assert optimizer.defaults["betas"] == (0.9, 0.999) and optimizer.defaults["weight_decay"] == 1e-3
    assert settings["lr_scheduler"]["interval"] == "step"


def test_inverse_lr_without_warm_up_falls_at_once():
    factor = inverse_lr(InverseLRConfig(inv_gamma=100, power=0.5), total_steps=0)
    assert factor(0) == 1 and factor(300) == pytest.approx(0.5)


def test_cosine_lr_warms_up_and_ends_at_its_floor():
    training = parse_model_config(raw_config()).training.optimizer_configs["diffusion"]
    factor = cosine_lr(training.scheduler.config, total_steps=5)
    assert [factor(step) for step in (0, 1, 2)] == [0.5, 1, 1]
    assert factor(51) == pytest.approx(0.5) and factor(100) == pytest.approx(0) and factor(200) == pytest.approx(0)
    schedule = training.scheduler.config.model_copy(update={"final_lr": 0.002, "total_steps": None})
    scheduler = training.scheduler.model_copy(update={"config": schedule})
    floored = training.model_copy(update={"scheduler": scheduler})
    settings = build_optimizer([torch.nn.Parameter(torch.zeros(1))], floored, total_steps=6)
    for _ in range(8):
        settings["optimizer"].step()
        settings["lr_scheduler"]["scheduler"].step()
    assert settings["lr_scheduler"]["scheduler"].get_last_lr() == [pytest.approx(0.002)]


def test_without_a_schedule_the_rate_is_constant():
    recipe = parse_model_config(raw_config()).training.optimizer_configs["diffusion"]
    config = OptimizerConfig(optimizer=recipe.optimizer)
    assert list(build_optimizer([torch.nn.Parameter(torch.zeros(1))], config, 10)) == ["optimizer"]


def test_the_released_training_wrapper_key_by_key():
    with torch.device("meta"):
        module = DiffusionModule(load_model_config(ROOT / "configs/model/diff_v2m.json"))
    state = module.state_dict()
    ours = {name: [list(tensor.shape), str(tensor.dtype).removeprefix("torch.")] for name, tensor in state.items()}
    theirs = {name: list(value) for name, value in json.loads(RELEASED_KEYS.read_text()).items()}
    assert len(ours) == 2517 and ours == theirs
