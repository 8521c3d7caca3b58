"""Loudness of a waveform: measure it by ITU-R BS.1770 and normalise it to a target.

Audio is (channels, samples) float, full scale ±1. Loudness is in LUFS. Peaks are true peaks in dBTP: the largest value
of the 4× oversampled signal, because converters reproduce the signal between samples too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from diff_v2m.common.errors import ignore_warnings

MODES = ("none", "peak", "lufs")
TARGET_LUFS = -16.0
CEILING_DBTP = -1.0
MAX_BOOST_DB = 30.0  # near-silence stays quiet, since its noise floor is not music
MAX_LIMITING_DB = 12.0  # beyond it, limiting is audible as pumping, so the whole clip stays quieter instead
OVERSAMPLING = 4
_LIMITER_HALF_WIDTH = 0.020  # s; the gain falls this long before a peak and recovers this long after it
_GATING_BLOCK = 0.4  # s, BS.1770
_CHUNK = 1 << 19  # samples oversampled at once, so that a long video needs no four-fold copy of its audio


@dataclass(frozen=True)
class LoudnessReport:
    """Measurements before and after `normalize`. None is minus infinity (silence), which JSON cannot hold."""

    mode: str
    lufs_before: float | None
    lufs_after: float | None
    true_peak_before: float | None  # dBTP
    true_peak_after: float | None  # dBTP
    gain_db: float
    limited_db: float  # largest reduction by the limiter, >= 0


def normalize(audio: np.ndarray, sample_rate: int, mode: str = "lufs") -> tuple[np.ndarray, LoudnessReport]:
    """(channels, n) -> the same shape in float32 at the loudness of `mode`, and a report.

    lufs  −16 LUFS with a true peak of at most −1 dBTP. A look-ahead limiter lowers the peaks that the gain would push
          over the ceiling, by at most MAX_LIMITING_DB. Audio with higher peaks ends quieter than −16 LUFS.
    peak  true peak at −1 dBTP, without limiting.
    none  as generated; only audio that would clip is turned down, to −1 dBTP.

    Silence stays silence in every mode. (As released, division by the peak turns silence into NaN.)
    """
    return normalize_with_gain(audio, sample_rate, mode)[:2]


def normalize_with_gain(
    audio: np.ndarray, sample_rate: int, mode: str = "lufs"
) -> tuple[np.ndarray, LoudnessReport, np.ndarray]:
    """`normalize`, and the gain (n,) float64 that it applied to each sample of every channel."""
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}; expected one of {', '.join(MODES)}")
    audio = np.asarray(audio, dtype=np.float32)
    if not np.isfinite(audio).all():
        raise ValueError("the audio holds NaN or infinite samples")
    loudness, peak = integrated_loudness(audio, sample_rate), true_peak(audio)

    gain, limited = 0.0, 0.0
    result, curve = audio, np.ones(audio.shape[1])
    if mode == "peak" and peak > -math.inf:
        gain = min(CEILING_DBTP - peak, MAX_BOOST_DB)
        result, curve = _under_ceiling(audio * _ratio(gain), curve * _ratio(gain))
    elif mode == "lufs" and loudness > -math.inf:
        result, curve, gain, limited = _to_target(audio, sample_rate, loudness, peak)
    elif peak > 0:
        gain = CEILING_DBTP - peak
        result, curve = _under_ceiling(audio * _ratio(gain), curve * _ratio(gain))

    report = LoudnessReport(
        mode=mode,
        lufs_before=_json_number(loudness),
        lufs_after=_json_number(integrated_loudness(result, sample_rate)),
        true_peak_before=_json_number(peak),
        true_peak_after=_json_number(true_peak(result)),
        gain_db=round(gain, 3),
        limited_db=round(limited, 3),
    )
    return result, report, curve


def integrated_loudness(audio: np.ndarray, sample_rate: int) -> float:
    """(channels, n) -> gated loudness in LUFS; -inf for silence.

    A clip shorter than BS.1770's 0.4 s gating block is measured as one block of its own length.
    """
    import pyloudnorm

    samples = audio.shape[1]
    if samples < 2 or not audio.any():
        return -math.inf
    meter = pyloudnorm.Meter(sample_rate, block_size=min(_GATING_BLOCK, samples / sample_rate))
    with ignore_warnings(), np.errstate(all="ignore"):  # a clip below the gate has no block to average
        loudness = float(meter.integrated_loudness(audio.T.astype(np.float64)))
    return loudness if math.isfinite(loudness) else -math.inf


def true_peak(audio: np.ndarray) -> float:
    """(channels, n) -> dBTP; -inf for silence."""
    return _decibels(float(_peak_envelope(audio).max(initial=0.0)))


def limit(audio: np.ndarray, sample_rate: int, ceiling_dbtp: float = CEILING_DBTP) -> np.ndarray:
    """(channels, n) -> the same with true peaks at or under the ceiling; audio far from a peak does not change.

    All channels get the same gain, so the stereo image does not move.
    """
    return _limited(audio, sample_rate, ceiling_dbtp)[0]


def _limited(audio: np.ndarray, sample_rate: int, ceiling_dbtp: float = CEILING_DBTP) -> tuple[np.ndarray, np.ndarray]:
    """`limit`, and the gain (n,) that it applied.

    A running minimum spreads the gain that each sample needs, and a window of the same width smooths it: an average of
    gains that are low enough is low enough.
    """
    from scipy.ndimage import minimum_filter1d
    from scipy.signal import oaconvolve

    ceiling = _ratio(ceiling_dbtp)
    needed = np.minimum(1.0, ceiling / np.maximum(_peak_envelope(audio), 1e-9))
    if needed.min(initial=1.0) >= 1.0:
        return audio, np.ones(audio.shape[1])
    half = max(1, round(_LIMITER_HALF_WIDTH * sample_rate))
    held = minimum_filter1d(needed, 2 * half + 1, mode="nearest")
    window = np.hanning(2 * half + 3)[1:-1]
    gain = oaconvolve(np.pad(held, half, mode="edge"), window / window.sum(), mode="valid")
    gain = np.minimum(gain, 1.0).astype(np.float32)
    return _under_ceiling(audio * gain, gain.astype(np.float64), ceiling_dbtp)


def _to_target(
    audio: np.ndarray, sample_rate: int, loudness: float, peak: float
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Gain and limiter for mode "lufs": (audio, gain of each sample, gain in dB, largest reduction in dB).

    Limiting lowers the loudness, so the gain is raised by the loss, up to six times.
    """
    most_gain = min(MAX_BOOST_DB, CEILING_DBTP + MAX_LIMITING_DB - peak)
    gain = min(TARGET_LUFS - loudness, most_gain)
    for attempt in range(6):
        result, curve = _limited(audio * _ratio(gain), sample_rate)
        missing = TARGET_LUFS - integrated_loudness(result, sample_rate)
        if attempt == 5 or abs(missing) < 0.02 or gain + missing > most_gain and gain == most_gain:
            break
        gain = min(gain + missing, most_gain)
    return result, curve * _ratio(gain), gain, max(0.0, peak + gain - CEILING_DBTP)


