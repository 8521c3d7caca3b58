"""Files beside a result that only some models write: the notes as MIDI, and a wav for each voice."""

import json
import os
from pathlib import Path

import numpy as np

from diff_v2m import media
from diff_v2m.common.errors import InputError
from diff_v2m.media.loudness import Amplified
from diff_v2m.model.music import Music

_STEPS = 1 << 23  # of a 24-bit wav, from 0 to full scale


def write_extras(
    folder: Path, name: str, music: Music, finished: Amplified, sample_rate: int, *, stems: bool
) -> list[str]:
    """Write what the music can write beside its wav, and return the files' names.

    finished: the music (channels, n) as it was written.
    """
    names = music.write_notes(folder, name)
    if stems:
        gain = finished.gain(0, finished.shape[1])
        for voice, audio in summing(music.stems(), np.asarray(finished), gain).items():
            names.append(f"{name}.{voice}.wav")
            media.write_wav(folder / names[-1], audio, sample_rate)
    return names


def summing(stems: dict[str, np.ndarray], finished: np.ndarray, gain: np.ndarray) -> dict[str, np.ndarray]:
    """Stems × gain, float64, that add up to `finished` in every sample of 24-bit files.

    The loudest stem takes what rounding leaves, a few of the 24 bits' last steps.
    """
    whole = np.rint(np.clip(finished, -1, 1).astype(np.float64) * (1 << 31)).astype(np.int64) >> 8  # as libsndfile does
    steps = {
        voice: np.rint(audio.astype(np.float64) * gain * _STEPS).astype(np.int64) for voice, audio in stems.items()
    }
    if steps:
        loudest = max(steps, key=lambda voice: float(np.abs(stems[voice]).sum()))
        steps[loudest] += whole - sum(steps.values())
    return {voice: counts / _STEPS for voice, counts in steps.items()}


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
