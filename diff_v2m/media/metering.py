"""Measure a waveform: loudness by ITU-R BS.1770, and true peaks.

Audio is (channels, samples) float, full scale ±1, and read in blocks, `audio[:, start:stop]`. Loudness is in LUFS.
Peaks are true peaks in dBTP: the largest value of the 4× oversampled signal, because converters reproduce the signal
between samples too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

OVERSAMPLING = 4
HOP = 16  # samples between two points of the limiter's gain: 0.4 ms at 44.1 kHz
BLOCK = 1 << 19  # samples read at a time, a multiple of HOP
POWER_HOP = 0.1  # s between two powers of a meter
_GATING_BLOCK = 4  # of these hops: .4 s, BS.1770
_ABSOLUTE_GATE, _RELATIVE_GATE = -70.0, -10.0  # LUFS; LU below the mean of what passes the first
_CHANNEL_WEIGHTS = (1.0, 1.0, 1.0, 1.41, 1.41)  # left, right, centre, surround
_SIDE_WEIGHT = 1.41  # of what comes from the sides


class Waveform(Protocol):
    """(channels, samples): an array, a memory map, or anything whose [:, start:stop] is an array."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, where: tuple[slice, slice], /) -> np.ndarray: ...


def blocks(audio: Waveform) -> Iterator[np.ndarray]:
    """Consecutive parts (channels, ≤ BLOCK) of the audio, as float32."""
    for start in range(0, audio.shape[1], BLOCK):
        yield np.asarray(audio[:, start : start + BLOCK], dtype=np.float32)


class LoudnessMeter:
    """Integrated loudness of audio that arrives in blocks: the numbers of `pyloudnorm.Meter`.

    weights: of the channels, see `channel_weights`; None: left, right, centre and two surround channels, which is
    all that audio of up to five channels holds.
    """

    def __init__(self, sample_rate: int, channels: int, weights: Sequence[float] | None = None):
        import pyloudnorm
        from scipy.signal import tf2sos

        shelf = pyloudnorm.IIRfilter(4.0, 1 / math.sqrt(2), 1500.0, sample_rate, "high_shelf")
        high_pass = pyloudnorm.IIRfilter(0.0, 0.5, 38.0, sample_rate, "high_pass")
        self._filters = np.concatenate([tf2sos(shelf.b, shelf.a), tf2sos(high_pass.b, high_pass.a)])
        self._state = np.zeros((2, channels, 2))
        self._weights = np.array(_CHANNEL_WEIGHTS[:channels] if weights is None else weights)
        self._rate, self._samples = sample_rate, 0
        self._energies: list[float] = [0.0]  # of the samples from each edge to the next

    def add(self, block: np.ndarray) -> None:
        """The next samples (channels, n)."""
        from scipy.signal import sosfilt

        if not block.shape[1]:
            return
        weighted, self._state = sosfilt(self._filters, block.astype(np.float64), axis=1, zi=self._state)
        energy = self._weights @ np.square(weighted, out=weighted)  # (n,)
        stop, inside = self._samples + len(energy), []
        while self._edge(len(self._energies) + len(inside)) < stop:
            inside.append(self._edge(len(self._energies) + len(inside)) - self._samples)
        sums = np.add.reduceat(energy, [0, *(place for place in inside if place > 0)]).tolist()
        if inside and inside[0] == 0:  # an edge between this block and the last
            self._energies.append(0.0)
        self._energies[-1] += sums[0]
        self._energies += sums[1:]
        self._samples = stop

    @property
    def powers(self) -> np.ndarray:
        """(hops,) mean square of the K-weighted channels, added up, in each `POWER_HOP` seconds.

        Less than half a hop at the end is left out. Audio shorter than a gating block is one hop of its own length.
        """
        length = POWER_HOP * self._rate
        if self._samples < _GATING_BLOCK * length:
            return np.array([sum(self._energies) / max(self._samples, 1)])
        count = round(self._samples / length - _GATING_BLOCK) + _GATING_BLOCK
        return np.array(self._energies[:count]) / length

    def loudness(self, gain_db: float = 0.0) -> float:
        """Gated loudness, in LUFS, of what was added, raised by `gain_db`; -inf for silence.

        Audio shorter than a gating block is measured as one block of its own length.
        """
        return gated_loudness(self.powers * ratio_of(gain_db) ** 2)

    def _edge(self, number: int) -> int:
        """The sample at which hop `number` begins."""
        return int(POWER_HOP * number * self._rate)


