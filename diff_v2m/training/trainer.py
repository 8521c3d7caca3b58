"""Settings → the module to train, the Lightning Trainer, and the checkpoint to resume from."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
from pathlib import Path

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from lightning_fabric.utilities.warnings import disable_possible_user_warnings
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, Logger
from pytorch_lightning.plugins.environments import LightningEnvironment, SLURMEnvironment

from diff_v2m.checkpoints.loading import check_resumable
from diff_v2m.common.errors import InputError
from diff_v2m.config import DatasetConfig, ModelConfig
from diff_v2m.training.callbacks import (
    FiniteLoss,
    LastCheckpoint,
    ProgressBar,
    ReadableClips,
    SeededBatches,
    Throughput,
    ValidationSchedule,
)
from diff_v2m.training.distributed import build_precision, build_strategy
from diff_v2m.training.preemption import StopSignals
from diff_v2m.training.run_folder import WholeCheckpoints, read_record
from diff_v2m.training.run_paths import last_checkpoint, newest_checkpoint, run_folder

log = logging.getLogger(__name__)

PRETRANSFORM_MODULES = {  # by type: file and class, imported when wanted
    "autoencoder": ("autoencoder_module", "AutoencoderModule"),
    "score": ("score_module", "ScoreAutoencoderModule"),
}


def module_class(config: ModelConfig, *, distilled: bool = False) -> type[pl.LightningModule]:
    """The module of this `model_type`.

    Raises InputError if the model JSON does not say how to train it.
    """
    name = {"diffusion_cond": "diffusion", "autoencoder": "autoencoder"}[config.model_type]
    if config.training is None or name not in config.training.optimizer_configs:
        raise InputError(f"model JSON: training.optimizer_configs.{name}: missing key, needed to train")
    if name == "autoencoder":
        module, cls = PRETRANSFORM_MODULES[config.pretransform.type]
        return getattr(importlib.import_module(f"diff_v2m.training.{module}"), cls)
    if distilled:
        from diff_v2m.training.distillation import DistillationModule

        return DistillationModule
    if config.model.diffusion.student is not None:
        raise InputError("model JSON: model.diffusion.student: a student is trained with --distill TEACHER")
    from diff_v2m.training.diffusion_module import DiffusionModule

    return DiffusionModule


def build_trainer(
    settings: argparse.Namespace,
    config: ModelConfig,
    data: DatasetConfig,
    val_data: DatasetConfig | None,
    signals: StopSignals,
) -> pl.Trainer:
    """The Trainer of a run that stops at `signals`.

    Raises InputError for hardware, a strategy or a logger that this machine does not have.
    """
    for library in ("pytorch_lightning", "lightning_fabric", "lightning_utilities"):  # whichever was imported last
        logging.getLogger(library).setLevel(logging.WARNING)  # no tips, and no hardware that is not there
    disable_possible_user_warnings()  # for example of a frozen module in evaluation mode
    folder, (precision, plugins) = run_folder(settings), build_precision(settings)
    try:
        trainer = pl.Trainer(
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
            callbacks=_callbacks(settings, config, data, val_data, signals),
            use_distributed_sampler=False,  # the loader's own sampler distributes clips over processes
            enable_model_summary=False,
        )
    except (MisconfigurationException, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{reason}; see --accelerator, --num-gpus, --strategy, --precision and --logger") from error
    if trainer.is_global_zero:
        log.info("%s: training on %d × %s", folder, trainer.world_size, trainer.strategy.root_device.type)
    return trainer


def checkpoint_to_resume(settings: argparse.Namespace, module: pl.LightningModule) -> Path | None:
    """The newest checkpoint of the run's folder with `recover`, else `ckpt_path`, else None: a new run.

    A job that Slurm requeues therefore does not return to its `ckpt_path`. Raises InputError if the checkpoint does not
    fit `module`.
    """
    newest = newest_checkpoint(last_checkpoint(settings).parent)
    if settings.recover and newest:
        path = newest
    elif settings.ckpt_path:
        path = Path(settings.ckpt_path)
    else:
        return None
    if not path.is_dir():  # deepspeed saves and reads a folder
        check_resumable(path, module)
    log.info("resuming from %s", path)
    return path


def _callbacks(
    settings: argparse.Namespace,
    config: ModelConfig,
    data: DatasetConfig,
    val_data: DatasetConfig | None,
    signals: StopSignals,
) -> list[pl.Callback]:
    last = last_checkpoint(settings)
    finite = FiniteLoss(last.parent)
    validation = None if val_data is None else ValidationSchedule(settings.val_every)
    callbacks = [
        SeededBatches(settings.seed),
        ProgressBar(refresh_rate=settings.log_every),
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
    if config.model_type == "diffusion_cond":
        callbacks += _generation_callbacks(config, val_data or data, settings, signals)
    # The last one, because it saves the state of the others.
    return [*callbacks, LastCheckpoint(last, settings.checkpoint_every, finite, signals, validation)]


def _generation_callbacks(
    config: ModelConfig, data: DatasetConfig, settings: argparse.Namespace, signals: StopSignals
) -> list[pl.Callback]:
    """The demos and music metrics that the model JSON asks for, on the clips of `data`."""
    from diff_v2m.training.demos import Demos
    from diff_v2m.training.music_metrics import MusicMetrics

    demo, metrics = config.training.demo, config.training.metrics
    found: list[pl.Callback] = []
    if demo is not None and demo.demo_every and demo.num_demos:
        found.append(Demos(demo, data, run_folder(settings) / demo.demo_save_dir, settings.seed, signals))
    if metrics is not None:
        found.append(MusicMetrics(metrics, data, settings.seed, signals))
    if found and settings.strategy == "fsdp2":  # one process generates, and no process has all weights
        log.warning("--strategy fsdp2: no demos and no music metrics")
        return []
    return found


def _logger(settings: argparse.Namespace, folder: Path) -> Logger | bool:
    if settings.logger == "none":
        return False
    if settings.logger == "wandb":
        from pytorch_lightning.loggers import WandbLogger

        run = read_record(settings)["id"]  # a resumed run continues its curves
        return WandbLogger(name=settings.name, project=settings.project, save_dir=folder, id=run, resume="allow")
    if settings.logger == "tensorboard":
        from pytorch_lightning.loggers import TensorBoardLogger

        return TensorBoardLogger(folder, name="logs")
    return CSVLogger(folder, name="logs", flush_logs_every_n_steps=1)  # a killed run keeps its curves


def _environment() -> LightningEnvironment | SLURMEnvironment:
    # With SLURM_NTASKS set, Lightning expects one process per task. A job of one task starts its own processes, so only
    # jobs with several tasks use Slurm's. Lightning's requeueing saves within a step; `LastCheckpoint` saves after it.
    tasks = int(os.environ.get("SLURM_NTASKS", "1"))
    return SLURMEnvironment(auto_requeue=False) if tasks > 1 else LightningEnvironment()
