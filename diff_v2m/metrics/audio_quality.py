"""Signal quality of a waveform: silence, clipping, level, bandwidth, noise, broken samples, near-copies.

The measures find defects. They do not say whether the music is good.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from diff_v2m.media import metering
from diff_v2m.media.tracks import channel_names

SILENCE_DBFS = -60.0  # RMS of a block
BLOCK = 0.1  # seconds
FULL_SCALE = 1 - 2.0**-11  # a sample at or above this level is at full scale
CLIPPED_RUN = 3  # so many samples in a row at full scale are clipped
BANDWIDTH_DB = -60.0  # relative to the maximum of the average spectrum
N_FFT = 4096
NOISE_BANDS = 24
RANGE_DB = 60.0  # dynamic range of the spectrograms that are compared for copies


@dataclass(frozen=True)
class Health:
    """Signal quality of one file. None: undefined, for silence or for samples that are NaN or infinite."""

    duration: float  # seconds
    silence: float  # share of the time
    clipping: float  # share of the samples
    true_peak: float | None  # dBTP
    lufs: float | None
    bandwidth: float | None  # Hz
    noisiness: float | None  # from 0 (tone) to 0.56 (noise)
    broken: float  # share of the samples that are NaN or infinite


def health(audio: np.ndarray, sample_rate: int) -> Health:
    """(channels, n) at the file's own sample rate, because resampling hides clipping.

    Loudness weights the channels of ffmpeg's default layout for their number: 5.1 for six.
    """
    broken = float(1 - np.isfinite(audio).mean()) if audio.size else 0.0
    level = None if broken else audio
    weights = metering.channel_weights(channel_names(len(audio)))
    return Health(
        duration=audio.shape[1] / sample_rate,
        silence=silent_share(np.nan_to_num(audio, posinf=0, neginf=0), sample_rate),
        clipping=clipped_share(audio),
        true_peak=None if level is None else finite(metering.true_peak(level)),
        lufs=None if level is None else finite(metering.measured(level, sample_rate, weights).loudness()),
        bandwidth=None if level is None else bandwidth(level.mean(axis=0), sample_rate),
        noisiness=None if level is None else noisiness(level.mean(axis=0), sample_rate),
        broken=broken,
    )


def silent_share(audio: np.ndarray, sample_rate: int) -> float:
    """(channels, n) → share of blocks of 0.1 s whose RMS is under −60 dBFS; 1 for an empty file."""
    length = max(1, round(BLOCK * sample_rate))
    blocks = np.pad(audio, ((0, 0), (0, -audio.shape[1] % length))).reshape(len(audio), -1, length)
    if not blocks.size:
        return 1.0
    power = np.square(blocks, dtype=np.float64).mean(axis=(0, 2))
    return float((power < 10 ** (SILENCE_DBFS / 10)).mean())


def clipped_share(audio: np.ndarray) -> float:
    """(channels, n) → share of samples in runs of 3 or more at full scale with the same sign."""
    if not audio.size:
        return 0.0
    total = 0
    for channel in audio:
        state = np.where(channel >= FULL_SCALE, 1, np.where(channel <= -FULL_SCALE, -1, 0))
        edges = np.flatnonzero(np.diff(state)) + 1
        starts, stops = np.r_[0, edges], np.r_[edges, len(state)]
        runs = (stops - starts)[state[starts] != 0] if len(state) else np.zeros(0, int)
        total += int(runs[runs >= CLIPPED_RUN].sum())
    return total / audio.size


def bandwidth(audio: np.ndarray, sample_rate: int) -> float | None:
    """Mono (n,) → the highest frequency in Hz at which the average spectrum is within 60 dB of its maximum."""
    power = _power(audio)
    if power is None:
        return None
    average = power.mean(axis=1)
    loud = np.flatnonzero(average >= average.max() * 10 ** (BANDWIDTH_DB / 10))
    return float(loud[-1] * sample_rate / N_FFT)


def noisiness(audio: np.ndarray, sample_rate: int) -> float | None:
    """Mono (n,) → spectral flatness in narrow bands, averaged by energy; None for silence.

    Geometric over arithmetic mean of the power in each of 24 bands from 100 Hz to 8 kHz: about 0.5 for noise of any
    colour and any envelope, near 0 for tones. It exposes noise with a rhythmic envelope, which passes rhythm metrics.
    """
    power = _power(audio)
    if power is None:
        return None
    edges = np.geomspace(100, min(8000, sample_rate / 2), NOISE_BANDS + 1) * N_FFT / sample_rate
    flat, weight = [], []
    for low, high in zip(edges[:-1].astype(int), edges[1:].astype(int), strict=True):
        band = power[low : max(high, low + 8)]
        mean = band.mean(axis=0)
        flat.append(np.exp(np.log(band + 1e-20).mean(axis=0)) / (mean + 1e-20))
        weight.append(mean * len(band))
    weights = np.array(weight)
    return float((np.array(flat) * weights).sum() / weights.sum()) if weights.sum() > 0 else None


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Log-mel levels (S, bands) in dB of two clips → RMS difference in dB over their common seconds, after
    subtraction of the mean level, so that gain does not hide a copy. It finds the same recording, not the same tune.
    """
    n = min(len(a), len(b))
    a, b = (np.maximum(x[:n], x[:n].max() - RANGE_DB) for x in (a, b))
    return float(np.sqrt(np.square((a - a.mean()) - (b - b.mean())).mean()))


def nearest(levels: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray]) -> dict[str, tuple[str, float]]:
    """Clip → (nearest of `others`, its `distance`). A clip of the same name is not a neighbour."""
    found = {}
    for name, level in levels.items():
        distances = {other: distance(level, theirs) for other, theirs in others.items() if other != name}
        if distances:
            found[name] = min(distances.items(), key=lambda item: item[1])
    return found


def _power(audio: np.ndarray) -> np.ndarray | None:
    """(n,) → power spectrogram (bins, frames); None for silence."""
    from scipy.signal import stft

    audio = np.pad(audio, (0, max(0, N_FFT - len(audio)))).astype(np.float64)
    if not audio.any():
        return None
    return np.square(np.abs(stft(audio, nperseg=N_FFT, noverlap=N_FFT // 2, boundary=None, padded=False)[2]))


def finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
