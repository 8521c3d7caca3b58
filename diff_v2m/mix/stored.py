"""Sound on disk between two passes over it, so that memory does not grow with its length."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np


class StoredSound:
    """(channels, samples) float32 in a file, read where it is sliced: a `Waveform`."""

    def __init__(self, path: Path, channels: int, samples: int):
        self._path, self.shape = path, (channels, samples)

    @classmethod
    def write(cls, path: Path, channels: int, samples: int, blocks: Iterable[np.ndarray]) -> StoredSound:
        """Store consecutive blocks (channels, n): silence follows what ends early, what is longer is cut off."""
        missing = samples
        with path.open("wb") as file:
            for block in blocks:
                block = block[:, :missing]
                file.write(np.ascontiguousarray(block.T, dtype=np.float32).data)
                missing -= block.shape[1]
                if not missing:
                    break
            file.truncate(samples * channels * 4)
        return cls(path, channels, samples)

    def __getitem__(self, where: tuple[slice, slice]) -> np.ndarray:
        channels, samples = where
        start, stop, _ = samples.indices(self.shape[1])
        count = self.shape[0]
        values = np.fromfile(self._path, np.float32, max(0, stop - start) * count, offset=start * count * 4)
        return values.reshape(-1, count).T[channels]
