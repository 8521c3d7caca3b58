"""What `train.py` trains for each `model_type`: the Lightning module and its data."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from dataclasses import dataclass

import pytorch_lightning as pl
from torch.utils.data import DataLoader

from diff_v2m.common.errors import InputError
from diff_v2m.config import DatasetConfig, ModelConfig
from diff_v2m.training.preemption import StopSignals

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """`module(config, settings)` to fit, `loader(data, config, settings, training)` to fit it on, and what to do
    beside that: `callbacks(data, config, settings, signals)`."""

    module: Callable[[ModelConfig, argparse.Namespace], pl.LightningModule]
    loader: Callable[..., DataLoader]
    callbacks: Callable[[DatasetConfig, ModelConfig, argparse.Namespace, StopSignals], list[pl.Callback]]


def recipe_for(config: ModelConfig) -> Recipe:
    """Raises InputError if the model JSON does not say how to train it."""
    name, recipe = {"diffusion_cond": ("diffusion", _diffusion), "autoencoder": ("autoencoder", _autoencoder)}[
        config.model_type
    ]
    if config.training is None or name not in config.training.optimizer_configs:
        raise InputError(f"model JSON: training.optimizer_configs.{name}: missing key, needed to train")
    return recipe()


def _autoencoder() -> Recipe:
    from diff_v2m.data.loader import seeded_loader
    from diff_v2m.training.autoencoder_module import AudioCrops, AutoencoderModule

    def loader(data: DatasetConfig, config: ModelConfig, settings: argparse.Namespace, training: bool) -> DataLoader:
        # no workers: crops of audio held in memory cost nothing
        return seeded_loader(
            AudioCrops(data, config),
            batch_size=settings.batch_size,
            training=training,
            drop_last=training,
            seed=settings.seed,
            padding_batch=lambda audio: audio[:0],
        )

    return Recipe(AutoencoderModule.from_settings, loader, callbacks=lambda *_: [])


def _diffusion() -> Recipe:
    from diff_v2m.data.loader import build_dataloader
    from diff_v2m.training.demos import Demos
    from diff_v2m.training.diffusion_module import DiffusionModule
    from diff_v2m.training.music_metrics import MusicMetrics
    from diff_v2m.training.run_folder import run_folder

    def loader(data: DatasetConfig, config: ModelConfig, settings: argparse.Namespace, training: bool) -> DataLoader:
        return build_dataloader(
            data,
            config,
            batch_size=settings.batch_size,
            num_workers=settings.num_workers,
            training=training,
            seed=settings.seed,
        )

    def callbacks(
        data: DatasetConfig, config: ModelConfig, settings: argparse.Namespace, signals: StopSignals
    ) -> list[pl.Callback]:
        demo, metrics, found = config.training.demo, config.training.metrics, []
        if demo is not None and demo.demo_every and demo.num_demos:
            found.append(Demos(demo, data, run_folder(settings) / demo.demo_save_dir, settings.seed, signals))
        if metrics is not None:
            found.append(MusicMetrics(metrics, data, settings.seed, signals))
        if found and settings.strategy == "fsdp2":  # one process composes, and there no process has all the weights
            log.warning("--strategy fsdp2: no demos and no figures of the music")
            return []
        return found

    return Recipe(DiffusionModule.from_settings, loader, callbacks)
