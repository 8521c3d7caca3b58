"""The training objective by its numbers, and real runs of train.py on a toy data set: fit, interrupt, go on, load."""

import copy
import csv
import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from data_folder import Folder, dataset_config
from toys import RATE, WINDOW, toy_raw_config

import train
from diff_v2m.checkpoints import load_model
from diff_v2m.config import InverseLRConfig, OptimizerConfig, RhythmCurriculum, load_model_config, parse_model_config
from diff_v2m.dataset import build_dataloader
from diff_v2m.errors import InputError
from diff_v2m.schedules import build_optimizer, cosine_lr, inverse_lr
from diff_v2m.training import (
    DiffusionModule,
    moving_average,
    probability_of_true_rhythm,
    rhythm_loss,
    training_losses,
)

ROOT = Path(__file__).resolve().parents[1]
RELEASED_KEYS = ROOT / "tests/reference/a_state_dict/released_config_lightning_state_dict_keys.json"


def raw_config() -> dict:
    """The toy model, in the middle of its curriculum from the first epoch on and with both kinds of dropout."""
    raw = toy_raw_config(depth=1)
    training = raw["training"]
    training |= {"cfg_dropout_prob": 0.3, "joint_dropout_prob": 0.2}
    training["rhythm_curriculum"] = {"start_epoch": 0, "end_epoch": 6}
    training["optimizer_configs"]["diffusion"] = {
        "optimizer": {"type": "AdamW", "config": {"lr": 0.001}},
        "scheduler": {"type": "CosineLR", "config": {"warmup_steps": 2, "total_steps": 100}},
    }
    return raw


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """model.json, data.json and, in set/, six clips of which two are longer than the window."""
    root = tmp_path_factory.mktemp("training")
    (root / "model.json").write_text(json.dumps(raw_config()))
    folder = Folder(root)
    for number in range(6):
        folder.add(f"c{number}", number, seconds=WINDOW + 3 * (number > 3), clicks=(0.5, 1.5 + number % 3), rate=RATE)
    data = {"dataset_type": "audio_video_dir", "rhythm_type": "odf", "random_crop": True, "datasets": [folder.entry()]}
    (root / "data.json").write_text(json.dumps(data))
    (root / "clips").symlink_to(folder.root)
    return root


class TheSet:
    """The data set of `place`, for `dataset_config`."""

    def __init__(self, place: Path):
        self.place = place

    def entry(self) -> dict:
        return json.loads((self.place / "data.json").read_text())["datasets"][0]


def run(place: Path, folder: Path, *flags: object) -> Path:
    """train.py on the toy data; → the run's folder."""
    train.main([
        "--model-config", str(place / "model.json"), "--dataset-config", str(place / "data.json"),
        "--save-dir", str(folder.parent), "--name", folder.name, "--batch-size", "2", "--num-workers", "0",
        "--accelerator", "cpu", "--precision", "32", "--log-every", "1", *map(str, flags),
    ])  # fmt: skip
    return folder


def logged(folder: Path, column: str = "train/loss") -> dict[int, float]:
    """Step → value, over all pieces of a run; steps count from 0."""
    values = {}
    for path in sorted(folder.glob("logs/version_*/metrics.csv")):
        with path.open() as file:
            values |= {int(row["step"]): float(row[column]) for row in csv.DictReader(file) if row.get(column)}
    return values


def checkpoint(folder: Path, name: str = "last.ckpt") -> dict:
    return torch.load(folder / "checkpoints" / name, weights_only=True)


@pytest.fixture(scope="module")
def uninterrupted(place, tmp_path_factory) -> Path:
    """Seven steps: two epochs of three batches, and one more."""
    return run(place, tmp_path_factory.mktemp("runs") / "whole", "--max-steps", 7, "--checkpoint-every", 100)


# ------------------------------------------------------------------------------------------------- objective


@pytest.mark.parametrize(("epoch", "expected"), [(0, 1), (9, 1), (10, 1), (15, 0.75), (20, 0.5), (30, 0), (40, 0)])
def test_curriculum_moves_from_true_to_predicted_rhythm(epoch, expected):
    assert probability_of_true_rhythm(epoch, RhythmCurriculum()) == pytest.approx(expected)


def test_curriculum_without_length_is_a_switch():
    curriculum = RhythmCurriculum(start_epoch=3, end_epoch=3)
    assert [probability_of_true_rhythm(epoch, curriculum) for epoch in (2, 3, 4)] == [1, 1, 0]


def with_rhythm_rows(predicted, true, mask) -> SimpleNamespace:
    """Conditions of which only the rhythm loss is of interest."""
    return SimpleNamespace(predicted_rhythm=predicted, true_rhythm=true, true_rhythm_mask=mask)


