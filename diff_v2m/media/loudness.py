"""Loudness of a waveform: measure it by ITU-R BS.1770 and normalise it to a target.

Audio is (channels, samples) float, full scale ±1. Loudness is in LUFS. Peaks are true peaks in dBTP: the largest value
of the 4× oversampled signal, because converters reproduce the signal between samples too.

Everything here reads the audio in blocks, `audio[:, start:stop]`, and makes the result in blocks. Beside the audio it
keeps one number for each `HOP` samples, so a film of two hours needs no copy of its sound.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

MODES = ("none", "peak", "lufs")
TARGET_LUFS = -16.0
CEILING_DBTP = -1.0
MAX_BOOST_DB = 30.0  # near-silence stays quiet, since its noise floor is not music
MAX_LIMITING_DB = 12.0  # beyond it, limiting is audible as pumping, so the whole clip stays quieter instead
OVERSAMPLING = 4
HOP = 16  # samples between two points of the limiter's gain: 0.4 ms at 44.1 kHz
BLOCK = 1 << 19  # samples read at a time, a multiple of HOP
_ATTEMPTS = 6  # at the gain that makes up for what limiting takes away
_LIMITER_HALF_WIDTH = 0.020  # s; the gain falls this long before a peak and recovers this long after it
_GATING_BLOCK = 0.4  # s, BS.1770
_GATING_OVERLAP = 4  # gating blocks begin four times in the length of one
_ABSOLUTE_GATE, _RELATIVE_GATE = -70.0, -10.0  # LUFS; LU below the mean of what passes the first
_CHANNEL_WEIGHTS = (1.0, 1.0, 1.0, 1.41, 1.41)  # left, right, centre, surround


class Waveform(Protocol):
    """(channels, samples): an array, a memory map, or anything whose [:, start:stop] is an array."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, where: tuple[slice, slice], /) -> np.ndarray: ...


def blocks(audio: Waveform) -> Iterator[np.ndarray]:
    """Consecutive parts (channels, ≤ BLOCK) of the audio, as float32."""
    for start in range(0, audio.shape[1], BLOCK):
        yield np.asarray(audio[:, start : start + BLOCK], dtype=np.float32)


# ------------------------------------------------------------------------------------------------- measuring


class LoudnessMeter:
    """Integrated loudness of audio that arrives in blocks: the numbers of `pyloudnorm.Meter`."""

    def __init__(self, sample_rate: int, channels: int):
        import pyloudnorm
        from scipy.signal import tf2sos

        shelf = pyloudnorm.IIRfilter(4.0, 1 / math.sqrt(2), 1500.0, sample_rate, "high_shelf")
        high_pass = pyloudnorm.IIRfilter(0.0, 0.5, 38.0, sample_rate, "high_pass")
        self._filters = np.concatenate([tf2sos(shelf.b, shelf.a), tf2sos(high_pass.b, high_pass.a)])
        self._state = np.zeros((2, channels, 2))
        self._weights = np.array(_CHANNEL_WEIGHTS[:channels])
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

    def loudness(self, gain_db: float = 0.0) -> float:
        """Gated loudness, in LUFS, of what was added, raised by `gain_db`; -inf for silence.

        Audio shorter than a gating block is measured as one block of its own length.
        """
        length = _GATING_BLOCK * self._rate
        if self._samples < length:
            powers = np.array([sum(self._energies) / max(self._samples, 1)])
        else:
            count = round((self._samples - length) / (length / _GATING_OVERLAP)) + 1
            ends = np.cumsum([0.0, *self._energies])  # energy before each edge
            first = np.arange(count)
            last = np.minimum(first + _GATING_OVERLAP, len(ends) - 1)
            powers = (ends[last] - ends[first]) / length
        powers = powers * _ratio(gain_db) ** 2
        powers = powers[powers >= _power(_ABSOLUTE_GATE)]
        if not len(powers):
            return -math.inf
        gated = powers[powers > powers.mean() * _ratio(_RELATIVE_GATE) ** 2]
        return -0.691 + 10.0 * math.log10(gated.mean()) if len(gated) else -math.inf

    def _edge(self, number: int) -> int:
        """The sample at which gating block `number` begins."""
        return int(_GATING_BLOCK * number / _GATING_OVERLAP * self._rate)


def measured(audio: Waveform, sample_rate: int) -> LoudnessMeter:
    """A meter that has read all of the audio."""
    meter = LoudnessMeter(sample_rate, audio.shape[0])
    for block in blocks(audio):
        meter.add(block)
    return meter


def integrated_loudness(audio: Waveform, sample_rate: int) -> float:
    """(channels, n) → gated loudness in LUFS; -inf for silence."""
    return measured(audio, sample_rate).loudness()


def true_peak(audio: Waveform) -> float:
    """(channels, n) → dBTP; -inf for silence."""
    peaks = (_oversampled_peaks(audio, start) for start in range(0, audio.shape[1], BLOCK))
    return _decibels(max((float(peak.max()) for peak in peaks), default=0.0))


