"""The dataset JSON, key by key."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from diff_v2m.common.errors import InputError
from diff_v2m.config.model import CLASSES, RhythmType
from diff_v2m.config.parsing import Range, chosen_by


@dataclass(frozen=True, kw_only=True)
class DatasetEntry:
    """One folder set; files of a clip share their stem. `path` may be absent where nothing is trained."""

    id: str
    video_feat: Path
    video_info: Path
    path: Path | None = None
    video_color: Path | None = None
    video: Path | None = None  # folder of <stem>.mp4, to mux the music into
    latents: Path | None = None  # folder of <stem>.safetensors: soundtracks encoded beforehand, in place of `path`
    class_label: Annotated[int, Range(0, CLASSES - 1)] = 2
    custom_metadata_module: Path | None = None


@dataclass(frozen=True, kw_only=True)
class ShardedEntry:
    """One set as tar files, which hold features, sound or latents, and class label of each clip."""

    id: str
    shards: str  # folder, or any URL that fsspec reads, with the index.json of the tar files in it


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    dataset_type: Literal["audio_video_dir", "audio_video_shards"]
    datasets: tuple[DatasetEntry, ...] | tuple[ShardedEntry, ...] = field(
        metadata=chosen_by(
            "dataset_type",
            {"audio_video_dir": tuple[DatasetEntry, ...], "audio_video_shards": tuple[ShardedEntry, ...]},
        )
    )
    rhythm_type: RhythmType = "odf"
    drop_last: bool = False
    random_crop: bool = True
    phase_flip: bool = True  # in training, half of the soundtracks upside down, as released

    @property
    def folders(self) -> tuple[DatasetEntry, ...]:
        """The entries, for what works on folders alone. InputError if they are tar files."""
        if self.dataset_type != "audio_video_dir":
            raise InputError(
                f"{self.datasets[0].id}: tar shards, which only training of the generator reads; give the dataset JSON "
                "of the folders that they were made from (dataset_type audio_video_dir)"
            )
        return self.datasets
