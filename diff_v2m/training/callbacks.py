"""Callbacks around the training step: seeds, finite losses, validation schedule, checkpoints, throughput."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, TQDMProgressBar
from pytorch_lightning.callbacks.progress.tqdm_progress import Tqdm
from torch import Tensor, distributed

from diff_v2m.common.errors import InputError
from diff_v2m.common.seeding import mixed_seed
from diff_v2m.training.preemption import Interrupted, StopSignals
from diff_v2m.training.run_folder import remove_partial_checkpoints
from diff_v2m.training.run_paths import kept_after_failure

log = logging.getLogger(__name__)

LOSS, GRADIENT = 0, 1
WHAT = ("loss", "gradient")
NEVER = sys.maxsize  # larger than the number of batches of any run


def completes_step(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether this batch of the epoch ends an optimiser step. The last step of an epoch may have fewer batches."""
    batches, last = batch_idx + 1, batch_idx + 1 == trainer.num_training_batches
    steps_on_last = last and not trainer.strategy.handles_gradient_accumulation
    return batches % trainer.accumulate_grad_batches == 0 or steps_on_last


def logs_now(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether this batch ends an optimiser step whose values are logged."""
    return completes_step(trainer, batch_idx) and trainer.global_step % trainer.log_every_n_steps == 0


def log_row(trainer: pl.Trainer, values: Mapping[str, float], step: int) -> None:
    """Write values to every logger at `step`, counted from 0.

    `LightningModule.log` is for values of every step: it repeats the last value for steps without a value.
    """
    for logger in trainer.loggers:
        logger.log_metrics({**values, "epoch": trainer.current_epoch}, step)
        logger.save()


class SeededBatches(pl.Callback):
    """Seeds noise and dropout of a batch from (seed, process, epoch, batch), and resumes an epoch at its next batch.

    A run draws the same batches and random numbers whether it is interrupted or not.
    """

    batches_done = 0  # of the epoch, in the checkpoint that the run resumes from

    def __init__(self, seed: int):
        self.seed = seed

    def on_load_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        self.batches_done = progress["current"]["processed"]

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # Lightning restores a loader only if the number of steps was not asked for before, as a schedule does.
        trainer.train_dataloader.load_state_dict({"given": self.batches_done})

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch, batch_idx: int) -> None:
        torch.manual_seed(mixed_seed(self.seed, trainer.global_rank, trainer.current_epoch, batch_idx))


class FiniteLoss(pl.Callback):
    """Ends a run whose loss or gradient is NaN or infinite, and names the first bad batch.

    Every batch is checked on the device. The host reads the result only when values are logged and before a checkpoint
    is saved, so no checkpoint holds broken weights.
    """

    def __init__(self, checkpoints: Path):
        self.checkpoints = checkpoints

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.first_bad = torch.full((2,), -1, device=module.device)  # index into `batches`: of loss, of gradient
        self.batches: list[tuple[int, str]] = []  # (step, clips) since the last check

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: pl.LightningModule, optimizer) -> None:
        norm = torch.nn.utils.get_total_norm([p.grad for p in module.parameters() if p.grad is not None])
        norm = getattr(norm, "full_tensor", lambda: norm)()  # under FSDP each process holds a part of it
        module.log("train/grad_norm", norm)
        if getattr(trainer.precision_plugin, "scaler", None) is None:  # a gradient scaler skips such steps itself
            self._note(GRADIENT, norm)

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        clips = ", ".join(getattr(batch, "names", ())) or f"batch {batch_idx} of epoch {trainer.current_epoch}"
        self.batches.append((trainer.global_step + 1, clips))

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs, batch, batch_idx) -> None:
        self._note(LOSS, outputs["loss"])
        if logs_now(trainer, batch_idx):
            self.check(trainer)

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self.check(trainer)

    def check(self, trainer: pl.Trainer) -> None:
        """Wait for the device. Raises InputError in every process if a batch of any process was bad."""
        bad = [(*self.batches[i], WHAT[kind]) for kind, i in enumerate(self.first_bad.tolist()) if i >= 0]
        if not trainer.strategy.reduce_boolean_decision(bool(bad), all=False):
            self.batches.clear()
            return
        found = [event for events in _gathered(bad) for event in events]
        step = min(step for step, _, _ in found)
        # Gradients are averaged over processes. Where a loss was bad too, the loss is the cause.
        what = max(what for bad_step, _, what in found if bad_step == step)
        clips = "; ".join(clips for bad_step, clips, kind in found if (bad_step, kind) == (step, what))
        kept = kept_after_failure(self.checkpoints)
        raise InputError(
            f"the {what} is NaN or infinite in step {step} (clips: {clips}); {kept}; check those clips, or resume "
            "with a lower learning rate, --gradient-clip-val 1 or --precision bf16-mixed"
        )

    def _note(self, kind: int, value: Tensor) -> None:
        bad = ~torch.isfinite(value.detach()) & (self.first_bad[kind] < 0)
        self.first_bad[kind] = torch.where(bad, len(self.batches) - 1, self.first_bad[kind])


class ReadableClips(pl.Callback):
    """Ends a run in which no process could read any clip in a whole epoch. Single unreadable batches are skipped."""

    unread = 0  # consecutive padding batches

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx) -> None:
        self.unread = self.unread + 1 if clips_in(batch) == 0 else 0

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.strategy.reduce_boolean_decision(self.unread >= trainer.num_training_batches, all=True):
            raise InputError("no clip's audio could be read for a whole epoch; the warnings above say why")


def clips_in(batch: Any) -> int:
    """Number of clips; 0 for a padding batch."""
    return 0 if getattr(batch, "padding", False) else len(batch)


def _gathered(value: Any) -> list:
    """The value of every process."""
    if not distributed.is_initialized():
        return [value]
    values = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


class ValidationSchedule(pl.Callback):
    """Validates every `every` optimiser steps; 0: at the end of each epoch.

    Lightning counts batches, not steps, and the last step of an epoch may have fewer batches than the others.
    """

    def __init__(self, every: int):
        self.every = every

    def due(self, trainer: pl.Trainer, batch_idx: int) -> bool:
        """Whether validation follows this batch."""
        if self.every:
            return completes_step(trainer, batch_idx) and trainer.global_step % self.every == 0
        return batch_idx + 1 == trainer.num_training_batches

    def due_after_next_step(self, trainer: pl.Trainer, batch_idx: int) -> bool:
        """Whether validation follows the step after the one that this batch ends."""
        if self.every:
            return (trainer.global_step + 1) % self.every == 0
        left = trainer.num_training_batches - (batch_idx + 1)
        return (left or trainer.num_training_batches) <= trainer.accumulate_grad_batches

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.every:
            trainer.val_check_batch = 1 if trainer.global_step % self.every == 0 else NEVER

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs, batch, batch_idx) -> None:
        if self.every:
            trainer.val_check_batch = 1 if self.due(trainer, batch_idx) else NEVER


class LastCheckpoint(Checkpoint):
    """Saves the newest state of a run: every `every` optimiser steps, after the last step, and on a stop signal.

    A step before a validation is saved after the validation. The step before that one is always saved. A run that
    stops within a validation therefore repeats one step, then validates. Lightning logs a step's values after this
    callback has run. The checkpoint holds these values, and a resumed run logs them again.
    """

    def __init__(
        self, path: Path, every: int, finite: FiniteLoss, signals: StopSignals, validation: ValidationSchedule | None
    ):
        """validation: None without a validation set."""
        self.path, self.every, self.finite, self.signals, self.validation = path, every, finite, signals, validation
        self.row: dict[str, float] = {}  # values of the saved step that are not logged yet
        self.batch_idx = -1

    def on_sanity_check_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.signals.install()  # Lightning has just installed its own handler, which would end a run within a step

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.signals.install()
        self.signals.connect()
        self.saved, self.newest = trainer.global_step, trainer.ckpt_path  # a step, and the checkpoint that holds it
        if trainer.is_global_zero:
            remove_partial_checkpoints(self.path.parent)
        if self.row:
            log_row(trainer, self.row, trainer.global_step - 1)

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs, batch, batch_idx) -> None:
        if not completes_step(trainer, batch_idx):
            return
        self.row, self.batch_idx, signum = {}, batch_idx, self.signals.agreed()
        if self.validation is not None and self.validation.due(trainer, batch_idx):
            self.stop(signum)
            return
        if signum or self.due(trainer):
            values = trainer.logged_metrics if logs_now(trainer, batch_idx) else {}
            self.row = {name: float(value) for name, value in values.items() if name.startswith("train/")}
            self.save(trainer)
        self.stop(signum)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs, batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if not trainer.sanity_checking:
            self.stop(self.signals.agreed())

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        signum = self.signals.agreed()
        if signum or self.due(trainer):
            self.save(trainer)
        self.stop(signum)

    def due(self, trainer: pl.Trainer) -> bool:
        step = trainer.global_step
        precedes_validation = self.validation is not None and self.validation.due_after_next_step(
            trainer, self.batch_idx
        )
        return step % self.every == 0 or step == trainer.estimated_stepping_batches or precedes_validation

    def save(self, trainer: pl.Trainer) -> None:
        self.finite.check(trainer)
        trainer.save_checkpoint(self.path)
        self.saved, self.newest = trainer.global_step, self.path

    def stop(self, signum: int) -> None:
        if signum:
            raise Interrupted(signum, self.saved, self.newest)

    def state_dict(self) -> dict[str, Any]:
        return {"row": self.row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.row = state_dict["row"]


class ProgressBar(TQDMProgressBar):
    """Lightning's bar without the logger's version number, and without an empty bar before the first epoch.

    Where stdout is no terminal, one line an epoch instead.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if not sys.stdout.isatty():
            self.disable()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        if self.is_disabled and trainer.is_global_zero:
            loss = trainer.callback_metrics.get("train/loss")
            shown = "" if loss is None else f", train/loss {float(loss):.4g}"
            log.info("epoch %d: %d steps%s", trainer.current_epoch, trainer.global_step, shown)

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics

    def init_train_tqdm(self) -> Tqdm:
        return Tqdm(
            desc=f"Epoch {self.trainer.current_epoch}",
            position=2 * self.process_position,
            disable=self.is_disabled,
            dynamic_ncols=True,
            file=sys.stdout,
            smoothing=0,
            bar_format=self.BAR_FORMAT,
            delay=1e-9,  # tqdm draws a bar with a delay at its first update
        )


class Throughput(pl.Callback):
    """Logs clips per second over all processes, without validation time, and the peak GPU memory in GiB."""

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.clips, self.since = 0, time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs, batch: Any, batch_idx: int
    ) -> None:
        self.clips += clips_in(batch) * trainer.world_size
        if not logs_now(trainer, batch_idx):
            return
        values = {"train/clips_per_second": self.clips / max(time.monotonic() - self.since, 1e-9)}
        if module.device.type == "cuda":
            values["train/gpu_memory_gib"] = torch.cuda.max_memory_allocated(module.device) / 2**30
        module.log_dict(values, batch_size=len(batch))
        self.on_train_start(trainer, module)

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.validation_began = time.monotonic()

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self.since += time.monotonic() - self.validation_began
