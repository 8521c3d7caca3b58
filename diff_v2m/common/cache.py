"""A cache of arrays computed from files, keyed by the file's content and by the computation.

A renamed or copied file hits the cache; a changed file, changed weights or changed settings miss it.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from diff_v2m.common.files import atomic, content_hash, read_npz

log = logging.getLogger(__name__)

Arrays = Mapping[str, np.ndarray]


class Cache:
    """A folder of <content>-<maker>.npz, each written atomically, so that several runs may share it; None: no cache."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def get(self, path: Path, maker: str, compute: Callable[[], Arrays]) -> Arrays:
        """What `compute` returns for the file at `path`. `maker` names the computation and everything its result
        depends on.

        Raises InputError if the file or the cache folder cannot be used, and whatever `compute` raises.
        """
        if self.folder is None:
            return compute()
        target = self._file(path, maker)
        try:
            with contextlib.suppress(OSError):  # missing, or the folder cannot be used; writing to it reports that
                return read_npz(target)
        except (ValueError, EOFError, zipfile.BadZipFile):
            log.warning("%s: damaged cache entry, computed again", target)
        arrays = compute()
        with atomic(target) as part:
            np.savez(part, allow_pickle=False, **arrays)
        return arrays

    def holds(self, path: Path, maker: str) -> bool:
        """Whether `get` would find an entry. Raises InputError if the file cannot be read."""
        return self.folder is not None and self._file(path, maker).is_file()

    def _file(self, path: Path, maker: str) -> Path:
        return self.folder / f"{content_hash(path)}-{hashlib.sha256(maker.encode()).hexdigest()[:32]}.npz"
