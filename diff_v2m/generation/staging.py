"""The hidden folder for unfinished files, and the move of finished ones into place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from diff_v2m.common.errors import InputError
from diff_v2m.common.locks import lock_file, one_at_a_time, try_lock

PREFIX, LOCK = ".diff-v2m-", ".lock"


@contextmanager
def staging(output_dir: Path) -> Iterator[Path]:
    """A folder in output_dir for unfinished files, removed at the end. InputError if output_dir cannot be written.

    A locked file beside it says that its process lives, see `common.locks`. Folders of ended processes are removed.
    """
    folder = output_dir / f"{PREFIX}{os.urandom(6).hex()}"
    lock = None
    try:  # around the making too: a stop signal may arrive as soon as the folder is there
        try:
            output_dir.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(output_dir)
            lock = lock_file(_lock_of(folder))
            folder.mkdir()
        except OSError as error:
            raise InputError(f"--output_dir {output_dir}: cannot be written ({error.strerror})") from None
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            with suppress(OSError):
                _lock_of(folder).unlink()
            lock.close()


def _lock_of(folder: Path) -> Path:
    return folder.with_name(folder.name + LOCK)


def _remove_abandoned(output_dir: Path) -> None:
    """Remove the folders whose lock nobody holds. One without a lock file is left by an older version: it stays."""
    for path in output_dir.glob(f"{PREFIX}*{LOCK}"):
        with suppress(OSError), open(path, "ab") as file:
            if try_lock(file):
                shutil.rmtree(path.with_name(path.name.removesuffix(LOCK)), ignore_errors=True)
                path.unlink()


def publish(moves: Sequence[tuple[Path, Path]], old: Sequence[Path]) -> None:
    """Move files into place, after removing those that stand there and the `old` ones. The first should be the json.

    The json then never stands beside files of another output, and a rerun recognises the files of a killed run. Two
    processes with one output folder publish one after the other.
    """
    with one_at_a_time(moves[0][1].parent):
        for target in {*(target for _, target in moves[1:]), *old}:
            target.unlink(missing_ok=True)
        for made, target in moves:
            os.replace(made, target)
