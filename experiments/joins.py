"""What is heard at the joins of a long piece, and how constant its key, tempo and instruments are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from diff_v2m.generation.pipeline import DiffV2M

RATE = 16000  # Hz, of everything that is measured
CLEAR = 6.0  # seconds between a join and a time that counts as elsewhere
COLUMNS = ("level, dB", "onsets doubled", "chroma r", "timbre", "beat phase, ms", "above 6 kHz, dB")


def mono(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """(channels, n) → (m,) at RATE."""
    import librosa

    return librosa.resample(audio.mean(axis=0), orig_sr=sample_rate, target_sr=RATE, res_type="polyphase")


def elsewhere(joins: list[float], duration: float) -> list[float]:
    """As many times as there are joins, far from all of them and from both ends."""
    candidates = [t for t in np.arange(10.0, duration - 10, 1.0) if min(abs(t - join) for join in joins) > CLEAR]
    return [candidates[i] for i in np.linspace(0, len(candidates) - 1, len(joins)).astype(int)]


def measure(audio: np.ndarray, t: float) -> np.ndarray:
    """The values of COLUMNS at a time: 2 s around it against 4 s to either side, or 8 s before against 8 s after."""
    from scipy.signal import find_peaks

    from diff_v2m.metrics.rhythm import correlation
    from experiments.synthetic import measures

    def part(first: float, last: float) -> np.ndarray:
        return audio[max(0, round((t + first) * RATE)) : round((t + last) * RATE)]

    middle, sides = part(-1, 1), (part(-5, -1), part(1, 5))
    level = _decibels(middle) - np.mean([_decibels(side) for side in sides])
    treble = _decibels(middle, 6000) - np.mean([_decibels(side, 6000) for side in sides])
    curve = measures.flux(part(-1.5, 1.5), RATE)
    onsets = find_peaks(curve, prominence=measures.ONSET_PROMINENCE / 2)[0] * measures.HOP / RATE
    doubled = np.mean(np.diff(onsets) <= 0.06) if len(onsets) > 1 else 0.0
    before, after = part(-9, -1), part(1, 9)
    chroma = correlation(measures.chroma(before, RATE), measures.chroma(after, RATE))
    timbre = np.linalg.norm(measures.timbre(before, RATE) - measures.timbre(after, RATE))
    return np.array([level, doubled, chroma, timbre, 1000 * phase_shift(part(-9, 9)), treble], float)


def phase_shift(audio: np.ndarray) -> float:
    """Seconds by which the beats of the second half miss those of the first."""
    from experiments.synthetic import measures

    curve, rate = measures.flux(audio, RATE), RATE / measures.HOP
    centred = curve - curve.mean()
    lags = np.arange(round(0.3 * rate), round(0.9 * rate))
    period = lags[np.argmax([centred[lag:] @ centred[:-lag] for lag in lags])]
    half = len(curve) // 2
    turns = np.exp(-2j * np.pi * np.arange(len(curve)) / period)
    angle = np.angle((centred[half:] @ turns[half:]) / (centred[:half] @ turns[:half] + 1e-12))
    return abs(angle) / (2 * np.pi) * period / rate


def key_and_tempo(audio: np.ndarray) -> tuple[float, float]:
    """Share of 10 s blocks in the key of most blocks, and of 20 s blocks whose tempo is the median one up to an octave.

    The key is the major or minor one that `find_key` finds in the chroma.
    """
    import librosa

    from diff_v2m.metrics.rhythm import same_tempo
    from diff_v2m.score.keys import find_key
    from experiments.synthetic import measures

    keys = [str(find_key(measures.chroma(block, RATE))) for block in _blocks(audio, 10)]
    tracked = [librosa.beat.beat_track(y=block, sr=RATE, hop_length=256)[0] for block in _blocks(audio, 20)]
    tempi = np.array([float(np.atleast_1d(tempo)[0]) for tempo in tracked])
    return _majority(keys), float(np.mean([bool(same_tempo(tempo, float(np.median(tempi)))) for tempo in tempi]))


def _blocks(audio: np.ndarray, seconds: int) -> list[np.ndarray]:
    size = seconds * RATE
    return [audio[start : start + size] for start in range(0, len(audio) - size + 1, size)]


@dataclass(frozen=True)
class Constancy:
    """Share of 10 s blocks that have the mode, and the instruments, that most blocks of the piece have."""

    is_minor: Callable[[np.ndarray], bool]  # of a block
    instruments: Callable[[np.ndarray], str]

    @classmethod
    def of(cls, model: DiffV2M) -> Constancy:
        """By classifiers fitted on the music of the world that the model was trained on."""
        from experiments.film_music import hearing
        from experiments.film_music.check import FITTED_ON
        from experiments.synthetic import measures
        from experiments.synthetic.check import Classifiers

        if (model.config.sample_rate, model.config.audio_channels) == (RATE, 1):
            tiny = Classifiers()
            return cls(
                lambda block: tiny.mode.is_minor(measures.chroma(block, RATE)),
                lambda block: tiny.instrument.predict(measures.timbre(block, RATE)[None])[0],
            )
        film = hearing.Classifiers(FITTED_ON)
        return cls(
            lambda block: film.key(hearing.chroma_shares(block))[1],
            lambda block: film.family(measures.timbre(block, RATE)),
        )

    def __call__(self, audio: np.ndarray) -> tuple[float, float]:
        blocks = _blocks(audio, 10)
        return _majority([self.is_minor(block) for block in blocks]), _majority([*map(self.instruments, blocks)])


def _majority(values) -> float:
    return float(np.unique(values, return_counts=True)[1].max() / len(values))


def _decibels(audio: np.ndarray, above: float = 0.0) -> float:
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio)))) ** 2
    power = spectrum[round(above * len(audio) / RATE) :].sum() / max(len(audio), 1) ** 2
    return 10 * np.log10(power * 8 / 3 + 1e-12)
