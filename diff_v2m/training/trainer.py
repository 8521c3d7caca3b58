"""Settings → a Lightning Trainer: hardware, checkpoints, logger, progress, and where to go on from."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers import CSVLogger, Logger
from pytorch_lightning.plugins.environments import LightningEnvironment, SLURMEnvironment

from diff_v2m.checkpoints.loading import check_resumable
from diff_v2m.common.errors import InputError
from diff_v2m.training.callbacks import (
    FiniteLoss,
    LastCheckpoint,
    ReadableClips,
    SeededBatches,
    Throughput,
    ValidationSchedule,
)
from diff_v2m.training.distributed import build_precision, build_strategy
from diff_v2m.training.preemption import StopSignals
from diff_v2m.training.run_folder import WholeCheckpoints, last_checkpoint, newest_checkpoint, read_record, run_folder

log = logging.getLogger(__name__)


def build_trainer(
    settings: argparse.Namespace, signals: StopSignals, validates: bool, more_callbacks: Sequence[pl.Callback] = ()
) -> pl.Trainer:
    """The Trainer of a run that ends at `signals`; `validates`: there is a validation set to choose checkpoints by.

    Raises InputError for hardware, a strategy or a logger that this machine does not have.
    """
    folder, (precision, plugins) = run_folder(settings), build_precision(settings)
    try:
        return pl.Trainer(
            default_root_dir=folder,
            accelerator=settings.accelerator,
            devices=settings.num_gpus,
            num_nodes=settings.num_nodes,
            strategy=build_strategy(settings),
            precision=precision,
            plugins=[_environment(), WholeCheckpoints(), *plugins],
            max_epochs=settings.max_epochs,
            max_steps=settings.max_steps,
            accumulate_grad_batches=settings.accum_batches,
            gradient_clip_val=settings.gradient_clip_val or None,
            val_check_interval=settings.val_every or None,  # in steps: see `ValidationSchedule`
            check_val_every_n_epoch=None if settings.val_every else 1,
            log_every_n_steps=settings.log_every,
            logger=_logger(settings, folder),
            callbacks=[*_callbacks(settings, signals, folder, validates), *more_callbacks],
            use_distributed_sampler=False,  # the data set's own loader deals clips out to processes
            enable_model_summary=False,
        )
    except (MisconfigurationException, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{reason}; see --accelerator, --num-gpus, --strategy, --precision and --logger") from error


def checkpoint_to_resume(settings: argparse.Namespace, module: pl.LightningModule) -> Path | None:
    """With `recover` the newest checkpoint of this run's folder, if there is one; else `ckpt_path`; else None: start
    afresh. So a job that Slurm starts again does not go back to where a `ckpt_path` made it begin.

    Raises InputError if it is no checkpoint of `module`'s architecture.
    """
    newest = newest_checkpoint(last_checkpoint(settings).parent)
    if settings.recover and newest:
        path = newest
    elif settings.ckpt_path:
        path = Path(settings.ckpt_path)
    else:
        return None
    if not path.is_dir():  # which deepspeed makes, and reads by itself
        check_resumable(path, module)
    log.info("going on from %s", path)
    return path


def _callbacks(settings: argparse.Namespace, signals: StopSignals, folder: Path, validates: bool) -> list[pl.Callback]:
    last = last_checkpoint(settings)
    finite = FiniteLoss(last.parent)
    validation = ValidationSchedule(settings.val_every) if validates else None
    callbacks = [
        SeededBatches(settings.seed),
        TQDMProgressBar(refresh_rate=settings.log_every),
        finite,
        ReadableClips(),
        Throughput(),
    ]
    if settings.logger != "none":
        callbacks.append(LearningRateMonitor("step"))
    if validation is not None:
        best = {"monitor": "val/loss", "save_top_k": settings.save_top_k, "save_on_train_epoch_end": False}
        best_checkpoint = ModelCheckpoint(last.parent, "best-{step}", enable_version_counter=False, **best)
        callbacks += [validation, best_checkpoint]
    # last of all: it saves the state of the others
    return [*callbacks, LastCheckpoint(last, settings.checkpoint_every, finite, signals, validation)]


def _logger(settings: argparse.Namespace, folder: Path) -> Logger | bool:
    if settings.logger == "none":
        return False
    if settings.logger == "wandb":
        from pytorch_lightning.loggers import WandbLogger

        run = read_record(settings)["id"]  # a run that goes on is one curve
        return WandbLogger(name=settings.name, project=settings.project, save_dir=folder, id=run, resume="allow")
    if settings.logger == "tensorboard":
        from pytorch_lightning.loggers import TensorBoardLogger

        return TensorBoardLogger(folder, name="logs")
    return CSVLogger(folder, name="logs", flush_logs_every_n_steps=1)  # at once: a killed run keeps its curve


def _environment() -> LightningEnvironment | SLURMEnvironment:
    # SLURM_NTASKS alone makes Lightning believe in one process a task; a batch script that runs one task starts its
    # own processes, so only a job whose tasks are its devices is left to Slurm. Lightning's requeueing saves in the
    # middle of a step; `LastCheckpoint` waits for its end.
    tasks = int(os.environ.get("SLURM_NTASKS", "1"))
    return SLURMEnvironment(auto_requeue=False) if tasks > 1 else LightningEnvironment()
