"""The training step: no reads from the device, compilation, loss scaling and a fused optimiser."""

import json
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from helpers.data_folder import dataset_config
from helpers.host_reads import HostReads
from helpers.toys import toy_features
from helpers.training_toys import TheSet, make_place, raw_config, run

import diff_v2m.training.trainer
from diff_v2m.config import load_model_config, parse_model_config
from diff_v2m.data.batch import Batch
from diff_v2m.data.loader import build_dataloader
from diff_v2m.generation.pipeline import DiffV2M
from diff_v2m.model.compiling import compile_blocks
from diff_v2m.model.diffusion import OBJECTIVES, SAMPLERS
from diff_v2m.model.dit import LatentDiffusion
from diff_v2m.training.diffusion_module import DiffusionModule
from diff_v2m.training.distributed import FusedMixedPrecision
from diff_v2m.training.losses import training_losses


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return make_place(tmp_path_factory.mktemp("step"))


class Watch(pl.Callback):
    """Watches two steps of the second epoch, from the batch's arrival on; the third also renews the progress bar."""

    def __init__(self):
        self.reads = HostReads()
        self.watching = False

    def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
        self.watching = trainer.global_step in (3, 4)
        if self.watching:
            self.reads.__enter__()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        if self.watching:
            self.reads.__exit__(None, None, None)


def test_a_step_reads_nothing_from_the_device(place, tmp_path, monkeypatch):
    """Holds between log entries. Timesteps are drawn on the CPU and copied to the device."""
    watch, build = Watch(), diff_v2m.training.trainer.build_trainer
    raw = raw_config()
    raw["training"] |= {"log_loss_info": True, "timestep_sampler": "logit_normal"}
    (place / "informed.json").write_text(json.dumps(raw))

    def watched(*arguments):
        trainer = build(*arguments)
        trainer.callbacks.insert(len(trainer.callbacks) - 1, watch)  # the last one saves checkpoints
        return trainer

    monkeypatch.setattr(diff_v2m.training.trainer, "build_trainer", watched)
    run(
        place,
        tmp_path / "run",
        "--max-steps",
        6,
        "--log-every",
        50,
        "--model-config",
        place / "informed.json",
        "--gradient-clip-val",
        1,
    )
    assert watch.reads.found == []


def loss_and_gradients(module: DiffusionModule, batch: Batch) -> dict[str, torch.Tensor]:
    conditions = module.diffusion.condition(batch)
    latents, noise = torch.randn(2, len(batch), 64, 63, generator=torch.Generator().manual_seed(1))
    losses = training_losses(module.diffusion.model, conditions, latents, noise, torch.tensor([0.1, 0.7]))
    losses.total.backward()
    named = module.diffusion.named_parameters()
    return {"loss": losses.total.detach()} | {name: p.grad for name, p in named if p.grad is not None}


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_blocks_compute_the_same_under_the_same_names(place, checkpointing):
    """With the compiler's front end alone: that of C++ takes a minute. train.py --compile uses both."""
    raw = raw_config()
    raw["training"]["gradient_checkpointing"] = checkpointing
    config = parse_model_config(raw)
    batch = next(iter(build_dataloader(dataset_config(TheSet(place)), config, batch_size=2)))
    found = []
    for compiled in (False, True):
        torch.manual_seed(0)
        module = DiffusionModule(config).train()
        with torch.no_grad():
            for parameter in module.diffusion.model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        if compiled:
            compile_blocks(module.diffusion.model, backend="aot_eager")
        found.append((loss_and_gradients(module, batch), module.state_dict().keys()))
    (plain, names), (ours, our_names) = found
    assert names == our_names and plain.keys() == ours.keys()
    assert all(torch.allclose(ours[name], plain[name], rtol=1e-3, atol=1e-5) for name in plain)


