"""Training of the generator: its training step, rhythm curriculum and moving average.

Attribute names make a checkpoint in the released format: `diffusion.*` is the model, `diffusion_ema.*` the moving
average of the DiT (as released, of the DiT only, unless the config asks for more). A training step reads nothing back
from the device.
"""

from __future__ import annotations

import argparse
import logging
from functools import cached_property
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from diff_v2m.checkpoints import lora
from diff_v2m.checkpoints.files import read_weights, save_state, warn_if_not_averaged
from diff_v2m.checkpoints.loading import load_into, load_vae_weights, uninitialized
from diff_v2m.checkpoints.starting import start_from, start_from_stable_audio
from diff_v2m.common.errors import InputError
from diff_v2m.common.seeding import mixed_seed
from diff_v2m.config import DatasetConfig, ModelConfig, RhythmCurriculum, with_encoder
from diff_v2m.data.batch import Batch
from diff_v2m.data.loader import build_dataloader
from diff_v2m.model.compiling import compile_blocks
from diff_v2m.model.dit import LatentDiffusion
from diff_v2m.training.callbacks import log_row
from diff_v2m.training.distributed import apply_fsdp
from diff_v2m.training.ema import MovingAverage, with_parts
from diff_v2m.training.losses import VALIDATION_TIMES, LossByTime, rhythm_correlation, training_losses
from diff_v2m.training.optim import build_optimizer

log = logging.getLogger(__name__)


def probability_of_true_rhythm(epoch: int, curriculum: RhythmCurriculum) -> float:
    """1 until `start_epoch`, then linear to `true_share` at `end_epoch`; always that for {0, 0}."""
    if epoch >= curriculum.end_epoch:
        return curriculum.true_share
    length = curriculum.end_epoch - curriculum.start_epoch
    passed = max((epoch - curriculum.start_epoch) / length, 0.0) if length else 0.0
    return 1.0 - passed * (1.0 - curriculum.true_share)


