"""Training of a pretransform: steps, validation, latent statistics and export, whatever it encodes."""

from __future__ import annotations

import argparse
import logging
from abc import ABC, abstractmethod
from itertools import islice
from pathlib import Path
from typing import Self

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from diff_v2m.checkpoints.files import save_model
from diff_v2m.checkpoints.loading import load_vae_weights
from diff_v2m.common.errors import InputError
from diff_v2m.common.progress import in_stage
from diff_v2m.config import Config, DatasetConfig, DatasetEntry, ModelConfig
from diff_v2m.data.feature_store import files_by_stem
from diff_v2m.data.loader import seeded_loader
from diff_v2m.model.pretransform import build_pretransform
from diff_v2m.training.optim import build_optimizer

log = logging.getLogger(__name__)


class PretransformModule(pl.LightningModule, ABC):
    """`autoencoder` is the pretransform; a batch is what it encodes."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config, self.autoencoder = config, build_pretransform(config.pretransform)
        if config.training.freeze_encoder:
            self.autoencoder.model["encoder"].requires_grad_(False)

    @classmethod
    def from_settings(cls, config: ModelConfig, settings: argparse.Namespace) -> Self:
        """The module of this config, with the starting weights that the flags name."""
        for flag in ("compile", "init_dit_ckpt_path", "lora_rank"):
            if getattr(settings, flag):
                raise InputError(f"--{flag.replace('_', '-')} is for the generator; an autoencoder has no transformer")
        module = cls(config)
        if start := settings.pretrained_ckpt_path or settings.pretransform_ckpt_path:
            load_vae_weights(module.autoencoder, start, measured=not module.measures_latents)
        if module.measures_latents:  # or checkpoints would hold those of the starting weights
            module.autoencoder.latent_mean.zero_()
            module.autoencoder.latent_std.fill_(1)
        return module

    @property
    def measures_latents(self) -> bool:
        """Whether the latent statistics are measured when training has ended; until then they are 0 and 1."""
        return self.autoencoder.normalize_latents and not self.config.training.freeze_encoder

    @classmethod
    def loader(
        cls, data: DatasetConfig, config: ModelConfig, settings: argparse.Namespace, *, training: bool
    ) -> DataLoader:
        return seeded_loader(  # without workers: the data is in memory
            cls.crops(data, config),
            batch_size=settings.batch_size,
            training=training,
            drop_last=training,
            seed=settings.seed,
            padding_batch=lambda source: source[:0],
        )

    @staticmethod
    def recorded(config: ModelConfig, loader: DataLoader) -> ModelConfig:
        """The config; nothing of the data belongs into it."""
        return config

    def training_step(self, source: Tensor, batch_index: int) -> Tensor:
        losses = self.losses(source)
        self.log_dict({f"train/{name}": value for name, value in losses.items()})
        total = self.total(losses)
        self.log("train/loss", total, prog_bar=True)
        return total

    def validation_step(self, source: Tensor, batch_index: int) -> None:
        if not len(source):  # a padding batch
            return
        losses = self.losses(source)
        values = {"loss": self.total(losses), **losses}
        self.log_dict({f"val/{k}": v for k, v in values.items()}, batch_size=len(source), sync_dist=True)

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """The weighted sum of the loss terms."""
        return sum(weight * losses[name] for name, weight in self.weights)

    @property
    @abstractmethod
    def weights(self) -> Config:
        """Weights of the loss terms, by name."""

    @staticmethod
    @abstractmethod
    def crops(data: DatasetConfig, config: ModelConfig) -> Dataset:
        """The crops of a data set that the loader batches."""

    @abstractmethod
    def losses(self, source: Tensor) -> dict[str, Tensor]:
        """Unweighted loss terms of a batch."""

    def configure_optimizers(self) -> dict:
        parameters = [parameter for parameter in self.autoencoder.parameters() if parameter.requires_grad]
        recipe = self.config.training.optimizer_configs["autoencoder"]
        return build_optimizer(parameters, recipe, self.trainer.estimated_stepping_batches)

    @torch.no_grad()
    def measure_latents(self, loader: DataLoader, batches: int = 100) -> None:
        """Measure the per-channel mean and standard deviation that `normalize_latents` uses."""
        self.to(self.trainer.strategy.root_device)  # Lightning leaves the module on the CPU
        loader.load_state_dict({"given": 0})  # a whole epoch, wherever a resumed run stopped
        moments, count = [], min(batches, len(loader))
        for source in in_stage(islice(loader, count), "latent statistics", "batch", count):
            mean, std = self.autoencoder.posterior(source.to(self.device))
            moments.append(torch.stack([mean, mean**2 + std**2]).mean(dim=(1, 3)))  # (2, latent_dim)
        first, second = torch.stack(moments).mean(0).unsqueeze(-1)
        self.autoencoder.latent_mean.copy_(first)
        self.autoencoder.latent_std.copy_((second - first**2).clamp(min=1e-8).sqrt())

    def export(self, path: Path, loader: DataLoader) -> None:
        """Measure the latents of `loader`, and write the autoencoder as one safetensors file with the config inside.

        A finished run that is started again skips training, but not this. Every process may call it.
        """
        if self.trainer.is_global_zero:
            if self.measures_latents:
                self.measure_latents(loader)
            save_model(self.autoencoder, self.config, path, dtype=None)
            log.info("wrote %s", path)


def files_of(entry: DatasetEntry, suffixes: tuple[str, ...]) -> list[Path]:
    """Files of a data set that a pretransform is trained on, sorted. Raises InputError if there are none."""
    if entry.path is None:
        raise InputError(f"{entry.id}: path: expected the folder of {' or '.join(suffixes)} files to train on")
    return list(files_by_stem(entry.path, suffixes, f"{entry.id}: path").values())
