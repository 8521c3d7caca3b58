"""Training flags: ``defaults.ini`` says what there is; the command line overrides it."""

from __future__ import annotations

import argparse
import configparser
import re
from pathlib import Path

from .errors import InputError

_KINDS = {
    "batch_size": int, "accum_batches": int, "max_epochs": int, "max_steps": int, "checkpoint_every": int,
    "save_top_k": int, "val_every": int, "seed": int, "num_gpus": int, "num_nodes": int, "num_workers": int,
    "log_every": int, "gradient_clip_val": float,
}  # fmt: skip
_CHOICES = {
    "accelerator": ("auto", "cpu", "cuda", "mps"),
    "precision": ("16", "16-mixed", "bf16-mixed", "32"),
    "logger": ("csv", "wandb", "none"),
}
_AT_LEAST = {"batch_size": 1, "accum_batches": 1, "checkpoint_every": 1, "num_gpus": 1, "num_nodes": 1, "num_workers": 0,
             "val_every": 0, "gradient_clip_val": 0, "log_every": 1, "max_epochs": -1, "max_steps": -1, "save_top_k": -1}
_REQUIRED = ("model_config", "dataset_config")


def parse_arguments(arguments: list[str], defaults: Path) -> argparse.Namespace:
    """Training settings from ``defaults`` (an ini file) and flags; an empty value is None."""
    parser = argparse.ArgumentParser(prog="train.py", description="Train Diff-V2M, or its audio autoencoder.")
    for name, (value, meaning) in read_defaults(defaults).items():
        names = dict.fromkeys([f"--{name.replace('_', '-')}", f"--{name}"])
        shown = f" (default: {value})" if value not in ("", "false") else ""
        if value in ("true", "false"):
            parser.add_argument(*names, dest=name, help=meaning, default=value == "true",
                                action=argparse.BooleanOptionalAction)
            continue
        kind, text = _KINDS.get(name, str), meaning.replace("%", "%%") + shown
        parser.add_argument(*names, dest=name, help=text, type=kind, choices=_CHOICES.get(name),
                            default=kind(value) if value else None, metavar=name.upper() if name not in _CHOICES else None)
    settings = parser.parse_args(arguments)
    for name in _REQUIRED:
        if getattr(settings, name) is None:
            raise InputError(f"--{name.replace('_', '-')} is missing: give a JSON file, for example "
                             f"configs/{'model/diff_v2m.json' if name == 'model_config' else 'dataset/example_train.json'}")
    for name, least in _AT_LEAST.items():
        if getattr(settings, name) < least:
            raise InputError(f"--{name.replace('_', '-')} {getattr(settings, name)}: expected at least {least}")
    return settings


def read_defaults(path: Path) -> dict[str, tuple[str, str]]:
    """Flag name → (default, meaning), in the file's order."""
    ini = configparser.ConfigParser(interpolation=None)
    ini.read_string(path.read_text())
    split = {name: re.split(r"\s*#\s*", value, maxsplit=1) for name, value in ini.defaults().items()}
    return {name: (parts[0].strip(), parts[1] if len(parts) > 1 else "") for name, parts in split.items()}