class DiffusionModule(pl.LightningModule):
    """`LatentDiffusion` with its objective. The autoencoder is frozen. Can be built on the meta device."""

    def __init__(self, config: ModelConfig, seed: int = 0, *, adapters: bool = False):
        """adapters: low-rank ones will be trained, so the frozen weights need no average of their own."""
        super().__init__()
        if config.training is None:
            raise InputError("the model config has no `training` member; expected optimizer_configs and the rest there")
        self.config, self.recipe, self.seed = config, config.training, seed
        self.diffusion = LatentDiffusion(config)
        self.diffusion.pretransform.requires_grad_(False)
        self.diffusion_ema = None if adapters else self._average()
        self.diffusion.model.model.transformer.gradient_checkpointing = self.recipe.gradient_checkpointing
        self.losses = _released_loss_weights()
        self.timesteps_drawn = 0
        self.loss_sums: Tensor | None = None  # sums of `loss_by_time`, from a checkpoint
        self.adapters: dict | None = None  # with LoRA: the rank, and the file with the frozen weights

    @classmethod
    def from_settings(cls, config: ModelConfig, settings: argparse.Namespace) -> DiffusionModule:
        """The module of this config, with the starting weights that the flags name."""
        if settings.lora_rank:
            module = cls.with_adapters(config, settings.seed, settings.lora_rank, Path(settings.pretrained_ckpt_path))
        else:
            module = cls(config, seed=settings.seed)
        if settings.pretrained_ckpt_path and not settings.lora_rank:
            start_from(module.diffusion, config, settings.pretrained_ckpt_path)
        if settings.init_dit_ckpt_path:
            global_ids = config.model.diffusion.global_cond_ids
            start_from_stable_audio(module.diffusion.model.model, settings.init_dit_ckpt_path, global_ids)
        module.complete_start(settings)
        return module

    def complete_start(self, settings: argparse.Namespace) -> None:
        """After the network's starting weights: the autoencoder's, the moving average from both, and compilation."""
        if settings.pretransform_ckpt_path:
            load_vae_weights(self.diffusion.pretransform, settings.pretransform_ckpt_path)
        if self.diffusion_ema is not None:
            self.diffusion_ema.restart()
        if settings.compile:
            compile_blocks(self.diffusion.model)

    @staticmethod
    def loader(data: DatasetConfig, config: ModelConfig, settings: argparse.Namespace, *, training: bool) -> DataLoader:
        return build_dataloader(
            data,
            config,
            batch_size=settings.batch_size,
            num_workers=settings.num_workers,
            training=training,
            seed=settings.seed,
        )

    @staticmethod
    def recorded(config: ModelConfig, loader: DataLoader) -> ModelConfig:
        """The config with what the model JSON keeps of the training data: which encoder made the features."""
        return with_encoder(config, loader.dataset.dataset.encoder)  # within SeededItems

    @classmethod
    def with_adapters(cls, config: ModelConfig, seed: int, rank: int, base: Path) -> DiffusionModule:
        """A module that trains low-rank adapters beside the frozen weights in `base`, which stay memory-mapped.

        Its checkpoints hold the adapters only.
        """
        with uninitialized():
            module = cls(config, seed, adapters=True)
        load_into(module.diffusion, read_weights(base), "ema", dtype=torch.float32, assign=True)
        lora.add_adapters(module.diffusion, rank)
        module.diffusion_ema = module._average()  # shares the frozen weights
        module.adapters = lora.describe(rank, base)
        module.strict_loading = False  # `check_resumable` has compared the names in the checkpoint
        module.register_state_dict_post_hook(_adapters_only)
        return module

    def configure_model(self) -> None:
        """Shard the weights under fsdp2; Lightning sets `device_mesh` then."""
        if self.device_mesh is not None:
            averages = [] if self.diffusion_ema is None else [average for _, average in self.diffusion_ema.followed]
            for part in (self.diffusion.model, self.diffusion.conditioner, *averages):
                apply_fsdp(part, self.device_mesh)

    @property
    def averaged(self) -> LatentDiffusion:
        """The model with averaged weights; the trained model itself if there is no average."""
        if self.diffusion_ema is None:
            return self.diffusion
        parts = {"model": self.diffusion_ema.ema_model}
        if self.recipe.ema_conditioner:
            parts["conditioner"] = self.diffusion_ema.ema_conditioner
        return with_parts(self.diffusion, **parts)

    def on_train_start(self) -> None:
        """Continue the timesteps and the sums for the log from the checkpoint, if there is one."""
        self.loss_by_time = LossByTime(self.device)
        if self.loss_sums is not None and self.global_rank == 0:  # sums over all processes
            self.loss_by_time.sums.copy_(self.loss_sums)
        self.sobol = torch.quasirandom.SobolEngine(1, scramble=True, seed=self.seed + self.global_rank)
        self.sobol.fast_forward(self.timesteps_drawn)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        # Encoding has a generator of its own, so precomputed latents do not change the random numbers below.
        seed = mixed_seed(self.seed, self.global_rank, self.current_epoch, batch_index) + 1
        latents = self.latents_of(batch, torch.Generator(self.device).manual_seed(seed))
        conditions = self.diffusion.condition(batch)
        p_true = self.probability_of_true_rhythm()
        t = self.draw_timesteps(len(batch), batch.skipped)
        losses = training_losses(
            self.diffusion.model,
            conditions.with_rhythm(torch.rand(len(batch), device=self.device) < p_true),
            latents,
            torch.randn_like(latents),
            t,
            self.diffusion.objective,
            condition_dropout=self.recipe.cfg_dropout_prob,
            joint_dropout=self.recipe.joint_dropout_prob,
        )
        if batch.padding:  # every process has to take part in the step
            return 0 * losses.total
        self.log("train/loss", losses.total, prog_bar=True, batch_size=len(batch))
        self.log_dict(
            {
                "train/mse_loss": losses.mse,
                "train/rhythm_loss": losses.rhythm,
                "train/rhythm_correlation": rhythm_correlation(conditions),
                "train/p_true_rhythm": losses.mse.new_full((), p_true),  # copying a number would wait for the device
            },
            batch_size=len(batch),
        )
        if self.recipe.log_loss_info:
            self.loss_by_time.add(losses, t)
        return losses.total

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.recipe.log_loss_info and (self.global_step + 1) % self.trainer.log_every_n_steps == 0:
            log_row(self.trainer, self.loss_by_time.take(self._summed), self.global_step)

    def on_before_zero_grad(self, optimizer: torch.optim.Optimizer) -> None:
        if self.diffusion_ema is not None:
            self.diffusion_ema.update()

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Loss of the averaged weights with predicted rhythm, fixed noise and fixed timesteps.

        The values are comparable between validations. A padding batch has weight 0.
        """
        latents = self.latents_of(batch, torch.Generator(self.device).manual_seed(batch_index))
        model, clips = self.averaged, 0 if batch.padding else len(batch)
        conditions = model.condition(batch)
        # Differs from the seed of the latents' noise even with --seed 0.
        generator = torch.Generator(self.device).manual_seed(self.seed + 1 + batch_index)
        for time in VALIDATION_TIMES:
            noise = torch.randn(latents.shape, generator=generator, device=self.device)
            t = torch.full((len(batch),), time, device=self.device)
            losses = training_losses(model.model, conditions, latents, noise, t, model.objective)
            self.log(f"val/mse_t{time}", losses.mse, batch_size=clips, sync_dist=True)
            self.log("val/loss", losses.mse, batch_size=clips, sync_dist=True)
        # Weighted by the number of values, so that the mean does not depend on how clips fall into batches.
        values = int(conditions.true_rhythm_mask.sum()) if clips else 0
        self.log("val/rhythm_loss", losses.rhythm, batch_size=values, sync_dist=True, prog_bar=True)
        self.log("val/rhythm_correlation", rhythm_correlation(conditions), batch_size=clips, sync_dist=True)

    def latents_of(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Precomputed latents of the batch, or its audio encoded. InputError if another autoencoder made them."""
        if batch.latents is None:
            return self.diffusion.encode(batch.audio, generator)
        if batch.autoencoder != self.autoencoder:
            raise InputError(
                f"latents of {batch.names[0]}, …: made by autoencoder {str(batch.autoencoder)[:12]}, this run has "
                f"{self.autoencoder[:12]}; encode them again with the weights of --pretransform-ckpt-path"
            )
        return batch.latents.float()

    @cached_property
    def autoencoder(self) -> str:
        """Fingerprint of the frozen autoencoder, once its weights are loaded."""
        return self.diffusion.pretransform.fingerprint()

    def probability_of_true_rhythm(self) -> float:
        """In this epoch. Without joint training always 1: predictor and generator are trained independently."""
        if not self.recipe.joint_rhythm:
            return 1.0
        return probability_of_true_rhythm(self.current_epoch, self.recipe.rhythm_curriculum)

    def draw_timesteps(self, count: int, skipped: int = 0) -> Tensor:
        """t (count,) in [0, 1) from a scrambled Sobol sequence as released, seeded (corrected).

        Uniform as released, or logit-normal (Esser et al. 2024): the sigmoid of a standard normal. Timesteps of
        `skipped` clips are drawn too, so that all processes are at the same place of the sequence.
        """
        t = self.draw_uniform(count, skipped)
        if self.recipe.timestep_sampler == "logit_normal":
            t = torch.sigmoid(torch.special.ndtri(t.clamp(1e-6, 1 - 1e-6)))
        return t.to(self.device, non_blocking=True)

    def draw_uniform(self, count: int, skipped: int = 0) -> Tensor:
        """The next numbers (count,) in [0, 1) of the sequence, on the CPU."""
        self.timesteps_drawn += count + skipped
        return self.sobol.draw(count + skipped)[:count, 0]

    def configure_optimizers(self) -> dict:
        parameters = [parameter for parameter in self.diffusion.parameters() if parameter.requires_grad]
        steps = self.trainer.estimated_stepping_batches
        return build_optimizer(parameters, self.recipe.optimizer_configs["diffusion"], steps)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["model_config"] = self.config.raw
        checkpoint["timesteps_drawn"] = self.timesteps_drawn
        if self.recipe.log_loss_info:
            checkpoint["loss_sums"] = self.loss_by_time.total(self._summed)
        if self.adapters is not None:
            checkpoint["adapters"] = self.adapters

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        self.timesteps_drawn, self.loss_sums = checkpoint.get("timesteps_drawn", 0), checkpoint.get("loss_sums")
        if self.adapters is not None and checkpoint["adapters"]["base_sha256"] != self.adapters["base_sha256"]:
            raise InputError(
                f"{self.adapters['base']}: the checkpoint's adapters were trained on {checkpoint['adapters']['base']}, "
                "another model; give that as --pretrained-ckpt-path"
            )

    def export(self, path: Path, loader: DataLoader) -> None:
        """Write the averaged weights as one safetensors file with the config inside. Every process must call it.

        loader: of the training data; an autoencoder's export needs it.
        """
        state = self.trainer.strategy.lightning_module_state_dict()
        if self.trainer.is_global_zero:
            warn_if_not_averaged(state, path)
        if self.adapters is not None:
            state = lora.MergedState(self.averaged.state_dict(prefix="diffusion."))
        if self.trainer.is_global_zero:
            save_state(state, self.config, path)
            log.info("wrote %s", path)

    def _summed(self, values: Tensor) -> Tensor:
        """Sum over all processes, in place."""
        return self.trainer.strategy.reduce(values, reduce_op="sum")

    def _average(self) -> MovingAverage | None:
        conditioner = self.diffusion.conditioner if self.recipe.ema_conditioner else None
        return MovingAverage(self.diffusion.model, conditioner) if self.recipe.use_ema else None


def _adapters_only(module: nn.Module, state: dict[str, Tensor], prefix: str, metadata: dict) -> None:
    """State-dict hook: keep the adapters and the progress of the average; the base file has the other weights."""
    kept = ("diffusion_ema.step", "diffusion_ema.initted")
    for key in [key for key in state if not (lora.is_adapter(key) or key in kept)]:
        del state[key]


def _released_loss_weights() -> nn.Module:
    """Weights of the two loss terms, under their released names losses.losses.{0,1}.weight."""
    terms = nn.ModuleList([nn.Module(), nn.Module()])
    for term in terms:
        term.register_buffer("weight", torch.tensor(1.0))
    return nn.ModuleDict({"losses": terms})
