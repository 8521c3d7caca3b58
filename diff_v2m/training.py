"""Training the generator: the objective, the rhythm curriculum and the moving average of the weights.

The Lightning module's attribute names make a released-format checkpoint: `diffusion.*` is the model,
`diffusion_ema.*` the moving average of the DiT (and of nothing else, as released).
"""

from __future__ import annotations

import argparse
import copy
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytorch_lightning as pl
import torch
from ema_pytorch import EMA
from torch import Tensor, nn
from torch.nn import functional as F

from .batch import Batch
from .checkpoints import load_vae_weights, load_weights, save_model
from .conditioners import Conditions
from .config import ModelConfig, RhythmCurriculum
from .diffusion import add_noise, v_target
from .errors import InputError
from .model import GuidedDiT, LatentDiffusion
from .schedules import build_optimizer

log = logging.getLogger(__name__)

VALIDATION_TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)


class Losses(NamedTuple):
    """Scalars, and what they were computed from."""

    total: Tensor
    mse: Tensor
    rhythm: Tensor
    output: Tensor  # (B, latent, N) predicted v
    target: Tensor  # (B, latent, N) true v


def training_losses(
    model: GuidedDiT, conditions: Conditions, latents: Tensor, noise: Tensor, t: Tensor, **dropout: float
) -> Losses:
    """The v objective at t (B,) plus the rhythm predictor's loss, weight 1 each (SPEC: joint training).

    latents, noise: (B, latent, N). dropout: `condition_dropout` and `joint_dropout` of `GuidedDiT.forward`.
    """
    target = v_target(latents, noise, t)
    output = model(add_noise(latents, noise, t), t, conditions, **dropout)
    mse = F.mse_loss(output.float(), target.float())
    rhythm = rhythm_loss(conditions)
    return Losses(mse + rhythm, mse, rhythm, output, target)


def rhythm_loss(conditions: Conditions) -> Tensor:
    """Mean squared error of the predicted rhythm over every valid row of every clip.

    Corrected: the release uses its integer mask as an index, and so trains on the first two clips of a batch alone.
    """
    weight = conditions.true_rhythm_mask[..., None].expand_as(conditions.true_rhythm).float()
    error = (conditions.predicted_rhythm.float() - conditions.true_rhythm.float()).square()
    return (error * weight).sum() / weight.sum().clamp(min=1)


def rhythm_correlation(conditions: Conditions) -> Tensor:
    """Pearson's r of predicted and true rhythm over a clip's valid values, mean over the clips; 0 where one is flat."""
    mask = conditions.true_rhythm_mask[..., None].expand_as(conditions.true_rhythm).float()
    count = mask.sum((1, 2), keepdim=True).clamp(min=1)
    deviations = []
    for rhythm in (conditions.predicted_rhythm.detach().float(), conditions.true_rhythm.float()):
        mean = (rhythm * mask).sum((1, 2), keepdim=True) / count
        deviations.append((rhythm - mean) * mask)
    predicted, true = deviations
    norm = predicted.square().sum((1, 2)).sqrt() * true.square().sum((1, 2)).sqrt()
    return ((predicted * true).sum((1, 2)) / norm.clamp(min=1e-6)).mean()


