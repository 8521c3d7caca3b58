"""A clip, and which part of it an item is. What sound, features, latents and rhythm share is decided here alone."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diff_v2m.common.errors import InputError
from diff_v2m.common.seeding import text_seed
from diff_v2m.config import ModelConfig
from diff_v2m.data.latent_store import Crop, EncodedBy, Encodings
from diff_v2m.features.video_features import VideoFeatures


@dataclass(frozen=True)
class ClipContent:
    """An opened clip: its picture, and its sound or what was encoded of it."""

    features: VideoFeatures
    sound: Callable[[int, int, float, float], np.ndarray] | None  # (rate, channels, start, seconds), as read_audio
    encodings: Encodings | None


@dataclass(frozen=True)
class Clip(ABC):
    """What is known of a clip before it is opened; lengths in seconds."""

    set_id: str
    stem: str
    class_label: int
    audio_seconds: float
    rows: int  # of features
    encoded_by: EncodedBy | None  # what made its latents; None: it comes as sound

    @property
    def usable_seconds(self) -> float:
        """Where sound and picture both are."""
        return min(self.audio_seconds, float(self.rows))

    @property
    def label(self) -> str:
        """What a message calls this clip."""
        return f"{self.set_id}: clip {self.stem}"

    @property
    @abstractmethod
    def source(self) -> str:
        """Where its sound or latents lie."""

    @abstractmethod
    def open(self) -> ClipContent:
        """InputError for a file that is missing or broken; sound itself is not looked at yet."""


def spare_seconds(clip: Clip, config: ModelConfig) -> int:
    """How many whole seconds a window can be moved within the clip; 0 where the clip fits into it."""
    return max(0, math.floor(clip.usable_seconds - config.window_seconds + 1e-6))


def draw_crop(clip: Clip, config: ModelConfig, *, random_crop: bool, phase_flip: bool) -> Crop:
    """A whole second such that the window fits, and whether to flip; from torch's generator, seeded for every item."""
    spare = spare_seconds(clip, config) if random_crop else 0
    start = int(torch.randint(spare + 1, ())) if spare else 0
    return Crop(start, phase_flip and bool(torch.rand(()) < 0.5))


def planned_crops(
    clip: Clip, config: ModelConfig, count: int, *, random_crop: bool, phase_flip: bool
) -> tuple[Crop, ...]:
    """At most `count` different crops of a clip, the same ones every time; the first is its beginning as it is.

    Others start at seconds drawn without repetition, every second one flipped; when all starts have had a turn, they
    come again the other way up.
    """
    spare = spare_seconds(clip, config) if random_crop else 0
    later = np.random.default_rng(text_seed(clip.stem)).permutation(spare) + 1
    starts = [0, *map(int, later)]
    turns = [Crop(start, phase_flip and bool(number % 2)) for number, start in enumerate(starts)]
    if phase_flip:
        turns += [Crop(crop.start, not crop.flip) for crop in turns]
    return tuple(turns[:count])


def crop_samples(clip: Clip, crop: Crop, config: ModelConfig) -> int:
    """Samples of sound in it: to the clip's end or the window's, whichever comes first."""
    return min(round((clip.usable_seconds - crop.start) * config.sample_rate), config.sample_size)


def crop_features(clip: Clip, crop: Crop, features: VideoFeatures, config: ModelConfig) -> VideoFeatures:
    """The rows of every second that the crop's sound reaches into."""
    rows = math.ceil(crop_samples(clip, crop, config) / config.sample_rate)
    return features.slice(crop.start, crop.start + rows)


def crop_sound(clip: Clip, crop: Crop, content: ClipContent, config: ModelConfig) -> Tensor:
    """(channels, sample_size) f32: the crop's sound, then silence. InputError if it cannot be decoded."""
    samples = crop_samples(clip, crop, config)
    duration = samples / config.sample_rate
    audio = content.sound(config.sample_rate, config.audio_channels, crop.start, duration)[:, :samples]
    window = torch.zeros(config.audio_channels, config.sample_size)
    window[:, : audio.shape[1]] = torch.from_numpy(audio)
    if not torch.isfinite(window).all():
        raise InputError(f"{clip.source}: holds NaN or infinite samples")
    return -window if crop.flip else window