@pytest.mark.parametrize("dims", [1, 16])
def test_every_clip_trains_the_rhythm_predictor_and_padding_does_not(dims):
    predicted = torch.randn(4, 30, dims, requires_grad=True)
    true = torch.randn(4, 30, dims)
    mask = torch.arange(30) < torch.tensor([30, 21, 1, 12])[:, None]
    loss = rhythm_loss(with_rhythm_rows(predicted, true, mask))
    loss.backward()
    assert loss.item() == pytest.approx(float((predicted - true).detach()[mask].square().mean()))
    assert predicted.grad[mask].abs().min() > 0 and predicted.grad[~mask].abs().max() == 0


def test_rhythm_loss_without_a_valid_row_is_zero():
    rows = torch.ones(1, 30, 1)
    assert rhythm_loss(with_rhythm_rows(rows, -rows, torch.zeros(1, 30, dtype=torch.bool))) == 0


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


# ------------------------------------------------------------------------------------- schedules and averages


def test_released_learning_rate():
    """REFERENCE: 1e-4 · (1 − .99^(k+1)) / √(1 + k/1e6)."""
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
    floored = dataclasses.replace(
        training, scheduler=dataclasses.replace(
            training.scheduler, config=dataclasses.replace(training.scheduler.config, final_lr=0.002, total_steps=None)
        )
    )  # fmt: skip
    settings = build_optimizer([torch.nn.Parameter(torch.zeros(1))], floored, total_steps=6)
    for _ in range(8):
        settings["optimizer"].step()
        settings["lr_scheduler"]["scheduler"].step()
    assert settings["lr_scheduler"]["scheduler"].get_last_lr() == [pytest.approx(0.002)]


def test_without_a_schedule_the_rate_is_constant():
    recipe = parse_model_config(raw_config()).training.optimizer_configs["diffusion"]
    config = OptimizerConfig(optimizer=recipe.optimizer)
    assert list(build_optimizer([torch.nn.Parameter(torch.zeros(1))], config, 10)) == ["optimizer"]


def test_moving_average_follows_the_released_schedule():
    """REFERENCE: after n updates the decay is 0, 0, .4054, .5613, … .9944 at 1000; .9999 from 215,443 on."""
    model = torch.nn.Linear(1, 1, bias=False)
    average = moving_average(model)
    seen, expected = [], 0.0
    for n in range(1, 1001):
        model.weight.data.fill_(float(n))
        average.update()
        decay = average.get_current_decay()
        seen.append(decay)
        expected = decay * expected + (1 - decay) * n
        if n <= 3:  # copies; the third starts the average
            expected = n
        if n <= 5:
            assert float(average.ema_model.weight) == pytest.approx(expected)
    assert seen[:4] == [0, 0, pytest.approx(0.4054, abs=1e-4), pytest.approx(0.5613, abs=1e-4)]
    assert seen[-1] == pytest.approx(0.9944, abs=1e-4)
    average.step.fill_(215_442)
    assert average.get_current_decay() < 0.9999
    average.step.fill_(216_000)
    assert average.get_current_decay() == 0.9999


def test_the_released_training_wrapper_key_by_key():
    with torch.device("meta"):
        module = DiffusionModule(load_model_config(ROOT / "configs/model/diff_v2m.json"))
    state = module.state_dict()
    ours = {name: [list(tensor.shape), str(tensor.dtype).removeprefix("torch.")] for name, tensor in state.items()}
    theirs = {name: list(value) for name, value in json.loads(RELEASED_KEYS.read_text()).items()}
    assert len(ours) == 2517 and ours == theirs


# ------------------------------------------------------------------------------------------------- real runs


def test_a_run_learns_and_leaves_a_checkpoint_that_loads(uninterrupted):
    content = checkpoint(uninterrupted)
    assert content["global_step"] == 7 and content["model_config"] == raw_config()
    config = parse_model_config(raw_config())
    fresh = DiffusionModule(config)
    assert content["state_dict"].keys() == fresh.state_dict().keys()
    assert content["timesteps_drawn"] == 14

    averaged, read_config = load_model(uninterrupted / "checkpoints/last.ckpt", weights="ema")
    online, _ = load_model(uninterrupted / "checkpoints/last.ckpt", weights="online")
    assert read_config == config
    state, name = content["state_dict"], "model.transformer.project_out.weight"
    assert torch.equal(online.model.state_dict()[name], state["diffusion.model." + name])
    assert torch.equal(averaged.model.state_dict()[name], state["diffusion_ema.ema_model." + name])
    assert not torch.equal(online.model.state_dict()[name], averaged.model.state_dict()[name])

    exported, _ = load_model(uninterrupted / "model.safetensors")
    for key, tensor in averaged.model.state_dict().items():
        assert torch.allclose(exported.model.state_dict()[key], tensor, rtol=1e-3, atol=1e-4), key


