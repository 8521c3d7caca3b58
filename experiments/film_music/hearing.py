"""What can be measured of a finished wav of the film-music world, and classifiers fitted on its real music."""

from __future__ import annotations

from dataclasses import dataclass

import librosa
import numpy as np
from scipy.signal import find_peaks, resample_poly
from sklearn.linear_model import LogisticRegression
from tqdm import tqdm

from diff_v2m.metrics.rhythm import same_tempo
from diff_v2m.score import synth
from experiments.film_music.composer import compose
from experiments.film_music.scene import ScenePlan, draw_scene
from experiments.synthetic import measures
from inference.density_coverage import manifolds

RATE = 16_000  # Hz, of everything measured
FRAMES = RATE // measures.HOP  # of an onset curve, a second
ROWS = 8  # a second, of the fine onset curve
TOLERANCE = 0.05  # seconds between a cut and an onset
PROMINENCE = 0.05  # of an onset; strings and pads begin softly
_CHROMA_HOP = 1024


@dataclass(frozen=True)
class Heard:
    """Measures of one wav."""

    onsets: np.ndarray  # (n,) seconds
    by_second: np.ndarray  # (S,) onset strength
    by_row: np.ndarray  # (8 · S,)
    pulse: float
    beats: np.ndarray  # (n,) seconds, from a beat tracker
    tempo: float  # of the beat tracker
    halves: tuple[float, float]  # its tempo in each half
    timbre: np.ndarray  # (80,)
    chroma: np.ndarray  # (12,)
    chroma_of_halves: np.ndarray  # (2, 12)


def hear(audio: np.ndarray, sample_rate: int) -> Heard:
    """Measure audio (channels, n)."""
    mono = to_mono(audio, sample_rate)
    flux = measures.flux(mono, RATE)
    tempo, beats = librosa.beat.beat_track(y=mono, sr=RATE, hop_length=256, units="time")
    chroma = _chroma(mono)
    middle = chroma.shape[1] // 2
    return Heard(
        onsets=find_peaks(flux, prominence=PROMINENCE, distance=3)[0] / FRAMES,
        by_second=_means(flux, 1),
        by_row=_means(flux, ROWS),
        pulse=measures.pulse_clarity(mono, RATE),
        beats=beats,
        tempo=float(np.atleast_1d(tempo)[0]),
        halves=tuple(_tempo(half) for half in np.array_split(mono, 2)),
        timbre=measures.timbre(mono, RATE),
        chroma=_shares(chroma),
        chroma_of_halves=np.stack([_shares(chroma[:, :middle]), _shares(chroma[:, middle:])]),
    )


def steady(heard: Heard) -> bool:
    """Whether the tempi of the two halves agree, up to an octave."""
    first, second = heard.halves
    return bool(same_tempo(first, second))


def variety(made: list[Heard], real: list[Heard]) -> tuple[float, float]:
    """Recall and coverage of the made music in the real set's space of timbre and onset statistics."""
    rows = [np.stack([heard.timbre for heard in group]) for group in (made, real)]
    mean, spread = rows[1].mean(axis=0), rows[1].std(axis=0) + 1e-6
    found = manifolds((rows[0] - mean) / spread, (rows[1] - mean) / spread)
    return float(found.recall.mean()), float(found.coverage.mean())


class Classifiers:
    """Family of instruments, tonic and mode of a wav, fitted on real music of seeds that are not evaluated."""

    def __init__(self, seeds: range) -> None:
        scenes = [draw_scene(seed) for seed in seeds]
        timbres, rotations, labels = [], [], []
        for scene in tqdm(scenes, desc="fitting classifiers"):
            score = compose(scene)
            mono = to_mono(synth.render(score).mix, synth.SAMPLE_RATE)
            timbres.append(measures.timbre(mono, RATE))
            shares = chroma_shares(mono)
            for tonic in range(12):
                rotations.append(np.roll(shares, -tonic))
                labels.append(1 + score.key.minor_third if tonic == score.key.tonic else 0)
        families = np.array([scene.family for scene in scenes])
        self._family = measures.instrument_classifier(np.stack(timbres), families)
        self._key = LogisticRegression(C=10, max_iter=5000).fit(_logs(rotations), labels)

    def family(self, timbre: np.ndarray) -> str:
        return str(self._family.predict(timbre[None])[0])

    def key(self, chroma: np.ndarray) -> tuple[int, bool]:
        """Tonic, and whether the third is minor."""
        shares = self._key.predict_proba(_logs([np.roll(chroma, -tonic) for tonic in range(12)]))[:, 1:]
        tonic, minor = np.unravel_index(shares.argmax(), shares.shape)
        return int(tonic), bool(minor)


def noise_with_onsets(scene: ScenePlan, real: Heard) -> np.ndarray:
    """(1, n) noise bursts that follow the onset strength of the real music, second by second."""
    return measures.noise_following(real.by_second, round(scene.duration * RATE), RATE, scene.seed)[None]


def to_mono(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """(channels, n) → (m,) at RATE."""
    return resample_poly(audio.mean(axis=0), RATE, sample_rate).astype(np.float32)


def chroma_shares(mono: np.ndarray) -> np.ndarray:
    """(12,) share of each pitch class in audio (m,) at RATE, C first."""
    return _shares(_chroma(mono))


def _chroma(mono: np.ndarray) -> np.ndarray:
    return librosa.feature.chroma_cqt(
        y=mono, sr=RATE, hop_length=_CHROMA_HOP, fmin=librosa.note_to_hz("C2"), n_octaves=5
    )


def _means(curve: np.ndarray, rate: int) -> np.ndarray:
    """Means of a curve over `rate` equal parts of each whole second."""
    parts = len(curve) // FRAMES * rate
    edges = np.round(np.arange(parts + 1) * FRAMES / rate).astype(int)
    return np.add.reduceat(curve[: edges[-1]], edges[:-1]) / np.diff(edges)


def _tempo(mono: np.ndarray) -> float:
    return float(np.atleast_1d(librosa.beat.beat_track(y=mono, sr=RATE, hop_length=256)[0])[0])


def _shares(chroma: np.ndarray) -> np.ndarray:
    mean = chroma.mean(axis=1)
    return mean / max(mean.sum(), 1e-9)


def _logs(profiles: list[np.ndarray]) -> np.ndarray:
    return np.log(np.stack(profiles) + 1e-3)
