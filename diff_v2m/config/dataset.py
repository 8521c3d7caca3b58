"""The dataset JSON, key by key."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from diff_v2m.config.model import CLASSES, RhythmType
from diff_v2m.config.parsing import Range


@dataclass(frozen=True, kw_only=True)
class DatasetEntry:
    """One folder set; files of a clip share their stem. `path` may be absent where nothing is trained."""

    id: str
    video_feat: Path
    video_info: Path
    path: Path | None = None
    video_color: Path | None = None
    video: Path | None = None  # folder of <stem>.mp4, to mux the music into
    latents: Path | None = None  # folder of <stem>.npy, float16 (channels, N), encoded beforehand
    class_label: Annotated[int, Range(0, CLASSES - 1)] = 2
    custom_metadata_module: Path | None = None


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    dataset_type: Literal["audio_video_dir"]
    datasets: tuple[DatasetEntry, ...]
    rhythm_type: RhythmType = "odf"
    drop_last: bool = False
    random_crop: bool = True
