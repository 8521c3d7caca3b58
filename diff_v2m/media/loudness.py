"""Bring a waveform to a loudness. metering.py measures it and defines the units.

Everything here reads the audio in blocks, `audio[:, start:stop]`, and makes the result in blocks. Beside the audio it
keeps one number for each `HOP` samples, so a film of two hours needs no copy of its sound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from diff_v2m.media import metering
from diff_v2m.media.metering import (
    HOP,
    LoudnessMeter,
    Waveform,
    blocks,
    decibels_of,
    gated_loudness,
    measured,
    oversampled_peaks,
    ratio_of,
    true_peak,
)

MODES = ("none", "peak", "lufs")
TARGET_LUFS = -16.0
CEILING_DBTP = -1.0
MAX_BOOST_DB = 30.0  # near-silence stays quiet, since its noise floor is not music
MAX_LIMITING_DB = 12.0  # beyond it, limiting is audible as pumping, so the whole clip stays quieter instead
_ATTEMPTS = 6  # at the gain that makes up for what limiting takes away
_LIMITER_HALF_WIDTH = 0.020  # s; the gain falls this long before a peak and recovers this long after it


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
        for start in range(0, self.shape[1], metering.BLOCK):
            result[:, start : start + metering.BLOCK] = self[:, start : start + metering.BLOCK]
        return result


def level(
    audio: Waveform, sample_rate: int, mode: str = "lufs", gain_db: float | None = None
) -> tuple[Amplified, LoudnessReport]:
    """The audio at the loudness of `mode`, and a report. Raises ValueError for NaN or infinite samples.

    lufs  −16 LUFS with a true peak of at most −1 dBTP. A look-ahead limiter lowers the peaks that the gain would push
          over the ceiling, by at most MAX_LIMITING_DB. Audio with higher peaks ends quieter than −16 LUFS.
    peak  true peak at −1 dBTP, without limiting.
    none  as generated; only audio that would clip is turned down, to −1 dBTP.

    gain_db: of the clips of an album, see `album_gain`, instead of a gain of its own; peaks are limited.

    Silence stays silence in every mode. (As released, division by the peak turns silence into NaN.)
    """
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}; expected one of {', '.join(MODES)}")
    source = _Source(audio, sample_rate)
    loudness, peak = source.meter.loudness(), source.peak
    if gain_db is not None:
        gain, peak_after = source.under_ceiling(source.limiter(ratio_of(gain_db), CEILING_DBTP), CEILING_DBTP)
        after = measured(Amplified(audio, gain), sample_rate).loudness()
    elif mode == "lufs" and loudness > -math.inf:
        gain_db, gain, after, peak_after = _to_target(source, TARGET_LUFS, LoudnessMeter.loudness, CEILING_DBTP)
    else:
        gain_db = 0.0
        if mode == "peak" and peak > -math.inf:
            gain_db = min(CEILING_DBTP - peak, MAX_BOOST_DB)
        elif peak > 0:
            gain_db = CEILING_DBTP - peak
        gain, after, peak_after = Gain(ratio_of(gain_db)), source.meter.loudness(gain_db), peak + gain_db
    report = LoudnessReport(
        mode=mode,
        lufs_before=json_number(loudness),
        lufs_after=json_number(after),
        true_peak_before=json_number(peak),
        true_peak_after=json_number(peak_after),
        gain_db=round(gain_db, 3),
        limited_db=0.0 if gain.points is None else round(peak + gain_db - CEILING_DBTP, 3),
    )
    return Amplified(audio, gain), report


def album_gain(powers: np.ndarray, peak: float, mode: str = "lufs") -> float:
    """The gain in dB that clips get together. powers: of all their meters; peak: the highest true peak, in dBTP."""
    loudness = gated_loudness(powers)
    if mode == "lufs" and loudness > -math.inf:
        return min(TARGET_LUFS - loudness, MAX_BOOST_DB, CEILING_DBTP + MAX_LIMITING_DB - peak)
    if mode == "peak" and peak > -math.inf:
        return min(CEILING_DBTP - peak, MAX_BOOST_DB)
    return min(0.0, CEILING_DBTP - peak) if peak > 0 else 0.0


def level_to(
    audio: Waveform,
    sample_rate: int,
    target: float,
    *,
    measure: Callable[[LoudnessMeter, float], float] = LoudnessMeter.loudness,
    weights: Sequence[float] | None = None,
    ceiling_dbtp: float = CEILING_DBTP,
) -> tuple[Gain, float]:
    """The gain of `level` in mode "lufs" for another target (LUFS), and the true peak in dBTP that it leads to.

    measure: loudness of what a meter has read, raised by so many dB; by default of all of it. weights: see
    `LoudnessMeter`. What measures as silence is only kept under the ceiling.
    """
    source = _Source(audio, sample_rate, weights)
    if measure(source.meter, 0.0) == -math.inf:
        gain = Gain(min(1.0, ratio_of(ceiling_dbtp - source.peak)))
        return gain, source.peak + decibels_of(gain.ratio)
    _, gain, _, peak = _to_target(source, target, measure, ceiling_dbtp)
    return gain, peak


def limited(
    audio: Waveform,
    sample_rate: int,
    gain_db: float,
    weights: Sequence[float] | None = None,
    ceiling_dbtp: float = CEILING_DBTP,
) -> tuple[Gain, float]:
    """A gain of `gain_db`, less where peaks would pass the ceiling, and the true peak in dBTP that it leads to."""
    source = _Source(audio, sample_rate, weights)
    return source.under_ceiling(source.limiter(ratio_of(gain_db), ceiling_dbtp), ceiling_dbtp)


def normalize(audio: Waveform, sample_rate: int, mode: str = "lufs") -> tuple[np.ndarray, LoudnessReport]:
    """`level` with the result as an array (channels, n) float32."""
    result, report = level(audio, sample_rate, mode)
    return np.asarray(result), report


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
            peaks = oversampled_peaks(audio, number * metering.BLOCK)
            self.peaks[number * metering.BLOCK // HOP :][: len(peaks)] = peaks

    @cached_property
    def peak(self) -> float:
        """dBTP."""
        return decibels_of(float(self.peaks.max(initial=0.0)))

    def limiter(self, ratio: float, ceiling_dbtp: float) -> Gain:
        """A constant gain with a limiter behind it.

        A running minimum spreads the gain that each peak needs, and a window of the same width smooths it: an average
        of gains that are low enough is low enough.
        """
        from scipy.ndimage import correlate1d, minimum_filter1d

        ceiling, half = ratio_of(ceiling_dbtp), max(1, round(_LIMITER_HALF_WIDTH * self.sample_rate / HOP))
        if float(self.peaks.max(initial=0.0)) * ratio <= ceiling:
            return Gain(ratio)
        # one more than the window: between two points, both of them hold what either side needs
        window = np.hanning(2 * half + 3)[1:-1].astype(np.float32)
        window, margin, count = window / window.sum(), 2 * half + 1, len(self.peaks) + 1
        points = np.empty(count, np.float32)
        for start in range(0, count, metering.BLOCK):
            left, stop = max(0, start - margin), min(start + metering.BLOCK, count)
            peaks = self.peaks[left : stop + margin]
            peaks = np.append(peaks, peaks[-1]) if stop + margin >= count else peaks  # the last point
            needed = np.minimum(1.0, ceiling / np.maximum(peaks * np.float32(ratio), 1e-9)).astype(np.float32)
            held = minimum_filter1d(needed, 2 * half + 3, mode="nearest")
            smooth = correlate1d(held, window, mode="nearest")
            points[start:stop] = np.minimum(smooth[start - left :][: stop - start], 1.0)
        return Gain(ratio, points)

    def under_ceiling(self, gain: Gain, ceiling_dbtp: float) -> tuple[Gain, float]:
        """The gain, turned down once more, and the true peak, in dBTP, of what it makes.

        The whole clip loses the excess of hundredths of a decibel that rounding and limiter edges leave.
        """
        if gain.points is None:
            return gain, self.peak + decibels_of(gain.ratio)
        peak = true_peak(Amplified(self.audio, gain))
        excess = max(0.0, peak - ceiling_dbtp + 1e-4)
        return Gain(gain.ratio * ratio_of(-excess), gain.points), peak - excess


def _to_target(
    source: _Source, target: float, measure: Callable[[LoudnessMeter, float], float], ceiling_dbtp: float
) -> tuple[float, Gain, float, float]:
    """Mode "lufs": (gain in dB before limiting, gain of each sample, loudness and true peak of the result).

    Limiting lowers the loudness, so the gain is raised by the loss.
    """
    most_gain = min(MAX_BOOST_DB, ceiling_dbtp + MAX_LIMITING_DB - source.peak)
    gain_db = min(target - measure(source.meter, 0.0), most_gain)
    for attempt in range(_ATTEMPTS):
        gain = source.limiter(ratio_of(gain_db), ceiling_dbtp)
        if gain.points is None:
            return gain_db, gain, measure(source.meter, gain_db), source.peak + gain_db
        meter = measured(Amplified(source.audio, gain), source.sample_rate, source.weights)
        missing = target - measure(meter, 0.0)
        if attempt == _ATTEMPTS - 1 or abs(missing) < 0.02 or gain_db + missing > most_gain and gain_db == most_gain:
            break
        gain_db = min(gain_db + missing, most_gain)
    final, peak = source.under_ceiling(gain, ceiling_dbtp)
    return gain_db, final, measure(meter, decibels_of(final.ratio / gain.ratio)), peak


def json_number(value: float) -> float | None:
    """Rounded to thousandths; None for what JSON cannot hold, such as the loudness of silence."""
    return round(value, 3) if math.isfinite(value) else None
