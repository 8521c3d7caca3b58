"""Stopping a run from outside without losing a step: by SIGUSR1 when a job's time is nearly up, or by SIGTERM."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGUSR1, signal.SIGTERM)


class Interrupted(Exception):
    """Raised in every process of a run once its state after `step` is in `checkpoint`."""

    def __init__(self, signum: int, step: int, checkpoint: Path | str):
        super().__init__(f"stopped by {signal.Signals(signum).name} after step {step}")
        self.signum, self.step, self.checkpoint = signum, step, checkpoint


class StopSignals:
    """Notes signals that come within the `with`, and tells all processes at the same step.

    torch is imported only where it is needed: a signal may come while that takes its time.
    """

    def __init__(self) -> None:
        self.received = 0
        self.group: ProcessGroup | None = None

    def __enter__(self) -> StopSignals:
        self.before = {signum: signal.signal(signum, self._note) for signum in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self.before.items():
            signal.signal(signum, handler)

    def connect(self) -> None:
        """To be called in every process of a distributed run, once it has begun."""
        from torch import distributed

        # Apart from the group that gradients travel in: the answer is needed on the host, and a GPU must not be
        # waited for to get it.
        self.group = distributed.new_group(backend="gloo") if distributed.is_initialized() else None

    def agreed(self) -> int:
        """The largest number of a signal that any process was sent; 0: none."""
        if self.group is None:
            return self.received
        import torch
        from torch import distributed

        received = torch.tensor([self.received])
        distributed.all_reduce(received, distributed.ReduceOp.MAX, group=self.group)
        return int(received)

    def _note(self, signum: int, frame: object) -> None:
        self.received = max(self.received, signum)


def end_interrupted(interruption: Interrupted) -> None:
    """Have Slurm start the job again if its time was up; otherwise exit with 128 + the signal's number.

    After SIGTERM, Slurm has decided about the job already.
    """
    job = os.environ.get("SLURM_JOB_ID")
    what = f"{interruption}; its state is in {interruption.checkpoint}"
    if interruption.signum != signal.SIGUSR1 or job is None:
        _exit(f"{what}; --recover goes on", 128 + interruption.signum)
    # Said before: a job that is queued again is ended at once.
    log.info("%s; asking Slurm to queue job %s again", what, job)
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
        reason = done.stderr.strip() if done.returncode else ""
    except OSError as error:
        reason = str(error)
    if reason:
        _exit(f"{what}; Slurm does not start the job again ({reason}): submit it with --recover", 1)


def _exit(message: str, status: int) -> None:
    log.error("train.py: %s", message)
    sys.exit(status)
