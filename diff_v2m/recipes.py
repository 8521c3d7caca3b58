"""What ``train.py`` trains for each ``model_type``: the Lightning module and its data."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import pytorch_lightning as pl
from torch.utils.data import DataLoader

from .config import DatasetConfig, ModelConfig


@dataclass(frozen=True)
class Recipe:
    """`module(config, settings)` to fit and `loader(data, config, settings, training)` to fit it on."""

    module: Callable[[ModelConfig, argparse.Namespace], pl.LightningModule]
    loader: Callable[..., DataLoader]


def recipe_for(model_type: str) -> Recipe:
    return {"diffusion_cond": _diffusion, "autoencoder": _autoencoder}[model_type]()


def _autoencoder() -> Recipe:
    from .autoencoder_training import AudioCrops, AutoencoderModule

    def loader(data: DatasetConfig, config: ModelConfig, settings: argparse.Namespace, training: bool) -> DataLoader:
        return DataLoader(AudioCrops(data, config), settings.batch_size, shuffle=training, drop_last=training)

    return Recipe(AutoencoderModule.from_settings, loader)


def _diffusion() -> Recipe:
    from .dataset import build_dataloader
    from .training import DiffusionModule

    def loader(data: DatasetConfig, config: ModelConfig, settings: argparse.Namespace, training: bool) -> DataLoader:
        return build_dataloader(data, config, batch_size=settings.batch_size, num_workers=settings.num_workers,
                                training=training, seed=settings.seed)

    return Recipe(DiffusionModule.from_settings, loader)
