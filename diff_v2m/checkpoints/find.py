"""Where the weights are that somebody names. Light: a rerun that finds all done never loads torch."""

import os
from pathlib import Path

from diff_v2m.common.errors import InputError


def find_weights(path: str | Path) -> Path:
    """A weights file itself, or the one in a folder. Raises InputError."""
    path = Path(path)
    if os.path.isfile(path):
        return path
    if not os.path.isdir(path):
        raise InputError(
            f"{path}: no such weights file, or none that may be read; expected a .ckpt or .safetensors file, or the "
            "folder of one"
        )
    for name in ("model.safetensors", "model.ckpt"):
        if os.path.isfile(path / name):
            return path / name
    raise InputError(f"{path}: this folder holds neither model.safetensors nor model.ckpt; name a weights file")
