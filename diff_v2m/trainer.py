"""Settings → a Lightning Trainer: hardware, checkpoints, logger, progress."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint, RichProgressBar, TQDMProgressBar
from pytorch_lightning.loggers import CSVLogger, Logger
from pytorch_lightning.plugins.environments import LightningEnvironment, SLURMEnvironment

from .errors import InputError

log = logging.getLogger(__name__)


def build_trainer(settings: argparse.Namespace, validates: bool) -> pl.Trainer:
    """The Trainer of a run; ``validates`` says whether there is a validation set to choose checkpoints by."""
    folder = run_folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    return pl.Trainer(
        default_root_dir=folder,
        accelerator=settings.accelerator,
        devices=settings.num_gpus,
        num_nodes=settings.num_nodes,
        strategy=settings.strategy or ("ddp" if settings.num_gpus * settings.num_nodes > 1 else "auto"),
        precision={"16": "16-mixed"}.get(settings.precision, settings.precision),
        plugins=[_environment(settings)],
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


def run_folder(settings: argparse.Namespace) -> Path:
    """Where the run of this name keeps its checkpoints, logs and final weights."""
    return Path(settings.save_dir) / settings.name


def checkpoint_to_resume(settings: argparse.Namespace) -> Path | None:
    """``ckpt_path``, or with ``recover`` the last checkpoint of this run's folder, or None to start afresh."""
    if settings.ckpt_path:
        if not Path(settings.ckpt_path).is_file():
            raise InputError(f"--ckpt-path {settings.ckpt_path}: no such file")
        return Path(settings.ckpt_path)
    last = run_folder(settings) / "checkpoints" / "last.ckpt"
    if settings.recover and last.is_file():
        log.info("resuming from %s", last)
        return last
    return None


def _callbacks(settings: argparse.Namespace, folder: Path, validates: bool) -> list[pl.Callback]:
    kept = {"save_top_k": settings.save_top_k, "monitor": "val/loss"} if validates else {"save_top_k": 0}
    checkpoints = [
        ModelCheckpoint(folder / "checkpoints", filename="best-{step}", every_n_train_steps=settings.checkpoint_every,
                        **kept) if validates else None,
        ModelCheckpoint(folder / "checkpoints", filename="last", save_top_k=1, enable_version_counter=False,
                        every_n_train_steps=settings.checkpoint_every, save_on_train_epoch_end=False),
    ]
    return [callback for callback in checkpoints if callback] + [
        TQDMProgressBar(refresh_rate=settings.log_every),
        *([] if settings.logger == "none" else [LearningRateMonitor("step")]),
    ]


def _logger(settings: argparse.Namespace, folder: Path) -> Logger | bool:
    if settings.logger == "none":
        return False
    if settings.logger == "wandb":
        from pytorch_lightning.loggers import WandbLogger

        return WandbLogger(name=settings.name, project=settings.project, save_dir=folder)
    return CSVLogger(folder, name="logs")


def _environment(settings: argparse.Namespace) -> LightningEnvironment | SLURMEnvironment:
    # SLURM_NTASKS alone makes Lightning believe in one process a task; a batch script that runs one task starts its
    # own processes, so only a job whose tasks are its devices is left to Slurm.
    tasks = int(os.environ.get("SLURM_NTASKS", "1"))
    return SLURMEnvironment() if tasks > 1 else LightningEnvironment()
