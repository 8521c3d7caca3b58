"""Measures of a waveform: functions of mono audio (n,) and its sample rate."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import librosa
import numpy as np
from scipy.signal import find_peaks
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from diff_v2m.metrics import rhythm

HOP = 160  # samples; 10 ms at 16 kHz
COMMON_RMS = 0.1
FLOOR = 1e-2  # of the mel spectrogram: quieter values count as silence
ONSET_PROMINENCE = 0.15
PULSE_PERIODS = (0.3, 0.9)  # seconds
TONE_CURVE_HERTZ = (50, 200, 500, 1200, 3000, 8000)


@lru_cache(maxsize=2)
def _mel_bank(sample_rate: int) -> np.ndarray:
    return librosa.filters.mel(sr=sample_rate, n_fft=1024, n_mels=64, fmin=30, fmax=sample_rate / 2, norm=None)


def _spectrogram(audio: np.ndarray) -> np.ndarray:
    """Magnitudes (513, frames), a frame every 10 ms at 16 kHz, at a common RMS.

    The common RMS gives normalised files and raw synthesis the same measures.
    """
    audio = np.asarray(audio, np.float32)
    rms = float(np.sqrt(np.mean(audio**2)))
    return np.abs(librosa.stft(audio * (COMMON_RMS / max(rms, 1e-5)), n_fft=1024, hop_length=HOP)) / 256


def log_mel(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """(64, frames) natural logarithm of mel magnitudes, floored."""
    return np.log(np.maximum(_mel_bank(sample_rate) @ _spectrogram(audio), FLOOR))


def flux(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """Onset curve (frames,): half-wave rectified rise of the log-mel spectrogram, averaged over bands."""
    rise = np.diff(log_mel(audio, sample_rate), axis=1, prepend=np.log(FLOOR))
    return np.maximum(rise, 0).mean(axis=0)


def onset_density(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """(S,) mean flux of every whole second."""
    curve, per_second = flux(audio, sample_rate), sample_rate // HOP
    seconds = len(curve) // per_second
    return curve[: seconds * per_second].reshape(seconds, per_second).mean(axis=1)


def onset_times(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """Times of onsets in seconds."""
    peaks, _ = find_peaks(flux(audio, sample_rate), prominence=ONSET_PROMINENCE, distance=3)
    return peaks * HOP / sample_rate


def pulse_clarity(audio: np.ndarray, sample_rate: int) -> float:
    """Of the onset curve, smoothed over 50 ms."""
    return rhythm.pulse_clarity(flux(audio, sample_rate), sample_rate / HOP, smoothing=0.05, periods=PULSE_PERIODS)


def share_hit(times: Sequence[float], onsets: np.ndarray, tolerance: float = 0.1) -> float:
    """Share of `times` with an onset within `tolerance` seconds; NaN if there are none."""
    if len(times) == 0:
        return float("nan")
    if len(onsets) == 0:
        return 0.0
    return float(np.mean([np.abs(onsets - time).min() <= tolerance for time in times]))


def chroma(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """(12,) share of each pitch class, C first."""
    bank = librosa.filters.chroma(sr=sample_rate, n_fft=4096, ctroct=4, octwidth=1.5)
    energy = np.abs(librosa.stft(np.asarray(audio, np.float32), n_fft=4096, hop_length=1024))
    profile = (bank @ energy).mean(axis=1)
    return profile / max(profile.sum(), 1e-9)


class ModeTemplates:
    """Classifies major and minor by the mean pitch-class profile of each mode in this world."""

    def fit(self, profiles: np.ndarray, minor: np.ndarray) -> ModeTemplates:
        """profiles (n, 12) of pieces in one key, minor (n,) bool."""
        self.major, self.minor = profiles[~minor].mean(axis=0), profiles[minor].mean(axis=0)
        return self

    def is_minor(self, profile: np.ndarray) -> bool:
        """Whether the profile correlates more with minor than with major."""
        return rhythm.correlation(profile, self.minor) > rhythm.correlation(profile, self.major)


def timbre(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """(80,) features of the instrument in 16 bands: mean and spread of the level, and its changes within 80 ms."""
    bands = log_mel(audio, sample_rate).reshape(16, 4, -1).mean(axis=1)
    change = bands[:, 8:] - bands[:, :-8]
    falls, rises = np.percentile(change, [5, 95], axis=1)
    level = bands.mean(axis=1) - bands.mean()
    return np.concatenate([level, bands.std(axis=1), np.abs(change).mean(axis=1), falls, rises])


def recoloured(audio: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """The same music through a random tone curve of some decibels, with hiss 10 to 30 dB below it.

    A classifier fitted on clean audio alone responds to the codec instead of the instrument.
    """
    curve = np.cumsum(rng.normal(0, 3, len(TONE_CURVE_HERTZ)))
    spectrum = np.fft.rfft(audio)
    octaves = np.log2(np.maximum(np.fft.rfftfreq(len(audio), 1 / sample_rate), 1))
    spectrum *= 10 ** (np.interp(octaves, np.log2(TONE_CURVE_HERTZ), curve) / 20)
    coloured = np.fft.irfft(spectrum, len(audio))
    hiss = coloured.std() * 10 ** (-rng.uniform(10, 30) / 20)
    return (coloured + rng.normal(0, hiss, len(audio))).astype(np.float32)


def instrument_classifier(timbres: np.ndarray, instruments: np.ndarray):
    """A linear classifier of timbres (n, 80), fitted on real audio of the domain."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000)).fit(timbres, instruments)


def noise_following(odf: np.ndarray, samples: int, sample_rate: int, seed: int) -> np.ndarray:
    """Noise bursts that follow an onset density (S,): a control for rhythm measures."""
    rng = np.random.default_rng(seed)
    audio = np.zeros(samples, np.float32)
    level = odf / max(odf.max(), 1e-9)
    decay = np.exp(-np.arange(sample_rate // 8) / (sample_rate / 40))
    for second, strength in enumerate(level):
        for start in rng.uniform(second, second + 1, size=max(int(round(8 * strength)), 1)):
            first = int(start * sample_rate)
            burst = (strength * decay * rng.standard_normal(len(decay)))[: max(samples - first, 0)]
            audio[first : first + len(burst)] += burst.astype(np.float32)
    return audio / max(float(np.abs(audio).max()), 1e-9)
