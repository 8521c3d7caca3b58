"""Files beside a result that only some models write: the notes as MIDI, and a wav for each voice."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diff_v2m import media
from diff_v2m.common.errors import InputError
from diff_v2m.media.loudness import Amplified
from diff_v2m.media.metering import Waveform, blocks
from diff_v2m.media.writing import PCM_24_STEPS, pcm_24
from diff_v2m.model.music import Music


def write_extras(
    folder: Path, name: str, music: Music, finished: Amplified, sample_rate: int, *, stems: bool
) -> list[str]:
    """Write what the music can write beside its wav, and return the files' names.

    finished: the music (channels, n) as it was written.
    """
    names = music.write_notes(folder, name)
    if stems:
        for voice, audio in summing(music.stems(), finished).items():
            names.append(f"{name}.{voice}.wav")
            media.write_wav(folder / names[-1], audio, sample_rate)
    return names


def summing(stems: dict[str, np.ndarray], finished: Amplified) -> dict[str, Waveform]:
    """Stems × the gain of the finished music, that add up to it in every sample of 24-bit files.

    The loudest stem takes what rounding leaves, a few of the 24 bits' last steps.
    """

    def loudness(voice: str) -> float:
        return sum(float(np.abs(block).sum()) for block in blocks(stems[voice]))

    loudest = max(stems, key=loudness, default=None)
    return {voice: _Stem(voice, stems, finished, voice == loudest) for voice in stems}


@dataclass(frozen=True)
class _Stem:
    """A `Waveform` at the steps of a 24-bit wav. rest: it is what the others leave of the finished music."""

    voice: str
    stems: dict[str, np.ndarray]
    finished: Amplified
    rest: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return self.finished.shape

    def __getitem__(self, where: tuple[slice, slice]) -> np.ndarray:
        start, stop, _ = where[1].indices(self.shape[1])
        gain = self.finished.gain(start, stop)
        if not self.rest:
            return pcm_24(self.stems[self.voice][where] * gain) / PCM_24_STEPS
        finished = np.clip(self.finished[where], -1, 1).astype(np.float64)
        whole = np.rint(finished * (1 << 31)).astype(np.int64) >> 8  # as libsndfile does
        for voice in self.stems.keys() - {self.voice}:
            whole = whole - pcm_24(self.stems[voice][where] * gain)
        return whole / PCM_24_STEPS


def results_named_in(record: Path) -> list[str]:
    """Names of the files that a manifest names; none if it cannot be read."""
    try:
        names = json.loads(record.read_text(encoding="utf-8"))["outputs"]
        return [name for name in names if isinstance(name, str) and os.path.basename(name) == name]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def check_replaceable(names: list[str], output_dir: Path, named: list[str]) -> None:
    """InputError if a file of another origin is in an extra's place."""
    for name in names:
        if name not in named and os.path.exists(output_dir / name):
            raise InputError(
                f"{output_dir / name} exists and no json names it as a result; choose another --output_dir, or "
                "replace it with --overwrite"
            )
