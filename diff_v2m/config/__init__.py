"""Model and dataset JSON as typed, frozen values.

The released files load unchanged; a key of ours is absent there, and absent means "as released". Any error in
a file is an `InputError` that names the file, the key path and the expected value. Every length in the system is
derived in `ModelConfig` and nowhere else. Nothing here imports torch.
"""

import copy
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from diff_v2m.config.autoencoder import AutoencoderConfig
from diff_v2m.config.base import Config, read_json, validated
from diff_v2m.config.conditioning import (
    CLASSES,
    GRID_DIM,
    MAX_SECONDS,
    RHYTHM_DIMS,
    SHOT_DIM,
    ColorConfig,
    ExtractorConfig,
    IntConfig,
    NumberConfig,
    SemanticConfig,
)
from diff_v2m.config.dataset import AnyDatasetConfig, DatasetConfig, DatasetEntry, ShardDatasetConfig, ShardedEntry
from diff_v2m.config.model import (
    CAST_DTYPES,
    DTYPES,
    QUANTIZED_DTYPES,
    AnyModelConfig,
    DiffusionConfig,
    DiTConfig,
    LatentDiffusionConfig,
    ModelConfig,
    StudentConfig,
    whole_model,
)
from diff_v2m.config.score_autoencoder import ScoreAutoencoderConfig
from diff_v2m.config.training import (
    CosineLRConfig,
    DemoConfig,
    InverseLRConfig,
    MetricsConfig,
    OptimizerConfig,
    RhythmCurriculum,
)

__all__ = [
    "CAST_DTYPES",
    "CLASSES",
    "DTYPES",
    "GRID_DIM",
    "MAX_SECONDS",
    "QUANTIZED_DTYPES",
    "RHYTHM_DIMS",
    "SHOT_DIM",
    "AutoencoderConfig",
    "ColorConfig",
    "Config",
    "CosineLRConfig",
    "DatasetConfig",
    "DatasetEntry",
    "DemoConfig",
    "DiffusionConfig",
    "DiTConfig",
    "ExtractorConfig",
    "IntConfig",
    "InverseLRConfig",
    "LatentDiffusionConfig",
    "MetricsConfig",
    "ModelConfig",
    "NumberConfig",
    "OptimizerConfig",
    "RhythmCurriculum",
    "ScoreAutoencoderConfig",
    "SemanticConfig",
    "ShardDatasetConfig",
    "ShardedEntry",
    "StudentConfig",
    "load_dataset_config",
    "load_model_config",
    "parse_dataset_config",
    "parse_model_config",
    "read_json",
    "validated",
    "whole_model",
    "with_encoder",
]


_MODEL: TypeAdapter[ModelConfig] = TypeAdapter(AnyModelConfig)
_DATASET: TypeAdapter[DatasetConfig] = TypeAdapter(AnyDatasetConfig)


def load_model_config(path: str | Path) -> ModelConfig:
    """A model JSON, released or ours."""
    return parse_model_config(read_json(path), str(path))


def parse_model_config(raw: dict[str, Any], source: str = "model config") -> ModelConfig:
    """A model JSON already read, for example from a checkpoint; `source` names it in errors."""
    return validated(_MODEL, raw, source).model_copy(update={"raw": copy.deepcopy(raw)})


def with_encoder(config: ModelConfig, identity: str | None) -> ModelConfig:
    """The config with the identity of the encoder that made the training features; unchanged if it is unknown."""
    if identity is None:
        return config
    raw = copy.deepcopy(config.raw)
    for entry in raw["model"]["conditioning"]["configs"]:
        if entry["id"] == "semantic":
            entry.setdefault("config", {})["encoder_identity"] = identity
    return parse_model_config(raw)


def load_dataset_config(path: str | Path) -> DatasetConfig:
    """A dataset JSON. Relative paths in it are relative to its folder if they exist there, else to the working
    directory. Their readers report paths that exist in neither.
    """
    return parse_dataset_config(read_json(path), str(path), Path(path).resolve().parent)


def parse_dataset_config(
    raw: dict[str, Any], source: str = "dataset config", folder: Path | None = None
) -> DatasetConfig:
    """A dataset JSON already read; `folder`: where its relative paths are looked for first."""
    config = validated(_DATASET, raw, source)
    if folder is None:
        return config
    return config.model_copy(update={"datasets": tuple(entry.resolved(folder) for entry in config.datasets)})
