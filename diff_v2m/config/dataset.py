"""The dataset JSON, key by key."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from diff_v2m.common.errors import InputError
from diff_v2m.config.base import Config, FilePath, ListOf, invalid
from diff_v2m.config.conditioning import CLASSES, RhythmType


class DatasetEntry(Config):
    """One set of folders; the files of a clip share their stem. `path` may be absent where nothing is trained."""

    id: str
    video_feat: FilePath
    video_info: FilePath
    path: FilePath | None = None
    video_color: FilePath | None = None
    video: FilePath | None = None  # folder of <stem>.mp4, which the music is muxed into
    latents: FilePath | None = None  # folder of <stem>.safetensors: soundtracks encoded beforehand; replaces `path`
    scores: FilePath | None = None  # folder of <stem>.mid: tempo map and key, for a model with the condition `grid`
    class_label: Annotated[int, Field(ge=0, le=CLASSES - 1)] = 2
    custom_metadata_module: FilePath | None = None

    def resolved(self, folder: Path) -> Self:
        """The same entry with each path taken from `folder` where it exists there."""
        found = {
            name: folder / value for name, value in self if isinstance(value, Path) and os.path.exists(folder / value)
        }
        if "path" in found and self.latents:  # latents may not exist yet: they go beside the sound
            found["latents"] = folder / self.latents
        return self.model_copy(update=found)


class ShardedEntry(Config):
    """One set as tar files that hold features, sound or latents, and class label of each clip."""

    id: str
    shards: str  # folder, or any URL that fsspec reads, of the tar files and their index.json

    def resolved(self, folder: Path) -> Self:
        """The same entry with `shards` taken from `folder` if it exists there."""
        found = folder / self.shards
        return self.model_copy(update={"shards": str(found)}) if os.path.exists(found) else self


class DatasetConfig(Config):
    """A dataset JSON of either type."""

    dataset_type: str
    datasets: ListOf[Any]
    rhythm_type: RhythmType = "odf"
    drop_last: bool = False
    random_crop: bool = True
    phase_flip: bool = True  # in training, half of the soundtracks have inverted polarity, as released

    @model_validator(mode="after")
    def _check_ids(self) -> Self:
        ids = [entry.id for entry in self.datasets]
        for index, id in enumerate(ids):
            if id in ids[:index]:
                raise invalid(f"{id!r} appears twice", "datasets", index, "id")
        return self

    @property
    def folders(self) -> tuple[DatasetEntry, ...]:
        """The entries, for code that works on folders only. Raises InputError if they are tar files."""
        raise InputError(
            f"{self.datasets[0].id}: tar shards, which only training of the generator reads; give the dataset JSON "
            "of the folders that they were made from (dataset_type audio_video_dir)"
        )


class FolderDatasetConfig(DatasetConfig):
    dataset_type: Literal["audio_video_dir"] = "audio_video_dir"
    datasets: Annotated[ListOf[DatasetEntry], Field(min_length=1)]

    @property
    def folders(self) -> tuple[DatasetEntry, ...]:
        return self.datasets


class ShardDatasetConfig(DatasetConfig):
    dataset_type: Literal["audio_video_shards"] = "audio_video_shards"
    datasets: Annotated[ListOf[ShardedEntry], Field(min_length=1)]


AnyDatasetConfig = Annotated[FolderDatasetConfig | ShardDatasetConfig, Field(discriminator="dataset_type")]