def _under_ceiling(
    audio: np.ndarray, gain: np.ndarray, ceiling_dbtp: float = CEILING_DBTP
) -> tuple[np.ndarray, np.ndarray]:
    """Audio and the gain (n,) that made it, turned down once more.

    The whole clip loses the excess of hundredths of a decibel that rounding and limiter edges leave.
    """
    over = true_peak(audio) - ceiling_dbtp
    last = np.float32(_ratio(-over - 1e-4)) if over > 0 else np.float32(1)
    return audio * last, gain * last


def _peak_envelope(audio: np.ndarray) -> np.ndarray:
    """(channels, n) -> (n,): the largest oversampled magnitude of any channel from each sample to the next."""
    from scipy.signal import resample_poly  # takes a second to import

    samples = audio.shape[1]
    envelope = np.zeros(samples, dtype=np.float32)
    margin = 16  # samples, more than half of resample_poly's filter: chunks join without a seam
    for start in range(0, samples, _CHUNK):
        stop = min(start + _CHUNK, samples)
        left = min(margin, start)
        block = resample_poly(audio[:, start - left : stop + margin], OVERSAMPLING, 1, axis=1)
        block = block[:, left * OVERSAMPLING : (left + stop - start) * OVERSAMPLING]
        envelope[start:stop] = np.abs(block).reshape(len(audio), stop - start, OVERSAMPLING).max(axis=(0, 2))
    return envelope


def _ratio(decibels: float) -> float:
    return 10.0 ** (decibels / 20.0)


def _decibels(ratio: float) -> float:
    return 20.0 * math.log10(ratio) if ratio > 0 else -math.inf


def _json_number(value: float) -> float | None:
    return round(value, 3) if math.isfinite(value) else None
