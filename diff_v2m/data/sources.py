"""What a pretransform encodes of a clip, by its type: the waveform, or the notes of a MIDI file.

The rhythm target always comes from the waveform. A score's is read from the audio file of the same stem beside it; if
there is none, the synthesiser renders it.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from diff_v2m.common.errors import InputError
from diff_v2m.config import ModelConfig
from diff_v2m.config.score_autoencoder import SCORE_CHANNELS, SCORE_SAMPLE_RATE
from diff_v2m.data.crops import Clip, ClipContent, Crop, crop_samples
from diff_v2m.media import AUDIO_SUFFIXES, audio_duration, read_audio
from diff_v2m.score.frames import LAYOUT, MIDI_SUFFIXES, to_frames
from diff_v2m.score.score import Score

SILENCE = 1e-3  # clips with a peak below −60 dBFS are skipped, as released
PROBE_SECONDS = 0.1  # read from the middle; the whole file is read only if they are silent

ReadAudio = Callable[[int, int, float, float], np.ndarray]  # (rate, channels, start, seconds) → (channels, samples)


class Source(Protocol):
    """How files of one kind become what the pretransform encodes."""

    suffixes: tuple[str, ...]
    has_polarity: bool  # whether inverting it makes another source of the same music

    def seconds(self, path: Path) -> float: ...

    def is_silent(self, path: Path, seconds: float, config: ModelConfig) -> bool: ...

    def audio_reader(self, path: Path) -> ReadAudio: ...

    def crop(self, clip: Clip, crop: Crop, content: ClipContent, audio: Tensor, config: ModelConfig) -> Tensor:
        """The source (channels or rows, samples or frames) of one window. audio: the crop's."""
        ...

    def empty(self, config: ModelConfig) -> Tensor:
        """The source of a silent window."""
        ...


class AudioSource:
    """Soundtracks."""

    suffixes: tuple[str, ...] = AUDIO_SUFFIXES
    has_polarity = True

    def seconds(self, path: Path) -> float:
        return audio_duration(path)

    def is_silent(self, path: Path, seconds: float, config: ModelConfig) -> bool:
        read = partial(read_audio, path, config.sample_rate, config.audio_channels)
        middle = max(0.0, (seconds - PROBE_SECONDS) / 2)
        return not (np.abs(read(middle, PROBE_SECONDS)) >= SILENCE).any() and not (np.abs(read()) >= SILENCE).any()

    def audio_reader(self, path: Path) -> ReadAudio:
        return partial(read_audio, path)

    def crop(self, clip: Clip, crop: Crop, content: ClipContent, audio: Tensor, config: ModelConfig) -> Tensor:
        return audio

    def empty(self, config: ModelConfig) -> Tensor:
        return torch.zeros(config.audio_channels, config.sample_size)


class ScoreSource:
    """MIDI files."""

    suffixes: tuple[str, ...] = MIDI_SUFFIXES
    has_polarity = False

    def seconds(self, path: Path) -> float:
        return read_score(path).duration

    def is_silent(self, path: Path, seconds: float, config: ModelConfig) -> bool:
        return False  # a file without notes cannot be read

    def audio_reader(self, path: Path) -> ReadAudio:
        beside = (path.with_suffix(suffix) for suffix in AUDIO_SUFFIXES)
        audio = next((file for file in beside if file.is_file()), None)
        return partial(_rendered, path) if audio is None else partial(read_audio, audio)

    def crop(self, clip: Clip, crop: Crop, content: ClipContent, audio: Tensor, config: ModelConfig) -> Tensor:
        if content.path is None:
            raise InputError(
                f"{clip.label}: tar files hold no scores; encode them: python -m diff_v2m.preprocess latents"
            )
        stop = crop.start + crop_samples(clip, crop, config) / config.sample_rate
        part = read_score(content.path).slice(float(crop.start), stop)
        return torch.from_numpy(to_frames(part.in_c(), config.latent_rate, config.latent_length()))

    def empty(self, config: ModelConfig) -> Tensor:
        return torch.zeros(LAYOUT.rows, config.latent_length())


SOURCES: dict[str, Source] = {"autoencoder": AudioSource(), "score": ScoreSource()}  # by type of pretransform


def source_of(config: ModelConfig) -> Source:
    return SOURCES[config.pretransform.type]


@lru_cache(maxsize=64)
def read_score(path: Path) -> Score:
    """A MIDI file, parsed once for all crops of a clip and for its beat grid. Raises InputError."""
    from diff_v2m.score.midi import read_midi  # imports mido, which soundtracks do not need

    return read_midi(path)


def _rendered(path: Path, sample_rate: int, channels: int, start: float, seconds: float) -> np.ndarray:
    """(channels, samples) of a score that has no audio file; the whole is rendered, so that crops agree."""
    if (sample_rate, channels) != (SCORE_SAMPLE_RATE, SCORE_CHANNELS):
        raise InputError(
            f"{path}: a score is rendered at {SCORE_SAMPLE_RATE} Hz stereo; expected that of the model JSON"
        )
    first = round(start * SCORE_SAMPLE_RATE)
    return _mix(path)[:, first : first + round(seconds * SCORE_SAMPLE_RATE)]


@lru_cache(maxsize=2)
def _mix(path: Path) -> np.ndarray:
    from diff_v2m.score.synth import render

    return render(read_score(path)).mix