def _oversampled_peaks(audio: Waveform, start: int) -> np.ndarray:
    """The largest oversampled magnitude of any channel in each `HOP` samples of the block at `start`."""
    from scipy.signal import resample_poly  # takes a second to import

    margin = HOP  # more than half of resample_poly's filter: blocks join without a seam
    stop, left = min(start + BLOCK, audio.shape[1]), min(margin, start)
    block = np.asarray(audio[:, start - left : stop + margin], dtype=np.float32)
    block = resample_poly(block, OVERSAMPLING, 1, axis=1)[:, left * OVERSAMPLING :][:, : (stop - start) * OVERSAMPLING]
    peaks = np.maximum(block.max(axis=0), -block.min(axis=0))
    return np.maximum.reduceat(peaks, np.arange(0, len(peaks), HOP * OVERSAMPLING))


# ------------------------------------------------------------------------------------------------ normalising


@dataclass(frozen=True)
class LoudnessReport:
    """Measurements before and after normalisation. None is minus infinity (silence), which JSON cannot hold."""

    mode: str
    lufs_before: float | None
    lufs_after: float | None
    true_peak_before: float | None  # dBTP
    true_peak_after: float | None  # dBTP
    gain_db: float
    limited_db: float  # largest reduction by the limiter, >= 0


@dataclass(frozen=True)
class Gain:
    """Gain of each sample: a constant, and the limiter's where peaks would pass the ceiling.

    The limiter's gain stands at every `HOP`-th sample, straight lines between.
    """

    ratio: float = 1.0
    points: np.ndarray | None = None  # (⌈n / HOP⌉ + 1,) float32; None: nothing is limited

    def __call__(self, start: int, stop: int) -> np.ndarray:
        """(stop - start,) float32: the same values however the samples are divided into blocks."""
        if self.points is None:
            return np.full(stop - start, self.ratio, np.float32)
        first, last = start // HOP, -(-stop // HOP)
        left, right = self.points[first:last, None], self.points[first + 1 : last + 1, None]
        steps = np.arange(HOP, dtype=np.float32) / np.float32(HOP)
        lines = (left + (right - left) * steps).ravel()[start - first * HOP :][: stop - start]
        return lines * np.float32(self.ratio)


@dataclass(frozen=True)
class Amplified:
    """A waveform × gain, computed where it is read. `np.asarray` gives all of it."""

    audio: Waveform
    gain: Gain

    @property
    def shape(self) -> tuple[int, ...]:
        return self.audio.shape

    def __getitem__(self, where: tuple[slice, slice]) -> np.ndarray:
        channels, samples = where
        start, stop, _ = samples.indices(self.shape[1])
        return np.asarray(self.audio[channels, start:stop], dtype=np.float32) * self.gain(start, max(start, stop))

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        result = np.empty(self.shape, dtype or np.float32)
        for start in range(0, self.shape[1], BLOCK):
            result[:, start : start + BLOCK] = self[:, start : start + BLOCK]
        return result


def level(audio: Waveform, sample_rate: int, mode: str = "lufs") -> tuple[Amplified, LoudnessReport]:
    """The audio at the loudness of `mode`, and a report. Raises ValueError for NaN or infinite samples.

    lufs  −16 LUFS with a true peak of at most −1 dBTP. A look-ahead limiter lowers the peaks that the gain would push
          over the ceiling, by at most MAX_LIMITING_DB. Audio with higher peaks ends quieter than −16 LUFS.
    peak  true peak at −1 dBTP, without limiting.
    none  as generated; only audio that would clip is turned down, to −1 dBTP.

    Silence stays silence in every mode. (As released, division by the peak turns silence into NaN.)
    """
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}; expected one of {', '.join(MODES)}")
    source = _Source(audio, sample_rate)
    loudness, peak = source.meter.loudness(), source.peak
    if mode == "lufs" and loudness > -math.inf:
        gain_db, gain, after, peak_after = _to_target(source, loudness)
    else:
        gain_db = 0.0
        if mode == "peak" and peak > -math.inf:
            gain_db = min(CEILING_DBTP - peak, MAX_BOOST_DB)
        elif peak > 0:
            gain_db = CEILING_DBTP - peak
        gain, after, peak_after = Gain(_ratio(gain_db)), source.meter.loudness(gain_db), peak + gain_db
    report = LoudnessReport(
        mode=mode,
        lufs_before=_json_number(loudness),
        lufs_after=_json_number(after),
        true_peak_before=_json_number(peak),
        true_peak_after=_json_number(peak_after),
        gain_db=round(gain_db, 3),
        limited_db=0.0 if gain.points is None else round(peak + gain_db - CEILING_DBTP, 3),
    )
    return Amplified(audio, gain), report


