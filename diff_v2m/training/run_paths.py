"""Paths of a run: its folder and its checkpoints. Imports no torch, so that mistakes are reported at once."""

from __future__ import annotations

import argparse
from pathlib import Path

from diff_v2m.common.errors import InputError


def run_folder(settings: argparse.Namespace) -> Path:
    """Folder of the run's checkpoints, logs and final weights."""
    return Path(settings.save_dir) / settings.name


def last_checkpoint(settings: argparse.Namespace) -> Path:
    """Path of the run's newest state."""
    return run_folder(settings) / "checkpoints" / "last.ckpt"


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint that a run resumes from: last.ckpt, else the newest of the best, else None."""
    if (folder / "last.ckpt").exists():
        return folder / "last.ckpt"
    return max(folder.glob("best-*.ckpt"), key=lambda path: path.stat().st_mtime, default=None)


def kept_after_failure(folder: Path) -> str:
    """Part of an error message: the newest checkpoint."""
    newest = newest_checkpoint(folder)
    return f"the last good checkpoint is {newest}" if newest else "no checkpoint was saved before"


def check_new_run(settings: argparse.Namespace) -> None:
    """InputError if the folder holds a run and neither --recover nor --ckpt-path is given."""
    folder = run_folder(settings)
    if newest_checkpoint(folder / "checkpoints") and not (settings.recover or settings.ckpt_path):
        raise InputError(f"{folder}: holds a run already; resume it with --recover, or choose another --name")


def make_run_folder(settings: argparse.Namespace) -> None:
    """Create the folder. Raises InputError if that fails."""
    folder = run_folder(settings)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made: {error.strerror}; choose another --save-dir") from error
