"""Stop signals: SIGUSR1, which Slurm sends when a job's time is nearly up, and SIGTERM."""

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
    """Raised in every process of a stopped run. `checkpoint` holds the state after `step`; None: nothing is saved."""

    def __init__(self, signum: int, step: int, checkpoint: Path | str | None):
        kept = f"its state after step {step} is in {checkpoint}" if checkpoint else "nothing was saved yet"
        super().__init__(f"stopped by {signal.Signals(signum).name}; {kept}")
        self.signum = signum


class StopSignals:
    """Records signals within the `with` block. `agreed` returns the same signal in all processes.

    torch is imported late: a signal that arrives during the import must be recorded too.
    """

    def __init__(self) -> None:
        self.received = 0  # the largest signal number so far
        self.group: ProcessGroup | None = None

    def __enter__(self) -> StopSignals:
        self.before = {signum: signal.getsignal(signum) for signum in SIGNALS}
        self.install()
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self.before.items():
            signal.signal(signum, handler)

    def install(self) -> None:
        """Install the handlers, again where a library has replaced them."""
        for signum in SIGNALS:
            signal.signal(signum, self._note)

    def connect(self) -> None:
        """Call once in every process after torch.distributed is initialised."""
        from torch import distributed

        # A gloo group of its own: the result is needed on the host, without waiting for a GPU.
        self.group = distributed.new_group(backend="gloo") if distributed.is_initialized() else None

    def agreed(self) -> int:
        """The largest signal number that any process has received; 0: none."""
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
    """After SIGUSR1 within a Slurm job, requeue the job; otherwise exit with status 128 + the signal's number."""
    job = os.environ.get("SLURM_JOB_ID")
    if interruption.signum != signal.SIGUSR1 or job is None:
        _exit(f"{interruption}; --recover resumes", 128 + interruption.signum)
    log.info("%s; asking Slurm to queue job %s again", interruption, job)  # first: Slurm ends a requeued job at once
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
        reason = done.stderr.strip() if done.returncode else ""
    except OSError as error:
        reason = str(error)
    if reason:
        _exit(f"{interruption}; Slurm did not requeue the job ({reason}): submit it with --recover", 1)


def _exit(message: str, status: int) -> None:
    log.error("train.py: %s", message)
    sys.exit(status)
