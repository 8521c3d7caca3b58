"""Model and dataset JSON as typed, frozen values.

The released files load unchanged; a key of ours is absent there, and absent means "as released". Everything wrong in
a file is an `InputError` that names the file, the key path and what was expected. Every length in the system is
derived in `ModelConfig` and nowhere else. Nothing here imports torch.
"""

import copy
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from diff_v2m.config.checks import check_model_config
from diff_v2m.config.dataset import DatasetConfig, DatasetEntry, ShardedEntry
from diff_v2m.config.model import (
    CAST_DTYPES,
    CLASSES,
    DTYPES,
    MAX_SECONDS,
    QUANTIZED_DTYPES,
    RHYTHM_DIMS,
    AutoencoderConfig,
    ColorConfig,
    Conditioner,
    DecoderConfig,
    DiTConfig,
    Encoder,
    EncoderConfig,
    ExtractorConfig,
    IntConfig,
    LatentDiffusionConfig,
    ModelConfig,
    NumberConfig,
    SemanticConfig,
)
from diff_v2m.config.parsing import Where, parse, read_json
from diff_v2m.config.training import (
    CosineLRConfig,
    DemoConfig,
    InverseLRConfig,
    MetricsConfig,
    Optimizer,
    OptimizerConfig,
    RhythmCurriculum,
)

__all__ = [
    "CAST_DTYPES",
    "CLASSES",
    "DTYPES",
    "MAX_SECONDS",
    "QUANTIZED_DTYPES",
    "RHYTHM_DIMS",
    "AutoencoderConfig",
    "ColorConfig",
    "Conditioner",
    "CosineLRConfig",
    "DatasetConfig",
    "DatasetEntry",
    "DecoderConfig",
    "DemoConfig",
    "DiTConfig",
    "Encoder",
    "EncoderConfig",
    "ExtractorConfig",
    "IntConfig",
    "InverseLRConfig",
    "LatentDiffusionConfig",
    "MetricsConfig",
    "ModelConfig",
    "NumberConfig",
    "Optimizer",
    "OptimizerConfig",
    "RhythmCurriculum",
    "SemanticConfig",
    "ShardedEntry",
    "load_dataset_config",
    "load_model_config",
    "parse_dataset_config",
    "parse_model_config",
]


def load_model_config(path: str | Path) -> ModelConfig:
    """A model JSON, released or ours."""
    return parse_model_config(read_json(path), str(path))


def parse_model_config(raw: dict[str, Any], source: str = "model config") -> ModelConfig:
    """A model JSON already read, for example from a checkpoint; `source` names it in errors."""
    config = parse(ModelConfig, raw, Where(source))
    check_model_config(config, source)
    return replace(config, raw=copy.deepcopy(raw))


def load_dataset_config(path: str | Path) -> DatasetConfig:
    """A dataset JSON. Relative paths in it are relative to its folder if they exist there, else to the working
    directory; whether they exist at all is for whoever reads them to say."""
    return parse_dataset_config(read_json(path), str(path), Path(path).resolve().parent)


def parse_dataset_config(
    raw: dict[str, Any], source: str = "dataset config", folder: Path | None = None
) -> DatasetConfig:
    """A dataset JSON already read; `folder`: where its relative paths are looked for first."""
    config = parse(DatasetConfig, raw, Where(source))
    if not config.datasets:
        raise Where(source, "datasets").error("expected at least one data set, got an empty list")
    ids = [entry.id for entry in config.datasets]
    for index, id in enumerate(ids):
        if id in ids[:index]:
            raise Where(source, f"datasets[{index}].id").error(f"{id!r} appears twice")
    return replace(config, datasets=tuple(_located(entry, folder) for entry in config.datasets))


def _located(entry: DatasetEntry | ShardedEntry, folder: Path | None) -> DatasetEntry | ShardedEntry:
    found = {
        name: type(value)(folder / value)
        for name, value in vars(entry).items()
        if folder is not None and (isinstance(value, Path) or name == "shards") and os.path.exists(folder / value)
    }
    if "path" in found and getattr(entry, "latents", None):  # which may be yet to be made: beside the sound
        found["latents"] = folder / entry.latents
    return replace(entry, **found)