def test_the_average_lags_one_step_and_is_of_the_network_alone(place, tmp_path):
    """As released: updated before the optimiser's step, so that two updates copy what the first step left."""
    first = checkpoint(run(place, tmp_path / "a", "--max-steps", 1))["state_dict"]
    second = checkpoint(run(place, tmp_path / "b", "--max-steps", 2))["state_dict"]
    name = "model.transformer.project_out.weight"
    assert int(second["diffusion_ema.step"]) == 2
    assert torch.equal(second["diffusion_ema.ema_model." + name], first["diffusion.model." + name])
    assert not torch.equal(second["diffusion.model." + name], first["diffusion.model." + name])
    frozen = [key for key in first if key.startswith("diffusion.pretransform.")]
    assert frozen and all(torch.equal(first[key], second[key]) for key in frozen)


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(place, uninterrupted, tmp_path):
    """Stopped in the middle of the second epoch; data order, crops, timesteps, noise and dropout continue."""
    folder = run(place, tmp_path / "pieces", "--max-steps", 4)
    assert checkpoint(folder)["global_step"] == 4
    run(place, folder, "--max-steps", 7, "--recover")
    assert checkpoint(folder)["global_step"] == 7
    for column in ("train/loss", "train/mse_loss", "train/rhythm_loss", "train/p_true_rhythm"):
        whole, pieces = logged(uninterrupted, column), logged(folder, column)
        assert list(whole) == list(pieces) == list(range(7))
        assert pieces == pytest.approx(whole, rel=1e-5), column
    whole, pieces = checkpoint(uninterrupted)["state_dict"], checkpoint(folder)["state_dict"]
    assert all(torch.allclose(pieces[key].float(), whole[key].float(), atol=1e-5) for key in whole)


def test_a_run_stopped_at_the_end_of_an_epoch_starts_the_next(place, uninterrupted, tmp_path):
    folder = run(place, tmp_path / "pieces", "--max-steps", 3)
    run(place, folder, "--max-steps", 5, "--ckpt_path", folder / "checkpoints/last.ckpt")
    whole = logged(uninterrupted)
    assert logged(folder) == pytest.approx({step: whole[step] for step in range(5)}, rel=1e-5)


def test_order_and_crops_do_not_depend_on_workers(place):
    config = load_model_config(place / "model.json")

    def epochs(workers: int) -> list:
        loader = build_dataloader(
            dataset_config(TheSet(place), random_crop=True), config, batch_size=2, num_workers=workers, seed=3
        )
        return [(batch.names, batch.seconds_start.tolist()) for _ in range(3) for batch in loader]

    alone = epochs(0)
    assert epochs(1) == alone and len({start for _, starts in alone for start in starts}) > 2
    assert alone[:3] != alone[3:6]


def test_another_seed_is_another_run(place, uninterrupted, tmp_path):
    other = logged(run(place, tmp_path / "other", "--max-steps", 1, "--seed", 43))
    assert other[0] != pytest.approx(logged(uninterrupted)[0], rel=1e-4)


def test_accumulation_validation_and_the_best_checkpoint(place, tmp_path):
    """Six clips, batches of 1, two a step: three steps an epoch and as many updates of the average."""
    folder = run(
        place, tmp_path / "run", "--max-epochs", 2, "--batch_size=1", "--accum-batches", 2, "--precision", "16",
        "--val-dataset-config", place / "data.json", "--checkpoint-every", 2, "--gradient-clip-val", 1,
    )  # fmt: skip
    content = checkpoint(folder)
    assert content["global_step"] == 6 and int(content["state_dict"]["diffusion_ema.step"]) == 6
    losses = logged(folder, "val/loss")
    assert len(losses) == 2 and logged(folder, "val/rhythm_loss").keys() == losses.keys()
    times = [logged(folder, f"val/mse_t{t}") for t in (0.1, 0.3, 0.5, 0.7, 0.9)]
    step = max(losses)
    assert losses[step] == pytest.approx(sum(values[step] for values in times) / 5, rel=1e-4)
    best = min(losses, key=losses.get)
    assert [path.name for path in (folder / "checkpoints").glob("best*")] == [f"best-step={best + 1}.ckpt"]