def gated_loudness(powers: np.ndarray, inside: np.ndarray | None = None) -> float:
    """Loudness in LUFS of the hops of a meter; -inf for silence.

    inside: (hops,) bool, which of them count; None: all. Gating blocks lie in these hops whole. Where none does, their
    mean is measured.
    """
    inside = np.ones(len(powers), bool) if inside is None else inside
    if not inside.any():
        return -math.inf
    ends, counts = np.cumsum(np.append(0.0, powers)), np.cumsum(np.append(0, inside))
    whole = counts[_GATING_BLOCK:] - counts[:-_GATING_BLOCK] == _GATING_BLOCK
    blocks = (ends[_GATING_BLOCK:] - ends[:-_GATING_BLOCK])[whole] / _GATING_BLOCK
    blocks = blocks if len(blocks) else powers[inside].mean(keepdims=True)
    blocks = blocks[blocks >= power_of(_ABSOLUTE_GATE)]
    gated = blocks[blocks > blocks.mean() * ratio_of(_RELATIVE_GATE) ** 2] if len(blocks) else blocks
    return -0.691 + 10.0 * math.log10(gated.mean()) if len(gated) else -math.inf


def power_of(lufs: float) -> float:
    """The power of a meter that is this loud."""
    return 10.0 ** ((lufs + 0.691) / 10.0)


def channel_weights(names: Sequence[str]) -> list[float]:
    """Weights by BS.1770 of channels with ffmpeg's names (FL, FR, FC, LFE, BL, …)."""
    sides = {"SL", "SR"} if "SL" in names else {"BL", "BR"}
    return [0.0 if name.startswith("LFE") else _SIDE_WEIGHT if name in sides else 1.0 for name in names]


def measured(audio: Waveform, sample_rate: int, weights: Sequence[float] | None = None) -> LoudnessMeter:
    """A meter that has read all of the audio."""
    meter = LoudnessMeter(sample_rate, audio.shape[0], weights)
    for block in blocks(audio):
        meter.add(block)
    return meter


def integrated_loudness(audio: Waveform, sample_rate: int) -> float:
    """(channels, n) → gated loudness in LUFS; -inf for silence."""
    return measured(audio, sample_rate).loudness()


def true_peak(audio: Waveform) -> float:
    """(channels, n) → dBTP; -inf for silence."""
    peaks = (oversampled_peaks(audio, start) for start in range(0, audio.shape[1], BLOCK))
    return decibels_of(max((float(peak.max()) for peak in peaks), default=0.0))


def oversampled_peaks(audio: Waveform, start: int) -> np.ndarray:
    """The largest oversampled magnitude of any channel in each `HOP` samples of the block at `start`."""
    from scipy.signal import resample_poly  # takes a second to import

    margin = HOP  # more than half of resample_poly's filter: blocks join without a seam
    stop, left = min(start + BLOCK, audio.shape[1]), min(margin, start)
    block = np.asarray(audio[:, start - left : stop + margin], dtype=np.float32)
    block = resample_poly(block, OVERSAMPLING, 1, axis=1)[:, left * OVERSAMPLING :][:, : (stop - start) * OVERSAMPLING]
    peaks = np.maximum(block.max(axis=0), -block.min(axis=0))
    return np.maximum.reduceat(peaks, np.arange(0, len(peaks), HOP * OVERSAMPLING))


def ratio_of(decibels: float) -> float:
    """Of amplitudes."""
    return 10.0 ** (decibels / 20.0)


def decibels_of(ratio: float) -> float:
    return 20.0 * math.log10(ratio) if ratio > 0 else -math.inf
