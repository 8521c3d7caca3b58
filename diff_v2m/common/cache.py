"""What was computed from a file, kept by the file's content and by what computed it.

A renamed or copied file is found again; a changed file, changed weights or changed settings are not mistaken for it.
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
    """A folder of <content>-<maker>.npz, each written whole or not at all, so that several runs may share it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, path: Path, maker: str, compute: Callable[[], Arrays]) -> Arrays:
        """What `compute` gives for the file at `path`. `maker` names the computation with all that decides its result.

        Raises InputError if the file or the cache folder cannot be used; what `compute` raises is handed on.
        """
        target = self.folder / f"{content_hash(path)}-{hashlib.sha256(maker.encode()).hexdigest()[:32]}.npz"
        try:
            with contextlib.suppress(OSError):  # not there; or the folder cannot be used, which writing to it will say
                return read_npz(target)
        except (ValueError, EOFError, zipfile.BadZipFile):
            log.warning("%s: damaged cache entry, computed again", target)
        arrays = compute()
        with atomic(target) as part:
            np.savez(part, **arrays)
        return arrays
