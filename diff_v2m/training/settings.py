"""Training flags: `defaults.ini` lists them with their defaults; the command line overrides it."""

from __future__ import annotations

import argparse
import configparser
import math
import re
from pathlib import Path

from diff_v2m.common import cli
from diff_v2m.common.errors import InputError

DEFAULTS = Path(__file__).with_name("defaults.ini")  # a link to that of the project, which an installed package lacks

_KINDS = {
    "batch_size": int,
    "accum_batches": int,
    "max_epochs": int,
    "max_steps": int,
    "checkpoint_every": int,
    "save_top_k": int,
    "val_every": int,
    "seed": int,
    "num_gpus": int,
    "num_nodes": int,
    "num_workers": int,
    "log_every": int,
    "lora_rank": int,
    "student_steps": int,
    "gradient_clip_val": float,
}
_CHOICES = {
    "accelerator": ("auto", "cpu", "cuda", "mps"),
    "precision": ("16", "16-mixed", "bf16-mixed", "32"),
    "logger": ("csv", "tensorboard", "wandb", "none"),
    "remove_pretransform_weight_norm": ("pre_load", "post_load"),
}
_AT_LEAST = {
    "batch_size": 1,
    "accum_batches": 1,
    "checkpoint_every": 1,
    "num_gpus": 1,
    "num_nodes": 1,
    "num_workers": 0,
    "val_every": 0,
    "gradient_clip_val": 0,
    "log_every": 1,
    "max_epochs": -1,
    "max_steps": -1,
    "save_top_k": -1,
    "seed": 0,
    "lora_rank": 0,
}
MAX_SEED = 2**32 - 1  # of numpy
_REQUIRED = {"model_config": "configs/model/diff_v2m.json", "dataset_config": "configs/dataset/example_train.json"}


def parse_arguments(arguments: list[str], defaults: Path) -> argparse.Namespace:
    """Training settings from `defaults` (an ini file) and flags, in kebab-case or snake_case; an empty value is None.

    Raises InputError for a value out of its range and for flags that exclude each other.
    """
    parser = cli.Parser(
        prog="train.py", description="Train Diff-V2M, a student of it, or an autoencoder.", allow_abbrev=False
    )
    for name, (value, meaning) in read_defaults(defaults).items():
        _add_flag(parser, name, value, meaning.replace("%", "%%"))
    settings = parser.parse_args(arguments)
    for name, example in _REQUIRED.items():
        if getattr(settings, name) is None and not (settings.distill and name == "model_config"):
            raise InputError(f"{_flag(name)} is missing: give a JSON file, for example {example}")
    for name, least in _AT_LEAST.items():
        if not least <= getattr(settings, name) < math.inf:
            raise InputError(f"{_flag(name)} {getattr(settings, name)}: expected at least {least}")
    if settings.seed > MAX_SEED:
        raise InputError(f"--seed {settings.seed}: expected at most {MAX_SEED}")
    for name in ("max_epochs", "max_steps"):
        if getattr(settings, name) == 0:
            raise InputError(f"{_flag(name)} 0: would train nothing; expected a number, or -1 for no such limit")
    if not settings.name:
        raise InputError("--name: expected a name for the run's folder")
    _check_starting_point(settings)
    return settings


def _check_starting_point(settings: argparse.Namespace) -> None:
    """InputError for flags that name two sources of starting weights."""
    others = ("lora_rank", "pretrained_ckpt_path", "init_dit_ckpt_path")
    if settings.distill and (other := next((name for name in others if getattr(settings, name)), None)):
        raise InputError(f"--distill and {_flag(other)}: a student starts from its teacher; omit {_flag(other)}")
    if settings.student_steps is not None and not settings.distill:
        raise InputError("--student-steps: expected --distill TEACHER too")
    if settings.student_steps is not None and settings.student_steps < 1:
        raise InputError(f"--student-steps {settings.student_steps}: expected at least 1")
    if settings.lora_rank and not settings.pretrained_ckpt_path:
        raise InputError("--lora-rank: expected --pretrained-ckpt-path FILE too, the model that adapters are added to")
    whole = "--lora-rank" if settings.lora_rank else "--pretrained-ckpt-path" if settings.pretrained_ckpt_path else None
    if whole and settings.init_dit_ckpt_path:
        raise InputError(
            f"--init-dit-ckpt-path and {whole}: both give the transformer's starting weights; give only one"
        )
    if settings.lora_rank and settings.pretransform_ckpt_path:
        raise InputError("--pretransform-ckpt-path and --lora-rank: adapters belong to one file; omit the first")
    if settings.lora_rank and settings.strategy in ("fsdp2", "deepspeed"):
        raise InputError(f"--lora-rank with --strategy {settings.strategy}: adapters are small; omit the strategy")


def find_files(settings: argparse.Namespace) -> None:
    """Check that the files of the flags exist, and replace a folder of weights by the file in it. Raises InputError."""
    from diff_v2m.weights.finding import find_weights  # imports numpy; --help does without

    for name in ("distill", "pretrained_ckpt_path", "init_dit_ckpt_path", "pretransform_ckpt_path"):
        if path := getattr(settings, name):
            try:
                setattr(settings, name, str(find_weights(path)))
            except InputError as error:
                raise InputError(f"{_flag(name)}: {error}") from error
    if settings.ckpt_path and not settings.recover and not Path(settings.ckpt_path).exists():
        raise InputError(f"--ckpt-path: {settings.ckpt_path}: no such checkpoint; expected a .ckpt of a run")


def read_defaults(path: Path) -> dict[str, tuple[str, str]]:
    """Flag name → (default, meaning), in the file's order."""
    ini = configparser.ConfigParser(interpolation=None)
    ini.read_string(path.read_text())
    split = {name: re.split(r"\s*#\s*", value, maxsplit=1) for name, value in ini.defaults().items()}
    return {name: (parts[0].strip(), parts[1] if len(parts) > 1 else "") for name, parts in split.items()}


def _add_flag(parser: argparse.ArgumentParser, name: str, value: str, meaning: str) -> None:
    if value in ("true", "false"):
        parser.add_argument(
            _flag(name), dest=name, help=meaning, default=value == "true", action=argparse.BooleanOptionalAction
        )
        return
    kind = _KINDS.get(name, str)
    parser.add_argument(
        _flag(name),
        dest=name,
        help=f"{meaning} (default: {value})" if value else meaning,
        type=kind,
        choices=_CHOICES.get(name),
        default=kind(value) if value else None,
    )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
