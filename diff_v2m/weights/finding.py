"""A path or a name → a weights file."""

import os
from pathlib import Path

from diff_v2m.common.errors import InputError
from diff_v2m.weights import hub
from diff_v2m.weights.known import KNOWN
from diff_v2m.weights.names import FORM, USUAL, parse_name


def find_weights(path: str | Path) -> Path:
    """A weights file, the one in a folder, or the one that a name stands for, downloaded if necessary.

    A file or folder is preferred to a name of the same spelling. Raises InputError.
    """
    given, path = str(path), Path(path)
    if os.path.isfile(path):
        return path
    if os.path.isdir(path):
        for usual in USUAL:
            if os.path.isfile(path / usual):
                return path / usual
        raise InputError(f"{path}: this folder holds neither model.safetensors nor model.ckpt; name a weights file")
    if (name := parse_name(given)) is not None:
        return hub.fetch(name)[0]
    raise InputError(
        f"{path}: no such weights file, or it cannot be read; expected a .ckpt or .safetensors file, a folder with "
        f"one, or a name: {', '.join(KNOWN)}, {FORM}"
    )
