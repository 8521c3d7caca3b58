"""Semantic features of a family of scenes without footage.

A frame's features are near the vector that the classifier's last layer holds for the frame's class, plus much that no
class explains. So mixed class vectors plus noise, put through the same last layer, give rows like those of real
frames. On photographs of known content, features minus their mean have a cosine of 0.35 with the vector of the right
class, a norm of 11 to 14, and 1.7 to 2.1 times that vector in them.
"""

import numpy as np

from diff_v2m.features.imagenet import (
    FAMILIES,
    SMOOTHING,
    class_families,
    class_vectors,
    family_of,
    moving_average,
    rows_of,
)

_STRENGTH = (0.7, 2.0)  # of the class vectors, from a vague to a clear picture
_NOISE = (9.0, 13.0)  # norm of what no class explains
_STEADY = 0.8  # share of its variance that stays through a shot
_DIGITS = 4  # decimals kept, so that rounding in a matrix product does not show


def imitate(family: str, rng: np.random.Generator, seconds: int, cuts: tuple[float, ...] = ()) -> np.ndarray:
    """(seconds, 512) float32 rows as `ImageNetEncoder` gives them for a clip of a family. Shots differ in class.

    The clip as a whole shows the family: `family_of` the rows is `family`.
    """
    strength = rng.uniform(*_STRENGTH)
    while True:
        rows = rows_of(_logits(family, rng, seconds, cuts, strength))
        rows = np.round(moving_average(rows, SMOOTHING), _DIGITS).astype(np.float32)
        if family_of(rows) == family:
            return rows
        strength *= 1.1


def _logits(
    family: str, rng: np.random.Generator, seconds: int, cuts: tuple[float, ...], strength: float
) -> np.ndarray:
    """(seconds, 1000): of the frame at the start of each second."""
    weight, bias = class_vectors()
    members = np.flatnonzero(class_families() == FAMILIES.index(family))
    shot_of = np.searchsorted(np.array(cuts), np.arange(seconds), side="right")
    features = np.empty((seconds, weight.shape[1]))
    for shot in np.unique(shot_of):
        inside = np.flatnonzero(shot_of == shot)
        classes = rng.choice(members, size=int(rng.integers(1, 5)))
        strangers = rng.integers(1000, size=int(rng.integers(0, 3)))
        shares = np.concatenate([np.sqrt(rng.dirichlet(np.ones(len(classes)))), rng.uniform(0, 0.5, len(strangers))])
        vectors = weight[np.concatenate([classes, strangers])]
        level = strength * np.exp(0.15 * rng.standard_normal((len(inside), 1)))
        steady = rng.standard_normal(weight.shape[1])
        moving = rng.standard_normal((len(inside), weight.shape[1]))
        noise = np.sqrt(_STEADY) * steady + np.sqrt(1 - _STEADY) * moving
        features[inside] = level * (shares @ vectors) + noise * rng.uniform(*_NOISE) / np.sqrt(weight.shape[1])
    return features.astype(np.float32) @ weight.T + bias
