"""Accents in audio: the percussive part of the strongest attack of a piece, played at further moments."""

from __future__ import annotations

import numpy as np

from diff_v2m.common.scratch import TEMPORARY, Scratch

LENGTH, LEAD = 0.4, 0.005  # seconds of an accent, and of silence before its attack
_CONTEXT = 0.6  # seconds around the attack from which its percussive part is separated
_CANDIDATES = 12  # strongest attacks that are tried
_WINDOW, _STEPS = 0.046, 4  # seconds of a spectrum, and spectra in that time
_ALONG = 17, 17  # spectra and frequencies of the median filters


def accented(
    audio: np.ndarray,
    sample_rate: int,
    times: np.ndarray,
    gains: np.ndarray,
    attacks: np.ndarray,
    strengths: np.ndarray,
    scratch: Scratch = TEMPORARY,
) -> np.ndarray:
    """Audio (channels, n) float32 with an accent at each time (k,) in seconds, times its gain.

    attacks, strengths: seconds of the attacks in the audio, and how strong each is. The accent has no pitch, so it fits
    any harmony. Without attacks the audio stays as it is. scratch: where long audio lies.
    """
    shot = _one_shot(audio, sample_rate, attacks[np.argsort(-strengths)[:_CANDIDATES]])
    if shot is None:
        return audio
    out, lead = scratch.copy(audio), round(LEAD * sample_rate)
    for time, gain in zip(times.tolist(), gains.tolist(), strict=True):
        first = round(time * sample_rate) - lead
        begin, end = max(first, 0), min(first + shot.shape[1], out.shape[1])
        if begin < end:
            out[:, begin:end] += np.float32(gain) * shot[:, begin - first : end - first]
    return out


def _one_shot(audio: np.ndarray, sample_rate: int, attacks: np.ndarray) -> np.ndarray | None:
    """(channels, samples): the loudest percussive part of these attacks."""
    context, lead = round(_CONTEXT * sample_rate), round(LEAD * sample_rate)
    length = round(LENGTH * sample_rate)
    envelope = np.exp(-np.arange(length) / (0.25 * length)) * np.minimum(1, np.arange(length) / max(1, lead))
    envelope *= np.minimum(1, (length - np.arange(length)) / max(1, lead))
    best, loudest = None, 0.0
    for attack in attacks.tolist():
        start = round(attack * sample_rate)
        if start < context or start + context > audio.shape[1]:
            continue
        part = percussive(audio[:, start - context : start + context], sample_rate)
        shot = part[:, context - lead : context - lead + length] * envelope.astype(np.float32)
        power = float(np.square(shot).sum())
        if power > loudest:
            best, loudest = shot, power
    return best


def percussive(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """What of audio (channels, n) is broad in frequency and short in time (Fitzgerald, 2010): median filters."""
    from scipy.ndimage import median_filter
    from scipy.signal import istft, stft

    size = 2 * round(_WINDOW * sample_rate / 2)
    options = {"fs": sample_rate, "nperseg": size, "noverlap": size - size // _STEPS}
    _, _, spectrum = stft(audio, **options)  # (channels, frequencies, spectra)
    level = np.abs(spectrum)
    steady = median_filter(level, size=(1, 1, _ALONG[0]))
    sudden = median_filter(level, size=(1, _ALONG[1], 1))
    share = sudden**2 / np.maximum(sudden**2 + steady**2, 1e-12)
    _, separated = istft(spectrum * share, **options)
    return separated[:, : audio.shape[1]].astype(np.float32)
