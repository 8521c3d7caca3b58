"""Clips, and the crop of a clip that an item is. Audio, features, latents and rhythm are all cut here."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diff_v2m.common.errors import InputError
from diff_v2m.common.seeding import text_seed
from diff_v2m.config import ModelConfig
from diff_v2m.data.latent_store import Crop, Encodings, EncodingSettings
from diff_v2m.features.video_features import VideoFeatures
from diff_v2m.score.score import Score, grid_rows


@dataclass
class Item:
    """One clip, or one window of it: at most 30 seconds of features, with audio or latents and rhythm."""

    name: str
    features: VideoFeatures
    class_label: int
    seconds_start: float
    seconds_total: float
    rhythm: Tensor | None = None  # (S · rows_per_second, dim) f32, S as the features
    audio: Tensor | None = None  # (channels, samples) f32, or frames of a score, padded to the window
    latents: Tensor | None = None  # (64, N) f32, of a whole window
    autoencoder: str | None = None  # fingerprint of the autoencoder that made the latents
    rows_per_second: int = 1  # of cuts, motion and rhythm in the batch
    grid: Tensor | None = None  # (N, 13) f32: rows of the beat grid, for a model that receives it
    broken: bool = False  # its audio could not be decoded and is silence


@dataclass(frozen=True)
class ClipContent:
    """An opened clip: its features, and either a reader of its audio or its latents."""

    features: VideoFeatures
    read_audio: Callable[[int, int, float, float], np.ndarray] | None  # (rate, channels, start, seconds)
    encodings: Encodings | None
    path: Path | None = None  # of the file that the pretransform encodes, if it is a file of its own
    score: Score | None = None  # tempo map and key, if the set has scores


@dataclass(frozen=True)
class Clip(ABC):
    """Metadata of a clip, known before it is opened; lengths in seconds."""

    set_id: str
    stem: str
    class_label: int
    audio_seconds: float
    seconds: int  # length of the per-second features
    encoded_by: EncodingSettings | None  # None: the clip has audio, not latents

    @property
    def usable_seconds(self) -> float:
        """Seconds for which there are both audio and video."""
        return min(self.audio_seconds, float(self.seconds))

    @property
    def label(self) -> str:
        """The clip's name in messages."""
        return f"{self.set_id}: clip {self.stem}"

    @property
    @abstractmethod
    def source(self) -> str:
        """Path of its audio or latents."""

    @abstractmethod
    def open(self) -> ClipContent:
        """Read features and latents; audio is decoded later. InputError for a missing or broken file."""


def spare_seconds(clip: Clip, config: ModelConfig) -> int:
    """Whole seconds by which a window can be shifted within the clip; 0 if the clip is no longer than the window."""
    return max(0, math.floor(clip.usable_seconds - config.window_seconds + 1e-6))


def draw_crop(clip: Clip, config: ModelConfig, *, random_crop: bool, phase_flip: bool) -> Crop:
    """A random crop, drawn with torch's global generator, which the loader seeds for every item."""
    spare = spare_seconds(clip, config) if random_crop else 0
    start = int(torch.randint(spare + 1, ())) if spare else 0
    return Crop(start, phase_flip and bool(torch.rand(()) < 0.5))


def planned_crops(
    clip: Clip, config: ModelConfig, count: int, *, random_crop: bool, phase_flip: bool
) -> tuple[Crop, ...]:
    """At most `count` different crops of a clip, always the same ones.

    The first crop is the clip's beginning, not inverted. The others start at seconds drawn without repetition. Every
    second crop is inverted. After all starts, the crops repeat with the other polarity.
    """
    spare = spare_seconds(clip, config) if random_crop else 0
    later = np.random.default_rng(text_seed(clip.stem)).permutation(spare) + 1
    starts = [0, *map(int, later)]
    crops = [Crop(start, phase_flip and bool(number % 2)) for number, start in enumerate(starts)]
    if phase_flip:
        crops += [Crop(crop.start, not crop.inverted) for crop in crops]
    return tuple(crops[:count])


def crop_samples(clip: Clip, crop: Crop, config: ModelConfig) -> int:
    """Samples of audio in the crop: to the end of the clip or of the window, whichever comes first."""
    return min(round((clip.usable_seconds - crop.start) * config.sample_rate), config.sample_size)


def crop_features(clip: Clip, crop: Crop, features: VideoFeatures, config: ModelConfig) -> VideoFeatures:
    """The features of every second that the crop's audio reaches into."""
    seconds = math.ceil(crop_samples(clip, crop, config) / config.sample_rate)
    return features.slice(crop.start, crop.start + seconds)


def crop_audio(clip: Clip, crop: Crop, content: ClipContent, config: ModelConfig) -> Tensor:
    """(channels, sample_size) f32: the crop's audio, padded with zeros. InputError if it cannot be decoded."""
    samples = crop_samples(clip, crop, config)
    duration = samples / config.sample_rate
    audio = content.read_audio(config.sample_rate, config.audio_channels, crop.start, duration)[:, :samples]
    window = torch.zeros(config.audio_channels, config.sample_size)
    window[:, : audio.shape[1]] = torch.from_numpy(audio)
    if not torch.isfinite(window).all():
        raise InputError(f"{clip.source}: holds NaN or infinite samples")
    return -window if crop.inverted else window


def crop_grid(clip: Clip, crop: Crop, content: ClipContent, config: ModelConfig) -> Tensor:
    """(N, 13) f32: the beat grid at each latent frame of the window. InputError if the set has no scores."""
    if content.score is None:
        raise InputError(
            f"{clip.label}: the model is conditioned on the beat grid, which is read from MIDI files; give the dataset "
            "JSON their folder as `scores`"
        )
    frames, rate = config.latent_length(), config.latent_rate
    return torch.from_numpy(
        grid_rows(content.score.grid, content.score.key, frames=frames, rate=rate, start=crop.start)
    )
