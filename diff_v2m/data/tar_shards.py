"""A data set as tar files in WebDataset's layout, for more clips than a file system handles well as single files.

    index.json        the clips, and the tar file and bytes of each
    00000.tar, …      per clip <key>.json, <key>.semantic.npy, <key>.color.npy, and its audio <key>.wav (.flac, .ogg,
                      .mp3) or its latents <key>.latents.safetensors

A clip is read by its byte range, so order, crops, distribution over processes and resuming are the same as for folders.
fsspec opens the files: a folder, s3://…, gs://… or https://…. Nothing stays open between clips, so workers may be
forked at any time.
"""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from io import BytesIO
from pathlib import Path
from typing import Any

import fsspec
import numpy as np

from diff_v2m.common.errors import InputError
from diff_v2m.common.files import parse_npy
from diff_v2m.common.versions import FEATURE_VERSION, READABLE_FEATURES
from diff_v2m.config import DatasetConfig, ModelConfig, ShardedEntry
from diff_v2m.data.crops import Clip, ClipContent
from diff_v2m.data.feature_store import exact_times, expected_encoder, warn_older
from diff_v2m.data.latent_store import Encodings, EncodingSettings
from diff_v2m.features.semantic import encoder_name
from diff_v2m.features.video_features import VideoFeatures
from diff_v2m.media import decode_audio

INDEX = "index.json"
FORMAT = "diff_v2m shards 1"
AGAIN = "write the shards again: python -m diff_v2m.preprocess shards"


@dataclass(frozen=True)
class Place:
    """Bytes [offset, offset + size) of a tar file, which hold one clip's files and nothing else."""

    tar: str
    offset: int
    size: int


@dataclass(frozen=True)
class IndexedClip:
    """One clip of the index."""

    stem: str
    place: Place
    class_label: int
    audio_seconds: float
    seconds: int  # length of the per-second features


@dataclass(frozen=True)
class Index:
    """The content of index.json."""

    feature_version: int | None  # None: unknown
    encoder: str | None  # of the semantics; None: unknown
    color: bool
    encoded_by: EncodingSettings | None
    clips: tuple[IndexedClip, ...]

    def as_json(self) -> dict:
        """The JSON: one row per clip, with the column names once."""
        rows = [
            [clip.stem, *asdict(clip.place).values(), clip.class_label, clip.audio_seconds, clip.seconds]
            for clip in self.clips
        ]
        return {
            "format": FORMAT,
            "feature_version": self.feature_version,
            "encoder": self.encoder,
            "color": self.color,
            "encoded_by": None if self.encoded_by is None else asdict(self.encoded_by),
            "columns": ["clip", "tar", "offset", "size", "class_label", "audio_seconds", "rows"],
            "clips": rows,
        }

    @classmethod
    def parse(cls, content: bytes, where: str) -> "Index":
        """InputError if it is another file or another version."""
        try:
            raw = json.loads(content)
            if raw["format"] != FORMAT or raw["feature_version"] not in (None, *READABLE_FEATURES):
                raise InputError(
                    f"{where}: format {raw['format']}, features of version {raw['feature_version']}; this "
                    f"code reads {FORMAT} and versions {' and '.join(map(str, READABLE_FEATURES))}; {AGAIN}"
                )
            made = raw["encoded_by"] and EncodingSettings(**raw["encoded_by"])
            clips = tuple(_indexed_clip(*row) for row in raw["clips"])
            return cls(raw["feature_version"], raw["encoder"], raw["color"], made, clips)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{where}: not an index of shards ({error!r}); {AGAIN}") from None


def _indexed_clip(stem: str, tar: str, offset: int, size: int, *about: Any) -> IndexedClip:
    return IndexedClip(stem, Place(tar, offset, size), *about)


