"""Fidelity (precision, density) and diversity (recall, coverage) of generated music relative to real music.

Kynkäänniemi et al. 2019 (precision, recall); Naeem et al. 2020 (density, coverage).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from inference.bootstrap import mean_interval
from inference.metric import MetricResult, NotComputed, SetStatistic, not_computed

if TYPE_CHECKING:
    from inference.workspace import Workspace

NEIGHBOURS = 5
NAMES = {"clap": "CLAP music", "mel": "log-mel"}
BLOCK = 1024  # rows compared with all others at once


@dataclass(frozen=True)
class Manifolds:
    """One value a clip. The four metrics are their means."""

    precision: np.ndarray  # (generated,) 1 where the clip lies within the k-neighbour ball of a real clip
    density: np.ndarray  # (generated,) number of such balls / k
    recall: np.ndarray  # (real,) 1 where the clip lies within the k-neighbour ball of a generated clip
    coverage: np.ndarray  # (real,) 1 where the clip's ball holds a generated clip


def manifolds(generated: np.ndarray, reference: np.ndarray, k: int = NEIGHBOURS) -> Manifolds:
    """Rows (n, d) and (m, d), Euclidean distance; the radius of a ball is the distance to the k-th nearest row of the
    same set.

    Raises NotComputed where one of the two sets has k rows or fewer.
    """
    if min(len(generated), len(reference)) <= k:
        raise NotComputed(f"{len(generated)} generated and {len(reference)} reference clips; {k} neighbours need more")
    from sklearn.metrics import pairwise_distances

    real_radius, made_radius = _radii(reference, k), _radii(generated, k)
    precision, density = np.zeros((2, len(generated)))
    recall, nearest = np.zeros(len(reference)), np.full(len(reference), np.inf)
    for start in range(0, len(generated), BLOCK):
        rows = slice(start, start + BLOCK)
        distance = pairwise_distances(generated[rows], reference)
        inside = distance < real_radius
        precision[rows], density[rows] = inside.any(axis=1), inside.sum(axis=1) / k
        recall = np.maximum(recall, (distance < made_radius[rows, None]).any(axis=0))
        nearest = np.minimum(nearest, distance.min(axis=0))
    return Manifolds(precision, density, recall, (nearest < real_radius).astype(float))


def _radii(rows: np.ndarray, k: int) -> np.ndarray:
    """(n,) distance of each row to its k-th nearest other row."""
    from sklearn.neighbors import NearestNeighbors

    distances, _ = NearestNeighbors(n_neighbors=k).fit(rows).kneighbors()
    return distances[:, -1]


# --------------------------------------------------------------------------------------------------- results


def compute(workspace: Workspace) -> list[MetricResult]:
    """The four metrics on one embedding a clip. Intervals resample the clips and keep the balls."""
    return [result for encoder in NAMES for result in _of_encoder(workspace, encoder)]


def _of_encoder(workspace: Workspace, encoder: str) -> list[MetricResult]:
    measures = ("density", "coverage", "precision", "recall")
    try:
        generated = {clip: e.clip for clip, e in workspace.embeddings(encoder, workspace.generated).items()}
        reference = {clip: e.clip for clip, e in workspace.embeddings(encoder, workspace.reference).items()}
        rows = [np.stack(list(side.values())) for side in (generated, reference)]
        found = manifolds(*rows)
    except NotComputed as error:
        return [not_computed(f"{m}_{encoder}", f"{m.capitalize()} ({NAMES[encoder]})", error) for m in measures]

    order = np.random.default_rng(workspace.seed).permutation(len(rows[1]))
    half = len(order) // 2
    floor = manifolds(rows[1][order[:half]], rows[1][order[half:]]) if half > NEIGHBOURS else None
    result = []
    for measure in measures:
        values = getattr(found, measure)
        clips = generated if measure in ("density", "precision") else reference
        per_clip = dict(zip(clips, values.tolist(), strict=True))
        result.append(
            MetricResult(
                f"{measure}_{encoder}",
                f"{measure.capitalize()} ({NAMES[encoder]})",
                float(values.mean()),
                better="higher",
                n=len(values),
                interval=mean_interval(values, workspace.draws, workspace.seed),
                real=float(getattr(floor, measure).mean()) if floor else None,
                real_is="halves of the reference against each other",
                per_clip=per_clip,
                settings={"neighbours": NEIGHBOURS, "embedder": encoder},
                statistic=SetStatistic(list(clips), lambda index, values=values: float(values[index].mean())),
            )
        )
    return result


if __name__ == "__main__":
    from inference.evaluate import main

    sys.exit(main(metric="density_coverage"))