def normalize(audio: Waveform, sample_rate: int, mode: str = "lufs") -> tuple[np.ndarray, LoudnessReport]:
    """`level` with the result as an array (channels, n) float32."""
    result, report = level(audio, sample_rate, mode)
    return np.asarray(result), report


def limit(audio: Waveform, sample_rate: int, ceiling_dbtp: float = CEILING_DBTP) -> np.ndarray:
    """(channels, n) → the same with true peaks at or under the ceiling; audio far from a peak does not change.

    All channels get the same gain, so the stereo image does not move.
    """
    source = _Source(audio, sample_rate)
    gain, _ = source.under_ceiling(source.limiter(1.0, ceiling_dbtp), ceiling_dbtp)
    return np.asarray(Amplified(audio, gain))


class _Source:
    """The audio to normalise, measured once: its loudness, and its peaks, which scale with the gain."""

    def __init__(self, audio: Waveform, sample_rate: int):
        self.audio, self.sample_rate = audio, sample_rate
        self.meter = LoudnessMeter(sample_rate, audio.shape[0])
        self.peaks = np.zeros(-(-audio.shape[1] // HOP), np.float32)  # linear
        for number, block in enumerate(blocks(audio)):
            if not np.isfinite(block).all():
                raise ValueError("the audio holds NaN or infinite samples")
            self.meter.add(block)
            peaks = _oversampled_peaks(audio, number * BLOCK)
            self.peaks[number * BLOCK // HOP :][: len(peaks)] = peaks

    @cached_property
    def peak(self) -> float:
        """dBTP."""
        return _decibels(float(self.peaks.max(initial=0.0)))

    def limiter(self, ratio: float, ceiling_dbtp: float) -> Gain:
        """A constant gain with a limiter behind it.

        A running minimum spreads the gain that each peak needs, and a window of the same width smooths it: an average
        of gains that are low enough is low enough.
        """
        from scipy.ndimage import correlate1d, minimum_filter1d

        ceiling = _ratio(ceiling_dbtp)
        needed = np.minimum(1.0, ceiling / np.maximum(self.peaks * np.float32(ratio), 1e-9)).astype(np.float32)
        if needed.min(initial=1.0) >= 1.0:
            return Gain(ratio)
        half = max(1, round(_LIMITER_HALF_WIDTH * self.sample_rate / HOP))
        # one more than the window: between two points, both of them hold what either side needs
        held = minimum_filter1d(np.append(needed, needed[-1]), 2 * half + 3, mode="nearest")
        window = np.hanning(2 * half + 3)[1:-1].astype(np.float32)
        return Gain(ratio, np.minimum(correlate1d(held, window / window.sum(), mode="nearest"), 1.0))

    def under_ceiling(self, gain: Gain, ceiling_dbtp: float) -> tuple[Gain, float]:
        """The gain, turned down once more, and the true peak, in dBTP, of what it makes.

        The whole clip loses the excess of hundredths of a decibel that rounding and limiter edges leave.
        """
        if gain.points is None:
            return gain, self.peak + _decibels(gain.ratio)
        peak = true_peak(Amplified(self.audio, gain))
        excess = max(0.0, peak - ceiling_dbtp + 1e-4)
        return Gain(gain.ratio * _ratio(-excess), gain.points), peak - excess


def _to_target(source: _Source, loudness: float) -> tuple[float, Gain, float, float]:
    """Mode "lufs": (gain in dB before limiting, gain of each sample, loudness and true peak of the result).

    Limiting lowers the loudness, so the gain is raised by the loss.
    """
    most_gain = min(MAX_BOOST_DB, CEILING_DBTP + MAX_LIMITING_DB - source.peak)
    gain_db = min(TARGET_LUFS - loudness, most_gain)
    for attempt in range(_ATTEMPTS):
        gain = source.limiter(_ratio(gain_db), CEILING_DBTP)
        if gain.points is None:
            return gain_db, gain, source.meter.loudness(gain_db), source.peak + gain_db
        meter = measured(Amplified(source.audio, gain), source.sample_rate)
        missing = TARGET_LUFS - meter.loudness()
        if attempt == _ATTEMPTS - 1 or abs(missing) < 0.02 or gain_db + missing > most_gain and gain_db == most_gain:
            break
        gain_db = min(gain_db + missing, most_gain)
    final, peak = source.under_ceiling(gain, CEILING_DBTP)
    return gain_db, final, meter.loudness(_decibels(final.ratio / gain.ratio)), peak


def _ratio(decibels: float) -> float:
    return 10.0 ** (decibels / 20.0)


def _power(lufs: float) -> float:
    return 10.0 ** ((lufs + 0.691) / 10.0)


def _decibels(ratio: float) -> float:
    return 20.0 * math.log10(ratio) if ratio > 0 else -math.inf


def _json_number(value: float) -> float | None:
    return round(value, 3) if math.isfinite(value) else None
