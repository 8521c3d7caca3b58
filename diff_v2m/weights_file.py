"""Where the weights are that somebody names. Light: a rerun that finds all done never loads torch."""

from pathlib import Path

from diff_v2m.errors import InputError


def find_weights(path: str | Path) -> Path:
    """A weights file itself, or the one in a folder. Raises InputError."""
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise InputError(f"{path}: no such weights file; expected a .ckpt or .safetensors file, or the folder of one")
    for name in ("model.safetensors", "model.ckpt"):
        if (path / name).is_file():
            return path / name
    raise InputError(f"{path}: this folder holds neither model.safetensors nor model.ckpt; name a weights file")
