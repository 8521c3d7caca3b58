"""The predictions of a long clip's sampling steps, kept in a file, so that a killed run repeats one step at most.

A sampler is a function of its predictions. A rerun gives it those of the file and computes the others: the sampler's
own state is not kept, and any sampler resumes.
"""

from __future__ import annotations

import hashlib
import logging
from contextlib import suppress
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from diff_v2m.common.locks import is_held, lock_file

log = logging.getLogger(__name__)


class StepLog:
    """A file with one float32 prediction after the other, behind a digest of `key`.

    key: everything that the predictions depend on. A file of another key is replaced. An incomplete last prediction,
    which a kill leaves, is dropped. If the file cannot be written, one warning says so and sampling continues. If two
    processes generate the clip, the first one writes.
    """

    def __init__(self, path: Path, key: str):
        self.path, self.head, self.broken = path, hashlib.sha256(key.encode()).digest(), False
        self._lock: IO | None = None

    def read(self, step: int, shape: torch.Size) -> Tensor | None:
        """The prediction of a step, on the CPU; None if it is not there."""
        size = 4 * shape.numel()
        try:
            with open(self.path, "rb") as file:
                if file.read(len(self.head)) != self.head:
                    return None
                file.seek(step * size, 1)
                content = bytearray(file.read(size))
        except OSError:
            return None
        return torch.frombuffer(content, dtype=torch.float32).reshape(shape) if len(content) == size else None

    def append(self, step: int, prediction: Tensor) -> None:
        """Write the prediction of a step behind those before it; what follows is cut off."""
        if self.broken:
            return
        values = prediction.detach().float().cpu().contiguous().numpy()
        try:
            self._lock = self._lock or lock_file(self.path)
            if is_held(self._lock):
                self.broken = True
                return
            fresh = step == 0
            with open(self.path, "wb" if fresh else "r+b") as file:
                if fresh:
                    file.write(self.head)
                file.seek(len(self.head) + step * values.nbytes)
                file.write(values)
                file.truncate()
        except OSError as error:
            self.broken = True
            log.warning("%s: cannot be written (%s); if this run is killed, the clip starts again", self.path, error)

    def remove(self) -> None:
        """Delete the file, unless another process writes it."""
        with suppress(OSError), self._lock or open(self.path, "ab") as file:
            if not is_held(file):
                self.path.unlink()
        self._lock = None
