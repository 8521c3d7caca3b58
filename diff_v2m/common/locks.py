"""Locks on files, which the kernel drops when the process that holds them ends, however it ends.

Process numbers say nothing about a process in another container or on another machine. A lock of the file system does,
on NFS too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def try_lock(file: IO) -> bool:
    """Lock an open file until it is closed. False if another process holds the lock, or there are no locks here."""
    return _lock(file) is True


def is_held(file: IO) -> bool:
    """Whether another process holds the lock. If not, this one does from now on, where there are locks."""
    return _lock(file) is False


def _lock(file: IO) -> bool | None:
    """None: this file system has no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def lock_file(path: Path) -> IO:
    """Create a file and lock it, as far as the file system has locks. Raises OSError."""
    while True:
        file = open(path, "ab")  # noqa: SIM115
        if not try_lock(file):
            return file
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        file.close()  # whoever found it unlocked removed it in between


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Wait until no other process is in this block for the same folder. Without locks nobody waits."""
    handle = os.open(folder, os.O_RDONLY) if fcntl is not None else None
    try:
        if handle is not None:
            with suppress(OSError):  # NFS locks no folders
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        if handle is not None:
            os.close(handle)
