"""Settings → a Lightning Trainer: hardware, checkpoints, logger, progress, and where to go on from."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Checkpoint, LearningRateMonitor, ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers import CSVLogger, Logger
from pytorch_lightning.plugins.environments import LightningEnvironment, SLURMEnvironment

from .checkpoints import check_resumable
from .errors import InputError

log = logging.getLogger(__name__)


def build_trainer(settings: argparse.Namespace, validates: bool) -> pl.Trainer:
    """The Trainer of a run; ``validates`` says whether there is a validation set to choose checkpoints by.

    Raises InputError for hardware or a strategy that this machine does not have.
    """
    folder = run_folder(settings)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made: {error.strerror}; choose another --save-dir") from error
    try:
        return pl.Trainer(
            default_root_dir=folder,
            accelerator=settings.accelerator,
            devices=settings.num_gpus,
            num_nodes=settings.num_nodes,
            strategy=settings.strategy or ("ddp" if settings.num_gpus * settings.num_nodes > 1 else "auto"),
            precision={"16": "16-mixed"}.get(settings.precision, settings.precision),
            plugins=[_environment()],
            max_epochs=settings.max_epochs,
            max_steps=settings.max_steps,
            accumulate_grad_batches=settings.accum_batches,
            gradient_clip_val=settings.gradient_clip_val or None,
            val_check_interval=settings.val_every * settings.accum_batches or None,
            check_val_every_n_epoch=None if settings.val_every else 1,
            log_every_n_steps=settings.log_every,
            logger=_logger(settings, folder),
            callbacks=_callbacks(settings, folder, validates),
            enable_model_summary=False,
        )
    except (MisconfigurationException, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{reason}; see --accelerator, --num-gpus, --strategy, --precision and --logger") from error


def run_folder(settings: argparse.Namespace) -> Path:
    """Where the run of this name keeps its checkpoints, logs and final weights."""
    return Path(settings.save_dir) / settings.name


def checkpoint_to_resume(settings: argparse.Namespace, module: pl.LightningModule) -> Path | None:
    """``ckpt_path``, or with ``recover`` the last checkpoint of this run's folder, or None to start afresh.

    Raises InputError if it is no checkpoint of ``module``'s architecture.
    """
    last = _last_checkpoint(settings)
    if settings.ckpt_path:
        path = Path(settings.ckpt_path)
    elif settings.recover and last.is_file():
        path = last
    else:
        return None
    check_resumable(path, module)
    log.info("going on from %s", path)
    return path


def _last_checkpoint(settings: argparse.Namespace) -> Path:
    return run_folder(settings) / "checkpoints" / "last.ckpt"


class SeededBatches(pl.Callback):
    """Noise and dropout of a batch follow from (seed, process, epoch, batch), and a run resumed within an epoch goes on
    with its next batch: interrupted or not, it sees and draws the same."""

    def __init__(self, seed: int):
        self.seed = seed

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # Lightning restores a loader only if nobody asked for the number of steps before, as a schedule does.
        done = trainer.fit_loop.epoch_loop.batch_progress.current.processed
        trainer.train_dataloader.load_state_dict({"given": done})

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch, batch_idx: int) -> None:
        place = np.random.SeedSequence([self.seed, trainer.global_rank, trainer.current_epoch, batch_idx])
        torch.manual_seed(int(place.generate_state(1)[0]))


class LastCheckpoint(Checkpoint):
    """Keeps the newest state of a run, every so many optimiser steps and after its last one."""

    def __init__(self, path: Path, every: int):
        self.path, self.every = path, every

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.saved = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs, batch, batch_idx: int
    ) -> None:
        step = trainer.global_step  # stands still while gradients are accumulated
        if step != self.saved and (step % self.every == 0 or step == trainer.estimated_stepping_batches):
            trainer.save_checkpoint(self.path)
            self.saved = step


def _callbacks(settings: argparse.Namespace, folder: Path, validates: bool) -> list[pl.Callback]:
    callbacks = [
        SeededBatches(settings.seed),
        TQDMProgressBar(refresh_rate=settings.log_every),
        LastCheckpoint(_last_checkpoint(settings), settings.checkpoint_every),
    ]
    if settings.logger != "none":
        callbacks.append(LearningRateMonitor("step"))
    if validates:  # after every validation
        best = {"monitor": "val/loss", "save_top_k": settings.save_top_k, "save_on_train_epoch_end": False}
        callbacks.append(ModelCheckpoint(folder / "checkpoints", "best-{step}", enable_version_counter=False, **best))
    return callbacks


def _logger(settings: argparse.Namespace, folder: Path) -> Logger | bool:
    if settings.logger == "none":
        return False
    if settings.logger == "wandb":
        from pytorch_lightning.loggers import WandbLogger

        return WandbLogger(name=settings.name, project=settings.project, save_dir=folder)
    return CSVLogger(folder, name="logs")


def _environment() -> LightningEnvironment | SLURMEnvironment:
    # SLURM_NTASKS alone makes Lightning believe in one process a task; a batch script that runs one task starts its
    # own processes, so only a job whose tasks are its devices is left to Slurm.
    tasks = int(os.environ.get("SLURM_NTASKS", "1"))
    return SLURMEnvironment() if tasks > 1 else LightningEnvironment()