def test_validation_repeats_itself(place):
    module = DiffusionModule(load_model_config(place / "model.json")).eval()
    loader = build_dataloader(dataset_config(TheSet(place)), module.config, batch_size=2, training=False)
    seen = []
    module.log = lambda name, value, **_: seen.append((name, float(value)))
    for _ in range(2):
        with torch.no_grad():
            module.validation_step(next(iter(loader)), 0)
        torch.rand(1)
    assert seen[: len(seen) // 2] == seen[len(seen) // 2 :] and len(seen) > 2


def test_new_runs_start_from_given_weights(place, uninterrupted, tmp_path):
    """--pretrained-ckpt-path fills the network and its average; --pretransform-ckpt-path only the autoencoder."""
    start = uninterrupted / "model.safetensors"
    settings = train.parse_arguments(
        ["--model-config", "m", "--dataset-config", "d", "--pretrained-ckpt-path", str(start)], ROOT / "defaults.ini"
    )
    config = load_model_config(place / "model.json")
    module = DiffusionModule.from_settings(config, settings)
    expected = load_model(start)[0]
    for ours in (module.diffusion.model, module.diffusion_ema.ema_model):
        assert all(torch.equal(tensor, ours.state_dict()[name]) for name, tensor in expected.model.state_dict().items())
    settings.pretrained_ckpt_path, settings.pretransform_ckpt_path = None, str(start)
    module = DiffusionModule.from_settings(config, settings)
    vae = expected.pretransform.state_dict()
    assert all(torch.equal(tensor, vae[name]) for name, tensor in module.diffusion.pretransform.state_dict().items())
    name = "model.transformer.project_out.weight"
    assert not torch.equal(module.diffusion.model.state_dict()[name], expected.model.state_dict()[name])


# ------------------------------------------------------------------------------------------------- bad input


def other_model(place: Path, **changes: object) -> str:
    raw = copy.deepcopy(raw_config())
    raw |= changes
    path = place / "other.json"
    path.write_text(json.dumps(raw))
    return str(path)


def other_data(place: Path, **changes: object) -> str:
    raw = json.loads((place / "data.json").read_text())
    raw["datasets"][0] |= changes
    path = place / "other_data.json"
    path.write_text(json.dumps(raw))
    return str(path)


def without_optimizer(place: Path) -> str:
    return other_model(place, training=raw_config()["training"] | {"optimizer_configs": {}})


def garbage(place: Path) -> str:
    (place / "garbage.ckpt").write_bytes(b"PK\x03\x04 not a checkpoint")
    return str(place / "garbage.ckpt")


MISTAKES = {
    "model config missing": (["--model-config", "nowhere.json"], "nowhere.json: cannot be read"),
    "dataset config missing": (["--dataset-config", "nowhere.json"], "nowhere.json: cannot be read"),
    "validation config missing": (["--val-dataset-config", "nowhere.json"], "nowhere.json: cannot be read"),
    "unknown key in the dataset": (["--dataset-config", lambda p: other_data(p, pth="x")], "pth: unknown key .*path"),
    "wav folder missing": (["--dataset-config", lambda p: other_data(p, path="nowhere")], "nowhere"),
    "no optimiser": (["--model-config", without_optimizer], "optimizer_configs.diffusion: missing"),
    "no training": (["--model-config", lambda p: other_model(p, training=None)], "training"),
    "checkpoint missing": (["--ckpt-path", "nowhere.ckpt"], "nowhere.ckpt: cannot be read"),
    "checkpoint damaged": (["--ckpt-path", garbage], "truncated or damaged"),
    "start weights missing": (["--pretrained-ckpt-path", "nowhere.ckpt"], "nowhere.ckpt: cannot be read"),
    "autoencoder missing": (["--pretransform-ckpt-path", "nowhere.ckpt"], "nowhere.ckpt: cannot be read"),
    "batch size": (["--batch-size", "-1"], "--batch-size -1: expected at least 1"),
    "no GPU": (["--accelerator", "cuda"], "--accelerator"),
    "strategy": (["--strategy", "dpp"], "dpp.*--strategy"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(mistake, place, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    flags, message = MISTAKES[mistake]
    with pytest.raises(InputError, match=message) as caught:
        run(place, tmp_path / "run", *(flag(place) if callable(flag) else flag for flag in flags))
    assert "\n" not in str(caught.value)


def test_going_on_needs_a_checkpoint_of_this_model(place, uninterrupted, tmp_path):
    with pytest.raises(InputError, match="holds weights alone.*--pretrained-ckpt-path"):
        run(place, tmp_path / "a", "--ckpt-path", uninterrupted / "model.safetensors")
    wider = raw_config()
    wider["model"]["diffusion"]["config"]["depth"] = 2
    (tmp_path / "wider.json").write_text(json.dumps(wider))
    with pytest.raises(InputError, match="does not fit the model config.*keys missing"):
        run(place, tmp_path / "a", "--ckpt-path", uninterrupted / "checkpoints/last.ckpt",
            "--model-config", tmp_path / "wider.json")  # fmt: skip


def test_an_unwritable_place_for_the_run(place, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be made: .*--save-dir"):
        run(place, tmp_path / "file" / "run")