@dataclass(frozen=True)
class ShardClip(Clip):
    """A clip of a `ShardSet`."""

    url: str  # folder of the tar files
    place: Place
    with_color: bool

    @property
    def source(self) -> str:
        return f"{self.url}/{self.place.tar}"

    @property
    def label(self) -> str:
        return f"{super().label} of {self.place.tar}"

    def open(self) -> ClipContent:
        files = self._files()
        features = self._features(files)
        if self.encoded_by is not None:
            encodings = Encodings.parse(self._member(files, "latents.safetensors"), f"{self.label}: latents")
            return ClipContent(features, None, encodings)
        suffix = next((suffix for suffix in files if suffix in ("wav", "flac", "ogg", "mp3")), "wav")
        reader = partial(decode_audio, self._member(files, suffix), f"{self.label}: {suffix}")
        return ClipContent(features, reader, None)

    def _files(self) -> dict[str, bytes]:
        """Contents by suffix: all after the first dot."""
        content = read_bytes(self.url, self.place.tar, self.place.offset, self.place.offset + self.place.size)
        try:
            with tarfile.open(fileobj=BytesIO(content), mode="r:") as tar:
                names = [member.name.partition(".") for member in tar]
                files = {
                    suffix: tar.extractfile(member).read()
                    for (_, _, suffix), member in zip(names, tar.getmembers(), strict=True)
                }
        except (tarfile.TarError, AttributeError) as error:
            raise InputError(f"{self.label}: {self.source} is damaged ({error}); {AGAIN}") from None
        if {key for key, _, _ in names} != {webdataset_key(self.stem)}:
            raise InputError(f"{self.label}: {self.source} is not the one that the index was made for; {AGAIN}")
        return files

    def _member(self, files: dict[str, bytes], suffix: str) -> bytes:
        if suffix not in files:
            raise InputError(f"{self.label}: {self.source} is damaged (no {suffix} in the place of the clip); {AGAIN}")
        return files[suffix]

    def _array(self, files: dict[str, bytes], suffix: str) -> np.ndarray:
        return parse_npy(self._member(files, suffix))

    def _features(self, files: dict[str, bytes]) -> VideoFeatures:
        """Features of the clip. Their values were checked when they were written; here only their length is checked."""
        try:
            seconds = json.loads(self._member(files, "json"))
            features = VideoFeatures(
                semantic=self._array(files, "semantic.npy"),
                color=self._array(files, "color.npy") if self.with_color else None,
                scene_cut=np.asarray(seconds["scene_cut"], dtype=np.int64),
                pseudo_beats=np.asarray(seconds["pseudo_beats"], dtype=np.float32),
                duration=seconds["duration"],
                **exact_times(seconds, self.seconds, self.label),
            )
        except (ValueError, KeyError, EOFError) as error:
            raise InputError(f"{self.label}: {self.source} is damaged ({error}); {AGAIN}") from None
        if len(features) != self.seconds:
            raise InputError(f"{self.label}: {len(features)} seconds of features, {self.seconds} in the index; {AGAIN}")
        return features


class ShardSet:
    """One entry of a dataset JSON. Raises InputError if the set as a whole is unusable."""

    custom_metadata = None

    def __init__(self, entry: ShardedEntry, dataset: DatasetConfig, config: ModelConfig):
        self.entry = entry
        self.url = entry.shards.rstrip("/")
        where = f"{entry.id}: shards: {self.url}/{INDEX}"
        self.index = Index.parse(read_bytes(self.url, INDEX), where)
        if self.index.feature_version not in (None, FEATURE_VERSION):
            warn_older(entry.id, f"{self.url}/{INDEX}")
        expected = expected_encoder(config)
        if expected and self.index.encoder and encoder_name(self.index.encoder) != expected:
            raise InputError(
                f"{where}: semantics made by {self.index.encoder}, the model expects {expected}; "
                "extract them again with it, or choose the model they were made for"
            )
        if self.index.encoded_by is not None:
            self.index.encoded_by.check(config, where)
        self.with_color = self.index.color and config.model.diffusion.uses_color

    @property
    def encoder(self) -> str | None:
        """Identity of the encoder that made the semantics; None: unknown."""
        return self.index.encoder

    @property
    def stems(self) -> list[str]:
        return list(self._clips)

    def read(self, stem: str) -> VideoFeatures:
        return self._clips[stem].open().features

    def class_label(self, stem: str) -> int:
        return self._clips[stem].class_label

    def video_path(self, stem: str) -> Path | None:
        """Always None: tar files hold no videos."""
        return None

    def audio_path(self, stem: str) -> Path | None:
        """Always None: soundtracks are not separate files."""
        return None

    def scan(self) -> Iterator[tuple[str, ShardClip]]:
        """Every clip by stem. Clips with broken or silent audio were skipped when the tar files were written."""
        yield from self._clips.items()

    @cached_property
    def _clips(self) -> dict[str, ShardClip]:
        return {
            clip.stem: ShardClip(
                self.entry.id,
                clip.stem,
                clip.class_label,
                clip.audio_seconds,
                clip.seconds,
                self.index.encoded_by,
                self.url,
                clip.place,
                self.with_color,
            )
            for clip in self.index.clips
        }


def webdataset_key(stem: str) -> str:
    """The stem without dots: WebDataset's key ends at the first dot."""
    return stem.replace("%", "%25").replace(".", "%2E")


def read_bytes(url: str, name: str, start: int | None = None, stop: int | None = None) -> bytes:
    """Read a file in the folder `url`, or its bytes [start, stop). Raises InputError."""
    try:
        system, path = fsspec.core.url_to_fs(f"{url}/{name}")
        content = system.cat_file(path, start=start, end=stop)
    except ImportError as error:
        raise InputError(f"{url}: {error}") from None
    except Exception as error:  # every fsspec file system has its own exceptions
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise InputError(f"{url}/{name}: cannot be read ({reason})".splitlines()[0]) from error
    if stop is not None and len(content) < stop - start:
        raise InputError(f"{url}/{name}: ends after byte {start + len(content)}, expected {stop}; {AGAIN}")
    return content
