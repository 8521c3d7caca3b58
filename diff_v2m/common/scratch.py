"""Arrays that would fill main memory, as the sound of a video of hours: files, mapped into memory.

When memory is short, the system moves mapped pages to disk. The files have no name and vanish with their array or its
process.
"""

from __future__ import annotations

import errno
import math
import mmap
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diff_v2m.common.errors import InputError

BLOCK = 1 << 18  # samples worked on at once


@dataclass(frozen=True)
class Scratch:
    """Makes float32 arrays of zeros: up to `in_memory` bytes in memory, larger ones in files."""

    folder: Path | None = None  # None: the system's folder for temporary files
    in_memory: int = 64 << 20  # three minutes of stereo at 44.1 kHz

    def keeps_in_file(self, count: int) -> bool:
        """Whether an array of so many numbers lies in a file."""
        return 4 * count > self.in_memory

    def zeros(self, *shape: int) -> np.ndarray:
        """Raises InputError if the disk has no room."""
        count = math.prod(shape)
        if not self.keeps_in_file(count):
            return np.zeros(shape, np.float32)
        size = 4 * count
        folder = self.folder or Path(tempfile.gettempdir())
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                _reserve(file.fileno(), size)
                mapped = mmap.mmap(file.fileno(), size)
        except OSError as error:
            raise InputError(
                f"{folder}: cannot hold {size / 1e9:.1f} GB, the sound of a long video ({error.strerror}); free some "
                "space, or choose another folder"
            ) from None
        return np.frombuffer(mapped, np.float32).reshape(shape)

    def copy(self, array: np.ndarray) -> np.ndarray:
        """A copy of a float32 array (…, n)."""
        made = self.zeros(*array.shape)
        for part in parts(array.shape[-1]):
            made[..., part] = array[..., part]
        return made

    def multiplied(self, audio: np.ndarray, gain: np.ndarray) -> np.ndarray:
        """audio (channels, n) × gain (n,)."""
        product = self.zeros(*audio.shape)
        for part in parts(audio.shape[1]):
            np.multiply(audio[:, part], gain[part], out=product[:, part], casting="same_kind")
        return product


TEMPORARY = Scratch()


def parts(samples: int) -> Iterator[slice]:
    """Consecutive parts of so many samples."""
    for start in range(0, samples, BLOCK):
        yield slice(start, min(start + BLOCK, samples))


def _reserve(file: int, size: int) -> None:
    """Give an open file its size. Writing to a map of a file that has no disk space yet may end the process."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file, 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # of file systems without reservations
                raise
        else:
            return
    zeros = bytes(1 << 20)
    for start in range(0, size, len(zeros)):
        os.pwrite(file, zeros[: size - start], start)
