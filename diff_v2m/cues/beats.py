"""Beats of finished music, for an editor who cuts to it."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diff_v2m import media
from diff_v2m.cues.sheet import Cue, CueSheet
from diff_v2m.features.rhythm import HOP, onset_strength, scaled_hop
from diff_v2m.score.midi import read_midi

AUDIO_RATE = 22050  # Hz, for tracking
_USUAL, _OCTAVES = 115.0, 0.9  # beats per minute and their spread
_SLOWEST, _FASTEST = 45.0, 220.0  # beats per minute
_TIGHTNESS = 400.0  # cost of a period that is another by a factor of e, in standard deviations of onset strength


def beats_of(path: Path) -> CueSheet:
    """Cues `beat` of a MIDI file, with the number of each bar, or as tracked in a sound file. Raises InputError."""
    if path.suffix.lower() == ".mid":
        score = read_midi(path)
        beats = score.grid.beats[(score.grid.beats >= 0) & (score.grid.beats < score.duration)]
        number = np.round(score.grid.position(beats)).astype(int)
        per_bar = score.grid.beats_per_bar
        names = [f"bar {n // per_bar + 1}" if n % per_bar == 0 else "" for n in number.tolist()]
        return CueSheet([Cue(t, "beat", None, name) for t, name in zip(beats.tolist(), names, strict=True)], str(path))
    audio = torch.from_numpy(media.read_audio(path, AUDIO_RATE, 1)[0])
    return CueSheet([Cue(time, "beat") for time in track_beats(audio, AUDIO_RATE).tolist()], str(path))


def track_beats(audio: Tensor, sample_rate: int) -> np.ndarray:
    """Mono (n,) → seconds of its beats; none of silence.

    Dynamic programming over the onset strength (Ellis, Beat tracking by dynamic programming, 2007): beats are strong
    onsets whose distances are near the period of the strongest autocorrelation.
    """
    strength = onset_strength(audio, sample_rate).numpy().astype(np.float64)
    rate = sample_rate / scaled_hop(HOP, sample_rate)
    if len(strength) < rate or strength.std() < 1e-6:
        return np.zeros(0)
    strength /= strength.std()
    period = _period(strength, rate)
    score, before = strength.copy(), np.full(len(strength), -1)
    back = np.arange(-round(2 * period), -round(period / 2) + 1)
    cost = _TIGHTNESS * np.log(-back / period) ** 2
    for frame in range(-int(back[-1]), len(strength)):
        places = frame + back[frame + back >= 0]
        value = score[places] - cost[-len(places) :]
        best = int(value.argmax())
        if value[best] > 0:
            score[frame] += value[best]
            before[frame] = places[best]
    frames = [int(len(score) - round(period) + score[-round(period) :].argmax())]
    while before[frames[-1]] >= 0:
        frames.append(int(before[frames[-1]]))
    return np.array(frames[::-1]) / rate


def _period(strength: np.ndarray, rate: float) -> float:
    """Frames of a beat: the largest autocorrelation, weighted by how usual its tempo is."""
    size = 2 * len(strength)
    centred = strength - strength.mean()
    correlation = np.fft.irfft(np.abs(np.fft.rfft(centred, size)) ** 2, size)
    lags = np.arange(round(60 * rate / _FASTEST), min(round(60 * rate / _SLOWEST), len(strength) - 1))
    weight = np.exp(-0.5 * (np.log2(60 * rate / lags / _USUAL) / _OCTAVES) ** 2)
    return float(lags[(correlation[lags] * weight).argmax()])
