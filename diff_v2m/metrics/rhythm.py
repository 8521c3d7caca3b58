"""Rhythm and synchrony of a waveform: onset curve, beats, pulse clarity, agreement of beats with events.

Music with a beat at every moment also hits every cut. So each synchrony score has a chance level: the mean score of the
same beats, shifted circularly by random amounts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SHIFTS = 50  # random circular shifts, averaged
PULSE_PERIODS = (0.3, 1.0)  # seconds between beats
SAME_TEMPO = 0.04  # relative tolerance
OCTAVES = (1.0, 2.0, 0.5, 3.0, 1 / 3)


@dataclass(frozen=True)
class Rhythm:
    """Onset curve, beats and tempo of a soundtrack."""

    odf: np.ndarray  # (S,) the strongest onset of each second, in standard deviations
    beats: np.ndarray  # (b,) seconds
    tempo: float  # beats a minute; 0 where there is no beat
    pulse: float  # pulse clarity, in [0, 1]
    duration: float  # seconds


@dataclass(frozen=True)
class Sync:
    """Agreement of beats and events within a tolerance; a beat matches at most one event."""

    hit_rate: float  # share of events with a beat
    coverage: float  # share of beats with an event
    f1: float


def analyse(audio: np.ndarray, sample_rate: int) -> Rhythm:
    """Mono (n,) → its rhythm. Silence has no beats, tempo 0 and pulse 0."""
    import librosa
    import torch

    from diff_v2m.features import rhythm

    waveform = torch.from_numpy(np.ascontiguousarray(audio, dtype=np.float32))
    strength = rhythm.onset_strength(waveform, sample_rate).numpy()
    hop = rhythm.scaled_hop(rhythm.HOP, sample_rate)
    tempo, beats = librosa.beat.beat_track(onset_envelope=strength, sr=sample_rate, hop_length=hop, units="time")
    return Rhythm(
        odf=rhythm.odf(waveform, sample_rate)[:, 0].numpy(),
        beats=np.asarray(beats, dtype=float),
        tempo=float(np.atleast_1d(tempo)[0]) if len(beats) > 1 else 0.0,
        pulse=pulse_clarity(strength, sample_rate / hop),
        duration=len(audio) / sample_rate,
    )


def correlation(
    achieved: np.ndarray, wanted: np.ndarray, *, constant: float | None = 0.0, shortest: int = 2
) -> float | None:
    """Pearson's r over the common length.

    Returns None where `wanted` is constant or fewer than `shortest` values are common, and `constant` where `achieved`
    is constant. A metric takes 0 there, so that silence gains nothing; a plot takes None and shows no number.
    """
    n = min(len(achieved), len(wanted))
    achieved, wanted = np.asarray(achieved[:n], float), np.asarray(wanted[:n], float)
    if n < shortest or np.ptp(wanted) == 0:
        return None
    return float(np.corrcoef(achieved, wanted)[0, 1]) if np.ptp(achieved) > 0 else constant


def sync(events: np.ndarray, beats: np.ndarray, tolerance: float) -> Sync | None:
    """Times in seconds → their agreement by the largest one-to-one matching (mir_eval); None where there are no
    events; all zero where there are no beats.
    """
    from mir_eval.onset import f_measure

    if len(events) == 0:
        return None
    if len(beats) == 0:
        return Sync(0.0, 0.0, 0.0)
    f1, coverage, hit_rate = f_measure(np.sort(events), np.sort(beats), window=tolerance)
    return Sync(float(hit_rate), float(coverage), float(f1))


def chance(events: np.ndarray, beats: np.ndarray, duration: float, tolerance: float, seed: int) -> Sync | None:
    """Mean `sync` of the same beats, shifted circularly within `duration` by random amounts. None without events."""
    if len(events) == 0:
        return None
    shifts = np.random.default_rng(seed).uniform(0, duration, SHIFTS)
    scores = [sync(events, (beats + shift) % duration, tolerance) for shift in shifts]
    return Sync(*(float(np.mean([getattr(s, part) for s in scores])) for part in ("hit_rate", "coverage", "f1")))


def pulse_clarity(
    strength: np.ndarray,
    frame_rate: float,
    *,
    smoothing: float = 0.07,
    periods: tuple[float, float] = PULSE_PERIODS,
) -> float:
    """Onset strength (frames,) → its largest autocorrelation at the periods of a beat over that at lag 0, in [0, 1].

    smoothing: seconds; width of the Hann window that allows a beat to be a frame early or late.
    periods: seconds; shortest and longest period of a beat.
    Regular noise bursts have a clear pulse too: the value does not tell music from noise.
    """
    window = np.hanning(max(3, round(smoothing * frame_rate)) + 2)[1:-1]
    curve = np.convolve(strength, window / window.sum(), mode="same")
    curve = curve - curve.mean()
    power = float(curve @ curve)
    low, high = (round(period * frame_rate) for period in periods)
    lags = range(low, min(high, len(curve) - 1) + 1)
    if power < 1e-9 or not lags:
        return 0.0
    return max(0.0, max(float(curve[lag:] @ curve[:-lag]) for lag in lags) / power)


def same_tempo(tempo: float, reference: float) -> bool | None:
    """Within 4 % of the reference's tempo, its double, half, triple or third; None where the reference has none."""
    if reference <= 0:
        return None
    return any(abs(tempo - octave * reference) <= SAME_TEMPO * octave * reference for octave in OCTAVES)