class LossByTime:
    """Mean squared error of v in each fifth of [0, 1), where the losses of different t are told apart."""

    def __init__(self, device: torch.device):
        self.sums = torch.zeros(2, len(VALIDATION_TIMES), device=device)  # of errors, of clips

    def add(self, losses: Losses, t: Tensor) -> None:
        """Errors of clips at t (B,), without waiting for the device."""
        errors = (losses.output.detach().float() - losses.target.float()).square().mean((1, 2))
        bins = (t * len(VALIDATION_TIMES)).long().clamp(0, len(VALIDATION_TIMES) - 1)
        self.sums.index_add_(1, bins, torch.stack([errors, torch.ones_like(errors)]))

    def take(self, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Since the last call, over all processes: "train/mse_t0.1" → mean of t in [0, 0.2), and so on."""
        errors, clips = reduce(self.sums).tolist()
        self.sums.zero_()
        means = zip(VALIDATION_TIMES, errors, clips, strict=True)
        return {f"train/mse_t{time}": error / count for time, error, count in means if count}


def probability_of_true_rhythm(epoch: int, curriculum: RhythmCurriculum) -> float:
    """1 before the curriculum starts, then falling linearly to 0 at its end; from {0, 0} on it is always 0."""
    if epoch >= curriculum.end_epoch:
        return 0.0
    length = curriculum.end_epoch - curriculum.start_epoch
    return min(1.0 - (epoch - curriculum.start_epoch) / length, 1.0) if length else 1.0


class DiffusionModule(pl.LightningModule):
    """`LatentDiffusion` with its objective. The autoencoder stays frozen. Can be built on the meta device."""

    def __init__(self, config: ModelConfig, seed: int = 0):
        super().__init__()
        if config.training is None:
            raise InputError("the model config has no `training` member; expected optimizer_configs and the rest there")
        self.config, self.recipe, self.seed = config, config.training, seed
        self.diffusion = LatentDiffusion(config)
        self.diffusion.pretransform.requires_grad_(False)
        self.diffusion_ema = moving_average(self.diffusion.model) if self.recipe.use_ema else None
        self.diffusion.model.model.transformer.gradient_checkpointing = self.recipe.gradient_checkpointing
        self.losses = _released_loss_weights()
        self.timesteps_drawn = 0

    @classmethod
    def from_settings(cls, config: ModelConfig, settings: argparse.Namespace) -> DiffusionModule:
        """A module with the starting weights that the flags name."""
        module = cls(config, seed=settings.seed)
        if settings.pretrained_ckpt_path:
            load_weights(module.diffusion, settings.pretrained_ckpt_path)
        if settings.pretransform_ckpt_path:
            load_vae_weights(module.diffusion.pretransform, settings.pretransform_ckpt_path)
        if settings.pretrained_ckpt_path and module.diffusion_ema is not None:
            module.diffusion_ema.ema_model.load_state_dict(module.diffusion.model.state_dict())
        return module

    def on_train_start(self) -> None:
        """Take the timesteps up where the checkpoint, loaded by now, left them."""
        self.loss_by_time = LossByTime(self.device)
        self.sobol = torch.quasirandom.SobolEngine(1, scramble=True, seed=self.seed + self.global_rank)
        self.sobol.fast_forward(self.timesteps_drawn)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        latents = self.latents_of(batch)
        conditions = self.diffusion.condition(batch)
        p_true = self.probability_of_true_rhythm()
        t = self.draw_timesteps(len(batch))
        losses = training_losses(
            self.diffusion.model,
            conditions.with_rhythm(torch.rand(len(batch), device=self.device) < p_true),
            latents,
            torch.randn_like(latents),
            t,
            condition_dropout=self.recipe.cfg_dropout_prob,
            joint_dropout=self.recipe.joint_dropout_prob,
        )
        self.log("train/loss", losses.total, prog_bar=True, batch_size=len(batch))
        self.log_dict(
            {
                "train/mse_loss": losses.mse,
                "train/rhythm_loss": losses.rhythm,
                "train/rhythm_correlation": rhythm_correlation(conditions),
                "train/p_true_rhythm": p_true,
            },
            batch_size=len(batch),
        )
        if self.recipe.log_loss_info:
            self.loss_by_time.add(losses, t)
        return losses.total

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.recipe.log_loss_info and (self.global_step + 1) % self.trainer.log_every_n_steps == 0:
            values = self.loss_by_time.take(partial(self.trainer.strategy.reduce, reduce_op="sum"))
            # not by self.log, which repeats the old value of what a step does not have
            self.trainer._logger_connector.log_metrics(values)

    def on_before_zero_grad(self, optimizer: torch.optim.Optimizer) -> None:
        if self.diffusion_ema is not None:
            self.diffusion_ema.update()

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Predicted rhythm, averaged weights, fixed noise at fixed times: comparable from one time to the next."""
        latents = self.latents_of(batch, torch.Generator(self.device).manual_seed(batch_index))
        conditions = self.diffusion.condition(batch)
        model = self.diffusion_ema.ema_model if self.diffusion_ema is not None else self.diffusion.model
        generator = torch.Generator(self.device).manual_seed(self.seed + batch_index)
        for time in VALIDATION_TIMES:
            noise = torch.randn(latents.shape, generator=generator, device=self.device)
            t = torch.full((len(batch),), time, device=self.device)
            losses = training_losses(model, conditions, latents, noise, t)
            self.log(f"val/mse_t{time}", losses.mse, batch_size=len(batch), sync_dist=True)
            self.log("val/loss", losses.mse, batch_size=len(batch), sync_dist=True)
        values = int(conditions.true_rhythm_mask.sum())  # each counts once, however the clips were put into batches
        self.log("val/rhythm_loss", losses.rhythm, batch_size=values, sync_dist=True, prog_bar=True)
        correlation = rhythm_correlation(conditions)
        self.log("val/rhythm_correlation", correlation, batch_size=len(batch), sync_dist=True)

    def latents_of(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """The batch's latents, encoded now unless they were before."""
        return self.diffusion.encode(batch.audio, generator) if batch.latents is None else batch.latents.float()

    def probability_of_true_rhythm(self) -> float:
        """Now. Without joint training always 1: predictor and generator learn side by side, neither from the other."""
        if not self.recipe.joint_rhythm:
            return 1.0
        return probability_of_true_rhythm(self.current_epoch, self.recipe.rhythm_curriculum)

    def draw_timesteps(self, count: int) -> Tensor:
        """t (count,) in [0, 1), evenly spread over the run: scrambled Sobol as released, seeded (corrected).

        Uniform as released, or logit-normal (Esser et al. 2024): the sigmoid of a standard normal, more in the middle.
        """
        self.timesteps_drawn += count
        t = self.sobol.draw(count)[:, 0]
        if self.recipe.timestep_sampler == "logit_normal":
            t = torch.sigmoid(torch.special.ndtri(t.clamp(1e-6, 1 - 1e-6)))
        return t.to(self.device, non_blocking=True)

    def configure_optimizers(self) -> dict:
        parameters = [parameter for parameter in self.diffusion.parameters() if parameter.requires_grad]
        steps = self.trainer.estimated_stepping_batches
        return build_optimizer(parameters, self.recipe.optimizer_configs["diffusion"], steps)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["model_config"] = self.config.raw
        checkpoint["timesteps_drawn"] = self.timesteps_drawn

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        self.timesteps_drawn = checkpoint.get("timesteps_drawn", 0)

    def export(self, path: Path) -> None:
        """The averaged weights as one safetensors file with the config inside."""
        save_model(self.state_dict(), self.config, path)
        log.info("wrote %s", path)


def moving_average(model: GuidedDiT) -> EMA:
    """ema_pytorch's average with the released settings. Its decay rises: .99 after 500 steps, .9999 after 215,443."""
    return EMA(
        model,
        ema_model=copy.deepcopy(model),
        beta=0.9999,
        power=3 / 4,
        update_every=1,
        update_after_step=1,
        include_online_model=False,
    )


def _released_loss_weights() -> nn.Module:
    """The weights of the two loss terms, which a released checkpoint holds as losses.losses.{0,1}.weight."""
    terms = nn.ModuleList([nn.Module(), nn.Module()])
    for term in terms:
        term.register_buffer("weight", torch.tensor(1.0))
    return nn.ModuleDict({"losses": terms})
