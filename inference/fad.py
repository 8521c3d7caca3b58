"""Fréchet audio distance between the embeddings of generated and real music, both modelled as Gaussians.

Kilgour et al. 2019 (FAD); Gui et al. 2024 (FAD∞ and the distance of single songs).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from inference.bootstrap import interval
from inference.metric import MetricResult, NotComputed, SetStatistic, not_computed

if TYPE_CHECKING:
    from inference.workspace import Workspace

SPLITS = 5  # random halvings of the real music, averaged for its own distance
SIZES = 15  # sample sizes to extrapolate FAD∞ from
NAMES = {"vggish": "FAD (VGGish)", "panns": "FD (PANNs CNN14)", "clap": "FAD (CLAP music)", "mel": "FD (log-mel)"}


@dataclass(frozen=True)
class Gaussian:
    """Mean (d,) and a factor (r, d) of the covariance: factorᵀ · factor, r ≤ d."""

    mean: np.ndarray
    factor: np.ndarray

    @classmethod
    def fit(cls, rows: np.ndarray) -> Gaussian:
        """Fit to rows (n, d), n ≥ 2, with the unbiased covariance. Raises NotComputed for fewer rows."""
        if len(rows) < 2:
            raise NotComputed(f"{len(rows)} embedding in the set; a covariance needs at least 2")
        rows = np.asarray(rows, dtype=np.float64)
        mean = rows.mean(axis=0)
        centred = (rows - mean) / np.sqrt(len(rows) - 1)
        return cls(mean, centred if len(rows) <= rows.shape[1] else np.linalg.qr(centred, mode="r"))


def frechet(a: Gaussian, b: Gaussian) -> float:
    """Squared Fréchet distance: |μa − μb|² + tr Σa + tr Σb − 2 tr (Σa Σb)^½, real and ≥ 0.

    Corrected: the published code takes the matrix root of ΣaΣb, which is not symmetric and gives complex numbers for
    singular covariances. With Σ = FᵀF, the eigenvalues of ΣaΣb are those of the symmetric FaΣbFaᵀ. Their square roots
    are the singular values of FaFbᵀ, which are real and ≥ 0 whatever the rounding.
    """
    root = np.linalg.svd(a.factor @ b.factor.T, compute_uv=False).sum()
    distance = np.square(a.mean - b.mean).sum() + np.square(a.factor).sum() + np.square(b.factor).sum() - 2 * root
    return max(0.0, float(distance))


def fad(generated: np.ndarray, reference: np.ndarray) -> float:
    """Rows (n, d) and (m, d) → Fréchet distance of the Gaussians fitted to them."""
    return frechet(Gaussian.fit(generated), Gaussian.fit(reference))


def fad_infinity(generated: np.ndarray, reference: np.ndarray, seed: int = 0) -> float:
    """FAD extrapolated to infinitely many generated rows: the intercept of FAD over 1/n for random samples of size n.

    May be slightly negative. Raises NotComputed for fewer than 4 d rows, where FAD is not linear in 1/n.
    """
    n, d = generated.shape
    if n < 4 * d:
        raise NotComputed(f"{n} embeddings of {d} numbers; extrapolating needs at least {4 * d}, so more music")
    rng, target = np.random.default_rng(seed), Gaussian.fit(reference)
    sizes = np.linspace(max(d + 1, n // 8), n, SIZES).astype(int)
    scores = [frechet(Gaussian.fit(generated[rng.choice(n, size, replace=False)]), target) for size in sizes]
    return float(np.polyfit(1 / sizes, scores, 1)[1])


def song_distance(song: np.ndarray, reference: Gaussian) -> float:
    """Rows (n, d) of one song, n ≥ 2, against a whole set: large for outliers. Comparable between songs only."""
    return frechet(Gaussian.fit(song), reference)


def real_floor(reference: Sequence[np.ndarray], seed: int) -> float | None:
    """FAD of real music against real music: mean over random halvings by clip; None for fewer than 4 clips."""
    if len(reference) < 4:
        return None
    rng, half, scores = np.random.default_rng(seed), len(reference) // 2, []
    for _ in range(SPLITS):
        order = rng.permutation(len(reference))
        scores.append(fad(_joined(reference, order[:half]), _joined(reference, order[half:])))
    return float(np.mean(scores))


def _joined(clips: Sequence[np.ndarray], index: np.ndarray) -> np.ndarray:
    return np.concatenate([clips[i] for i in index])


# --------------------------------------------------------------------------------------------------- results


def compute(workspace: Workspace) -> list[MetricResult]:
    """FAD, FAD∞ and the mean distance of single songs, for every encoder."""
    return [result for encoder in NAMES for result in _of_encoder(workspace, encoder)]


def _of_encoder(workspace: Workspace, encoder: str) -> list[MetricResult]:
    id, name = f"fad_{encoder}", NAMES[encoder]
    try:
        generated = {clip: e.frames for clip, e in workspace.embeddings(encoder, workspace.generated).items()}
        reference = {clip: e.frames for clip, e in workspace.embeddings(encoder, workspace.reference).items()}
        sets = [list(generated.values()), list(reference.values())]
        rows = [np.concatenate(clips) for clips in sets]
        value = fad(*rows)
    except NotComputed as error:
        return [not_computed(id, name, error)]

    def resampled(left: np.ndarray, right: np.ndarray) -> float:
        return fad(_joined(sets[0], left), _joined(sets[1], right))

    spread = interval(resampled, [len(s) for s in sets], value, workspace.draws, workspace.seed, label=name)
    settings = {"embedder": encoder, "rows": [len(r) for r in rows], "dimensions": rows[0].shape[1]}
    n = len(generated)
    floor = real_floor(sets[1], workspace.seed)
    found = [
        MetricResult(
            id,
            name,
            value,
            better="lower",
            n=n,
            interval=spread and (max(0.0, spread[0]), spread[1]),
            real=floor,
            real_is="halves of the reference against each other",
            settings=settings,
            statistic=SetStatistic(list(generated), resampled, len(reference)),
        )
    ]

    id_infinity, name_infinity = f"fad_infinity_{encoder}", f"{name}, n → ∞"
    try:
        limit = fad_infinity(*rows, workspace.seed)
        found.append(MetricResult(id_infinity, name_infinity, limit, better="lower", n=n, settings=settings))
    except NotComputed as error:
        found.append(not_computed(id_infinity, name_infinity, error))

    target = Gaussian.fit(rows[1])
    songs = {clip: song_distance(song, target) if len(song) > 1 else None for clip, song in generated.items()}
    if any(score is not None for score in songs.values()):
        real = [song_distance(song, target) for song in sets[1] if len(song) > 1]
        found.append(
            workspace.mean_result(
                f"fad_song_{encoder}",
                f"{name}, single songs",
                songs,
                better="lower",
                real=float(np.mean(real)) if real else None,
                real_is="the reference's own songs",
                settings=settings,
            )
        )
    return found


if __name__ == "__main__":
    from inference.evaluate import main

    sys.exit(main(metric="fad"))
