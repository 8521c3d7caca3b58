"""The best of several takes: a score of each, in parts, by which they are ranked.

    total = rhythm + cuts + hits − silence − 10 · clipping − 2 · noise beyond that of music

rhythm    correlation, −1 to 1, of the strongest onset of each second with the rhythm that the model predicts
cuts      how strong the onsets within 0.1 s of the cuts are among all moments of the music: −1 weakest, 0 chance, 1
hits      share of the hits with an onset within 40 ms, less the share at chance
silence   share of the time under −60 dBFS
clipping  share of the samples at full scale
noise     spectral flatness in narrow bands beyond 0.3, where noise begins

A part that is undefined, as cuts of a video without any, counts as 0 for every take.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from diff_v2m import plots
from diff_v2m.features import rhythm as onsets
from diff_v2m.metrics.audio_quality import clipped_share, noisiness, silent_share
from diff_v2m.metrics.rhythm import chance, correlation, sync

AT_A_CUT = 0.1  # seconds
AT_A_HIT = 0.04  # seconds
MUSICAL_NOISE = 0.3  # spectral flatness
_CHUNK, _MARGIN = 60, 1  # seconds analysed at once, and around them


@dataclass(frozen=True)
class TakeScore:
    """The parts of a take's score. None: undefined for this video or this take."""

    rhythm: float | None
    cuts: float | None
    hits: float | None
    silence: float
    clipping: float
    noise: float | None

    @property
    def total(self) -> float:
        """Higher is better."""
        good = sum(part or 0.0 for part in (self.rhythm, self.cuts, self.hits))
        return good - self.silence - 10 * self.clipping - 2 * max(0.0, (self.noise or 0.0) - MUSICAL_NOISE)

    def about(self) -> dict[str, float | None]:
        """Total and parts, for the manifest."""
        values = {"total": self.total, **asdict(self)}
        return {name: None if value is None else round(value, 4) for name, value in values.items()}


@dataclass(frozen=True)
class Takes:
    """Which take a composition is, and the scores of all of them."""

    number: int  # from 1 on; the variation that decided its noise
    scores: tuple[TakeScore, ...]

    def caption(self) -> str:
        """For the picture."""
        totals = [score.total for score in self.scores]
        mean, best = sum(totals) / len(totals), self.scores[self.number - 1].total
        return f"take {self.number} of {len(totals)}, score {best:.2f} (mean {mean:.2f})".replace("-", "−")

    def table(self, chosen: Collection[int]) -> str:
        """The scores, best first, as lines for the log; a star at the chosen takes."""
        lines = ["  take " + " ".join(f"{name:>8}" for name in self.scores[0].about())]
        for number, score in sorted(enumerate(self.scores, start=1), key=lambda one: -one[1].total):
            values = ("–" if value is None else f"{value:.3f}" for value in score.about().values())
            lines.append(
                f"{'*' if number in chosen else ' '} {number:4} " + " ".join(f"{value:>8}" for value in values)
            )
        return "\n".join(lines)

    def about(self) -> dict[str, Any]:
        """For the manifest."""
        scores = [{"take": number, **score.about()} for number, score in enumerate(self.scores, start=1)]
        return {"kept": self.number, "scores": scores}


def score_take(
    audio: np.ndarray,
    sample_rate: int,
    rhythm: np.ndarray,
    cut_times: np.ndarray | None = None,
    hits: Sequence[float] | np.ndarray = (),
) -> TakeScore:
    """Score audio (channels, n) against the predicted rhythm (S,), exact times of cuts and wanted hits, in seconds.

    It is analysed in chunks: memory does not grow with its length.
    """
    achieved, _ = plots.analyse(audio, sample_rate)
    curve, rate = _onset_curve(audio, sample_rate)
    duration, length = audio.shape[1] / sample_rate, _CHUNK * sample_rate
    chunks = [audio[:, start : start + length] for start in range(0, audio.shape[1], length)]
    return TakeScore(
        rhythm=correlation(achieved, rhythm, shortest=3),
        cuts=_accent(curve, rate, np.array([]) if cut_times is None else np.asarray(cut_times), duration),
        hits=_hits(curve, rate, np.asarray(hits, float), duration),
        silence=sum(silent_share(chunk, sample_rate) * chunk.shape[1] for chunk in chunks) / audio.shape[1],
        clipping=sum(clipped_share(chunk) * chunk.shape[1] for chunk in chunks) / audio.shape[1],
        noise=_noise(chunks, sample_rate),
    )


def _noise(chunks: Sequence[np.ndarray], sample_rate: int) -> float | None:
    """Noisiness of all chunks together, each weighted by its energy."""
    mono = ((chunk.mean(axis=0), float(np.square(chunk, dtype=np.float64).sum())) for chunk in chunks)
    found = [(noisiness(chunk, sample_rate), energy) for chunk, energy in mono]
    total = sum(energy for noise, energy in found if noise is not None)
    return sum(noise * energy for noise, energy in found if noise is not None) / total if total else None


def _onset_curve(audio: np.ndarray, sample_rate: int) -> tuple[np.ndarray, float]:
    """Onset strength (frames,) of (channels, n) and its frames a second."""
    hop = onsets.scaled_hop(onsets.HOP, sample_rate)
    chunk, margin = (seconds * sample_rate // hop for seconds in (_CHUNK, _MARGIN))
    parts = []
    for first in range(0, -(-audio.shape[1] // hop), chunk):
        begin = max(0, first - margin)
        piece = audio[:, begin * hop : (first + chunk + margin) * hop].mean(axis=0)
        strength = onsets.onset_strength(torch.from_numpy(np.ascontiguousarray(piece, np.float32)), sample_rate).numpy()
        parts.append(strength[first - begin :][:chunk])
    return np.concatenate(parts), sample_rate / hop


def _accent(curve: np.ndarray, rate: float, cuts: np.ndarray, duration: float) -> float | None:
    """Mean rank of the strongest onset near each cut among the same windows at all moments, from −1 to 1."""
    from scipy.ndimage import maximum_filter1d

    cuts = cuts[(cuts > AT_A_CUT) & (cuts < duration - AT_A_CUT)]
    if not len(cuts):
        return None
    strongest = maximum_filter1d(curve, 2 * round(AT_A_CUT * rate) + 1)
    at_cuts = strongest[np.minimum(np.round(cuts * rate).astype(int), len(curve) - 1)]
    ordered = np.sort(strongest)
    below, through = (np.searchsorted(ordered, at_cuts, side=side) for side in ("left", "right"))
    return float(np.mean((below + through) / len(ordered) - 1))


def _hits(curve: np.ndarray, rate: float, hits: np.ndarray, duration: float) -> float | None:
    """Share of hits with an onset, less that of the same onsets shifted at random."""
    peaks = onsets.odf_peaks(onsets.odf_z(torch.from_numpy(curve))) / rate
    found, expected = sync(hits, peaks, AT_A_HIT), chance(hits, peaks, duration, AT_A_HIT, seed=0)
    return None if found is None or expected is None else found.hit_rate - expected.hit_rate
