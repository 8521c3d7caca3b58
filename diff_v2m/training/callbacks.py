"""What happens around the training step: seeds, checkpoints, stopping in time, and what is measured."""

from __future__ import annotations

import time
from collections.abc import Sized
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor, distributed

from diff_v2m.common.errors import InputError
from diff_v2m.common.seeding import mixed_seed
from diff_v2m.training.preemption import Interrupted, StopSignals
from diff_v2m.training.run_folder import kept_after_failure, remove_partial_checkpoints

LOSS, GRADIENT = 0, 1
WHAT = ("loss", "gradient")


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
        torch.manual_seed(mixed_seed(self.seed, trainer.global_rank, trainer.current_epoch, batch_idx))


class FiniteLoss(pl.Callback):
    """Ends a run whose loss or gradient is NaN or infinite, and says in which batch that began.

    Every batch is looked at on the device; the host asks only when values are logged, and before anything is saved, so
    that no checkpoint of broken weights is written.
    """

    def __init__(self, checkpoints: Path):
        self.checkpoints = checkpoints

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.first_bad = torch.full((2,), -1, device=module.device)  # in `batches`; of a bad loss, of a bad gradient
        self.batches: list[tuple[int, str]] = []  # (step, clips) of those not yet asked about

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: pl.LightningModule, optimizer) -> None:
        norm = torch.nn.utils.get_total_norm([p.grad for p in module.parameters() if p.grad is not None])
        norm = getattr(norm, "full_tensor", lambda: norm)()  # of weights that are dealt out, a part of it is here
        module.log("train/grad_norm", norm)
        if getattr(trainer.precision_plugin, "scaler", None) is None:  # a scaler leaves out such steps by itself
            self._note(GRADIENT, norm)

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        clips = ", ".join(getattr(batch, "names", ())) or f"batch {batch_idx} of epoch {trainer.current_epoch}"
        self.batches.append((trainer.global_step + 1, clips))

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs, batch, batch_idx) -> None:
        self._note(LOSS, outputs["loss"])
        if logs_now(trainer):
            self.check(trainer)

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self.check(trainer)

    def check(self, trainer: pl.Trainer) -> None:
        """Waits for the device. Raises InputError, in every process, if a batch was bad in any."""
        bad = [(*self.batches[i], WHAT[kind]) for kind, i in enumerate(self.first_bad.tolist()) if i >= 0]
        if not trainer.strategy.reduce_boolean_decision(bool(bad), all=False):
            self.batches.clear()
            return
        found = [event for events in _gathered(bad) for event in events]
        step = min(step for step, _, _ in found)
        # a gradient is everybody's: where a loss was bad too, that is the cause
        what = max(what for bad_step, _, what in found if bad_step == step)
        clips = "; ".join(clips for bad_step, clips, kind in found if (bad_step, kind) == (step, what))
        kept = kept_after_failure(self.checkpoints)
        raise InputError(
            f"the {what} is NaN or infinite in step {step} (clips: {clips}); {kept}; look at those clips, or go on "
            "with a lower learning rate, --gradient-clip-val 1 or --precision bf16-mixed"
        )

    def _note(self, kind: int, value: Tensor) -> None:
        bad = ~torch.isfinite(value.detach()) & (self.first_bad[kind] < 0)
        self.first_bad[kind] = torch.where(bad, len(self.batches) - 1, self.first_bad[kind])


class ReadableClips(pl.Callback):
    """Ends a run of which no process could read a single clip in a whole epoch; one batch like that is passed over."""

    unread = 0  # batches without a clip, one after the other

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Sized, batch_idx) -> None:
        self.unread = 0 if len(batch) else self.unread + 1

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.strategy.reduce_boolean_decision(self.unread >= trainer.num_training_batches, all=True):
            raise InputError("the audio of no clip could be read in a whole epoch; the warnings above say why")


def logs_now(trainer: pl.Trainer) -> bool:
    """Whether the batch just done completes an optimiser step whose values are logged."""
    accumulating = trainer.fit_loop.epoch_loop._should_accumulate()
    return not accumulating and trainer.global_step % trainer.log_every_n_steps == 0


def _gathered(value: Any) -> list:
    """That of every process."""
    if not distributed.is_initialized():
        return [value]
    values = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


class LastCheckpoint(Checkpoint):
    """Keeps the newest state of a run: every so many optimiser steps, before it validates, after its last step, and
    when it must stop.

    Lightning writes a step's row of the log after that, and validates after that: what a run that was ended in between
    has missed is in its checkpoint, and comes first when it goes on. So a validation may be broken off.
    """

    def __init__(self, path: Path, every: int, finite: FiniteLoss, signals: StopSignals):
        self.path, self.every, self.finite, self.signals = path, every, finite, signals
        self.row: dict[str, float] = {}  # what the step logs
        self.validation_follows = False

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        # `signals` are there already; Lightning would answer SIGTERM in the middle of a step.
        trainer._signal_connector.register_signal_handlers = lambda: None

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.saved, self.newest = trainer.global_step, trainer.ckpt_path  # a step, and where the state after it is
        if trainer.is_global_zero:
            remove_partial_checkpoints(self.path.parent)
        self.signals.connect()
        # It would ask every process, and wait for the device, at every batch; `signals` does not wait.
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None
        if self.row:
            trainer._logger_connector.log_metrics(self.row)
        if self.validation_follows:
            _validate(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs, batch, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step == self.saved:  # no step since: gradients are being accumulated
            return
        signum, loop = self.signals.agreed(), trainer.fit_loop
        validates = loop.epoch_loop._should_check_val_fx(loop._data_fetcher)
        if signum or validates or step % self.every == 0 or step == trainer.estimated_stepping_batches:
            self.finite.check(trainer)
            logs = trainer._logger_connector
            values = logs.metrics["log"] if logs.should_update_logs else {}
            self.row = {name: float(value) for name, value in values.items()}
            self.validation_follows = validates
            trainer.save_checkpoint(self.path)
            self.saved, self.newest = step, self.path
        if signum:
            raise Interrupted(signum, step, self.path)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs, batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if not trainer.sanity_checking and (signum := self.signals.agreed()):
            raise Interrupted(signum, self.saved, self.newest)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:  # what is saved from here on has missed nothing
            self.row, self.validation_follows = {}, False

    def state_dict(self) -> dict[str, Any]:
        return {"row": self.row, "validation_follows": self.validation_follows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.row, self.validation_follows = state_dict["row"], state_dict["validation_follows"]


def _validate(trainer: pl.Trainer) -> None:
    """Between two training batches, as the training loop does it; Lightning itself skips it when it resumes."""
    loop = trainer.fit_loop.epoch_loop.val_loop
    loop.restarting = False
    trainer.validating = True
    loop.run()
    trainer.training = True


class ValidateEvery(pl.Callback):
    """Has a run validate every so many optimiser steps.

    Lightning counts batches. The last step of an epoch may have fewer than the others, and from then on it would
    validate in the middle of a step.
    """

    def __init__(self, steps: int):
        self.steps = steps

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        loop = trainer.fit_loop.epoch_loop
        loop._should_check_val_fx = lambda _: not (loop._should_accumulate() or trainer.global_step % self.steps)


class Throughput(pl.Callback):
    """Logs clips a second over all processes, validation left out, and the largest GPU memory so far in GiB."""

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.clips, self.since = 0, time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs, batch: Sized, batch_idx: int
    ) -> None:
        self.clips += len(batch) * trainer.world_size
        if not logs_now(trainer):
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