def scaled(place: Path, fused: bool, clip: float) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Three steps in fp16 with a scaler; → the logged norms of the gradient, and the network's weights."""
    torch.manual_seed(0)
    module = DiffusionModule(load_model_config(place / "model.json"))
    loader = build_dataloader(dataset_config(TheSet(place)), module.config, batch_size=2)
    configure, norms = module.configure_optimizers, []

    def with_kernel() -> dict:
        found = configure()
        found["optimizer"].param_groups[0]["fused"] = fused
        found["optimizer"]._step_supports_amp_scaling = fused
        return found

    class Norms(pl.Callback):
        def on_before_optimizer_step(self, trainer, module, optimizer) -> None:
            gradients = [p.grad for p in module.parameters() if p.grad is not None]
            norms.append(float(torch.nn.utils.get_total_norm(gradients)))

    module.configure_optimizers = with_kernel
    trainer = pl.Trainer(
        plugins=[FusedMixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=128.0))],
        accelerator="cpu",
        max_steps=3,
        gradient_clip_val=clip or None,
        callbacks=[Norms()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module.on_before_optimizer_step = lambda optimizer: None
    pl.seed_everything(1)
    trainer.fit(module, loader)
    return norms, {name: tensor.clone() for name, tensor in module.diffusion.model.state_dict().items()}


@pytest.mark.slow
@pytest.mark.parametrize("clip", [0.0, 0.01])
def test_a_fused_optimiser_sees_the_same_fp16_gradients(place, clip):
    """They are unscaled before they are measured and clipped, as for an optimiser that is not fused."""
    norms, weights = scaled(place, True, clip)
    expected_norms, expected = scaled(place, False, clip)
    assert norms == pytest.approx(expected_norms, rel=1e-3) and norms[0] < 100
    for name, tensor in expected.items():
        assert torch.allclose(weights[name], tensor, atol=1e-4), (
            name
        )  # a tenth of the learning rate: gradients near zero


# -------------------------------------------------------------------------------------------- rectified flow


def test_the_straight_path_and_its_target():
    objective = OBJECTIVES["rectified_flow"]
    latents, noise = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    t = torch.tensor([0.0, 0.25, 1.0])
    noised = objective.add_noise(latents, noise, t)
    assert torch.allclose(noised[0], latents[0]) and torch.allclose(noised[2], noise[2])
    assert torch.allclose(noised[1], 0.75 * latents[1] + 0.25 * noise[1], atol=1e-6)
    # the target is the speed along the path
    ahead = objective.add_noise(latents, noise, t + 0.5)
    assert torch.allclose((ahead - noised) / 0.5, objective.target(latents, noise, t), atol=1e-5)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_follows_a_straight_flow_to_its_end(sampler):
    """For a network with the exact latents, u = (x − z) / t, and for the exact u of Gaussian latents."""
    objective, latents, noise = OBJECTIVES["rectified_flow"], torch.randn(2, 4, 50), torch.randn(2, 4, 50)

    def known(x, t):
        return (x - latents) / t[:, None, None]

    assert torch.allclose(SAMPLERS[sampler](objective.as_v(known), noise, 8), latents, atol=1e-4)

    def gaussian(x, t, deviation=0.5):  # E[ε − z | x] for z ~ N(0, deviation²)
        t = t[:, None, None]
        return (t - (1 - t) * deviation**2) / ((1 - t) ** 2 * deviation**2 + t**2) * x

    made = SAMPLERS[sampler](objective.as_v(gaussian), noise, 60)
    assert torch.allclose(made, 0.5 * noise, rtol=0.05, atol=1e-3)


def test_a_step_ends_on_fusion_switch_t():
    """At the sampler's time for t = 0.2 the network receives exactly 0.2, so it uses the rhythm branch."""
    objective, asked = OBJECTIVES["rectified_flow"], []

    def network(x, t):
        asked.append(t)
        return torch.zeros_like(x)

    SAMPLERS["dpmpp-3m"](objective.as_v(network), torch.randn(1, 2, 3), 12, discontinuities=[objective.v_time(0.2)])
    assert any(torch.equal(t, torch.tensor([0.2])) for t in asked) and asked[0] == 1.0


def test_the_config_chooses_the_objective(place):
    raw = raw_config()
    raw["model"]["diffusion"]["diffusion_objective"] = "rectified_flow"
    torch.manual_seed(0)
    module = DiffusionModule(parse_model_config(raw))
    assert module.diffusion.objective is OBJECTIVES["rectified_flow"]
    torch.nn.init.zeros_(module.diffusion.model.model.transformer.project_out.weight)
    module.diffusion_ema.restart()
    seen = {}
    module.log = lambda name, value, **_: seen.update({name: float(value)})
    batch = next(iter(build_dataloader(dataset_config(TheSet(place)), module.config, batch_size=2)))
    with torch.no_grad():
        latents = module.latents_of(batch, torch.Generator().manual_seed(0))
        module.validation_step(batch, 0)
    # it predicts zero: the loss is the mean square of u, the same at every t, and not that of v
    expected = float(latents.square().mean() + 1)
    assert seen["val/mse_t0.9"] == pytest.approx(expected, rel=0.1)
    assert seen["val/mse_t0.1"] == pytest.approx(expected, rel=0.1)


def test_music_is_generated_with_either_objective():
    """The same weights, asked for v and for u, make different music of the same length."""
    pieces = []
    for objective in OBJECTIVES:
        raw = raw_config()
        raw["model"]["diffusion"]["diffusion_objective"] = objective
        torch.manual_seed(0)
        config = parse_model_config(raw)
        music = DiffV2M(LatentDiffusion(config), config).compose([toy_features(2.0)], ["video"], steps=3)[0]
        pieces.append(torch.from_numpy(music.audio))
    assert pieces[0].shape == pieces[1].shape == (1, 32000)
    assert all(piece.isfinite().all() for piece in pieces) and not torch.allclose(*pieces)
