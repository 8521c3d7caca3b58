"""Loudness of a waveform: measure it by ITU-R BS.1770 and normalise it to a target.

Audio is (channels, samples) float, full scale ±1. Loudness is in LUFS. Peaks are true peaks in dBTP: the largest value
of the 4× oversampled signal, because converters reproduce the signal between samples too.

Everything here reads the audio in blocks, `audio[:, start:stop]`, and makes the result in blocks. Beside the audio it
keeps one number for each `HOP` samples, so a film of two hours needs no copy of its sound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
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


# ------------------------------------------------------------------------------------------------- measuring


class LoudnessMeter:
    """Integrated loudness of audio that arrives in blocks: the numbers of `pyloudnorm.Meter`.

    weights: of the channels, see `channel_weights`; None: left, right, centre and two surround channels.
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
        return gated_loudness(self.powers * _ratio(gain_db) ** 2)

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
    gated = blocks[blocks > blocks.mean() * _ratio(_RELATIVE_GATE) ** 2] if len(blocks) else blocks
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
        gain_db, gain, after, peak_after = _to_target(source, TARGET_LUFS, LoudnessMeter.loudness)
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


def level_to(
    audio: Waveform,
    sample_rate: int,
    target: float,
    *,
    measure: Callable[[LoudnessMeter, float], float] = LoudnessMeter.loudness,
    weights: Sequence[float] | None = None,
) -> tuple[Gain, float]:
    """The gain of `level` in mode "lufs" for another target (LUFS), and the true peak in dBTP that it leads to.

    measure: loudness of what a meter has read, raised by so many dB; by default of all of it. weights: see
    `LoudnessMeter`. What measures as silence is only kept under the ceiling.
    """
    source = _Source(audio, sample_rate, weights)
    if measure(source.meter, 0.0) == -math.inf:
        gain = Gain(min(1.0, _ratio(CEILING_DBTP - source.peak)))
        return gain, source.peak + _decibels(gain.ratio)
    _, gain, _, peak = _to_target(source, target, measure)
    return gain, peak


def limited(
    audio: Waveform, sample_rate: int, gain_db: float, weights: Sequence[float] | None = None
) -> tuple[Gain, float]:
    """A gain of `gain_db`, less where peaks would pass the ceiling, and the true peak in dBTP that it leads to."""
    source = _Source(audio, sample_rate, weights)
    return source.under_ceiling(source.limiter(_ratio(gain_db), CEILING_DBTP), CEILING_DBTP)


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

    def __init__(self, audio: Waveform, sample_rate: int, weights: Sequence[float] | None = None):
        self.audio, self.sample_rate, self.weights = audio, sample_rate, weights
        self.meter = LoudnessMeter(sample_rate, audio.shape[0], weights)
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


def _to_target(
    source: _Source, target: float, measure: Callable[[LoudnessMeter, float], float]
) -> tuple[float, Gain, float, float]:
    """Mode "lufs": (gain in dB before limiting, gain of each sample, loudness and true peak of the result).

    Limiting lowers the loudness, so the gain is raised by the loss.
    """
    most_gain = min(MAX_BOOST_DB, CEILING_DBTP + MAX_LIMITING_DB - source.peak)
    gain_db = min(target - measure(source.meter, 0.0), most_gain)
    for attempt in range(_ATTEMPTS):
        gain = source.limiter(_ratio(gain_db), CEILING_DBTP)
        if gain.points is None:
            return gain_db, gain, measure(source.meter, gain_db), source.peak + gain_db
        meter = measured(Amplified(source.audio, gain), source.sample_rate, source.weights)
        missing = target - measure(meter, 0.0)
        if attempt == _ATTEMPTS - 1 or abs(missing) < 0.02 or gain_db + missing > most_gain and gain_db == most_gain:
            break
        gain_db = min(gain_db + missing, most_gain)
    final, peak = source.under_ceiling(gain, CEILING_DBTP)
    return gain_db, final, measure(meter, _decibels(final.ratio / gain.ratio)), peak


def _ratio(decibels: float) -> float:
    return 10.0 ** (decibels / 20.0)


def _decibels(ratio: float) -> float:
    return 20.0 * math.log10(ratio) if ratio > 0 else -math.inf


def _json_number(value: float) -> float | None:
    return round(value, 3) if math.isfinite(value) else None
